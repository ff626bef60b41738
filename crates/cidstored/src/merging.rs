//! The thread that merges run files, beside the one that seals: memory never waits for a merge.

use crate::health::Work;
use crate::retry::Retry;
use crate::shared::Shared;
use cidstore_engine::{Merger, Step, StoreError};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the thread sleeps without work; a seal wakes it.
const IDLE: Duration = Duration::from_secs(1);

/// The thread's own state.
pub struct Merging {
    shared: Arc<Shared>,
    merger: Merger,
    retry: Retry,
}

impl Merging {
    /// Merging of a store's files.
    pub fn new(shared: Arc<Shared>, merger: Merger) -> Self {
        let retry = Retry::new(Work::Merge, Arc::clone(&shared));
        Self { shared, merger, retry }
    }

    /// Works until the merger is stopped.
    pub fn run(mut self) {
        loop {
            let start = Instant::now();
            let pause = self.retry.wait(start);
            // A seal rings, too, which is no reason to try what has just failed; the end is one to step,
            // since the merger then says so.
            if !pause.is_zero() && !self.shared.stop.is_wanted() {
                self.shared.merging.wait(pause);
                continue;
            }
            let wait = match self.merger.step() {
                Err(StoreError::Stopped) => return,
                Err(_) if self.shared.stop.is_wanted() => return,
                Err(error) => self.retry.after(&error, Instant::now()),
                Ok(step) => {
                    self.retry.went_well();
                    if let Step::Merged { runs, rows } = step {
                        self.shared.metrics.merges_total.one();
                        tracing::debug!(runs, rows, elapsed = ?start.elapsed(), "merged");
                        Duration::ZERO
                    } else {
                        IDLE
                    }
                }
            };
            if !wait.is_zero() {
                self.shared.merging.wait(wait);
            }
        }
    }
}
