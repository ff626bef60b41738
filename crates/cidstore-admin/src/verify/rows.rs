//! Rows of a run file: their order, what the hash index and the filters say of them, and metadata.

use super::run::Columns;
use crate::look::{Look, Stream};
use crate::progress::Stopped;
use cidstore_engine::files::{Row, hash_prefix, key_hash, may_contain};
use cidstore_engine::hdf5::ColumnId;
use cidstore_types::Triple;

/// Longer texts than this are damage: a batch that holds one would not fit into a record of the log.
const TEXT_BYTES_MAX: u64 = 1 << 30;

/// Rows of one column, in the order in which they should stand.
struct Rows<'f> {
    column: ColumnId,
    stream: Stream<'f>,
    at: u64,
    row: Option<Row>,
}

impl<'f> Rows<'f> {
    fn begin(look: &mut Look<'_>, columns: &mut Columns<'f>, column: ColumnId) -> Result<Self, Stopped> {
        let stream = columns.stream(column);
        let mut rows = Self { column, at: stream.offset(), stream, row: None };
        rows.row = rows.stream.next(look)?;
        Ok(rows)
    }

    fn advance(&mut self, look: &mut Look<'_>, columns: &mut Columns<'f>) -> Result<(), Stopped> {
        self.at = self.stream.offset();
        let next = self.stream.next(look)?;
        if let (Some(row), Some(next)) = (&self.row, &next)
            && next <= row
        {
            columns.wrong(self.column, self.at, "a row that is not greater than the one before".into());
        }
        self.row = next;
        Ok(())
    }
}

/// Filters that should hold a row and do not.
fn forgotten(filters: &[Vec<u8>; 3], row: &Row) -> Option<ColumnId> {
    let keys = [
        (ColumnId::FilterSubject, &row[..32]),
        (ColumnId::FilterPredicateObject, &row[32..]),
        (ColumnId::FilterObject, &row[64..]),
    ];
    let mut asked = keys.into_iter().zip(filters);
    asked.find(|((_, key), filter)| !may_contain(filter, key_hash(key))).map(|((column, _), _)| column)
}

/// Triples and tombstones: both sorted, none in both, all in the filters; and the triples' hashes, if
/// the prefixes of them are given by row.
pub(super) fn check(
    look: &mut Look<'_>,
    columns: &mut Columns<'_>,
    filters: &[Vec<u8>; 3],
    prefixes: Option<&Vec<u32>>,
) -> Result<(), Stopped> {
    let mut triples = Rows::begin(look, columns, ColumnId::Triples)?;
    let mut tombstones = Rows::begin(look, columns, ColumnId::Tombstones)?;
    let mut number = 0;
    let mut wrong_hash = None;
    let mut in_both = None;
    let mut missing = None;
    while let Some(least) = [triples.row, tombstones.row].into_iter().flatten().min() {
        if missing.is_none() {
            missing = forgotten(filters, &least);
        }
        let is_triple = triples.row == Some(least);
        if is_triple && tombstones.row == Some(least) {
            in_both.get_or_insert(tombstones.at);
        }
        if is_triple {
            if let Some(prefix) = prefixes.and_then(|prefixes| prefixes.get(number))
                && hash_prefix(&Triple(least).hash()) != *prefix
            {
                wrong_hash.get_or_insert((triples.at, number));
            }
            number += 1;
            triples.advance(look, columns)?;
        } else {
            tombstones.advance(look, columns)?;
        }
    }
    for rows in [triples, tombstones] {
        let ended = rows.stream.end(look)?;
        columns.ended(rows.column, ended);
    }
    // What contradicts something else is told of the one that is damaged, if one of them is.
    let intact = columns.is_intact(ColumnId::Triples);
    if let Some((at, number)) = wrong_hash {
        let what = format!("row {number}, whose hash is not the one in the index");
        if intact {
            let place = columns.layout.columns[ColumnId::HashPrefix].offset;
            columns.wrong(ColumnId::HashPrefix, place, what);
        } else {
            // The order tells of one of two rows, the hash of this one.
            columns.rather_wrong(ColumnId::Triples, at, what);
        }
    }
    if intact && columns.is_intact(ColumnId::Tombstones) {
        if let Some(at) = in_both {
            columns.wrong(ColumnId::Tombstones, at, "a tombstone that is a triple of this run, too".into());
        }
        if let Some(column) = missing {
            let place = columns.layout.columns[column].offset;
            columns.wrong(column, place, "a key is missing in the filter".into());
        }
    }
    Ok(())
}

/// Metadata: row numbers and ends ascend, texts are UTF-8.
pub(super) fn metadata(look: &mut Look<'_>, columns: &mut Columns<'_>) -> Result<(), Stopped> {
    let rows = columns.len(ColumnId::Triples);
    let mut numbers = columns.stream(ColumnId::MetadataRow);
    let mut least = 0;
    loop {
        let at = numbers.offset();
        let Some(number) = numbers.next(look)? else { break };
        let number = u64::from(u32::from_le_bytes(number));
        if number < least || number >= rows {
            columns.wrong(ColumnId::MetadataRow, at, format!("row {number} of {rows}, after {least} others"));
        }
        least = number + 1;
    }
    let bytes = columns.len(ColumnId::MetadataText);
    let mut ends = columns.stream(ColumnId::MetadataEnd);
    let mut texts = columns.stream(ColumnId::MetadataText);
    let (mut start, mut text, mut wrong_text) = (0, Vec::new(), None);
    loop {
        let (end_at, text_at) = (ends.offset(), texts.offset());
        let Some(end) = ends.next(look)? else { break };
        let end = u64::from_le_bytes(end);
        if end < start || end > bytes || end - start > TEXT_BYTES_MAX {
            columns.wrong(ColumnId::MetadataEnd, end_at, format!("a text from {start} to {end} of {bytes}"));
            break;
        }
        texts.take((end - start) as usize, &mut text, look)?;
        if let Err(error) = std::str::from_utf8(&text) {
            let at = text_at + error.valid_up_to() as u64;
            wrong_text.get_or_insert((at, "a byte that is no UTF-8".to_owned()));
        }
        start = end;
    }
    if start < bytes {
        let place = columns.layout.columns[ColumnId::MetadataText].offset + start;
        wrong_text.get_or_insert((place, format!("text of no row, {} bytes", bytes - start)));
    }
    let streams =
        [(ColumnId::MetadataRow, numbers), (ColumnId::MetadataEnd, ends), (ColumnId::MetadataText, texts)];
    for (column, stream) in streams {
        let ended = stream.end(look)?;
        columns.ended(column, ended);
    }
    // With damaged ends the texts are cut in the wrong places.
    if let Some((at, what)) = wrong_text.filter(|_| columns.is_intact(ColumnId::MetadataEnd)) {
        columns.wrong(ColumnId::MetadataText, at, what);
    }
    Ok(())
}
