//! A run: an immutable sorted set of triples and tombstones, with the indexes over them.

use crate::column::Column;
use crate::filter;
use crate::order::{Order, Prefix, Row};
use crate::search::Sorted;
use cidstore_types::{Pattern, Seq, Triple, TripleHash, TripleRecord};
use std::ops::Range;
use std::sync::Arc;

/// Below this many triples a run has no filters: a search costs as little.
pub const FILTER_ROWS_MIN: usize = 4096;

/// Rows sorted by `S‖P‖O`, with permutations for the two other orders.
#[derive(Default)]
pub struct Rows {
    /// The rows in `Order::Spo`, each once.
    pub spo: Column<Row>,
    /// Row numbers in `Order::Pos`.
    pub pos: Column<u32>,
    /// Row numbers in `Order::Osp`.
    pub osp: Column<u32>,
}

impl Rows {
    /// The rows in an order.
    pub fn sorted(&self, order: Order) -> Sorted<'_> {
        match order {
            Order::Spo => Sorted::rows(&self.spo),
            Order::Pos => Sorted::permuted(order, &self.spo, &self.pos),
            Order::Osp => Sorted::permuted(order, &self.spo, &self.osp),
        }
    }

    /// Positions, in the prefix's order, of the rows that have it.
    pub fn range(&self, prefix: &Prefix) -> Range<usize> {
        if prefix.bytes().is_empty() {
            return 0..self.spo.len();
        }
        let sorted = self.sorted(prefix.order);
        let start = sorted.lower_bound(&prefix.least());
        start..sorted.upper_bound_from(&prefix.greatest(), start)
    }

    /// Row number of a triple.
    pub fn find(&self, triple: &Triple) -> Option<usize> {
        let at = Sorted::rows(&self.spo).lower_bound(&triple.0);
        (self.spo.get(at) == Some(&triple.0)).then_some(at)
    }
}

/// Metadata texts of the rows that have one.
#[derive(Default)]
pub struct Texts {
    /// Row numbers, ascending.
    pub row: Column<u32>,
    /// End of each text in `text`; it begins where the one before it ends.
    pub end: Column<u64>,
    /// The texts, UTF-8, one after the other.
    pub text: Column<u8>,
}

impl Texts {
    /// The text of a row. Text that is no UTF-8 (damage) reads as none.
    pub fn get(&self, row: u32) -> Option<&str> {
        let at = self.row.binary_search(&row).ok()?;
        let start = if at == 0 { 0 } else { *self.end.get(at - 1)? };
        let bytes = self.text.get(start as usize..*self.end.get(at)? as usize)?;
        std::str::from_utf8(bytes).ok()
    }
}

/// Filters by which a lookup skips a run; empty ones skip nothing.
#[derive(Default)]
pub struct Filters {
    /// Of the subjects.
    pub subject: Column<u8>,
    /// Of predicate‖object.
    pub predicate_object: Column<u8>,
    /// Of the objects.
    pub object: Column<u8>,
}

/// An immutable set of mutations, the newest of each triple. See the crate's first lines.
#[derive(Default)]
pub struct Run {
    /// Unique within the store: also the number of its file, if it has one.
    pub id: u64,
    /// First and last sequence number whose effects are within.
    pub seqs: (Seq, Seq),
    /// Triples that are present as far as this run knows.
    pub triples: Rows,
    /// Seconds since the epoch, by row number of `triples`.
    pub created_at: Column<f64>,
    /// First four bytes of the triple hashes as big-endian numbers, ascending.
    pub hash_prefix: Column<u32>,
    /// Row numbers of `triples` in the order of `hash_prefix`.
    pub hash_row: Column<u32>,
    /// Metadata by row number of `triples`.
    pub metadata: Texts,
    /// Triples that are absent as far as this run knows; they hide older runs' triples.
    pub tombstones: Rows,
    /// Filters over triples and tombstones together.
    pub filters: Filters,
    /// The file that holds it, if any.
    pub file: Option<Arc<crate::seal::RunFile>>,
}

/// What a run says of a triple.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Present, at this row number.
    Present(usize),
    /// Deleted.
    Deleted,
}

impl Run {
    /// Triples and tombstones together.
    pub fn len(&self) -> usize {
        self.triples.spo.len() + self.tombstones.spo.len()
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it lives in memory only.
    pub fn in_memory(&self) -> bool {
        self.file.is_none()
    }

    /// Bytes of its columns.
    pub fn bytes(&self) -> usize {
        self.len() * (Triple::BYTES + 8)
            + self.triples.spo.len() * 16
            + self.metadata.text.len()
            + self.metadata.row.len() * 12
            + self.filters.subject.len()
            + self.filters.predicate_object.len()
            + self.filters.object.len()
    }

    /// Whether the filters leave open that the run mentions a match of the pattern.
    pub fn may_mention(&self, pattern: &Pattern) -> bool {
        let Filters { subject, predicate_object, object } = &self.filters;
        let pair = |p: &[u8; 32], o: &[u8; 32]| -> [u8; 64] {
            std::array::from_fn(|i| if i < 32 { p[i] } else { o[i - 32] })
        };
        pattern.s.is_none_or(|s| filter::may_contain(subject, &s.0))
            && match (pattern.p, pattern.o) {
                (Some(p), Some(o)) => filter::may_contain(predicate_object, &pair(&p.0, &o.0)),
                (None, Some(o)) => filter::may_contain(object, &o.0),
                _ => true,
            }
    }

    /// What it says of a triple; `None` if it does not mention it.
    pub fn verdict(&self, triple: &Triple) -> Option<Verdict> {
        if !filter::may_contain(&self.filters.subject, &triple.0[..32]) {
            return None;
        }
        if let Some(row) = self.triples.find(triple) {
            return Some(Verdict::Present(row));
        }
        self.tombstones.find(triple).map(|_| Verdict::Deleted)
    }

    /// The triple that has this hash, if the run holds it.
    pub fn find_hash(&self, hash: &TripleHash) -> Option<Triple> {
        let prefix = hash_prefix(hash);
        // Prefixes of hashes are uniform by construction: the guess is off by about the square root
        // of the number of rows, so gallop from it.
        let prefixes: &[u32] = &self.hash_prefix;
        let guess = ((u64::from(prefix) * prefixes.len() as u64) >> 32) as usize;
        let first = gallop(prefixes, prefix, guess);
        prefixes[first..]
            .iter()
            .zip(&self.hash_row[first..])
            .take_while(|(p, _)| **p == prefix)
            .map(|(_, row)| Triple(self.triples.spo[*row as usize]))
            .find(|triple| triple.hash() == *hash)
    }

    /// A row of `triples` with its columns.
    pub fn record(&self, row: usize) -> TripleRecord {
        TripleRecord::new(Triple(self.triples.spo[row]), self.created_at[row], self.metadata.get(row as u32))
    }
}

/// The part of a triple hash by which a run is searched.
pub fn hash_prefix(hash: &TripleHash) -> u32 {
    u32::from_be_bytes(hash.0[..4].try_into().expect("4 bytes"))
}

/// Position of the first value not less than `value`, searched outward from `guess`.
fn gallop(values: &[u32], value: u32, guess: usize) -> usize {
    let (mut low, mut high, mut step) = (guess, guess, 64);
    while low > 0 && values[low - 1] >= value {
        high = low;
        low = low.saturating_sub(step);
        step *= 2;
    }
    while high < values.len() && values[high] < value {
        low = high + 1;
        high = (high + step).min(values.len());
        step *= 2;
    }
    low + values[low..high].partition_point(|v| *v < value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn galloping_agrees_with_partition_point(mut values in vec(0u32..2000, 0..500), value in 0u32..2000, at: prop::sample::Index) {
            values.sort_unstable();
            let guess = at.index(values.len() + 1).min(values.len().saturating_sub(1));
            prop_assert_eq!(gallop(&values, value, guess), values.partition_point(|v| *v < value));
        }
    }
}
