//! What a damaged run file still proves.

use super::RepairError;
use super::report::LossKind;
use crate::look::Look;
use crate::verify::run::RunCheck;
use cidstore_disk::{File, Open, read_around};
use cidstore_engine::files::{NewRun, Row, hash_prefix, key_hash, may_contain};
use cidstore_engine::hdf5::{ColumnId, RunEntry, RunLayout};
use cidstore_types::{Op, Triple};
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

/// Rows that are tried to be mended: a file with more damage than this has more than flipped bits.
const MENDED_MAX: usize = 10_000;

/// What was saved of a run, and what was not.
pub(super) struct Salvaged {
    pub(super) run: NewRun,
    pub(super) losses: Vec<(LossKind, u64, &'static str)>,
}

/// What a run says, apart from what follows from it.
const CONTENT: [ColumnId; 6] = [
    ColumnId::Triples,
    ColumnId::Tombstones,
    ColumnId::CreatedAt,
    ColumnId::MetadataRow,
    ColumnId::MetadataEnd,
    ColumnId::MetadataText,
];

/// Whether only what can be made anew is damaged.
pub(super) fn is_whole(check: &RunCheck) -> bool {
    check.layout.is_some() && CONTENT.iter().all(|column| !check.bad[*column])
}

/// A run file being salvaged.
struct Salvage<'a> {
    file: &'a dyn File,
    layout: &'a RunLayout,
    check: &'a RunCheck,
    saved: Salvaged,
}

/// Reads what the run file at `path` proves. A file without a readable head proves nothing.
pub(super) fn read(
    look: &mut Look<'_>,
    path: &Path,
    entry: &RunEntry,
    check: &RunCheck,
) -> Result<Salvaged, RepairError> {
    let mut saved = Salvaged { run: NewRun::default(), losses: Vec::new() };
    let Some(layout) = &check.layout else {
        let all = [
            (entry.rows, "triples, with their metadata: the file cannot be read"),
            (entry.tombstones, "deletes: what they deleted is back where older run files hold it"),
        ];
        saved
            .losses
            .extend(all.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| (LossKind::Lost, n, what)));
        return Ok(saved);
    };
    let file = look.disk.open(path, Open::Read)?;
    look.read(path, entry.file_bytes)?;
    let mut salvage = Salvage { file: &*file, layout, check, saved };
    let rows = salvage.rows();
    let mut texts = salvage.texts();
    let created = salvage.created_at(rows.iter().flatten().count() as u64);
    for (number, row) in rows.iter().enumerate() {
        let Some(row) = row else { continue };
        let text = texts.remove(&(number as u32));
        salvage.saved.run.push(Op::Insert, &Triple(*row), created[number], text.as_deref());
    }
    let present: HashSet<Row> =
        if check.bad[ColumnId::Tombstones] { rows.into_iter().flatten().collect() } else { HashSet::new() };
    salvage.tombstones(&present);
    Ok(salvage.saved)
}

impl Salvage<'_> {
    /// The bytes of a column; zeros where they cannot be read.
    fn bytes(&self, column: ColumnId) -> Vec<u8> {
        let extent = &self.layout.columns[column];
        let mut bytes = vec![0; extent.bytes as usize];
        read_around(self.file, &mut bytes, extent.offset, &mut Vec::new());
        bytes
    }

    fn bad(&self, column: ColumnId) -> bool {
        self.check.bad[column]
    }

    fn lose(&mut self, kind: LossKind, count: u64, what: &'static str) {
        if count > 0 {
            self.saved.losses.push((kind, count, what));
        }
    }

    /// The triples by row number; `None` where the row is not proven.
    fn rows(&mut self) -> Vec<Option<Row>> {
        let bytes = self.bytes(ColumnId::Triples);
        let rows: &[Row] = bytes.as_chunks().0;
        if !self.bad(ColumnId::Triples) {
            return rows.iter().copied().map(Some).collect();
        }
        let mut proven = vec![None; rows.len()];
        if !self.bad(ColumnId::HashPrefix) && !self.bad(ColumnId::HashRow) {
            let (prefixes, numbers) = (self.bytes(ColumnId::HashPrefix), self.bytes(ColumnId::HashRow));
            let mut tries = MENDED_MAX;
            for (prefix, number) in prefixes.as_chunks().0.iter().zip(numbers.as_chunks().0) {
                let (prefix, number) = (u32::from_le_bytes(*prefix), u32::from_le_bytes(*number) as usize);
                if let Some(row) = rows.get(number) {
                    proven[number] = prove(row, prefix, &mut tries);
                }
            }
        }
        let lost = proven.iter().filter(|row| row.is_none()).count() as u64;
        self.lose(LossKind::Lost, lost, "triples, with their metadata: no hash proves them");
        proven
    }

    /// By row number. Where the column is damaged, nobody knows in which of its values.
    fn created_at(&mut self, rows: u64) -> Vec<f64> {
        let bytes = self.bytes(ColumnId::CreatedAt);
        let values = bytes.as_chunks().0.iter().map(|value| f64::from_le_bytes(*value));
        if !self.bad(ColumnId::CreatedAt) {
            return values.collect();
        }
        self.lose(LossKind::Unproven, rows, "times (created_at), kept as they were found");
        values.map(|value| if value.is_finite() { value } else { 0.0 }).collect()
    }

    /// Metadata by row number.
    fn texts(&mut self) -> BTreeMap<u32, String> {
        let mut texts = BTreeMap::new();
        let (numbers, ends) = (self.bytes(ColumnId::MetadataRow), self.bytes(ColumnId::MetadataEnd));
        let (numbers, ends): (&[[u8; 4]], &[[u8; 8]]) = (numbers.as_chunks().0, ends.as_chunks().0);
        if self.bad(ColumnId::MetadataRow) || self.bad(ColumnId::MetadataEnd) {
            let lost = numbers.len() as u64;
            self.lose(LossKind::Lost, lost, "texts of metadata: nobody knows to which triples they belong");
            return texts;
        }
        let (bytes, bad) = (self.bytes(ColumnId::MetadataText), self.bad(ColumnId::MetadataText));
        let (mut start, mut lost) = (0, 0);
        for (number, end) in numbers.iter().zip(ends) {
            let end = u64::from_le_bytes(*end) as usize;
            let text = bytes.get(start..end).and_then(|text| std::str::from_utf8(text).ok());
            // Of damaged ones those that are no JSON maps are surely not what was written.
            let is_map =
                |text: &&str| serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_object());
            match text.filter(|text| !bad || is_map(text)) {
                Some(text) => drop(texts.insert(u32::from_le_bytes(*number), text.to_owned())),
                None => lost += 1,
            }
            start = end;
        }
        self.lose(LossKind::Lost, lost, "texts of metadata");
        if bad {
            let kept = texts.len() as u64;
            self.lose(LossKind::Unproven, kept, "texts of metadata, kept as they were found");
        }
        texts
    }

    /// The deletes. What is found in a damaged column is kept: a triple that nobody inserted may be
    /// deleted without harm. The filters tell of most that were not written here.
    fn tombstones(&mut self, present: &HashSet<Row>) {
        let bytes = self.bytes(ColumnId::Tombstones);
        let rows: &[Row] = bytes.as_chunks().0;
        let bad = self.bad(ColumnId::Tombstones);
        let ids = [ColumnId::FilterSubject, ColumnId::FilterPredicateObject, ColumnId::FilterObject];
        let filters = ids.map(|filter| if self.bad(filter) { Vec::new() } else { self.bytes(filter) });
        let known = |row: &Row| {
            let keys = [&row[..32], &row[32..], &row[64..]];
            keys.iter().zip(&filters).all(|(key, filter)| may_contain(filter, key_hash(key)))
        };
        let mut kept = 0;
        for row in rows.iter().filter(|row| !bad || (known(row) && !present.contains(*row))) {
            kept += 1;
            self.saved.run.push(Op::Delete, &Triple(*row), 0.0, None);
        }
        if bad {
            let what = "deletes: what they deleted is back where older run files hold it";
            self.lose(LossKind::Lost, rows.len() as u64 - kept, what);
            let what = "deletes, kept as they were found: some triple that was deleted may be back";
            self.lose(LossKind::Unproven, kept, what);
        }
    }
}

/// The row that has this prefix of its hash: as it was found, or with one bit mended.
fn prove(row: &Row, prefix: u32, tries: &mut usize) -> Option<Row> {
    let fits = |row: &Row| hash_prefix(&Triple(*row).hash()) == prefix;
    if fits(row) {
        return Some(*row);
    }
    *tries = tries.checked_sub(1)?;
    // One bit is what goes wrong most often. Of 768 that are tried, a wrong one fits in one case of
    // five million.
    (0..8 * row.len()).find_map(|bit| {
        let mut mended = *row;
        mended[bit / 8] ^= 1 << (bit % 8);
        fits(&mended).then_some(mended)
    })
}
