//! A head that is gone, described once more.
//!
//! HDF5 makes the same bytes of the same description, and the catalog has the checksum of the head, in
//! which are those of all columns. So the description is guessed from the columns: how many rows there
//! are the catalog knows, what their indexes need follows from the rows, and how much metadata there is
//! from where the file ends. If the head that comes out has the checksum that it had, then all of the
//! file is as it was written, to the last bit; else nothing is claimed.

use super::RepairError;
use crate::look::{Look, Stream};
use cidstore_disk::{File, Open};
use cidstore_engine::files::{NewRun, Row};
use cidstore_engine::hdf5::{
    ALIGNMENT_BYTES, ColumnId, ColumnSpec, FORMAT_VERSION, PerColumn, RunAttributes, RunEntry, RunLayout,
    RunSource, RunSpec, read_run, run_skeleton,
};
use cidstore_types::{Op, Triple};
use std::collections::BTreeSet;
use std::path::Path;

/// Files of fewer rows had no filters while those of fewer than 256 have none now.
const FORMER_FILTER_ROWS_MIN: u64 = 4096;

/// What was written by this program, of this version or another one.
const CREATED_BY: &str = concat!("cidstored ", env!("CARGO_PKG_VERSION"));

/// Where the columns of the run file at `path` are, if nothing but its head is damaged. `written_by` are
/// the programs that other heads name.
///
/// Memory: as for making the file anew.
pub(super) fn describe_again(
    look: &mut Look<'_>,
    path: &Path,
    entry: &RunEntry,
    store_id: [u8; 16],
    mut written_by: BTreeSet<String>,
) -> Result<Option<RunLayout>, RepairError> {
    let file = look.disk.open(path, Open::Read)?;
    if file.len()? != entry.file_bytes {
        return Ok(None);
    }
    let Some(lens) = lens_of_rows(look, &*file, entry)? else { return Ok(None) };
    written_by.insert(CREATED_BY.to_owned());
    let is_filter = |column: ColumnId| {
        matches!(column, ColumnId::FilterSubject | ColumnId::FilterPredicateObject | ColumnId::FilterObject)
    };
    let filtered: &[bool] =
        if entry.rows + entry.tombstones < FORMER_FILTER_ROWS_MIN { &[true, false] } else { &[true] };
    let guesses =
        filtered.iter().flat_map(|filtered| (1..=FORMAT_VERSION).rev().map(|version| (*filtered, version)));
    for (filtered, format_version) in guesses {
        let of_version = |column: ColumnId| {
            if column.since() > format_version || !filtered && is_filter(column) { 0 } else { lens[column] }
        };
        let of_version = PerColumn::from_fn(of_version);
        let found = with_metadata(&*file, entry, of_version, &mut |lens| {
            let columns = checksums(look, &*file, entry, lens)?;
            for created_by in &written_by {
                let attributes = RunAttributes {
                    format_version,
                    store_id,
                    run_id: entry.id,
                    first_seq: entry.first_seq,
                    last_seq: entry.last_seq,
                    created_by: created_by.clone(),
                };
                // What the format cannot hold is a wrong guess, too.
                let Ok(skeleton) = run_skeleton(&RunSpec { attributes, columns }) else { continue };
                let (head_crc32c, file_len) = (skeleton.head_crc32c(), skeleton.file_len);
                if (head_crc32c, file_len) == (entry.head_crc32c, entry.file_bytes) {
                    let name = path.display().to_string();
                    let source = RunSource::Head { name: &name, head: &skeleton.head, head_crc32c, file_len };
                    return Ok(read_run(source).ok());
                }
            }
            Ok(None)
        })?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Makes a layout of lengths, if they are the right ones.
type Attempt<'a> = dyn FnMut(&PerColumn<u64>) -> Result<Option<RunLayout>, RepairError> + 'a;

/// Tries these lengths with those of metadata, for as much of it as would make the file as long as it is,
/// until one gives a layout.
fn with_metadata(
    file: &dyn File,
    entry: &RunEntry,
    mut lens: PerColumn<u64>,
    attempt: &mut Attempt<'_>,
) -> Result<Option<RunLayout>, RepairError> {
    for texts in 0..=entry.rows {
        (lens[ColumnId::MetadataRow], lens[ColumnId::MetadataEnd]) = (texts, texts);
        lens[ColumnId::MetadataText] = 0;
        if texts > 0 {
            let last = offsets(entry.head_bytes, &lens)[ColumnId::MetadataEnd] + 8 * (texts - 1);
            let mut end = [0; 8];
            if last + 8 > entry.file_bytes || file.read_at(&mut end, last)? < end.len() {
                break;
            }
            // No text is empty, and all of them are in the file.
            let bytes = u64::from_le_bytes(end);
            if !(texts..entry.file_bytes).contains(&bytes) {
                continue;
            }
            lens[ColumnId::MetadataText] = bytes;
        }
        let fits = end_of(entry.head_bytes, &lens).abs_diff(entry.file_bytes) < ALIGNMENT_BYTES;
        if fits && let Some(layout) = attempt(&lens)? {
            return Ok(Some(layout));
        }
    }
    Ok(None)
}

/// How long the columns are, but for those of metadata; `None` if the rows are not those of a run file.
fn lens_of_rows(
    look: &mut Look<'_>,
    file: &dyn File,
    entry: &RunEntry,
) -> Result<Option<PerColumn<u64>>, RepairError> {
    let mut known = PerColumn::default();
    known[ColumnId::Triples] = entry.rows;
    known[ColumnId::Tombstones] = entry.tombstones;
    let offsets = offsets(entry.head_bytes, &known);
    let mut run = NewRun::default();
    for (column, op) in [(ColumnId::Triples, Op::Insert), (ColumnId::Tombstones, Op::Delete)] {
        let mut rows = Stream::new(file, offsets[column], known[column] * column.kind().bytes());
        let mut last: Option<Row> = None;
        while let Some(row) = rows.next(look)? {
            if last.is_some_and(|last| last >= row) {
                return Ok(None);
            }
            run.push(op, &Triple(row), 0.0, None);
            last = Some(row);
        }
    }
    let lens = run.lens();
    let counted = (lens[ColumnId::Triples], lens[ColumnId::Tombstones]);
    Ok((counted == (entry.rows, entry.tombstones)).then_some(lens))
}

/// Where columns of these lengths begin: one after another, each at a whole page.
fn offsets(head_bytes: u64, lens: &PerColumn<u64>) -> PerColumn<u64> {
    let mut end = head_bytes;
    PerColumn::from_fn(|column| {
        let offset = end.next_multiple_of(ALIGNMENT_BYTES);
        if lens[column] > 0 {
            end = offset + lens[column] * column.kind().bytes();
        }
        offset
    })
}

fn end_of(head_bytes: u64, lens: &PerColumn<u64>) -> u64 {
    let offsets = offsets(head_bytes, lens);
    let ends = lens.iter().map(|(column, len)| offsets[column] + len * column.kind().bytes());
    ends.max().unwrap_or(head_bytes)
}

fn checksums(
    look: &mut Look<'_>,
    file: &dyn File,
    entry: &RunEntry,
    lens: &PerColumn<u64>,
) -> Result<PerColumn<ColumnSpec>, RepairError> {
    let offsets = offsets(entry.head_bytes, lens);
    let mut columns = PerColumn::default();
    for column in ColumnId::ALL {
        let len = lens[column];
        let stream = Stream::new(file, offsets[column], len * column.kind().bytes());
        columns[column] = ColumnSpec { len, crc32c: stream.end(look)?.crc32c };
    }
    Ok(columns)
}
