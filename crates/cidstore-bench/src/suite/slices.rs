//! How the rate of a load develops: the time of each ten million triples of it.

use crate::ask::Asker;
use anyhow::Result;
use cidstore_bench::report::{Report, Unit};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Triples of a slice.
pub const SLICE: u64 = 10_000_000;

/// How often the daemon is asked how far it is.
const EVERY: Duration = Duration::from_millis(100);

/// Asks the daemon how much it has stored, ten times a second, until it is told to stop.
pub struct Timeline {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<(Instant, u64)>>>,
}

impl Timeline {
    /// Starts to ask, on a connection of its own.
    ///
    /// # Errors
    /// Of libzmq.
    pub fn start(endpoint: &str) -> Result<Self> {
        let asker = Asker::connect(endpoint)?;
        let before = asker.stats()?.seq;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut points = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                points.push((Instant::now(), asker.stats()?.seq - before));
                thread::sleep(EVERY);
            }
            Ok(points)
        });
        Ok(Self { stop, thread })
    }

    /// Stops: seconds since `start`, and how many triples were stored by then.
    ///
    /// # Errors
    /// Of libzmq, while it was asking.
    pub fn end(self, start: Instant) -> Result<Vec<(f64, u64)>> {
        self.stop.store(true, Ordering::Relaxed);
        let points = self.thread.join().expect("the thread that asks panicked")?;
        Ok(points
            .into_iter()
            .map(|(at, seq)| (at.saturating_duration_since(start).as_secs_f64(), seq))
            .collect())
    }
}

/// Triples a second of each whole slice, its ends interpolated between the points around them.
fn rates(points: &[(f64, u64)], slice: u64) -> Vec<f64> {
    let mut rates = Vec::new();
    let mut last = 0.0;
    for pair in points.windows(2) {
        let ((t0, n0), (t1, n1)) = (pair[0], pair[1]);
        while n0 < n1 && n1 >= slice * (rates.len() as u64 + 1) {
            let mark = slice * (rates.len() as u64 + 1);
            let at = t0 + (t1 - t0) * mark.saturating_sub(n0) as f64 / (n1 - n0) as f64;
            rates.push(slice as f64 / (at - last));
            last = at;
        }
    }
    rates
}

/// Adds a figure for each slice of a load that has more than one.
pub fn report(report: &mut Report, mode: &str, mut points: Vec<(f64, u64)>, seconds: f64, triples: u64) {
    if triples <= SLICE {
        return;
    }
    points.retain(|(at, _)| *at < seconds);
    points.insert(0, (0.0, 0));
    points.push((seconds, triples));
    for (i, rate) in rates(&points, SLICE).into_iter().enumerate() {
        let (from, to) = (i as u64 * SLICE / 1_000_000, (i as u64 + 1) * SLICE / 1_000_000);
        report.add(&format!("ingest {mode}, {from} M to {to} M"), Unit::TriplesPerSecond, rate, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_end_between_the_points_around_them() {
        // 100 a second for two seconds, nothing for one, then 200 a second.
        let points = [(0.0, 0), (1.0, 100), (2.0, 200), (3.0, 200), (4.0, 400)];
        assert_eq!(rates(&points, 100), [100.0, 100.0, 100.0 / 1.5, 200.0]);
        // One step over several slices, and a rest that is none.
        assert_eq!(rates(&[(0.0, 0), (4.0, 400), (5.0, 450)], 100), [100.0; 4]);
        assert_eq!(rates(&[(0.0, 0), (1.0, 99)], 100), [0.0; 0]);
    }

    #[test]
    fn short_loads_have_no_slices() {
        let mut figures = Report::default();
        report(&mut figures, "x", vec![(1.0, 5)], 10.0, SLICE);
        assert_eq!(figures.median_of("ingest x, 0 M to 10 M"), None);
        report(&mut figures, "x", vec![(10.0, SLICE), (99.0, 7)], 30.0, 2 * SLICE);
        assert_eq!(figures.median_of("ingest x, 0 M to 10 M"), Some(1e6));
        assert_eq!(figures.median_of("ingest x, 10 M to 20 M"), Some(0.5e6));
    }
}
