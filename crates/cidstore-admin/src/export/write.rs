//! Writing an export: the runs are merged twice, once to count, since the places of all columns follow
//! from their lengths, and once to write them.

use super::error::ExportError;
use super::{BLOCK_BYTES, UNFINISHED, is_export, is_unfinished};
use crate::held::{Held, io_error};
use crate::progress::{Progress, Watch};
use crate::sum::Sum;
use cidstore_disk::{Disk, RealDisk};
use cidstore_engine::files::{Places, beside};
use cidstore_engine::hdf5::{
    EXPORT_TRAILER_BYTES, ExportAbout, ExportColumn, ExportExtent, ExportSpec, export_skeleton,
};
use cidstore_engine::{Sealed, StoreError};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Rows between two stages that are told.
const TOLD_ROWS: u64 = 1 << 14;
/// Bytes of a row and its `created_at`.
const ROW_BYTES: u64 = 104;

/// What an export holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportReport {
    /// It shows the store after this mutation.
    pub seq: u64,
    /// Triples.
    pub rows: u64,
    /// Triples that have metadata.
    pub with_metadata: u64,
    /// Length of the file.
    pub bytes: u64,
}

/// What the columns will hold.
#[derive(Default)]
struct Lengths {
    rows: u64,
    texts: u64,
    text_bytes: u64,
}

/// Exports the sealed state of the store whose catalog is at `data` to the file `to`, in place of an
/// earlier export of that name. It must hold all mutations up to `at_least`, which a daemon said it had
/// sealed. A daemon may have the store open and go on.
///
/// # Errors
/// [`ExportError`]: there is no new file then.
pub fn export(
    data: &Path,
    to: &Path,
    at_least: u64,
    watch: &mut Watch<'_>,
) -> Result<ExportReport, ExportError> {
    let mut progress = Progress::new(watch);
    let target = Target::new(to)?;
    let held = Held::open(data, at_least)?;
    let runs = &held.catalog.runs;
    let most: u64 = runs.iter().map(|run| run.rows).sum();
    progress.expect(runs.iter().map(|run| run.file_bytes).sum::<u64>() + 2 * most * ROW_BYTES);
    // The runs are mapped while the catalog is held, so that nothing of them can go.
    let sealed = Sealed::open(Arc::new(RealDisk), &Places::of(data).runs, &held.catalog)?;
    let mut last = 0;
    sealed.verify(|path, bytes| {
        progress.add(std::mem::replace(&mut last, bytes))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok::<_, ExportError>(progress.begin(format!("checking {name}"))?)
    })?;
    progress.add(last)?;

    let lengths = count(&sealed, &mut progress)?;
    let about = ExportAbout {
        store_id: held.catalog.store_id,
        seq: held.catalog.sealed_seq,
        created_by: concat!("cidctl ", env!("CARGO_PKG_VERSION")).into(),
    };
    // Sums are not known yet; they move nothing.
    let len = |column| match column {
        ExportColumn::Triples | ExportColumn::CreatedAt => lengths.rows,
        ExportColumn::MetadataRow | ExportColumn::MetadataEnd => lengths.texts,
        ExportColumn::MetadataText => lengths.text_bytes,
    };
    let mut spec = ExportSpec { about, columns: ExportColumn::ALL.map(|column| (len(column), 0, [0; 32])) };
    let skeleton = export_skeleton(&spec)?;
    target.file.set_len(skeleton.file_len).map_err(io_error("size", &target.new))?;
    spec.columns = fill(&sealed, &target, &skeleton.columns, &mut progress)?;
    sealed.check_readable().map_err(StoreError::from)?;
    let skeleton = export_skeleton(&spec)?;
    // The head last: until then the file says that it is not finished.
    target.write(&skeleton.trailer(), skeleton.file_len)?;
    target.sync()?;
    target.write(&skeleton.head, 0)?;
    progress.begin("making it durable")?;
    let bytes = skeleton.file_len + EXPORT_TRAILER_BYTES;
    let Lengths { rows, texts, .. } = lengths;
    target.finish(to)?;
    Ok(ExportReport { seq: spec.about.seq, rows, with_metadata: texts, bytes })
}

fn count(sealed: &Sealed, progress: &mut Progress<'_, '_>) -> Result<Lengths, ExportError> {
    progress.begin("counting triples")?;
    let mut lengths = Lengths::default();
    for row in sealed.rows() {
        lengths.rows += 1;
        if let Some(text) = row.metadata {
            lengths.texts += 1;
            lengths.text_bytes += text.len() as u64;
        }
        if lengths.rows.is_multiple_of(TOLD_ROWS) {
            progress.add(TOLD_ROWS * ROW_BYTES)?;
        }
    }
    Ok(lengths)
}

/// Writes the columns; returns elements and sums of each.
fn fill(
    sealed: &Sealed,
    target: &Target,
    places: &[ExportExtent; 5],
    progress: &mut Progress<'_, '_>,
) -> Result<[(u64, u32, [u8; 32]); 5], ExportError> {
    progress.begin("writing triples")?;
    let mut columns = places.map(|place| Column::new(target, place.extent.offset));
    let [triples, created_at, metadata_row, metadata_end, metadata_text] = &mut columns;
    let (mut number, mut end) = (0_u64, 0_u64);
    for row in sealed.rows() {
        triples.push(row.triple)?;
        created_at.push(&row.created_at.to_le_bytes())?;
        if let Some(text) = row.metadata {
            end += text.len() as u64;
            metadata_row.push(&number.to_le_bytes())?;
            metadata_end.push(&end.to_le_bytes())?;
            metadata_text.push(text)?;
        }
        number += 1;
        if number.is_multiple_of(TOLD_ROWS) {
            progress.add(TOLD_ROWS * ROW_BYTES)?;
        }
    }
    let mut sums = [(0, 0, [0; 32]); 5];
    for ((column, place), sum) in columns.into_iter().zip(places).zip(&mut sums) {
        let (crc32c, Sum(sha256)) = column.finish()?;
        *sum = (place.extent.len, crc32c, sha256);
    }
    Ok(sums)
}

/// A column being written front to back.
struct Column<'a> {
    target: &'a Target,
    offset: u64,
    buffer: Vec<u8>,
    crc32c: u32,
    hasher: Sha256,
}

impl<'a> Column<'a> {
    fn new(target: &'a Target, offset: u64) -> Self {
        Self { target, offset, buffer: Vec::new(), crc32c: 0, hasher: Sha256::new() }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), ExportError> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BLOCK_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), ExportError> {
        self.crc32c = crc32c::crc32c_append(self.crc32c, &self.buffer);
        self.hasher.update(&self.buffer);
        self.target.write(&self.buffer, self.offset)?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<(u32, Sum), ExportError> {
        self.flush()?;
        Ok((self.crc32c, Sum::end(self.hasher)))
    }
}

/// The file being made, beside the one that it will be.
struct Target {
    file: File,
    new: PathBuf,
}

impl Target {
    /// Begins anew; what an interrupted export has left is written over, and nothing else.
    fn new(to: &Path) -> Result<Self, ExportError> {
        match File::open(to) {
            Ok(file) => {
                if !is_export(&file).map_err(io_error("read", to))? {
                    return Err(ExportError::Occupied(to.to_owned()));
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(io_error("open", to)(error).into()),
        }
        let new = beside(to, ".exporting");
        loop {
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create(true).truncate(false).open(&new);
            let file = file.map_err(io_error("create", &new))?;
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => return Err(ExportError::Busy(new)),
                // Where there are no locks, nobody can be kept out.
                Err(TryLockError::Error(error)) if error.kind() != ErrorKind::Unsupported => {
                    return Err(io_error("lock", &new)(error).into());
                }
                _ => {}
            }
            // Another one may have finished, and renamed this file, before the lock was there.
            let about = file.metadata().map_err(io_error("size", &new))?;
            if std::fs::metadata(&new).is_ok_and(|now| (now.dev(), now.ino()) == (about.dev(), about.ino())) {
                if !is_unfinished(&file).map_err(io_error("read", &new))? {
                    return Err(ExportError::Occupied(new));
                }
                file.set_len(0).map_err(io_error("size", &new))?;
                let target = Self { file, new };
                target.write(UNFINISHED, 0)?;
                // Before it grows, and in the end before it goes: else a power cut may leave a file of which
                // nobody knows whose it is.
                target.sync()?;
                return Ok(target);
            }
        }
    }

    fn write(&self, bytes: &[u8], offset: u64) -> Result<(), ExportError> {
        Ok(self.file.write_all_at(bytes, offset).map_err(io_error("write", &self.new))?)
    }

    fn sync(&self) -> Result<(), ExportError> {
        Ok(self.file.sync_all().map_err(io_error("sync", &self.new))?)
    }

    /// Makes it durable, and gives it its name.
    fn finish(self, to: &Path) -> Result<(), ExportError> {
        self.sync()?;
        RealDisk.rename(&self.new, to)?;
        let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
        Ok(RealDisk.sync_dir(parent.unwrap_or(Path::new(".")))?)
    }
}
