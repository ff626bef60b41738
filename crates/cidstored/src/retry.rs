//! Trying again what failed for now: when, and who is told.

use crate::health::Work;
use crate::shared::Shared;
use std::sync::Arc;
use std::time::Duration;

/// The first pause after a failure, and the longest; each is twice the one before.
const PAUSES: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(30)];

/// The failures of one thread's work, one after the other.
pub struct Retry {
    work: Work,
    shared: Arc<Shared>,
    pause: Duration,
}

impl Retry {
    /// No failure yet.
    pub fn new(work: Work, shared: Arc<Shared>) -> Self {
        Self { work, shared, pause: PAUSES[0] }
    }

    /// A step succeeded.
    pub fn went_well(&mut self) {
        self.pause = PAUSES[0];
        if self.shared.health.set_trouble(self.work, None) {
            tracing::info!("{} works again", self.work.name());
        }
    }

    /// A step failed. Returns how long to wait before the next.
    pub fn after(&mut self, error: &impl ToString) -> Duration {
        self.shared.metrics.maintenance_errors_total.one();
        let error = error.to_string();
        if self.shared.health.set_trouble(self.work, Some(error.clone())) {
            tracing::error!(error, "{} failed; nothing is lost, trying again", self.work.name());
        }
        let pause = self.pause;
        self.pause = (self.pause * 2).min(PAUSES[1]);
        pause
    }
}
