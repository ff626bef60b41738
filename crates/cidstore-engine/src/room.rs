//! Room on the disk: how much of it a merge of files may take, and which merges fit into that.
//!
//! What merges, above all what waits half-way, must not have mutations refused. So it leaves a reserve to
//! the log and to what is sealed meanwhile, without which the log does not become shorter. A lack of room
//! decides which files are merged, as other bounds do; it is an error where nothing fits that would be
//! merged otherwise.

use crate::compaction;
use crate::error::StoreError;
use crate::list::{Claim, candidates};
use crate::maintain::{Merging, Shared};
use crate::mentions::{Around, Dead};
use crate::output::Writing;
use crate::policy::{self, Lack};
use crate::run::{Run, WEIGHT_BYTES};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// When a merge begins it leaves room for a segment of the log, and for as much again that is sealed
/// meanwhile, but for no more than this.
const SEALED_BYTES_MAX: u64 = 256 << 20;

/// Room for the results of merges.
pub(crate) struct Room {
    dir: PathBuf,
    available: u64,
    reserve: u64,
}

impl Room {
    /// There is always enough.
    pub(crate) fn endless() -> Self {
        Self { dir: PathBuf::new(), available: u64::MAX, reserve: 0 }
    }

    /// Rows that there is room for, by weight.
    pub(crate) fn rows(&self) -> usize {
        usize::try_from(self.available.saturating_sub(self.reserve) / WEIGHT_BYTES).unwrap_or(usize::MAX)
    }

    /// What is to be said where nothing fits.
    pub(crate) fn lacks(&self, Lack(rows): Lack) -> StoreError {
        self.lacks_bytes((rows as u64).saturating_mul(WEIGHT_BYTES).saturating_add(self.reserve))
    }

    /// The same, where so many bytes are needed, with the reserve.
    pub(crate) fn lacks_bytes(&self, needed: u64) -> StoreError {
        StoreError::NoRoomToMerge { dir: self.dir.clone(), available: self.available, needed }
    }

    /// Whether there are fewer bytes, with the reserve.
    pub(crate) fn is_less_than(&self, needed: u64) -> bool {
        self.available < needed
    }
}

fn reserve(segment_bytes: u64) -> u64 {
    segment_bytes.saturating_add(segment_bytes.min(SEALED_BYTES_MAX))
}

impl Shared {
    fn reserve(&self) -> u64 {
        reserve(self.options.segment_bytes)
    }

    /// Bytes that there must be for a merge's file of so many to be begun: with the reserve.
    pub(crate) fn needed_for(&self, bytes: u64) -> u64 {
        bytes.saturating_add(self.reserve())
    }

    /// What there is now.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn room(&self) -> Result<Room, StoreError> {
        let dir = self.lock_catalog().runs_dir();
        let available = self.disk.available_bytes(&dir)?;
        Ok(Room { dir, available, reserve: self.reserve() })
    }

    /// Removes what is kept for other programs, if that makes room for so many bytes. Returns whether it does.
    pub(crate) fn keep_nothing(&self, missing: u64) -> bool {
        if self.garbage.bytes() < missing {
            return false;
        }
        if let Err(error) = self.garbage.collect(&*self.disk, 0) {
            tracing::warn!(%error, "a run file that nobody needs cannot be removed");
        }
        true
    }

    /// Whether a file of a merge may be begun, or gone on with.
    ///
    /// # Errors
    /// [`StoreError::NoRoomToMerge`].
    pub(crate) fn check_room(&self, dir: &Path, writing: Writing) -> Result<(), StoreError> {
        let needed = match writing {
            Writing::Begins { bytes } => self.needed_for(bytes),
            // To end makes more room than to give up.
            Writing::Goes { is_all: true, .. } => return Ok(()),
            // What is sealed may have taken the rest.
            Writing::Goes { left, .. } => left.saturating_add(self.options.segment_bytes),
        };
        let mut available = self.disk.available_bytes(dir)?;
        if available < needed && self.keep_nothing(needed - available) {
            available = self.disk.available_bytes(dir)?;
        }
        if available < needed {
            return Err(StoreError::NoRoomToMerge { dir: dir.to_owned(), available, needed });
        }
        Ok(())
    }

    /// Claims the run files to merge though nobody asks for it, if there are some.
    ///
    /// # Errors
    /// [`StoreError::NoRoomToMerge`]; [`StoreError::Stopped`].
    pub(crate) fn claim_files(&self, merging: Merging, room: &Room) -> Result<Option<Claim>, StoreError> {
        let (files_max, rows_max) = (self.options.small_files_max, self.options.run_rows_max);
        let snapshot = self.list.snapshot();
        let files = &snapshot.runs;
        let runs = candidates(files, |run| run.in_memory() || run.damage().is_some());
        let parts = files.iter().map(|run| (run.triples.spo.len(), run.tombstones.spo.len()));
        let parts: Vec<_> = parts.collect();
        let worn = policy::worn(&runs, &parts, rows_max);
        let mut left = None;
        let mut worn = |room: usize| {
            let widest = worn.clone()?;
            let rows: usize = runs[widest.clone()].iter().map(|run| run.rows).sum();
            if rows <= room || *left.get_or_insert_with(|| self.left(&files[widest.clone()])) <= room {
                return Some(widest);
            }
            policy::worn(&runs, &parts, rows_max.min(room))
        };
        let window = match merging {
            // What is worn can wait for room: without it nothing fails that is needed.
            Merging::Needed => {
                let needed = |room| policy::pick_needed(&runs, files_max, rows_max, room);
                let window = policy::within(room.rows(), &runs, needed);
                window.map(|window| window.or_else(|| worn(room.rows())))
            }
            Merging::Settling => policy::within(room.rows(), &runs, |room| {
                policy::pick_settling(&runs, rows_max.min(room)).or_else(|| worn(room))
            }),
            Merging::Everything => unreachable!("a compaction claims what it has chosen"),
        };
        self.refuse_if_stopped()?;
        let window = window.map_err(|lack| room.lacks(lack))?;
        Ok(window.map(|window| {
            let older = (window.start == 0).then(Vec::new);
            self.list.claim_window(&files[window], Vec::new(), older)
        }))
    }

    /// Rows that a merge of the oldest runs leaves, by a sample of each, and by weight.
    fn left(&self, runs: &[Arc<Run>]) -> usize {
        let left = |(at, run): (usize, &Arc<Run>)| {
            // Nothing is older than all these, so that no tombstone stays.
            let around = Around { newer: &runs[at + 1..], older: Some(&[]) };
            policy::left(run.weight(), Dead::of(run, &around, &self.stop_merging).weight(run))
        };
        let rows = runs.iter().enumerate().map(left).sum();
        compaction::give_back(runs);
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_a_segment_and_as_much_again_but_bounded() {
        assert_eq!([64 << 20, 1 << 30, u64::MAX].map(reserve), [128 << 20, 1280 << 20, u64::MAX]);
    }

    #[test]
    fn what_is_missing_is_more_than_there_is() {
        for available in [0, 999, 1000, 1127, 1128, 5000] {
            let room = Room { dir: PathBuf::new(), available, reserve: 1000 };
            let StoreError::NoRoomToMerge { needed, .. } = room.lacks(Lack(room.rows() + 1)) else {
                unreachable!("it is that")
            };
            assert!(needed > available, "{needed} > {available}");
        }
    }
}
