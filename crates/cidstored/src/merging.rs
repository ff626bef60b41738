//! The thread that merges run files, beside the one that seals: memory never waits for a merge. It also takes
//! files back into service of which a page could not be read, since nobody else may take any out of the list.

use crate::compaction::{Cause, Sizes};
use crate::health::Work;
use crate::reopening::Reopening;
use crate::retry::Retry;
use crate::shared::Shared;
use cidstore_engine::{Merger, Merging as Effort, Progress, Step, StoreError};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the thread sleeps without work; a seal wakes it.
const IDLE: Duration = Duration::from_secs(1);

/// When no file has come for this long, none is expected for a while. Under a load that is worth the
/// name they come several times a second.
const SETTLE_AFTER: Duration = Duration::from_secs(2);

/// The thread's own state.
pub struct Merging {
    shared: Arc<Shared>,
    merger: Merger,
    /// What must be, and what can wait: the one is never held up because the other fails.
    needed: Retry,
    others: Retry,
    /// Files that are out of service.
    reopening: Reopening,
    /// Seals, when they were last looked at, and when a file had last come.
    seals: u64,
    sealed: Instant,
}

/// The merger was stopped.
#[derive(Debug)]
struct Ended;

impl Merging {
    /// Merging of a store's files.
    pub fn new(shared: Arc<Shared>, mut merger: Merger) -> Self {
        let retry = |work| Retry::new(work, Arc::clone(&shared));
        let (needed, others) = (retry(Work::Merge), retry(Work::Compact));
        let (told, stop) = (Arc::clone(&shared), merger.stopper());
        merger.on_progress(move |progress| {
            if let Progress::Moved { read, written } = progress {
                told.metrics.merge_read_bytes_total.add(read);
                told.metrics.merge_written_bytes_total.add(written);
            }
            let is_overdue = || told.engine().reader.stats().merges_overdue;
            if !told.compaction.progress(progress, &is_overdue, &|| told.health.lacks_room()) {
                stop.give_up();
            }
        });
        let (reopening, sealed) = (Reopening::default(), Instant::now());
        Self { shared, merger, needed, others, reopening, seals: 0, sealed }
    }

    /// Works until the merger is stopped.
    pub fn run(mut self) {
        while let Ok(wait) = self.work() {
            self.shared.merging.wait(wait);
        }
    }

    /// One piece of work. Returns how long to wait for the next.
    fn work(&mut self) -> Result<Duration, Ended> {
        // First, and whatever merging is asked for or has failed with: somebody may be waiting for an answer.
        // Nothing but the end is an error of it.
        self.reopening.step(&mut self.merger).map_err(|_| Ended)?;
        let unsettled = self.unsettled();
        let shared = Arc::clone(&self.shared);
        let sizes = || Sizes::of(&shared.engine().reader.stats());
        let merging = &shared.compaction;
        if merging.takes_cancel() {
            self.merger.forget_compaction();
            self.others.begin_anew();
        }
        if merging.is_paused() && !shared.stop.is_wanted() && !sizes().overdue {
            self.others.forget();
            self.attempt(Effort::Needed, |merging| merging.merger.tidy())?;
            self.find_pending(sizes())?;
            return Ok(IDLE);
        }
        let wanted = merging.is_wanted();
        let settled = unsettled.is_zero() && !merging.is_started() && !merging.is_paused();
        // What must be comes first: a compaction may take hours, and files come meanwhile.
        if shared.engine().reader.stats().merges_needed || !wanted && !settled {
            if self.step(Effort::Needed, Cause::Needed)? == Some(true) {
                return Ok(Duration::ZERO);
            }
        } else {
            self.needed.forget();
        }
        if !wanted && !settled {
            self.others.forget();
        }
        if wanted {
            let merged = self.step(Effort::Everything, Cause::Compaction)?;
            if merged == Some(false)
                && let Some(done) = merging.done(sizes())
            {
                shared.metrics.compactions_total.one();
                tracing::info!(%done, "compacted");
            }
            return Ok(if merged.is_some() { Duration::ZERO } else { IDLE });
        }
        if settled && self.step(Effort::Settling, Cause::Settling)? == Some(true) {
            return Ok(Duration::ZERO);
        }
        self.find_pending(sizes())?;
        Ok(if unsettled.is_zero() { IDLE } else { unsettled.min(IDLE) })
    }

    /// How long to wait until no more files are expected.
    fn unsettled(&mut self) -> Duration {
        let seals = self.shared.metrics.seals_total.get();
        if std::mem::replace(&mut self.seals, seals) != seals {
            self.sealed = Instant::now();
        }
        SETTLE_AFTER.saturating_sub(self.sealed.elapsed())
    }

    fn retry(&mut self, effort: Effort) -> &mut Retry {
        match effort {
            Effort::Needed => &mut self.needed,
            Effort::Settling | Effort::Everything => &mut self.others,
        }
    }

    /// Does it unless it failed a moment ago. `None` where it did, or does now.
    fn attempt<T>(
        &mut self,
        effort: Effort,
        work: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<Option<T>, Ended> {
        // The end is one to step, since the merger then says so.
        if !self.retry(effort).wait(Instant::now()).is_zero() && !self.shared.stop.is_wanted() {
            return Ok(None);
        }
        match work(self) {
            Ok(done) => {
                self.retry(effort).went_well();
                Ok(Some(done))
            }
            Err(StoreError::Stopped) => Err(Ended),
            Err(StoreError::GivenUp) => Ok(None),
            Err(_) if self.shared.stop.is_wanted() => Err(Ended),
            Err(error) => {
                self.retry(effort).after(&error, Instant::now());
                Ok(None)
            }
        }
    }

    /// Returns whether something was merged; `None` where that failed, or is not tried again yet.
    fn step(&mut self, effort: Effort, cause: Cause) -> Result<Option<bool>, Ended> {
        self.attempt(effort, |merging| {
            let (shared, start) = (&merging.shared, Instant::now());
            shared.compaction.begin(cause);
            let step = merging.merger.step(effort);
            if shared.compaction.step_ended(matches!(step, Ok(Step::Merged { .. }))) {
                tracing::warn!("merging is paused, and there are too many small run files: some are merged");
            }
            let Step::Merged { runs, rows } = step? else { return Ok(false) };
            shared.metrics.merges_total.one();
            tracing::debug!(runs, rows, ?effort, elapsed = ?start.elapsed(), "merged");
            Ok(true)
        })
    }

    /// What a compaction would do: found out where somebody has asked, since it reads all over the files.
    fn find_pending(&self, sizes: Sizes) -> Result<(), Ended> {
        if self.shared.compaction.takes_wonder(sizes) {
            // Nothing but the end keeps it from being found out.
            let pending = self.merger.pending().map_err(|_| Ended)?;
            self.shared.compaction.set_pending(sizes, pending);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::shared::Engine;
    use cidstore_disk::sim::SimDisk;
    use cidstore_engine::{Durability, Store, StoreOptions};
    use cidstore_proto::CompactAction;
    use cidstore_types::{Batch, Cid, Mutation, Op, Triple};
    use std::ops::Range;
    use std::path::Path;

    fn file(store: &mut Store, rows: Range<u64>) {
        let row = |n| Triple::new(Cid::from_two_lanes([0, n]), Cid::default(), Cid::default());
        let batch = Mutation::Batch(Batch::new(Op::Insert, 1.0, rows.map(row).collect()));
        store.commit(&[batch], Durability::Os).unwrap().remove(0).unwrap();
        store.maintainer().checkpoint().unwrap();
    }

    #[test]
    fn one_that_waits_for_room_can_be_cancelled_and_the_next_does_not_wait() {
        let disk = SimDisk::new();
        let options = StoreOptions { segment_bytes: 64 << 10, ..StoreOptions::default() };
        let path = Path::new("/data/store.h5");
        let (mut store, _) = Store::open(Arc::new(disk.clone()), path, options).unwrap();
        let shared = Arc::new(Shared::new(Config::default()));
        assert!(shared.engine.set(Engine { reader: store.reader(), log: store.log() }).is_ok());
        let mut merging = Merging::new(Arc::clone(&shared), store.maintainer().split().1);
        file(&mut store, 0..200);
        file(&mut store, 200..400);
        let act = |action| shared.compaction.act(action, Sizes::default());
        act(CompactAction::Start);
        disk.set_capacity(Some(disk.used()));
        assert_eq!(merging.work().unwrap(), IDLE);
        // For long.
        while merging.others.after(&"no room", Instant::now()) < Duration::from_secs(64) {}
        assert!(shared.health.trouble(Work::Compact).is_some());
        act(CompactAction::Cancel);
        merging.work().unwrap();
        assert_eq!(shared.health.trouble(Work::Compact), None);
        assert!(!shared.compaction.is_started());
        disk.set_capacity(None);
        // Not of the one that was cancelled.
        file(&mut store, 400..500);
        act(CompactAction::Start);
        assert_eq!(merging.work().unwrap(), Duration::ZERO);
        assert_eq!(store.reader().stats().file_runs, 1);
    }

    #[test]
    fn what_must_be_merged_does_not_wait_for_a_compaction_without_room() {
        let disk = SimDisk::new();
        let options = StoreOptions { segment_bytes: 64 << 10, small_files_max: 3, ..StoreOptions::default() };
        let path = Path::new("/data/store.h5");
        let (mut store, _) = Store::open(Arc::new(disk.clone()), path, options).unwrap();
        let shared = Arc::new(Shared::new(Config::default()));
        assert!(shared.engine.set(Engine { reader: store.reader(), log: store.log() }).is_ok());
        let mut merging = Merging::new(Arc::clone(&shared), store.maintainer().split().1);
        file(&mut store, 0..200);
        file(&mut store, 200..400);
        shared.compaction.act(CompactAction::Start, Sizes::default());
        disk.set_capacity(Some(disk.used()));
        let troubles = || [Work::Merge, Work::Compact].map(|work| shared.health.trouble(work).is_some());
        assert_eq!(merging.work().unwrap(), IDLE);
        assert_eq!(troubles(), [false, true]);
        // For long.
        while merging.others.after(&"no room", Instant::now()) < Duration::from_secs(64) {}
        disk.set_capacity(None);
        file(&mut store, 400..410);
        file(&mut store, 410..420);
        assert!(store.reader().stats().merges_needed);
        assert_eq!(merging.work().unwrap(), Duration::ZERO);
        assert_eq!((shared.metrics.merges_total.get(), store.reader().stats().file_runs), (1, 1));
        // Nor does that make it be tried sooner, or its trouble pass for over.
        assert!(merging.others.wait(Instant::now()) > Duration::ZERO);
        assert_eq!(troubles(), [false, true]);
        // What it was to compact is merged, and its trouble over.
        merging.others.went_well();
        assert_eq!(merging.work().unwrap(), Duration::ZERO);
        assert!(!shared.compaction.is_started());
        // Nor is the next one held up by what must be and has no room.
        shared.compaction.act(CompactAction::Start, Sizes::default());
        for n in 420..424 {
            file(&mut store, n..n + 1);
        }
        disk.set_capacity(Some(disk.used()));
        assert_eq!(merging.work().unwrap(), IDLE);
        assert_eq!(troubles(), [true, true]);
        disk.set_capacity(None);
        merging.others.went_well();
        while merging.needed.after(&"no room", Instant::now()) < Duration::from_secs(32) {}
        assert_eq!(merging.work().unwrap(), Duration::ZERO);
        assert_eq!(store.reader().stats().file_runs, 1, "compacted");
        assert_eq!(merging.work().unwrap(), Duration::ZERO);
        assert!(!shared.compaction.is_started());
        assert_eq!(troubles(), [false, false]);
    }
}
