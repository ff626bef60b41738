//! An open loop: requests are due at fixed times, whether or not the last one was answered in time,
//! and latency counts from when a request was due. A loop that waits for each reply before it thinks
//! of the next request would ask less while the server stalls, and count a stall once instead of for
//! everybody who would have asked meanwhile.

use anyhow::Result;
use std::thread;
use std::time::{Duration, Instant};

/// Where the time comes from.
pub trait Clock {
    /// Since the start.
    fn now(&self) -> Duration;
    /// Returns at that time, or at once when it is past.
    fn sleep_until(&self, at: Duration);
}

/// The machine's.
#[derive(Debug, Clone, Copy)]
pub struct Real {
    /// What times are counted from.
    pub start: Instant,
}

impl Clock for Real {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep_until(&self, at: Duration) {
        thread::sleep(at.saturating_sub(self.now()));
    }
}

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// When it should have been sent.
    pub due: Duration,
    /// When it was: later where the one before took too long, or this program was not woken in time.
    pub sent: Duration,
    /// When it was answered.
    pub done: Duration,
}

impl Sample {
    /// From when it was due to its answer.
    pub fn latency(&self) -> Duration {
        self.done.saturating_sub(self.due)
    }
}

/// Makes requests `first`, `first + step`, … of a schedule with one request every `interval`, until the
/// schedule reaches `end`; several connections share a schedule by their steps. One that is late makes
/// up for it as fast as it can.
///
/// # Errors
/// Of a request, which ends the loop.
pub fn paced(
    clock: &impl Clock,
    interval: Duration,
    end: Duration,
    (first, step): (u64, u64),
    mut request: impl FnMut(u64) -> Result<()>,
) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for n in (first..).step_by(step as usize) {
        // Not by adding intervals, whose rounding would add up.
        let due = Duration::from_nanos((interval.as_nanos() * u128::from(n)) as u64);
        if due >= end {
            break;
        }
        clock.sleep_until(due);
        let sent = clock.now();
        request(n)?;
        samples.push(Sample { due, sent, done: clock.now() });
    }
    Ok(samples)
}

/// How often requests, in the order in which they were due, took longer than `limit`; those that waited for the same thing count once.
pub fn stalls(samples: &[Sample], limit: Duration) -> usize {
    let mut stalls = 0;
    let mut until = Duration::ZERO;
    for sample in samples.iter().filter(|sample| sample.latency() > limit) {
        if stalls == 0 || sample.due > until {
            stalls += 1;
        }
        until = until.max(sample.done);
    }
    stalls
}

/// The samples that were under way during one of these times, which are in order, and the others.
pub fn split(samples: &[Sample], times: &[(Duration, Duration)]) -> (Vec<Sample>, Vec<Sample>) {
    samples.iter().partition(|sample| {
        let next = times.partition_point(|(_, to)| *to < sample.due);
        times.get(next).is_some_and(|(from, _)| *from <= sample.done)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    struct Fake(Cell<Duration>);

    impl Clock for Fake {
        fn now(&self) -> Duration {
            self.0.get()
        }

        fn sleep_until(&self, at: Duration) {
            self.0.set(self.0.get().max(at));
        }
    }

    const MS: Duration = Duration::from_millis(1);

    fn run(step: (u64, u64), takes: impl Fn(u64) -> Duration) -> Vec<Sample> {
        let clock = Fake(Cell::new(Duration::ZERO));
        paced(&clock, 10 * MS, 1000 * MS, step, |n| {
            clock.0.set(clock.now() + takes(n));
            Ok(())
        })
        .unwrap()
    }

    #[test]
    fn a_stall_counts_for_all_who_would_have_asked_meanwhile() {
        let samples = run((0, 1), |n| if n == 20 { 100 * MS } else { MS });
        assert_eq!(samples.len(), 100, "a schedule is kept, whatever happens");
        assert!(samples[..20].iter().all(|s| s.latency() == MS && s.sent == s.due));
        assert_eq!(samples[20].latency(), 100 * MS);
        // Due 10 ms after the one that stalled, sent when that was answered.
        assert_eq!((samples[21].due, samples[21].sent, samples[21].latency()), (210 * MS, 300 * MS, 91 * MS));
        assert_eq!(samples[22].latency(), 82 * MS);
        assert_eq!(samples[32].latency(), MS);
        assert_eq!(stalls(&samples, 50 * MS), 1, "all of it is one stall");
        assert_eq!(stalls(&samples, 100 * MS), 0);
        let twice = run((0, 1), |n| if n % 50 == 20 { 100 * MS } else { MS });
        assert_eq!(stalls(&twice, 50 * MS), 2);
    }

    #[test]
    fn connections_share_a_schedule() {
        let due = |step| run(step, |_| MS).into_iter().map(|s| s.due).collect::<Vec<_>>();
        let mut both = [due((0, 2)), due((1, 2))].concat();
        both.sort_unstable();
        assert_eq!(both, due((0, 1)));
        let clock = Fake(Cell::new(Duration::ZERO));
        assert!(paced(&clock, MS, 9 * MS, (0, 1), |_| anyhow::bail!("no")).is_err());
    }

    #[test]
    fn samples_belong_to_the_times_that_they_touch() {
        let samples = run((0, 1), |n| if n == 20 { 15 * MS } else { MS });
        // Within, touching an end, and where only the long one reaches in.
        let times = [(5 * MS, 31 * MS), (214 * MS, 214 * MS), (995 * MS, 2000 * MS)];
        let (during, between) = split(&samples, &times);
        let due: Vec<_> = during.iter().map(|s| s.due.as_millis()).collect();
        assert_eq!(due, [10, 20, 30, 200, 210]);
        assert_eq!(during.len() + between.len(), samples.len());
        assert_eq!(split(&samples, &[]).1, samples);
    }
}
