//! A run: an immutable sorted set of triples and tombstones, with the indexes over them.

use crate::column::Column;
use crate::error::UnreadablePage;
use crate::filter;
use crate::order::{Key, Order, Row};
use crate::sample::{self, Search};
use crate::search::Sorted;
use cidstore_types::{Pattern, Seq, Triple, TripleHash, TripleRecord};
use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

/// Below this many triples and tombstones a run has no filters: it fits into the processor's cache, where a
/// search costs as little.
pub const FILTER_ROWS_MIN: usize = 256;

/// Bytes of a row without metadata, in all columns, indexes and filters, rounded up.
pub(crate) const WEIGHT_BYTES: u64 = 128;

/// Rows sorted by `S‖P‖O`, with permutations for the two other orders.
#[derive(Default)]
pub struct Rows {
    /// The rows in `Order::Spo`, each once.
    pub spo: Column<Row>,
    /// Row numbers in `Order::Pos`.
    pub pos: Column<u32>,
    /// Row numbers in `Order::Osp`.
    pub osp: Column<u32>,
    /// The predicates, ascending, each once; empty where nobody has listed them. There are few of them
    /// mostly, each with a multitude of rows, so that a search for one finds nothing to go by.
    pub predicates: Column<[u8; 32]>,
    /// End of each predicate's rows in `pos`; they begin where those of the one before end.
    pub predicate_end: Column<u32>,
    /// Samples, by order; empty where nobody has taken them.
    pub samples: [Column<u64>; 3],
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

    /// Begins to search an order for the first row that compares greater than `bar` with `key`: with
    /// `Less` the first that is not less, with `Equal` the first that is greater.
    pub fn search<'a>(&'a self, order: Order, key: &'a Key, bar: Ordering) -> Search<'a> {
        let sorted = self.sorted(order);
        let stretch = match order {
            Order::Pos if !self.predicates.is_empty() => self.of_predicate(&key[..32]),
            _ => 0..sorted.len(),
        };
        Search::new(sorted, &self.samples[order as usize], key, bar, stretch)
    }

    /// The positions in `pos` of the rows of a predicate.
    fn of_predicate(&self, predicate: &[u8]) -> Range<usize> {
        let rows = self.pos.len();
        let (listed, after) = match self.predicates.binary_search_by(|listed| listed[..].cmp(predicate)) {
            Ok(at) => (at, at + 1),
            Err(at) => (at, at),
        };
        // What a damaged file says is bounded by what there is.
        let end = |at: usize| self.predicate_end.get(at).map_or(rows, |end| (*end as usize).min(rows));
        let start = if listed == 0 { 0 } else { end(listed - 1) };
        start..if after == listed { start } else { end(listed).max(start) }
    }

    /// Row number of a triple.
    pub fn find(&self, triple: &Triple) -> Option<usize> {
        let at = self.search(Order::Spo, &triple.0, Ordering::Less).run();
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
    pub fn get(&self, row: u32) -> Option<String> {
        let at = self.row.binary_search(&row).ok()?;
        // A copy stays the text that it was found to be, whatever becomes of the file.
        String::from_utf8(self.bytes_at(at)?.to_vec()).ok()
    }

    /// The text at a position in `row`. `None` where there is none (damage).
    pub fn bytes_at(&self, at: usize) -> Option<&[u8]> {
        let start = if at == 0 { 0 } else { *self.end.get(at - 1)? };
        self.text.get(start as usize..*self.end.get(at)? as usize)
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

impl Filters {
    /// Those of a run with these rows, if it has enough of them.
    fn of(triples: &Rows, tombstones: &Rows) -> Self {
        if triples.spo.len() + tombstones.spo.len() < FILTER_ROWS_MIN {
            return Self::default();
        }
        let filter = |order: Order, part: Range<usize>| {
            let mut hashes = Vec::new();
            for sorted in [triples.sorted(order), tombstones.sorted(order)] {
                let mut last: &[u8] = &[];
                for key in (0..sorted.len()).map(|at| &sorted.row(at)[part.clone()]) {
                    if last != key {
                        hashes.push(filter::key_hash(key));
                        last = key;
                    }
                }
            }
            Column::from(filter::build(&hashes))
        };
        // In the rows, the parts by which the orders begin stand side by side.
        Self {
            subject: filter(Order::Spo, 0..32),
            predicate_object: filter(Order::Pos, 32..96),
            object: filter(Order::Osp, 64..96),
        }
    }
}

/// What is looked for, as the filters know it: hashes of the parts that they can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    subject: Option<u64>,
    predicate_object: Option<u64>,
    object: Option<u64>,
}

impl Probe {
    /// Matches of a pattern.
    pub fn of(pattern: &Pattern) -> Self {
        let Pattern { s, p, o } = pattern;
        let pair = p.zip(*o).map(|(p, o)| {
            let pair: [u8; 64] = std::array::from_fn(|i| if i < 32 { p.0[i] } else { o.0[i - 32] });
            filter::key_hash(&pair)
        });
        let object = if pair.is_some() { None } else { o.map(|o| filter::key_hash(&o.0)) };
        Self { subject: s.map(|s| filter::key_hash(&s.0)), predicate_object: pair, object }
    }

    /// One triple. Its subject is enough: few runs hold it without holding the triple.
    pub fn of_triple(triple: &Triple) -> Self {
        let subject = Some(filter::key_hash(&triple.0[..32]));
        Self { subject, predicate_object: None, object: None }
    }
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
    /// The same with filters, if it has enough rows for them.
    pub fn with_filters(self) -> Self {
        Self { filters: Filters::of(&self.triples, &self.tombstones), ..self }
    }

    /// Whether lookups have to search it where filters would let them skip it.
    pub fn lacks_filters(&self) -> bool {
        self.len() >= FILTER_ROWS_MIN && self.filters.subject.is_empty()
    }

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

    /// Tells that the pages of its file need not stay resident, but for filters, predicates and samples:
    /// lookups ask them all the time, and they are small.
    pub fn release_mapped(&self) {
        for rows in [&self.triples, &self.tombstones] {
            rows.spo.release();
            rows.pos.release();
            rows.osp.release();
        }
        self.created_at.release();
        self.hash_prefix.release();
        self.hash_row.release();
        self.metadata.row.release();
        self.metadata.end.release();
        self.metadata.text.release();
    }

    /// What is wrong with its file, as far as that was noticed.
    pub fn damage(&self) -> Option<&Arc<str>> {
        // Noted here if the mapping has noticed it.
        let _ = self.check_readable();
        self.file.as_ref()?.damage.get()
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
            + self.triples.predicates.len() * 36
            + self.triples.samples.iter().map(|samples| samples.len() * 8).sum::<usize>()
    }

    /// How many rows it counts for where memory, work or space are bounded: its rows, or as many as
    /// usually take its bytes, if metadata makes it larger than that.
    pub fn weight(&self) -> usize {
        let bytes = self.file.as_ref().map_or_else(|| self.bytes() as u64, |file| file.bytes);
        self.len().max((bytes / WEIGHT_BYTES) as usize)
    }

    /// Whether the filters leave open that the run mentions what is looked for. Those of a file that
    /// cannot be read everywhere leave open everything.
    pub fn may_mention(&self, probe: &Probe) -> bool {
        let may =
            |filter: &[u8], hash: Option<u64>| hash.is_none_or(|hash| filter::may_contain(filter, hash));
        (may(&self.filters.subject, probe.subject)
            && may(&self.filters.predicate_object, probe.predicate_object)
            && may(&self.filters.object, probe.object))
            || self.check_readable().is_err()
    }

    /// Whether all that was read of its file was there: to be asked after each answer.
    ///
    /// # Errors
    /// [`UnreadablePage`].
    pub fn check_readable(&self) -> Result<(), UnreadablePage> {
        self.file.as_ref().map_or(Ok(()), |file| file.check_readable())
    }

    /// What it says of a triple; `None` if it does not mention it.
    pub fn verdict(&self, triple: &Triple) -> Option<Verdict> {
        if let Some(row) = self.triples.find(triple) {
            return Some(Verdict::Present(row));
        }
        self.tombstones.find(triple).map(|_| Verdict::Deleted)
    }

    /// The triple that has this hash and its row number, if the run holds it.
    pub fn find_hash(&self, hash: &TripleHash) -> Option<(usize, Triple)> {
        let prefix = hash_prefix(hash);
        // Prefixes of hashes are uniform by construction: the guess is off by about the square root
        // of the number of rows.
        let prefixes: &[u32] = &self.hash_prefix;
        let guess = ((u64::from(prefix) * prefixes.len() as u64) >> 32) as usize;
        let first = sample::outward(prefixes, prefix, guess.saturating_sub(32), 64);
        prefixes[first..]
            .iter()
            .zip(&self.hash_row[first..])
            .take_while(|(p, _)| **p == prefix)
            .filter_map(|(_, row)| Some((*row as usize, Triple(*self.triples.spo.get(*row as usize)?))))
            .find(|(_, triple)| triple.hash() == *hash)
    }

    /// A row of `triples` with its columns; `None` if there is no such row (damage).
    pub fn record(&self, row: usize) -> Option<TripleRecord> {
        let (triple, created_at) = (Triple(*self.triples.spo.get(row)?), *self.created_at.get(row)?);
        Some(TripleRecord::new(triple, created_at, self.metadata.get(row as u32).as_deref()))
    }
}

/// The part of a triple hash by which a run is searched.
pub fn hash_prefix(hash: &TripleHash) -> u32 {
    u32::from_be_bytes(hash.0[..4].try_into().expect("4 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::Builder;
    use crate::mentions::Around;
    use crate::merge::{Merge, NEVER_STOPPED};
    use cidstore_types::{Cid, Op};

    /// A run of so many rows, every third of them deleted, with subjects and objects in common.
    fn run(rows: u64) -> Run {
        let mut builder = Builder::default();
        for n in 0..rows {
            let [s, p, o] = [n / 3, n % 5, 1000 + n % 100].map(|n| Cid::from_two_lanes([n, n]));
            let op = if n % 3 == 0 { Op::Delete } else { Op::Insert };
            builder.push(op, &Triple::new(s, p, o), 0.0, None);
        }
        builder.finish(1, (1, rows))
    }

    #[test]
    fn filters_are_those_of_a_merge() {
        let run = Arc::new(run(1000).with_filters());
        // Tombstones stay where nobody can say whether older rows need them.
        let merge = Merge::new(std::slice::from_ref(&run), Around::bottom(false), &NEVER_STOPPED);
        let merged = merge.indexes().filters;
        let Filters { subject, predicate_object, object } = &run.filters;
        assert_eq!(merged, [subject, predicate_object, object].map(|filter| filter.to_vec()));
        assert!(merged.iter().all(|filter| !filter.is_empty()));
    }

    #[test]
    fn a_run_of_few_rows_has_none() {
        let few = run(FILTER_ROWS_MIN as u64 - 1).with_filters();
        assert!(few.filters.subject.is_empty() && few.may_mention(&Probe::of(&Pattern::ALL)));
    }
}
