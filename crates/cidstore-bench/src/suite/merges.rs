//! When the daemon was merging run files: the processor time of its thread `merge`, looked at often.

use crate::watch::ThreadTime;
use anyhow::Result;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often to look.
const EVERY: Duration = Duration::from_millis(5);
/// Share of the time between two looks from which on the thread is at work; looking for work, once a
/// second, takes less.
const SHARE: f64 = 0.1;
/// A merge may wait so long for the disk or a processor, and still be the same one.
const GAP: Duration = Duration::from_millis(100);

/// From when to when, since a common start.
type Times = Vec<(Duration, Duration)>;

/// Looks until told to stop.
pub struct Merges {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Times>>,
}

impl Merges {
    /// Starts to look at the process; times count from `start`.
    ///
    /// # Errors
    /// When it has no such thread.
    pub fn watch(pid: u32, start: Instant) -> Result<Self> {
        let time = ThreadTime::of(pid, "merge")?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut times = Times::new();
            let (mut last_at, mut last) = (start.elapsed(), time.nanos()?);
            while !stopped.load(Ordering::Relaxed) {
                thread::sleep(EVERY);
                let (at, spent) = (start.elapsed(), time.nanos()?);
                let busy = Duration::from_nanos(spent - last);
                if busy.as_secs_f64() >= SHARE * at.saturating_sub(last_at).as_secs_f64() {
                    extend(&mut times, last_at, at);
                }
                (last_at, last) = (at, spent);
            }
            Ok(times)
        });
        Ok(Self { stop, thread })
    }

    /// Stops looking: when merges were under way, in order.
    ///
    /// # Errors
    /// When the thread's time could not be read.
    pub fn end(self) -> Result<Times> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the thread that looks panicked")
    }
}

/// Adds a time to those that there are, as a part of the last one if it is close.
fn extend(times: &mut Times, from: Duration, to: Duration) {
    match times.last_mut() {
        Some(last) if from <= last.1 + GAP => last.1 = to,
        _ => times.push((from, to)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_gaps_are_bridged() {
        let ms = Duration::from_millis;
        let mut times = Times::new();
        for (from, to) in [(0, 5), (5, 10), (60, 65), (300, 305)] {
            extend(&mut times, ms(from), ms(to));
        }
        assert_eq!(times, [(ms(0), ms(65)), (ms(300), ms(305))]);
    }
}
