//! Trying again what failed for now: when, and who is told.

use crate::health::Work;
use crate::shared::Shared;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The first pause after a failure; each is twice the one before.
const PAUSE_MIN: Duration = Duration::from_millis(250);

/// The longest pause. Mutations may be waiting for a seal, which is also the lesser work to do in vain; an
/// attempt to compact looks at rows all over the files, and nobody waits for it.
fn pause_max(work: Work) -> Duration {
    match work {
        Work::Seal => Duration::from_secs(8),
        Work::Merge => Duration::from_secs(32),
        Work::Compact => Duration::from_secs(64),
    }
}

/// The failures of one thread's work, one after the other.
pub struct Retry {
    work: Work,
    shared: Arc<Shared>,
    pause: Duration,
    /// No sooner is it tried again, whoever wakes the thread meanwhile.
    due: Option<Instant>,
    /// What the log says already.
    told: Option<String>,
}

/// An error without the numbers in it: each attempt has a file of its own.
fn kind(error: &str) -> String {
    error.split(|c: char| c.is_ascii_digit()).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("#")
}

impl Retry {
    /// No failure yet.
    pub fn new(work: Work, shared: Arc<Shared>) -> Self {
        Self { work, shared, pause: PAUSE_MIN, due: None, told: None }
    }

    /// How long to wait before the next step; nothing when it may be made.
    pub fn wait(&self, now: Instant) -> Duration {
        self.due.map_or(Duration::ZERO, |due| due.saturating_duration_since(now))
    }

    /// A step succeeded.
    pub fn went_well(&mut self) {
        (self.pause, self.due, self.told) = (PAUSE_MIN, None, None);
        if self.shared.health.set_trouble(self.work, None) {
            tracing::info!("{} works again", self.work.name());
        }
    }

    /// What is tried from now on is something else: nothing is known of it.
    pub fn begin_anew(&mut self) {
        (self.pause, self.due, self.told) = (PAUSE_MIN, None, None);
        self.forget();
    }

    /// It is not asked for any more, so that a failure says nothing; that it would succeed neither.
    pub fn forget(&mut self) {
        self.shared.health.set_trouble(self.work, None);
    }

    /// A step failed. Returns how long to wait before the next.
    pub fn after(&mut self, error: &impl ToString, now: Instant) -> Duration {
        self.shared.metrics.maintenance_errors_total.one();
        let error = error.to_string();
        let kind = Some(kind(&error));
        if self.told != kind {
            tracing::error!(error, "{} failed; nothing is lost, trying again", self.work.name());
            self.told = kind;
        }
        self.shared.health.set_trouble(self.work, Some(error));
        let pause = self.pause;
        self.due = Some(now + pause);
        self.pause = (self.pause * 2).min(pause_max(self.work));
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn pauses_grow_and_end_with_success() {
        let shared = Arc::new(Shared::new(Config::default()));
        let mut retry = Retry::new(Work::Seal, Arc::clone(&shared));
        let start = Instant::now();
        assert_eq!(retry.wait(start), Duration::ZERO);
        let mut now = start;
        for _ in 0..10 {
            let pause = retry.after(&"no room", now);
            assert_eq!(retry.wait(now), pause);
            assert_eq!(retry.wait(now + pause / 2), pause / 2, "woken early");
            now += pause;
            assert_eq!(retry.wait(now), Duration::ZERO);
        }
        // 250 ms to 4 s, and then 8 s each.
        assert_eq!(now - start, Duration::from_millis(7750) + 5 * Duration::from_secs(8));
        retry.went_well();
        assert_eq!(retry.wait(start), Duration::ZERO);
        assert_eq!(retry.after(&"no room", now), PAUSE_MIN);
    }

    #[test]
    fn an_error_is_the_same_whatever_its_numbers() {
        let full = |run: &str| kind(&format!("cannot write /data/c.h5.runs/{run}.h5: No space left"));
        assert_eq!(full("0000017"), full("0000018"));
        assert_eq!(full("9"), full("10"));
        assert_ne!(full("9"), kind("cannot write /data/c.h5.runs/9.h5: Input/output error"));
    }
}
