//! Which rows other runs mention: what a merge may leave out because of runs that it does not merge.
//!
//! A row that a newer run mentions is never read: the newest run that mentions a triple decides. A
//! tombstone hides the rows of older runs: where none of them mentions its triple, it hides nothing.

use crate::filter;
use crate::order::{Order, Row};
use crate::run::{Probe, Rows, Run};
use cidstore_types::Triple;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is known of the runs around those that are merged.
#[derive(Clone, Copy)]
pub struct Around<'a> {
    /// Newer runs that stay, on the disk too, at least as long as the result does. There may be others.
    pub newer: &'a [Arc<Run>],
    /// All the older runs; `None` where nobody can say what they mention.
    pub older: Option<&'a [Arc<Run>]>,
}

impl Around<'_> {
    /// Nothing is known but whether anything older exists.
    pub fn bottom(bottom: bool) -> Self {
        Self { newer: &[], older: if bottom { Some(&[]) } else { None } }
    }
}

/// Tells of ascending rows whether any of some runs mentions them.
pub struct Mentions<'a> {
    runs: Vec<Cursor<'a>>,
    subject: Option<&'a [u8]>,
}

/// A run, and how far it was looked through.
struct Cursor<'a> {
    run: &'a Run,
    triples: usize,
    tombstones: usize,
    /// It may mention the subject that is asked for.
    may: bool,
}

impl<'a> Mentions<'a> {
    /// Of these runs.
    pub fn of(runs: &'a [Arc<Run>]) -> Self {
        let cursor = |run: &'a Arc<Run>| Cursor { run, triples: 0, tombstones: 0, may: false };
        Self { runs: runs.iter().map(cursor).collect(), subject: None }
    }

    /// Whether any of them mentions the row, which is not less than the one before.
    pub fn any(&mut self, row: &'a Row) -> bool {
        if self.runs.is_empty() {
            return false;
        }
        let subject = &row[..32];
        if self.subject != Some(subject) {
            self.subject = Some(subject);
            let hash = filter::key_hash(subject);
            for cursor in &mut self.runs {
                cursor.may = filter::may_contain(&cursor.run.filters.subject, hash);
            }
        }
        self.runs.iter_mut().any(|cursor| cursor.may && cursor.mentions(row))
    }
}

impl Cursor<'_> {
    fn mentions(&mut self, row: &Row) -> bool {
        let found = |rows: &Rows, from: &mut usize| {
            *from = rows.sorted(Order::Spo).lower_bound_from(row, *from);
            rows.spo.get(*from) == Some(row)
        };
        found(&self.run.triples, &mut self.triples) || found(&self.run.tombstones, &mut self.tombstones)
    }
}

/// Rows of a run that are looked at to learn how many of them are dead; of a smaller one all.
const SAMPLE_ROWS: usize = 1024;

/// After so many of them the pages that were mapped for them are given back: each may be one of 2 MiB.
const RELEASE_ROWS: u128 = 64;

/// What a merge would leave out of a run because of those around it, about.
pub struct Dead {
    /// Rows that newer runs mention.
    pub superseded: usize,
    /// Of the others, tombstones for which no older run has anything.
    pub idle: usize,
    /// By newer run: whether it is one that has to be asked.
    pub by: Vec<bool>,
}

impl Dead {
    /// Of a run, by a sample of its rows. Once `stop` is set it ends soon, and says nothing: whoever sets
    /// it must look at it before the result is used.
    pub fn of(run: &Run, around: &Around<'_>, stop: &AtomicBool) -> Self {
        let triples = run.triples.spo.len();
        let stride = run.len().div_ceil(SAMPLE_ROWS).max(1);
        let mentions = |runs: &[Arc<Run>], row: &Row| {
            let probe = Probe::of_triple(&Triple(*row));
            let mentions = |run: &Arc<Run>| run.may_mention(&probe) && run.verdict(&Triple(*row)).is_some();
            runs.iter().position(mentions)
        };
        let (mut looked, mut superseded, mut idle) = (0, 0, 0);
        let mut by = vec![false; around.newer.len()];
        for start in (0..run.len()).step_by(stride) {
            // Each row may have to wait for the disk in each run.
            if stop.load(Ordering::Relaxed) {
                break;
            }
            // Somewhere within the stride: what was deleted may have a period of its own.
            let at = start + (start / stride).wrapping_mul(0x9e37_79b9) % stride;
            let row = match at.checked_sub(triples) {
                None => run.triples.spo.get(at),
                Some(at) => run.tombstones.spo.get(at),
            };
            let Some(row) = row else { continue };
            looked += 1;
            if looked % RELEASE_ROWS == 0 {
                let older = around.older.unwrap_or_default();
                around.newer.iter().chain(older).for_each(|run| run.release_mapped());
                run.release_mapped();
            }
            if let Some(newer) = mentions(around.newer, row) {
                superseded += 1;
                by[newer] = true;
            } else if at >= triples && around.older.is_some_and(|older| mentions(older, row).is_none()) {
                idle += 1;
            }
        }
        let of_all = |rows: usize| (run.len() as u128 * rows as u128 / looked.max(1)) as usize;
        Self { superseded: of_all(superseded), idle: of_all(idle), by }
    }

    /// All of it.
    pub fn rows(&self) -> usize {
        self.superseded + self.idle
    }

    /// All of it by weight, of that run.
    pub fn weight(&self, run: &Run) -> usize {
        (self.rows() as u128 * run.weight() as u128 / run.len().max(1) as u128) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::Builder;
    use cidstore_types::{Cid, Op};

    #[test]
    fn a_sample_of_which_nobody_wants_to_know_ends_at_once() {
        let run = || {
            let mut builder = Builder::default();
            for n in 0..100 {
                let cid = Cid::from_two_lanes([0, n]);
                builder.push(Op::Insert, &Triple::new(cid, cid, cid), 1.0, None);
            }
            builder.finish(1, (1, 100))
        };
        let (older, newer) = (run(), [Arc::new(run())]);
        let around = Around { newer: &newer, older: None };
        assert_eq!(Dead::of(&older, &around, &AtomicBool::new(false)).rows(), 100);
        assert_eq!(Dead::of(&older, &around, &AtomicBool::new(true)).rows(), 0);
    }
}
