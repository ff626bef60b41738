//! A run file against its own checksums, the catalog, and what a run is.

use super::indexes::{self, Seen};
use super::{rows, samples};
use crate::finding::{Finding, Weight};
use crate::look::{Ended, Look, Stream};
use crate::progress::Stopped;
use cidstore_disk::{File, Open};
use cidstore_engine::hdf5::{ColumnId, Hdf5Error, PerColumn, RunEntry, RunLayout, RunSource, read_run};
use std::path::Path;
use std::sync::Arc;

/// Heads are some KiB; whoever says more is damaged.
pub(crate) const HEAD_BYTES_MAX: u64 = 1 << 20;

/// How a run file is.
#[derive(Default)]
pub(crate) struct RunCheck {
    /// Where its columns are, if its head can be trusted.
    pub(crate) layout: Option<RunLayout>,
    /// Columns that are not what was written, or not what they should be.
    pub(crate) bad: PerColumn<bool>,
    /// Its length is not what the catalog says, or it could not be opened.
    pub(crate) cut: bool,
}

impl RunCheck {
    pub(crate) fn is_sound(&self) -> bool {
        self.layout.is_some() && !self.cut && self.bad.iter().all(|(_, bad)| !bad)
    }
}

/// A run file being checked.
pub(super) struct Columns<'a> {
    pub(super) file: &'a dyn File,
    pub(super) layout: &'a RunLayout,
    /// What reading a column found.
    crc: PerColumn<Option<String>>,
    /// What is wrong with its values first: where, and what.
    values: PerColumn<Option<(u64, String)>>,
}

impl<'a> Columns<'a> {
    pub(super) fn stream(&self, column: ColumnId) -> Stream<'a> {
        let extent = &self.layout.columns[column];
        Stream::new(self.file, extent.offset, extent.bytes)
    }

    pub(super) fn len(&self, column: ColumnId) -> u64 {
        self.layout.columns[column].len
    }

    /// A column was read.
    pub(super) fn ended(&mut self, column: ColumnId, ended: Ended) {
        let extent = &self.layout.columns[column];
        let found = match ended.lost {
            Some(lost) => Some(format!("not readable from byte {} on: {}", lost.offset, lost.error)),
            None if extent.bytes > 0 && ended.crc32c != extent.crc32c => {
                Some(format!("{:#010x} over {} bytes", ended.crc32c, extent.bytes))
            }
            None => None,
        };
        self.crc[column] = found;
    }

    /// Whether a column that was read is what was written.
    pub(super) fn is_intact(&self, column: ColumnId) -> bool {
        self.crc[column].is_none()
    }

    /// A value that cannot be right. The first of each column is told.
    pub(super) fn wrong(&mut self, column: ColumnId, offset: u64, what: String) {
        self.values[column].get_or_insert((offset, what));
    }

    /// The same, where it is known better than before.
    pub(super) fn rather_wrong(&mut self, column: ColumnId, offset: u64, what: String) {
        self.values[column] = Some((offset, what));
    }

    fn finish(self, look: &mut Look<'_>, path: &Path, entry: &RunEntry) -> PerColumn<bool> {
        PerColumn::from_fn(|column| {
            let extent = &self.layout.columns[column];
            let finding = match (&self.crc[column], &self.values[column]) {
                (None, None) => return false,
                (Some(found), None) => Finding::damage(path, "CRC-32C of the dataset", found)
                    .expected(format!("{:#010x}", extent.crc32c))
                    .at(Some(column.name()), extent.offset),
                (Some(found), Some((offset, what))) => {
                    Finding::damage(path, "CRC-32C of the dataset", format!("{found}; here stands {what}"))
                        .expected(format!("{:#010x}", extent.crc32c))
                        .at(Some(column.name()), *offset)
                }
                (None, Some((offset, what))) => {
                    Finding::damage(path, "what stands here", format!("{what}, though the checksum fits"))
                        .at(Some(column.name()), *offset)
                }
            };
            look.found(finding.of(entry.first_seq, entry.last_seq));
            true
        })
    }
}

/// Checks the run file at `path` that `entry` names. `quick` leaves out what takes a look at each row
/// for each index: hashes and the order of the permutations.
pub(crate) fn check(
    look: &mut Look<'_>,
    path: &Path,
    entry: &RunEntry,
    store_id: [u8; 16],
    quick: bool,
) -> Result<RunCheck, Stopped> {
    let seqs = (entry.first_seq, entry.last_seq);
    let file = match look.disk.open(path, Open::Read) {
        Ok(file) => file,
        Err(error) => {
            let missing = error.is_not_found();
            let found = if missing { "missing".to_owned() } else { error.source.to_string() };
            let what = format!("the run file of {} rows", entry.rows + entry.tombstones);
            let finding = Finding::damage(path, what, found).of(seqs.0, seqs.1);
            look.found(if missing { finding } else { unchecked(finding) });
            return Ok(RunCheck { cut: true, ..RunCheck::default() });
        }
    };
    let len = file.len().unwrap_or(0);
    let cut = len != entry.file_bytes;
    if cut {
        let finding = Finding::damage(path, "the length", format!("{len} bytes"));
        look.found(finding.expected(entry.file_bytes).at(None, len.min(entry.file_bytes)).of(seqs.0, seqs.1));
    }
    let Some(layout) = read_head(look, &file, entry, store_id)? else {
        return Ok(RunCheck { cut, ..RunCheck::default() });
    };
    let mut columns =
        Columns { file: &*file, layout: &layout, crc: PerColumn::default(), values: PerColumn::default() };
    let mut seen = Seen::default();
    let filters = indexes::filters(look, &mut columns)?;
    let prefixes = indexes::hashes(look, &mut columns, &mut seen)?;
    rows::check(look, &mut columns, &filters, if quick { None } else { Some(&prefixes) })?;
    drop((filters, prefixes));
    for (rows, column, order) in indexes::PERMUTATIONS {
        indexes::permutation(look, &mut columns, &mut seen, (rows, column, order), quick)?;
    }
    let predicate_ends = indexes::predicates(look, &mut columns, quick)?;
    samples::check(look, &mut columns, &predicate_ends, quick)?;
    rows::metadata(look, &mut columns)?;
    let ended = columns.stream(ColumnId::CreatedAt).end(look)?;
    columns.ended(ColumnId::CreatedAt, ended);
    let bad = columns.finish(look, path, entry);
    Ok(RunCheck { layout: Some(layout), bad, cut })
}

fn unchecked(finding: Finding) -> Finding {
    finding.as_a(Weight::Unchecked, "find out why it cannot be read, and verify again")
}

/// The head, checked against the catalog.
fn read_head(
    look: &mut Look<'_>,
    file: &Arc<dyn File>,
    entry: &RunEntry,
    store_id: [u8; 16],
) -> Result<Option<RunLayout>, Stopped> {
    let path = file.path();
    let damage = |what: &str, found: String, expected: String| {
        Finding::damage(path, what, found).expected(expected).at(None, 0).of(entry.first_seq, entry.last_seq)
    };
    if entry.head_bytes > HEAD_BYTES_MAX {
        let expected = format!("at most {HEAD_BYTES_MAX}");
        look.found(damage("the length of the head in the catalog", entry.head_bytes.to_string(), expected));
        return Ok(None);
    }
    let mut head = Vec::new();
    let mut stream = Stream::new(&**file, 0, entry.head_bytes);
    stream.take(entry.head_bytes as usize, &mut head, look)?;
    let name = path.display().to_string();
    let (head_crc32c, file_len) = (entry.head_crc32c, entry.file_bytes);
    let layout = match read_run(RunSource::Head { name: &name, head: &head, head_crc32c, file_len }) {
        Ok(layout) => layout,
        Err(Hdf5Error::Checksum { found, expected, .. }) => {
            let found = format!("{found:#010x} over {} bytes", entry.head_bytes);
            look.found(damage("CRC-32C of the head", found, format!("{expected:#010x}")));
            return Ok(None);
        }
        Err(error) => {
            look.found(damage("the head", error.to_string(), "a run file's".into()));
            return Ok(None);
        }
    };
    let about = &layout.attributes;
    let rows = (layout.columns[ColumnId::Triples].len, layout.columns[ColumnId::Tombstones].len);
    let found = (about.store_id, about.run_id, about.first_seq, about.last_seq, rows);
    let expected = (store_id, entry.id, entry.first_seq, entry.last_seq, (entry.rows, entry.tombstones));
    if found != expected {
        let what = "(store id, run, first and last seq, (triples, tombstones))";
        look.found(damage(what, format!("{found:?}"), format!("{expected:?}, as the catalog says")));
        return Ok(None);
    }
    Ok(Some(layout))
}
