//! Samples of a run file: that each is what the row that it stands for says.

use super::run::Columns;
use crate::look::Look;
use crate::progress::Stopped;
use cidstore_engine::files::{Cut, Order, Row};
use cidstore_engine::hdf5::{ColumnId, SAMPLE_ROWS};
use std::ops::Range;

/// The samples, the order they are of, and the permutation that says it.
const SAMPLES: [(ColumnId, Order, Option<ColumnId>); 3] = [
    (ColumnId::SpoSample, Order::Spo, None),
    (ColumnId::PosSample, Order::Pos, Some(ColumnId::Pos)),
    (ColumnId::OspSample, Order::Osp, Some(ColumnId::Osp)),
];

/// All samples against checksums, and against the rows where these are what was written, unless `quick`.
/// `predicate_ends` are where the rows of each predicate end, if predicates are listed.
pub(super) fn check(
    look: &mut Look<'_>,
    columns: &mut Columns<'_>,
    predicate_ends: &[u64],
    quick: bool,
) -> Result<(), Stopped> {
    for (column, order, permutation) in SAMPLES {
        let needed = [ColumnId::Triples, ColumnId::Predicate, ColumnId::PredicateEnd];
        let known = needed.into_iter().chain(permutation).all(|column| columns.is_intact(column));
        let rows = Rows { columns, order, permutation };
        let mut ends = if order == Order::Pos { predicate_ends } else { &[] }.iter();
        let mut stretch = 0..0;
        let mut cut = None;
        let mut stream = columns.stream(column);
        let mut wrong = None;
        for position in (0..columns.len(ColumnId::Triples)).step_by(SAMPLE_ROWS as usize) {
            let at = stream.offset();
            let Some(sample) = stream.next(look)? else { break };
            if quick || !known || wrong.is_some() {
                continue;
            }
            while position >= stretch.end {
                let end = ends.next().copied().unwrap_or(columns.len(ColumnId::Triples));
                stretch = stretch.end..end.max(stretch.end + 1);
                cut = rows.cut(&stretch);
            }
            let Some(row) = rows.at(position) else { continue };
            let (sample, expected) = (u64::from_le_bytes(sample), cut.map_or(0, |cut| cut.of_row(&row)));
            if sample != expected {
                wrong = Some((at, format!("{sample:#018x} for position {position}, not {expected:#018x}")));
            }
        }
        let ended = stream.end(look)?;
        columns.ended(column, ended);
        if let Some((at, what)) = wrong {
            columns.wrong(column, at, what);
        }
    }
    Ok(())
}

/// The rows in an order.
struct Rows<'a> {
    columns: &'a Columns<'a>,
    order: Order,
    permutation: Option<ColumnId>,
}

impl Rows<'_> {
    /// The row at a position in the order; `None` where it cannot be read.
    fn at(&self, position: u64) -> Option<Row> {
        let columns = &self.columns.layout.columns;
        let mut number = [0; 4];
        let number = match self.permutation {
            None => position,
            Some(column) => {
                let read = self.columns.file.read_at(&mut number, columns[column].offset + 4 * position);
                read.is_ok_and(|read| read == 4).then_some(u64::from(u32::from_le_bytes(number)))?
            }
        };
        let mut row: Row = [0; 96];
        let read = self.columns.file.read_at(&mut row, columns[ColumnId::Triples].offset + 96 * number);
        read.is_ok_and(|read| read == row.len()).then_some(row)
    }

    /// The cut of the samples within a stretch.
    fn cut(&self, stretch: &Range<u64>) -> Option<Cut> {
        let first = stretch.start.next_multiple_of(SAMPLE_ROWS);
        let last = (stretch.end - 1) / SAMPLE_ROWS * SAMPLE_ROWS;
        Cut::between(self.order, &self.at(first)?, &self.at(last.max(first))?)
    }
}
