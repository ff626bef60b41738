//! Whether the threads that matter still come by, for the service manager's watchdog.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Whose pulse is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Organ {
    /// Requests and replies.
    Req,
    /// Notifications.
    Publisher,
    /// Commits.
    Writer,
}

const ORGANS: [Organ; 3] = [Organ::Req, Organ::Publisher, Organ::Writer];

/// When each thread came by last. Each does at least twice a second, unless it is stuck.
pub struct Pulses {
    start: Instant,
    last_ms: [AtomicU64; ORGANS.len()],
}

impl Default for Pulses {
    fn default() -> Self {
        Self { start: Instant::now(), last_ms: Default::default() }
    }
}

impl Pulses {
    /// The thread is here.
    pub fn beat(&self, organ: Organ) {
        self.last_ms[organ as usize].store(self.start.elapsed().as_millis() as u64, Relaxed);
    }

    /// A thread that has not come by for that long.
    pub fn missing(&self, patience: Duration) -> Option<Organ> {
        let now = self.start.elapsed().as_millis() as u64;
        let late = |organ: &Organ| {
            let last = self.last_ms[*organ as usize].load(Relaxed);
            Duration::from_millis(now.saturating_sub(last)) > patience
        };
        ORGANS.into_iter().find(late)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stays_away_is_missed() {
        let pulses = Pulses::default();
        assert_eq!(pulses.missing(Duration::from_mins(1)), None);
        std::thread::sleep(Duration::from_millis(30));
        pulses.beat(Organ::Req);
        pulses.beat(Organ::Writer);
        assert_eq!(pulses.missing(Duration::from_millis(20)), Some(Organ::Publisher));
    }
}
