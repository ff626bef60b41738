//! Run files: writing a merge into one, and opening one.
//!
//! HDF5 describes the file (where each dataset goes, and the bytes around them); everything is then
//! written through [`Disk`], so that a simulated medium sees every write.

use crate::column::Column;
use crate::error::{StoreError, UnreadablePage};
use crate::garbage::Garbage;
use crate::hdf5::{
    self, ColumnId, ColumnSpec, Extent, FORMAT_VERSION, PerColumn, RunAttributes, RunEntry, RunSource,
    RunSpec,
};
use crate::merge::{Indexes, Merge};
use crate::output::{Writing, write_file};
use crate::run::{Filters, Rows, Run, Texts};
use bytemuck::Pod;
use cidstore_disk::{Disk, Map, any_page_was_unreadable};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// The file of a run, as it was opened.
pub struct RunFile {
    /// Number of the run in the catalog.
    pub number: u64,
    /// Where it is.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// First and last mutation whose effects it holds.
    pub(crate) seqs: (u64, u64),
    /// Length and checksum of its head.
    pub(crate) head: (u64, u32),
    /// Where its columns are, and their checksums.
    pub(crate) columns: PerColumn<Extent>,
    /// What was found when it was verified, if that was not what was written.
    pub(crate) damage: OnceLock<Arc<str>>,
    map: Arc<dyn Map>,
    on_disk: Arc<OnDisk>,
}

/// A run file on the disk, which all runs share that it was opened for. Removed, by the maintainer, after it
/// was marked obsolete and the last run that refers to it is dropped.
struct OnDisk {
    path: PathBuf,
    bytes: u64,
    /// The first catalog that does not name it; 0 while the current one does.
    obsolete_since: AtomicU64,
    garbage: Arc<Garbage>,
}

impl RunFile {
    /// Whether all that was read through the map was there. What was not is damage.
    ///
    /// # Errors
    /// [`UnreadablePage`].
    pub(crate) fn check_readable(&self) -> Result<(), UnreadablePage> {
        if !any_page_was_unreadable() {
            return Ok(());
        }
        let Some(offset) = self.map.unreadable_page() else { return Ok(()) };
        let (first_seq, last_seq) = self.seqs;
        let error = UnreadablePage { path: self.path.clone(), offset, first_seq, last_seq };
        self.damage.get_or_init(|| error.to_string().into());
        Err(error)
    }

    /// The catalog no longer names it.
    pub(crate) fn mark_obsolete(&self) {
        let OnDisk { obsolete_since, garbage, .. } = &*self.on_disk;
        obsolete_since.store(garbage.version(), Ordering::Release);
    }

    /// It is the file of `former`, opened anew: it stays on the disk as long as one of the two is needed.
    pub(crate) fn share(&mut self, former: &Self) {
        self.on_disk = Arc::clone(&former.on_disk);
    }
}

impl Drop for OnDisk {
    fn drop(&mut self) {
        let since = *self.obsolete_since.get_mut();
        if since > 0 {
            self.garbage.add(std::mem::take(&mut self.path), self.bytes, since);
        }
    }
}

/// Where a run file goes, or is.
pub(crate) struct Place<'a> {
    pub(crate) disk: &'a Arc<dyn Disk>,
    pub(crate) dir: &'a Path,
    pub(crate) store_id: [u8; 16],
    pub(crate) number: u64,
    pub(crate) garbage: &'a Arc<Garbage>,
}

/// Name of a run file.
pub fn file_name(number: u64) -> String {
    format!("{number:06}.h5")
}

/// Writes a merge into a new run file, makes it durable, and opens it. `told` hears how long it will be and
/// of the bytes written, piece by piece, and may have enough. [`StoreError::Stopped`] when the merge was
/// stopped before all of it was written.
pub(crate) fn seal(
    place: &Place<'_>,
    merge: &Merge<'_>,
    id: u64,
    told: &mut dyn FnMut(Writing) -> Result<(), StoreError>,
) -> Result<(Run, RunEntry), StoreError> {
    let indexes = merge.indexes();
    let texts = merge.texts();
    let text_ends = || {
        texts.iter().scan(0, |end, (_, text)| {
            *end += text.len() as u64;
            Some(*end)
        })
    };
    if merge.is_stopped() {
        return Err(StoreError::Stopped);
    }
    let (first_seq, last_seq) = merge.seqs();
    let mut spec = RunSpec {
        attributes: RunAttributes {
            format_version: FORMAT_VERSION,
            store_id: place.store_id,
            run_id: place.number,
            first_seq,
            last_seq,
            created_by: concat!("cidstored ", env!("CARGO_PKG_VERSION")).into(),
        },
        columns: PerColumn::default(),
    };
    for (column, len) in lens(merge, &indexes, &texts).iter() {
        spec.columns[column] = ColumnSpec { len: *len, crc32c: 0 };
    }
    // First only to learn the places: the checksums are known when the columns are written.
    let skeleton = hdf5::run_skeleton(&spec)?;
    // A file without rows takes no room that is worth a word, and makes some.
    if merge.triples_len() + merge.tombstones_len() > 0 {
        told(Writing::Begins { bytes: skeleton.file_len })?;
    }

    let path = place.dir.join(file_name(place.number));
    let new = place.dir.join(format!("{}.new", file_name(place.number)));
    let result = write_file(place, &new, &mut spec, &skeleton, told, |output| {
        output.column(ColumnId::Triples, merge.triples())?;
        if merge.is_stopped() {
            return Err(StoreError::Stopped);
        }
        output.column(ColumnId::Tombstones, merge.tombstones())?;
        output.column(ColumnId::CreatedAt, merge.created_at().map(f64::to_le_bytes))?;
        output.column(ColumnId::Pos, le_bytes(&indexes.pos))?;
        output.column(ColumnId::Osp, le_bytes(&indexes.osp))?;
        output.column(ColumnId::HashPrefix, le_bytes(&indexes.hash_prefix))?;
        output.column(ColumnId::HashRow, le_bytes(&indexes.hash_row))?;
        output.column(ColumnId::TombstonePos, le_bytes(&indexes.tombstone_pos))?;
        output.column(ColumnId::TombstoneOsp, le_bytes(&indexes.tombstone_osp))?;
        output.column(ColumnId::MetadataRow, texts.iter().map(|(row, _)| row.to_le_bytes()))?;
        output.column(ColumnId::MetadataEnd, text_ends().map(u64::to_le_bytes))?;
        output.column(ColumnId::MetadataText, texts.iter().map(|(_, text)| text))?;
        output.column(ColumnId::FilterSubject, [&indexes.filters[0]])?;
        output.column(ColumnId::FilterPredicateObject, [&indexes.filters[1]])?;
        output.column(ColumnId::FilterObject, [&indexes.filters[2]])?;
        output.column(ColumnId::Predicate, &indexes.predicates.listed)?;
        output.column(ColumnId::PredicateEnd, le_bytes(&indexes.predicates.end))?;
        for (column, samples) in ColumnId::SAMPLES.into_iter().zip(&indexes.samples) {
            output.column(column, samples.iter().map(|sample| sample.to_le_bytes()))?;
        }
        Ok(())
    });
    let head = match result {
        Ok(head) => head,
        Err(error) => {
            // Free what was taken, above all after ENOSPC; what cannot be removed now is removed as
            // debris at the next start.
            let _ = place.disk.remove(&new);
            return Err(error);
        }
    };
    drop((indexes, texts));
    let dir_name = place.dir.file_name().unwrap_or_default().to_string_lossy();
    let entry = RunEntry {
        id: place.number,
        file: format!("{dir_name}/{}", file_name(place.number)),
        rows: merge.triples_len() as u64,
        tombstones: merge.tombstones_len() as u64,
        first_seq,
        last_seq,
        file_bytes: skeleton.file_len,
        head_bytes: head.len() as u64,
        head_crc32c: crc32c::crc32c(&head),
    };
    let named = (|| {
        place.disk.rename(&new, &path)?;
        place.disk.sync_dir(place.dir)?;
        open(place, &entry, id)
    })();
    match named {
        Ok(run) => Ok((run, entry)),
        Err(error) => {
            // No catalog names it yet: each attempt would leave another one behind.
            let _ = place.disk.remove(&new).or_else(|_| place.disk.remove(&path));
            Err(error)
        }
    }
}

/// How many elements each column has.
pub(crate) fn lens(merge: &Merge<'_>, indexes: &Indexes, texts: &[(u32, &[u8])]) -> PerColumn<u64> {
    let (rows, tombstones) = (merge.triples_len(), merge.tombstones_len());
    PerColumn::from_fn(|column| {
        let len = match column {
            ColumnId::Triples | ColumnId::CreatedAt => rows,
            ColumnId::Pos => indexes.pos.len(),
            ColumnId::Osp => indexes.osp.len(),
            ColumnId::HashPrefix => indexes.hash_prefix.len(),
            ColumnId::HashRow => indexes.hash_row.len(),
            ColumnId::Tombstones => tombstones,
            ColumnId::TombstonePos => indexes.tombstone_pos.len(),
            ColumnId::TombstoneOsp => indexes.tombstone_osp.len(),
            ColumnId::MetadataRow | ColumnId::MetadataEnd => texts.len(),
            ColumnId::MetadataText => texts.iter().map(|(_, text)| text.len()).sum(),
            ColumnId::FilterSubject => indexes.filters[0].len(),
            ColumnId::FilterPredicateObject => indexes.filters[1].len(),
            ColumnId::FilterObject => indexes.filters[2].len(),
            ColumnId::Predicate => indexes.predicates.listed.len(),
            ColumnId::PredicateEnd => indexes.predicates.end.len(),
            ColumnId::SpoSample => indexes.samples[0].len(),
            ColumnId::PosSample => indexes.samples[1].len(),
            ColumnId::OspSample => indexes.samples[2].len(),
        };
        len as u64
    })
}

fn le_bytes(values: &[u32]) -> impl Iterator<Item = [u8; 4]> {
    values.iter().map(|value| value.to_le_bytes())
}

/// Opens the run file that a catalog entry names, and maps it. Its head is verified against the
/// catalog; its columns are not read.
pub(crate) fn open(place: &Place<'_>, entry: &RunEntry, id: u64) -> Result<Run, StoreError> {
    let path = place.dir.join(file_name(entry.id));
    let mismatch = |what, found: String, expected: String| StoreError::RunMismatch {
        path: path.clone(),
        what,
        found,
        expected,
    };
    let map = place.disk.map(&path)?;
    let bytes = map.bytes();
    if bytes.len() as u64 != entry.file_bytes {
        return Err(mismatch("the length", bytes.len().to_string(), entry.file_bytes.to_string()));
    }
    let head = bytes.get(..entry.head_bytes as usize).ok_or_else(|| {
        mismatch("the head's length", bytes.len().to_string(), entry.head_bytes.to_string())
    })?;
    let layout = hdf5::read_run(RunSource::Head {
        name: &path.display().to_string(),
        head,
        head_crc32c: entry.head_crc32c,
        file_len: entry.file_bytes,
    })?;
    let about = &layout.attributes;
    let found = (about.store_id, about.run_id, about.first_seq, about.last_seq);
    let expected = (place.store_id, entry.id, entry.first_seq, entry.last_seq);
    if found != expected {
        return Err(mismatch(
            "(store id, run, first and last seq)",
            format!("{found:?}"),
            format!("{expected:?}"),
        ));
    }

    let columns = Mapped { map: &map, places: &layout.columns, path: &path };
    let run = Run {
        id,
        seqs: (entry.first_seq, entry.last_seq),
        triples: Rows {
            spo: columns.get(ColumnId::Triples)?,
            pos: columns.get(ColumnId::Pos)?,
            osp: columns.get(ColumnId::Osp)?,
            predicates: columns.get(ColumnId::Predicate)?,
            predicate_end: columns.get(ColumnId::PredicateEnd)?,
            samples: [
                columns.get(ColumnId::SpoSample)?,
                columns.get(ColumnId::PosSample)?,
                columns.get(ColumnId::OspSample)?,
            ],
        },
        created_at: columns.get(ColumnId::CreatedAt)?,
        hash_prefix: columns.get(ColumnId::HashPrefix)?,
        hash_row: columns.get(ColumnId::HashRow)?,
        metadata: Texts {
            row: columns.get(ColumnId::MetadataRow)?,
            end: columns.get(ColumnId::MetadataEnd)?,
            text: columns.get(ColumnId::MetadataText)?,
        },
        tombstones: Rows {
            spo: columns.get(ColumnId::Tombstones)?,
            pos: columns.get(ColumnId::TombstonePos)?,
            osp: columns.get(ColumnId::TombstoneOsp)?,
            ..Rows::default()
        },
        filters: Filters {
            subject: columns.get(ColumnId::FilterSubject)?,
            predicate_object: columns.get(ColumnId::FilterPredicateObject)?,
            object: columns.get(ColumnId::FilterObject)?,
        },
        file: Some(Arc::new(RunFile {
            number: entry.id,
            path: path.clone(),
            bytes: entry.file_bytes,
            seqs: (entry.first_seq, entry.last_seq),
            head: (entry.head_bytes, entry.head_crc32c),
            columns: layout.columns,
            damage: OnceLock::new(),
            map: Arc::clone(&map),
            on_disk: Arc::new(OnDisk {
                path: path.clone(),
                bytes: entry.file_bytes,
                obsolete_since: AtomicU64::new(0),
                garbage: Arc::clone(place.garbage),
            }),
        })),
    };
    let found = (run.triples.spo.len() as u64, run.tombstones.spo.len() as u64);
    if found != (entry.rows, entry.tombstones) {
        let expected = format!("{:?}", (entry.rows, entry.tombstones));
        return Err(mismatch("(triples, tombstones)", format!("{found:?}"), expected));
    }
    Ok(run)
}

/// The columns of a mapped file.
struct Mapped<'a> {
    map: &'a Arc<dyn Map>,
    places: &'a PerColumn<Extent>,
    path: &'a Path,
}

impl Mapped<'_> {
    fn get<T: Pod>(&self, column: ColumnId) -> Result<Column<T>, StoreError> {
        const { assert!(cfg!(target_endian = "little"), "columns are mapped as they are: little-endian") };
        let Extent { offset, bytes, .. } = self.places[column];
        if bytes == 0 {
            return Ok(Column::default());
        }
        let range = offset as usize..(offset + bytes) as usize;
        Column::mapped(self.map, range).ok_or_else(|| StoreError::RunMismatch {
            path: self.path.to_owned(),
            what: column.name(),
            found: format!("at {offset}, {bytes} bytes"),
            expected: format!("within the file, aligned for {} bytes", align_of::<T>()),
        })
    }
}
