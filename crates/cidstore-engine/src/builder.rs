//! Building a run in memory from mutations in their order.

use crate::column::Column;
use crate::order::{Order, Row};
use crate::run::{Filters, Rows, Run, Texts, hash_prefix};
use crate::sort::sorted;
use cidstore_types::{BatchRef, Op, Seq, Triple};
use std::collections::BTreeMap;

/// Collects mutations; [`Builder::finish`] makes a run of them in which the newest of each triple
/// decides.
#[derive(Default)]
pub struct Builder {
    rows: Vec<Row>,
    created_at: Vec<f64>,
    deletes: Vec<bool>,
    /// Texts of single entries, by their position in `rows`.
    metadata: BTreeMap<u32, Box<str>>,
    text_bytes: usize,
}

impl Builder {
    /// Number of mutations collected.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes of metadata collected.
    pub fn text_bytes(&self) -> usize {
        self.text_bytes
    }

    /// Adds one mutation, newer than those before it.
    pub fn push(&mut self, op: Op, triple: &Triple, created_at: f64, metadata: Option<&str>) {
        if let (Some(text), Op::Insert) = (metadata, op) {
            self.text_bytes += text.len();
            self.metadata.insert(self.rows.len() as u32, text.into());
        }
        self.rows.push(triple.0);
        self.created_at.push(created_at);
        self.deletes.push(op == Op::Delete);
    }

    /// Adds a stored batch.
    pub fn push_batch(&mut self, batch: &BatchRef<'_>) {
        for row in batch.rows() {
            self.push(batch.op, &row.triple, row.created_at, row.metadata);
        }
    }

    /// The run of all that was collected, and an empty builder again.
    pub fn finish(&mut self, id: u64, seqs: (Seq, Seq)) -> Run {
        let Self { rows, created_at, deletes, mut metadata, text_bytes: _ } = std::mem::take(self);
        // Of equal rows the newest comes first, so that deduplication keeps it.
        let mut by_row = sorted(Order::Spo, &rows);
        by_row.dedup_by(|a, b| rows[*a as usize] == rows[*b as usize]);

        let (mut present, mut deleted) = (Vec::new(), Vec::new());
        let (mut created, mut texts) = (Vec::new(), TextsBuilder::default());
        for i in by_row {
            let at = i as usize;
            if deletes[at] {
                deleted.push(rows[at]);
                continue;
            }
            if let Some(text) = metadata.remove(&i) {
                texts.push(present.len() as u32, text.as_bytes());
            }
            present.push(rows[at]);
            created.push(created_at[at]);
        }
        let mut hashes: Vec<u64> = present
            .iter()
            .enumerate()
            .map(|(i, row)| u64::from(hash_prefix(&Triple(*row).hash())) << 32 | i as u64)
            .collect();
        hashes.sort_unstable();
        let triples = sort_orders(present);
        let tombstones = sort_orders(deleted);
        Run {
            id,
            seqs,
            created_at: Column::from(created),
            hash_prefix: Column::from(hashes.iter().map(|hash| (hash >> 32) as u32).collect::<Vec<_>>()),
            hash_row: Column::from(hashes.iter().map(|hash| *hash as u32).collect::<Vec<_>>()),
            metadata: texts.finish(),
            triples,
            tombstones,
            // Commits do not wait for them: see `RunList::filter_one`.
            filters: Filters::default(),
            file: None,
        }
    }
}

/// Metadata texts being collected by ascending row number.
#[derive(Default)]
pub struct TextsBuilder {
    row: Vec<u32>,
    end: Vec<u64>,
    text: Vec<u8>,
}

impl TextsBuilder {
    /// Adds the text of a row.
    pub fn push(&mut self, row: u32, text: &[u8]) {
        self.row.push(row);
        self.text.extend_from_slice(text);
        self.end.push(self.text.len() as u64);
    }

    /// The columns.
    pub fn finish(self) -> Texts {
        Texts { row: Column::from(self.row), end: Column::from(self.end), text: Column::from(self.text) }
    }
}

/// Rows in `Order::Spo` with freshly sorted permutations.
fn sort_orders(rows: Vec<Row>) -> Rows {
    let (pos, osp) = (sorted(Order::Pos, &rows), sorted(Order::Osp, &rows));
    Rows { spo: Column::from(rows), pos: Column::from(pos), osp: Column::from(osp), ..Rows::default() }
}
