//! The thread that merges run files, beside the one that seals: memory never waits for a merge.

use crate::health::Work;
use crate::retry::Retry;
use crate::shared::Shared;
use cidstore_engine::{Merger, Merging as Effort, Step, StoreError};
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
    /// When the last file came.
    sealed: Instant,
}

impl Merging {
    /// Merging of a store's files.
    pub fn new(shared: Arc<Shared>, merger: Merger) -> Self {
        let retry = Retry::new(Work::Merge, Arc::clone(&shared));
        Self { shared, merger, retry, sealed: Instant::now() }
    }

    /// Works until the merger is stopped.
    pub fn run(mut self) {
        loop {
            let pause = self.retry.wait(Instant::now());
            // A seal rings, too, which is no reason to try what has just failed; the end is one to step,
            // since the merger then says so.
            if !pause.is_zero() && !self.shared.stop.is_wanted() {
                self.wait(pause);
                continue;
            }
            let start = Instant::now();
            let unsettled = SETTLE_AFTER.saturating_sub(start - self.sealed);
            let effort = if unsettled.is_zero() { Effort::Settling } else { Effort::Needed };
            let wait = match self.merger.step(effort) {
                Err(StoreError::Stopped) => return,
                Err(_) if self.shared.stop.is_wanted() => return,
                Err(error) => self.retry.after(&error, Instant::now()),
                Ok(step) => {
                    self.retry.went_well();
                    if let Step::Merged { runs, rows } = step {
                        self.shared.metrics.merges_total.one();
                        tracing::debug!(runs, rows, ?effort, elapsed = ?start.elapsed(), "merged");
                        Duration::ZERO
                    } else if unsettled.is_zero() {
                        IDLE
                    } else {
                        unsettled
                    }
                }
            };
            self.wait(wait);
        }
    }

    fn wait(&mut self, at_most: Duration) {
        if self.shared.merging.wait(at_most) {
            self.sealed = Instant::now();
        }
    }
}
