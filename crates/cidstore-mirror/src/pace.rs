//! How fast to go: the pause before the next attempt, and how much to send at once. Pure rules;
//! time and chance come in as arguments.

use std::time::{Duration, Instant};

/// Step of the pause between attempts: the n-th failure in a row waits n steps.
const BACKOFF_STEP: Duration = Duration::from_millis(50);

/// Most bytes of commands in one pipeline; one row more may go over it.
pub const PIPELINE_BYTES_MAX: usize = 512 * 1024;
/// Most commands in one pipeline.
pub const PIPELINE_COMMANDS_MAX: usize = 2048;
/// Fewest commands in one pipeline, however often connections break.
const PIPELINE_COMMANDS_MIN: usize = 16;
/// Pipelines sent and not yet answered. Two keep Redis busy while replies travel.
pub(crate) const PIPELINES_IN_FLIGHT_MAX: usize = 2;

/// The pause before the next attempt after `failures` (≥ 1) in a row: linear, capped, and spread
/// over its upper half by `chance` (0..1) so that many daemons do not come back at once.
pub(crate) fn backoff(failures: u32, max: Duration, chance: f64) -> Duration {
    let full = BACKOFF_STEP.saturating_mul(failures.max(1)).min(max);
    full.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
}

/// Size of the next pipelines: halved when a connection broke before it confirmed anything, so
/// that a line that breaks all the time still gets something through; doubled with each success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Most commands in a pipeline.
    pub commands: usize,
    /// Most bytes in a pipeline.
    pub bytes: usize,
}

impl Bounds {
    pub fn with_commands(commands: usize) -> Self {
        let commands = commands.clamp(PIPELINE_COMMANDS_MIN, PIPELINE_COMMANDS_MAX);
        Self { commands, bytes: PIPELINE_BYTES_MAX / PIPELINE_COMMANDS_MAX * commands }
    }

    pub fn smaller(self) -> Self {
        Self::with_commands(self.commands / 2)
    }

    pub fn larger(self) -> Self {
        Self::with_commands(self.commands * 2)
    }
}

/// Shortest time over which a rate is told.
const RATE_WINDOW: Duration = Duration::from_secs(1);

/// How fast a total grows, over the last second or since it was looked at before.
#[derive(Debug)]
pub(crate) struct Rate {
    since: Instant,
    from: u64,
    per_second: f64,
}

impl Rate {
    pub fn new(now: Instant) -> Self {
        Self { since: now, from: 0, per_second: 0.0 }
    }

    /// The rate, with the total as it is `now`.
    pub fn look(&mut self, now: Instant, total: u64) -> f64 {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= RATE_WINDOW {
            self.per_second = (total - self.from) as f64 / elapsed.as_secs_f64();
            (self.since, self.from) = (now, total);
        }
        self.per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_capped() {
        let max = Duration::from_secs(2);
        assert_eq!(backoff(1, max, 1.0), Duration::from_millis(50));
        assert_eq!(backoff(1, max, 0.0), Duration::from_millis(25));
        assert_eq!(backoff(4, max, 1.0), Duration::from_millis(200));
        for failures in [40, 41, u32::MAX] {
            assert_eq!(backoff(failures, max, 1.0), max);
            assert_eq!(backoff(failures, max, 0.0), max / 2);
        }
    }

    #[test]
    fn a_rate_is_that_of_the_last_second_and_falls_when_nothing_comes() {
        let begin = Instant::now();
        let mut rate = Rate::new(begin);
        let mut at = |ms, total| rate.look(begin + Duration::from_millis(ms), total);
        assert_eq!((at(500, 400), at(1000, 1000), at(1500, 9000)), (0.0, 1000.0, 1000.0));
        assert_eq!((at(3000, 9000), at(4000, 9000)), (4000.0, 0.0));
    }

    #[test]
    fn pipelines_shrink_to_a_floor_and_recover() {
        let full = Bounds::with_commands(PIPELINE_COMMANDS_MAX);
        let mut bounds = full;
        for _ in 0..50 {
            bounds = bounds.smaller();
        }
        assert_eq!(bounds.commands, PIPELINE_COMMANDS_MIN);
        for _ in 0..50 {
            bounds = bounds.larger();
        }
        assert_eq!((bounds, bounds.bytes), (full, PIPELINE_BYTES_MAX));
    }
}
