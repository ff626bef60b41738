//! Times, counted in buckets of a quarter of a power of two.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

const BUCKETS: usize = 64 * 4;

/// Counts of durations; adding is two atomic additions.
pub struct Histogram {
    counts: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

/// The counts at one moment.
#[derive(Debug, Clone)]
pub struct Counts {
    counts: Box<[u64; BUCKETS]>,
    /// Total time in nanoseconds.
    pub sum_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [const { AtomicU64::new(0) }; BUCKETS], sum_ns: AtomicU64::new(0) }
    }
}

/// Bucket of a time: its power of two and the next two bits.
fn bucket(ns: u64) -> usize {
    if ns < 4 {
        return ns as usize;
    }
    let power = ns.ilog2() as usize;
    power * 4 + ((ns >> (power - 2)) & 3) as usize
}

/// First nanosecond beyond a bucket.
fn end(bucket: usize) -> u64 {
    if bucket < 8 {
        return bucket as u64 + 1;
    }
    let (power, quarter) = (bucket / 4, bucket as u64 % 4);
    u64::try_from(u128::from(5 + quarter) << (power - 2)).unwrap_or(u64::MAX)
}

impl Histogram {
    /// Counts one.
    pub fn add(&self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(ns)].fetch_add(1, Relaxed);
        self.sum_ns.fetch_add(ns, Relaxed);
    }

    /// The counts now.
    pub fn counts(&self) -> Counts {
        let counts = Box::new(std::array::from_fn(|i| self.counts[i].load(Relaxed)));
        Counts { counts, sum_ns: self.sum_ns.load(Relaxed) }
    }
}

impl Counts {
    /// What was counted after `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let counts = Box::new(std::array::from_fn(|i| self.counts[i].saturating_sub(earlier.counts[i])));
        Self { counts, sum_ns: self.sum_ns.saturating_sub(earlier.sum_ns) }
    }

    /// How many.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// A time that the given share of them does not exceed, in seconds; 0 of none. At most a
    /// quarter too large.
    pub fn quantile(&self, share: f64) -> f64 {
        let wanted = (self.total() as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (i, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                return end(i) as f64 / 1e9;
            }
        }
        0.0
    }

    /// How many took less than `2^power` nanoseconds.
    pub fn below(&self, power: usize) -> u64 {
        self.counts[..power * 4].iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_falls_into_the_bucket_that_ends_beyond_it() {
        for ns in (0..5000).chain([u64::MAX / 2, u64::MAX - 1]).chain((2..63).map(|p| (1 << p) - 1)) {
            let i = bucket(ns);
            assert!(ns < end(i), "{ns} in {i} that ends at {}", end(i));
            let lies_before = [4, 5, 6, 7].contains(&i) || i == 0 || bucket(end(i - 1)) > i - 1;
            assert!(lies_before, "{ns}");
        }
        assert_eq!(bucket(1 << 20), 80);
    }

    #[test]
    fn quantiles_of_known_times() {
        let histogram = Histogram::default();
        for micros in 1..=100 {
            histogram.add(Duration::from_micros(micros));
        }
        let before = histogram.counts();
        assert_eq!(before.total(), 100);
        let p99 = before.quantile(0.99);
        assert!((99e-6..=99e-6 * 1.25).contains(&p99), "{p99}");
        assert_eq!(before.below(64), 100);
        histogram.add(Duration::from_secs(1));
        let later = histogram.counts().since(&before);
        assert_eq!(later.total(), 1);
        assert!((1.0..1.25).contains(&later.quantile(0.5)));
        assert!(Histogram::default().counts().quantile(0.99).abs() < f64::EPSILON);
    }
}
