//! Indexes of a run file: that each names every row once, in its order, and that filters are whole.

use super::run::Columns;
use crate::look::Look;
use crate::progress::Stopped;
use cidstore_engine::files::{FILTER_BLOCK_BYTES, Order, Row};
use cidstore_engine::hdf5::ColumnId;

/// Rows looked up between two steps of progress.
const STEP_ROWS: u64 = 1 << 14;

/// The permutations: of which rows, the column, and the order.
pub(super) const PERMUTATIONS: [(ColumnId, ColumnId, Order); 4] = [
    (ColumnId::Triples, ColumnId::Pos, Order::Pos),
    (ColumnId::Triples, ColumnId::Osp, Order::Osp),
    (ColumnId::Tombstones, ColumnId::TombstonePos, Order::Pos),
    (ColumnId::Tombstones, ColumnId::TombstoneOsp, Order::Osp),
];

/// Which row numbers an index has named.
#[derive(Default)]
pub(super) struct Seen {
    bits: Vec<u64>,
    rows: u64,
}

impl Seen {
    fn begin(&mut self, rows: u64) {
        self.bits.clear();
        self.bits.resize(rows.div_ceil(64) as usize, 0);
        self.rows = rows;
    }

    /// Notes a row number; says what is wrong with it.
    fn add(&mut self, row: u32) -> Option<String> {
        if u64::from(row) >= self.rows {
            return Some(format!("row {row} of {}", self.rows));
        }
        let (word, bit) = (&mut self.bits[row as usize / 64], 1 << (row % 64));
        let twice = *word & bit != 0;
        *word |= bit;
        twice.then(|| format!("row {row}, for the second time"))
    }
}

/// The filters' bytes, by subject, predicate and object, object; none where they are damaged.
pub(super) fn filters(look: &mut Look<'_>, columns: &mut Columns<'_>) -> Result<[Vec<u8>; 3], Stopped> {
    let mut filters = [const { Vec::new() }; 3];
    let ids = [ColumnId::FilterSubject, ColumnId::FilterPredicateObject, ColumnId::FilterObject];
    for (column, filter) in ids.into_iter().zip(&mut filters) {
        let mut stream = columns.stream(column);
        let bytes = columns.len(column) as usize;
        stream.take(bytes, filter, look)?;
        let ended = stream.end(look)?;
        columns.ended(column, ended);
        if !columns.is_intact(column) {
            filter.clear();
        } else if !bytes.is_multiple_of(FILTER_BLOCK_BYTES) {
            let offset = columns.layout.columns[column].offset;
            columns.wrong(column, offset, format!("{bytes} bytes, no whole number of blocks"));
            filter.clear();
        }
    }
    Ok(filters)
}

/// The hash index: by row, the prefix of its hash. Where the index is damaged, there is none.
pub(super) fn hashes(
    look: &mut Look<'_>,
    columns: &mut Columns<'_>,
    seen: &mut Seen,
) -> Result<Vec<u32>, Stopped> {
    let rows = columns.len(ColumnId::Triples);
    let mut by_row = vec![0; rows as usize];
    seen.begin(rows);
    let mut prefixes = columns.stream(ColumnId::HashPrefix);
    let mut numbers = columns.stream(ColumnId::HashRow);
    let mut last = 0;
    loop {
        let (prefix_at, number_at) = (prefixes.offset(), numbers.offset());
        let (Some(prefix), Some(number)) = (prefixes.next(look)?, numbers.next(look)?) else { break };
        let (prefix, number) = (u32::from_le_bytes(prefix), u32::from_le_bytes(number));
        if prefix < last {
            columns.wrong(ColumnId::HashPrefix, prefix_at, format!("{prefix:#010x} after {last:#010x}"));
        }
        last = prefix;
        match seen.add(number) {
            Some(what) => columns.wrong(ColumnId::HashRow, number_at, what),
            None => by_row[number as usize] = prefix,
        }
    }
    for (column, stream) in [(ColumnId::HashPrefix, prefixes), (ColumnId::HashRow, numbers)] {
        let ended = stream.end(look)?;
        columns.ended(column, ended);
        if !columns.is_intact(column) {
            by_row.clear();
        }
    }
    Ok(by_row)
}

/// The list of predicates: ascending, and each with rows of it alone, which are all there are. Yields
/// where the rows of each end.
pub(super) fn predicates(
    look: &mut Look<'_>,
    columns: &mut Columns<'_>,
    quick: bool,
) -> Result<Vec<u64>, Stopped> {
    let (file, rows) = (columns.file, columns.layout.columns[ColumnId::Triples]);
    let numbers = columns.layout.columns[ColumnId::Pos];
    let by_row = !quick && [ColumnId::Triples, ColumnId::Pos].iter().all(|column| columns.is_intact(*column));
    let predicate_at = |position: u64| {
        let (mut number, mut predicate) = ([0; 4], [0; 32]);
        let read = file.read_at(&mut number, numbers.offset + 4 * position).is_ok();
        let row = rows.offset + 96 * u64::from(u32::from_le_bytes(number));
        (read && file.read_at(&mut predicate, row + 32).is_ok()).then_some(predicate)
    };
    let mut listed = columns.stream(ColumnId::Predicate);
    let mut ends = columns.stream(ColumnId::PredicateEnd);
    let (mut last, mut start, mut mismatch) = (None, 0, None);
    let mut all = Vec::new();
    loop {
        let (predicate_offset, end_offset) = (listed.offset(), ends.offset());
        let (Some(predicate), Some(end)) = (listed.next::<32>(look)?, ends.next(look)?) else { break };
        let end = u64::from(u32::from_le_bytes(end));
        if last.is_some_and(|last| predicate <= last) {
            columns.wrong(
                ColumnId::Predicate,
                predicate_offset,
                "a predicate that is not greater than the one before".into(),
            );
        }
        if end <= start || end > rows.len {
            columns.wrong(
                ColumnId::PredicateEnd,
                end_offset,
                format!("rows from {start} to {end} of {}", rows.len),
            );
        } else if by_row && [start, end - 1].iter().any(|at| predicate_at(*at) != Some(predicate)) {
            let what = format!("rows from {start} to {end}, not all of their predicate");
            mismatch.get_or_insert((predicate_offset, end_offset, what));
        }
        (last, start) = (Some(predicate), end);
        all.push(end);
    }
    if last.is_some() && start != rows.len {
        let place = columns.layout.columns[ColumnId::PredicateEnd].offset;
        columns.wrong(ColumnId::PredicateEnd, place, format!("{start} rows of {}", rows.len));
    }
    for (column, stream) in [(ColumnId::Predicate, listed), (ColumnId::PredicateEnd, ends)] {
        let ended = stream.end(look)?;
        columns.ended(column, ended);
    }
    // Told of the one that is damaged, if one of them is.
    if let Some((predicate_offset, end_offset, what)) = mismatch {
        if columns.is_intact(ColumnId::Predicate) {
            columns.wrong(ColumnId::PredicateEnd, end_offset, what);
        } else {
            columns.wrong(ColumnId::Predicate, predicate_offset, what);
        }
    }
    Ok(all)
}

/// One permutation. Its order is looked at where the rows are what was written.
pub(super) fn permutation(
    look: &mut Look<'_>,
    columns: &mut Columns<'_>,
    seen: &mut Seen,
    (rows, column, order): (ColumnId, ColumnId, Order),
    quick: bool,
) -> Result<(), Stopped> {
    let place = columns.layout.columns[rows];
    let (file, by_order) = (columns.file, !quick && columns.is_intact(rows));
    seen.begin(place.len);
    let mut stream = columns.stream(column);
    let mut last: Option<Row> = None;
    let mut position = 0_u64;
    loop {
        let at = stream.offset();
        let Some(number) = stream.next(look)? else { break };
        let number = u32::from_le_bytes(number);
        if let Some(what) = seen.add(number) {
            columns.wrong(column, at, what);
        } else if by_order {
            // One row at a time: it was read just before, so the system has it.
            let mut row: Row = [0; 96];
            let read = file.read_at(&mut row, place.offset + 96 * u64::from(number));
            if !read.is_ok_and(|read| read == row.len()) {
                columns.wrong(column, at, format!("row {number}, which is not readable any more"));
            } else if last.is_some_and(|last| order.compare(&row, &order.key(&last)).is_le()) {
                columns.wrong(
                    column,
                    at,
                    format!("row {number}, which does not belong after the one before"),
                );
            }
            last = Some(row);
        }
        position += 1;
        if position.is_multiple_of(STEP_ROWS) {
            look.read(file.path(), 0)?;
        }
    }
    let ended = stream.end(look)?;
    columns.ended(column, ended);
    Ok(())
}
