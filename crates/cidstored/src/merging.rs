//! The thread that merges run files, beside the one that seals: memory never waits for a merge.

use crate::compaction::{Cause, Sizes};
use crate::health::Work;
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
    retry: Retry,
    /// Seals, when they were last looked at, and when a file had last come.
    seals: u64,
    sealed: Instant,
}

impl Merging {
    /// Merging of a store's files.
    pub fn new(shared: Arc<Shared>, mut merger: Merger) -> Self {
        let retry = Retry::new(Work::Merge, Arc::clone(&shared));
        let told = Arc::clone(&shared);
        merger.on_progress(move |progress| {
            if let Progress::Moved { read, written } = progress {
                told.metrics.merge_read_bytes_total.add(read);
                told.metrics.merge_written_bytes_total.add(written);
            }
            told.compaction.progress(progress, &|| told.engine().reader.stats().merges_overdue);
        });
        Self { shared, merger, retry, seals: 0, sealed: Instant::now() }
    }

    /// Works until the merger is stopped.
    pub fn run(mut self) {
        loop {
            let pause = self.retry.wait(Instant::now());
            // A seal rings, too, which is no reason to try what has just failed; the end is one to step,
            // since the merger then says so.
            if !pause.is_zero() && !self.shared.stop.is_wanted() {
                self.shared.merging.wait(pause);
                continue;
            }
            let wait = match self.work() {
                Err(StoreError::Stopped) => return,
                Err(_) if self.shared.stop.is_wanted() => return,
                Err(error) => self.retry.after(&error, Instant::now()),
                Ok(wait) => {
                    self.retry.went_well();
                    wait
                }
            };
            self.shared.merging.wait(wait);
        }
    }

    /// One piece of work. Returns how long to wait for the next.
    fn work(&mut self) -> Result<Duration, StoreError> {
        let unsettled = self.unsettled();
        let shared = Arc::clone(&self.shared);
        let sizes = || Sizes::of(&shared.engine().reader.stats());
        if shared.compaction.is_paused() && !shared.stop.is_wanted() && !sizes().overdue {
            self.merger.tidy()?;
            self.find_pending(sizes())?;
            return Ok(IDLE);
        }
        let merging = &shared.compaction;
        if merging.is_wanted() {
            // What must be comes first: a compaction may take hours, and files come meanwhile.
            let needed = shared.engine().reader.stats().merges_needed;
            let merged = needed && self.step(Effort::Needed, Cause::Needed)?
                || self.step(Effort::Everything, Cause::Compaction)?;
            if !merged && let Some(done) = merging.done(sizes()) {
                shared.metrics.compactions_total.one();
                tracing::info!(%done, "compacted");
            }
            return Ok(Duration::ZERO);
        }
        let needed = !unsettled.is_zero() || merging.is_started() || merging.is_paused();
        let (effort, cause) =
            if needed { (Effort::Needed, Cause::Needed) } else { (Effort::Settling, Cause::Settling) };
        if self.step(effort, cause)? {
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

    /// Returns whether something was merged.
    fn step(&mut self, effort: Effort, cause: Cause) -> Result<bool, StoreError> {
        let start = Instant::now();
        self.shared.compaction.begin(cause);
        let step = self.merger.step(effort);
        if self.shared.compaction.step_ended(matches!(step, Ok(Step::Merged { .. }))) {
            tracing::warn!("merging is paused, and there are too many small run files: some are merged");
        }
        let Step::Merged { runs, rows } = step? else { return Ok(false) };
        self.shared.metrics.merges_total.one();
        tracing::debug!(runs, rows, ?effort, elapsed = ?start.elapsed(), "merged");
        Ok(true)
    }

    /// What a compaction would do: found out where somebody has asked, since it reads all over the files.
    fn find_pending(&self, sizes: Sizes) -> Result<(), StoreError> {
        if self.shared.compaction.takes_wonder(sizes) {
            self.shared.compaction.set_pending(sizes, self.merger.pending()?);
        }
        Ok(())
    }
}
