//! Merging adjacent runs into one. Sequential work over sorted inputs; nothing is sorted again.
//!
//! The rows are merged first, which yields the [`Merge`]: for every input row its number in the
//! result, or that it is gone. The other orders and the hash index are then merged by themselves
//! and translated by those numbers, so that no order needs the result's rows.

use crate::builder::TextsBuilder;
use crate::column::Column;
use crate::filter;
use crate::kway::KWay;
use crate::mentions::{Around, Mentions};
use crate::order::{Order, Row};
use crate::run::{FILTER_ROWS_MIN, Filters, Rows, Run};
use crate::sample::{self, SAMPLED_ROWS_MIN};
use crate::tree::{ENDED, Player, Tree};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Most runs that one merge takes.
pub const MERGE_RUNS_MAX: usize = 64;

/// Marks an input row that has no place in the result.
const GONE: u32 = u32::MAX;

/// After so many rows read, the inputs' pages are given back: a merge need not keep whole files
/// resident. What it costs is a minor fault for each 16 pages that are read again.
const RELEASE_ROWS: usize = 1 << 18;

/// Row numbers translated in one tight loop, in which the processor overlaps the cache misses.
const LOOKUPS_AT_ONCE: usize = 64;

/// For a merge that is not to be stopped.
pub static NEVER_STOPPED: AtomicBool = AtomicBool::new(false);

/// What becomes of the rows of adjacent runs.
pub struct Merge<'a> {
    runs: &'a [Arc<Run>],
    around: Around<'a>,
    stop: &'a AtomicBool,
    /// By input and row: the row's number in the result, or `GONE`.
    triples: Vec<Vec<u32>>,
    tombstones: Vec<Vec<u32>>,
    /// By row of the result: the input it comes from.
    triple_from: Vec<u8>,
    tombstone_from: Vec<u8>,
}

/// The indexes of a merged run.
pub struct Indexes {
    /// Orders of the triples.
    pub pos: Vec<u32>,
    /// See [`Rows::osp`].
    pub osp: Vec<u32>,
    /// Orders of the tombstones.
    pub tombstone_pos: Vec<u32>,
    /// See [`Rows::osp`].
    pub tombstone_osp: Vec<u32>,
    /// See [`Run::hash_prefix`].
    pub hash_prefix: Vec<u32>,
    /// See [`Run::hash_row`].
    pub hash_row: Vec<u32>,
    /// See [`Filters`].
    pub filters: [Vec<u8>; 3],
    /// Predicates of the triples.
    pub predicates: Predicates,
    /// See [`Rows::samples`], of the triples.
    pub samples: [Vec<u64>; 3],
}

/// The predicates of rows in the order of predicates: see [`Rows::predicates`].
#[derive(Default)]
pub struct Predicates {
    /// Each of them.
    pub listed: Vec<[u8; 32]>,
    /// Where the rows of each end.
    pub end: Vec<u32>,
}

impl Predicates {
    /// More rows than this of each on the average, or none is listed: where there are so many, their
    /// values are spread well enough to search by, and the list would cost more than half a byte a row.
    const ROWS_MIN: usize = 64;

    /// The rows at positions from `at` on have another predicate. `rows` is how many there are.
    fn begin(&mut self, predicate: &[u8], at: usize, rows: usize) {
        if self.listed.len() > rows / Self::ROWS_MIN {
            return;
        }
        if at > 0 {
            self.end.push(at as u32);
        }
        self.listed.push(predicate.try_into().expect("32 bytes"));
    }

    /// There are no more.
    fn finish(&mut self, rows: usize) {
        if self.listed.is_empty() || self.listed.len() > rows / Self::ROWS_MIN {
            *self = Self::default();
        } else {
            self.end.push(rows as u32);
        }
    }
}

impl<'a> Merge<'a> {
    /// Merges the rows of adjacent runs, oldest first, or those of one run alone. What newer runs
    /// mention is left out, and so are tombstones that no older run has anything for.
    ///
    /// Once `stop` is set, everything here ends soon and what it yields is not complete: whoever
    /// sets it must look at it before the result is used.
    ///
    /// # Panics
    /// With more than [`MERGE_RUNS_MAX`] runs.
    pub fn new(runs: &'a [Arc<Run>], around: Around<'a>, stop: &'a AtomicBool) -> Self {
        assert!(runs.len() <= MERGE_RUNS_MAX, "a merge of {} runs", runs.len());
        let gone = |rows: fn(&Run) -> &Rows| -> Vec<Vec<u32>> {
            runs.iter().map(|run| vec![GONE; rows(run).spo.len()]).collect()
        };
        let mut merge = Self {
            runs,
            around,
            stop,
            triples: gone(|run| &run.triples),
            tombstones: gone(|run| &run.tombstones),
            triple_from: Vec::new(),
            tombstone_from: Vec::new(),
        };
        // Streams 2i and 2i+1 are run i's triples and tombstones.
        let mut rows = KWay::new(runs.iter().flat_map(|run| {
            [&run.triples, &run.tombstones].map(|rows| (rows.sorted(Order::Spo), 0..rows.spo.len()))
        }));
        let mut newer = Mentions::of(around.newer);
        let mut older = around.older.map(Mentions::of);
        let mut read = 0;
        while let Some(newest) = rows.next_newest() {
            let (run, row) = (newest.stream / 2, newest.number as usize);
            if newer.any(newest.row) {
                // Decided elsewhere.
            } else if newest.stream % 2 == 0 {
                merge.triples[run][row] = merge.triple_from.len() as u32;
                merge.triple_from.push(run as u8);
            } else if older.as_mut().is_none_or(|older| older.any(newest.row)) {
                merge.tombstones[run][row] = merge.tombstone_from.len() as u32;
                merge.tombstone_from.push(run as u8);
            }
            if !merge.go_on(&mut read, 1) {
                break;
            }
        }
        merge
    }

    /// Now and then, by the rows `read`: gives pages back, and says whether to go on.
    fn go_on(&self, read: &mut usize, more: usize) -> bool {
        *read += more;
        if *read >= RELEASE_ROWS {
            *read = 0;
            self.release();
            return !self.is_stopped();
        }
        true
    }

    /// Whether `stop` is set.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Gives back the pages of the files that are read.
    fn release(&self) {
        let older = self.around.older.unwrap_or_default();
        for run in self.runs.iter().chain(self.around.newer).chain(older) {
            run.release_mapped();
        }
    }

    /// Number of triples in the result.
    pub fn triples_len(&self) -> usize {
        self.triple_from.len()
    }

    /// Number of tombstones in the result.
    pub fn tombstones_len(&self) -> usize {
        self.tombstone_from.len()
    }

    /// For each triple of the result in order: its input and its row number there.
    fn sources<'b>(
        from: &'b [u8],
        numbers: &'b [Vec<u32>],
    ) -> impl Iterator<Item = (usize, usize)> + use<'b> {
        let mut next = vec![0; numbers.len()];
        from.iter().map(move |run| {
            let run = usize::from(*run);
            let row =
                next[run] + numbers[run][next[run]..].iter().take_while(|number| **number == GONE).count();
            next[run] = row + 1;
            (run, row)
        })
    }

    /// The triples of the result in order.
    pub fn triples(&self) -> impl Iterator<Item = &'a Row> {
        let rows: Vec<&'a [Row]> = self.runs.iter().map(|run| &*run.triples.spo).collect();
        let mut read = 0;
        Self::sources(&self.triple_from, &self.triples).map(move |(run, row)| {
            self.go_on(&mut read, 1);
            &rows[run][row]
        })
    }

    /// The tombstones of the result in order.
    pub fn tombstones(&self) -> impl Iterator<Item = &'a Row> {
        let rows: Vec<&'a [Row]> = self.runs.iter().map(|run| &*run.tombstones.spo).collect();
        Self::sources(&self.tombstone_from, &self.tombstones).map(move |(run, row)| &rows[run][row])
    }

    /// `created_at` of the triples of the result in order.
    pub fn created_at(&self) -> impl Iterator<Item = f64> {
        let columns: Vec<&[f64]> = self.runs.iter().map(|run| &*run.created_at).collect();
        Self::sources(&self.triple_from, &self.triples).map(move |(run, row)| columns[run][row])
    }

    /// The metadata of the result's triples in order: row number and text. The texts stay where they
    /// are: they may be larger than everything else.
    pub fn texts(&self) -> Vec<(u32, &'a [u8])> {
        let mut texts: Vec<(u32, &[u8])> = Vec::new();
        for (run, numbers) in self.runs.iter().zip(&self.triples) {
            let numbers = run.metadata.row.iter().map(|row| numbers[*row as usize]).enumerate();
            let present = numbers.filter(|(_, number)| *number != GONE);
            texts.extend(present.filter_map(|(at, number)| Some((number, run.metadata.bytes_at(at)?))));
        }
        texts.sort_unstable_by_key(|(number, _)| *number);
        texts
    }

    /// The indexes and filters of the result.
    pub fn indexes(&self) -> Indexes {
        let rows = self.triples_len();
        let filtered = rows + self.tombstones_len() >= FILTER_ROWS_MIN;
        let subject = filter::build(&if filtered { self.subject_hashes() } else { Vec::new() });
        let mut predicates = Predicates::default();
        let mut keys = Vec::new();
        let mut orders = |order| {
            keys.clear();
            let mut add = |key: &[u8]| {
                if filtered {
                    keys.push(filter::key_hash(key));
                }
            };
            let mut of_triples = |key: &[u8], shared: usize, at: usize| {
                add(key);
                if order == Order::Pos && shared < 32 {
                    predicates.begin(&key[..32], at, rows);
                }
            };
            let triples = self.permutation(order, &self.triples, |run| &run.triples, &mut of_triples);
            let mut of_tombstones = |key: &[u8], _, _| add(key);
            let (tombstones, _) =
                self.permutation(order, &self.tombstones, |run| &run.tombstones, &mut of_tombstones);
            (triples, tombstones, filter::build(&keys))
        };
        let ((pos, pos_sampled), tombstone_pos, predicate_object) = orders(Order::Pos);
        let ((osp, osp_sampled), tombstone_osp, object) = orders(Order::Osp);
        drop(keys);
        predicates.finish(rows);
        let samples = if rows >= SAMPLED_ROWS_MIN {
            let spo_sampled: Vec<&Row> = self.triples().step_by(sample::EVERY).collect();
            // After the predicates that are listed, or where none is, there is one more stretch.
            let ends = predicates.end.iter().map(|end| *end as usize).chain([rows]);
            let mut read = 0;
            let mut go_on = |rows: usize| self.go_on(&mut read, rows);
            [
                sample::samples(Order::Spo, &spo_sampled, [rows], &mut go_on),
                sample::samples(Order::Pos, &pos_sampled, ends, &mut go_on),
                sample::samples(Order::Osp, &osp_sampled, [rows], &mut go_on),
            ]
        } else {
            Default::default()
        };
        let (hash_prefix, hash_row) = self.hashes();
        self.release();
        let filters = [subject, predicate_object, object];
        Indexes {
            pos,
            osp,
            tombstone_pos,
            tombstone_osp,
            hash_prefix,
            hash_row,
            filters,
            predicates,
            samples,
        }
    }

    /// Hashes of the result's subjects, each once among the triples and once among the tombstones.
    fn subject_hashes(&self) -> Vec<u64> {
        let mut hashes = Vec::new();
        let mut add = |rows: &mut dyn Iterator<Item = &'a Row>| {
            let mut last: Option<&Row> = None;
            for row in rows {
                if last.is_none_or(|last| last[..32] != row[..32]) {
                    hashes.push(filter::key_hash(&row[..32]));
                }
                last = Some(row);
            }
        };
        add(&mut self.triples());
        add(&mut self.tombstones());
        hashes
    }

    /// The result's permutation for an order, and the rows of it that are to be sampled. `distinct` is told
    /// of each distinct leading part (predicate‖object, or object), how many of its bytes are those of the
    /// one before (fewer than it has, 0 for the first), and at which position its rows begin.
    fn permutation(
        &self,
        order: Order,
        numbers: &[Vec<u32>],
        rows: fn(&Run) -> &Rows,
        distinct: &mut impl FnMut(&[u8], usize, usize),
    ) -> (Vec<u32>, Vec<&'a Row>) {
        let sorted = self.runs.iter().map(|run| rows(run).sorted(order));
        let mut merged = KWay::new(sorted.map(|sorted| (sorted, 0..sorted.len())));
        let length = if order == Order::Pos { 64 } else { 32 };
        let (mut permutation, mut sampled) = (Vec::new(), Vec::new());
        // Bytes that the row has in common with the last one that is in the result.
        let mut shared = 0;
        let mut read = 0;
        let mut fronts = Vec::with_capacity(LOOKUPS_AT_ONCE);
        let mut found = Vec::with_capacity(LOOKUPS_AT_ONCE);
        loop {
            fronts.clear();
            fronts.extend(std::iter::from_fn(|| merged.next()).take(LOOKUPS_AT_ONCE));
            found.clear();
            found.extend(fronts.iter().map(|front| numbers[front.stream][front.number as usize]));
            for (front, number) in fronts.iter().zip(&found) {
                shared = front.shared.min(shared);
                if *number != GONE {
                    if shared < length {
                        distinct(&order.key(front.row)[..length], shared, permutation.len());
                    }
                    if permutation.len().is_multiple_of(sample::EVERY) {
                        sampled.push(front.row);
                    }
                    permutation.push(*number);
                    shared = usize::MAX;
                }
            }
            if fronts.is_empty() || !self.go_on(&mut read, fronts.len()) {
                break;
            }
        }
        (permutation, sampled)
    }

    /// The result's hash index: merged by prefix alone, no hash is computed again.
    fn hashes(&self) -> (Vec<u32>, Vec<u32>) {
        let (mut prefixes, mut rows) = (Vec::new(), Vec::new());
        let mut next = vec![0; self.runs.len()];
        let code = |run: usize, at: usize| {
            self.runs[run].hash_prefix.get(at).map_or(ENDED, |prefix| u64::from(*prefix))
        };
        // Of equal prefixes any may come first.
        let any = &mut |_: &mut Player, _: &mut Player| true;
        let mut tree = Tree::new((0..self.runs.len()).map(|run| code(run, 0)), any);
        let mut places = Vec::with_capacity(LOOKUPS_AT_ONCE);
        loop {
            places.clear();
            while places.len() < LOOKUPS_AT_ONCE && tree.winner().code != ENDED {
                let Player { code: prefix, stream } = tree.winner();
                let run = stream as usize;
                places.push((prefix as u32, run, self.runs[run].hash_row[next[run]]));
                next[run] += 1;
                tree.replace(code(run, next[run]), any);
            }
            let found = places.iter().map(|(prefix, run, row)| (*prefix, self.triples[*run][*row as usize]));
            for (prefix, number) in found.filter(|(_, number)| *number != GONE) {
                prefixes.push(prefix);
                rows.push(number);
            }
            if places.is_empty() {
                return (prefixes, rows);
            }
        }
    }

    /// The merged run in memory.
    pub fn into_memory(self, id: u64) -> Run {
        let indexes = self.indexes();
        let [subject, predicate_object, object] = indexes.filters.map(Column::from);
        let mut texts = TextsBuilder::default();
        for (row, text) in self.texts() {
            texts.push(row, text);
        }
        Run {
            id,
            seqs: self.seqs(),
            triples: Rows {
                spo: Column::from(self.triples().copied().collect::<Vec<_>>()),
                pos: Column::from(indexes.pos),
                osp: Column::from(indexes.osp),
                predicates: Column::from(indexes.predicates.listed),
                predicate_end: Column::from(indexes.predicates.end),
                samples: indexes.samples.map(Column::from),
            },
            created_at: Column::from(self.created_at().collect::<Vec<_>>()),
            hash_prefix: Column::from(indexes.hash_prefix),
            hash_row: Column::from(indexes.hash_row),
            metadata: texts.finish(),
            tombstones: Rows {
                spo: Column::from(self.tombstones().copied().collect::<Vec<_>>()),
                pos: Column::from(indexes.tombstone_pos),
                osp: Column::from(indexes.tombstone_osp),
                ..Rows::default()
            },
            filters: Filters { subject, predicate_object, object },
            file: None,
        }
    }

    /// First and last sequence number of the result.
    pub fn seqs(&self) -> (u64, u64) {
        let first = self.runs.first().map_or(0, |run| run.seqs.0);
        (first, self.runs.last().map_or(0, |run| run.seqs.1))
    }
}
