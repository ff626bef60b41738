//! What the daemon counts.
//!
//! **Owns** every counter and histogram, their names and help texts, the Prometheus text, and the
//! rates of the last minute.
//!
//! **Invariants**
//! - Counting takes no lock.
//! - Every name begins with `cidstore_`; what is only known elsewhere (sizes, lags) is asked for at
//!   the moment of the scrape, as a [`Gauge`].

mod histogram;
mod rates;

pub use histogram::Histogram;
pub use rates::Window;

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that only grows.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn one(&self) {
        self.add(1);
    }

    /// Adds.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A value that is asked for when somebody looks.
pub struct Gauge {
    /// Name without the prefix.
    pub name: &'static str,
    /// What it is, with its unit.
    pub help: &'static str,
    /// Whether it only grows, so that Prometheus takes it for a counter.
    pub counter: bool,
    /// Its value.
    pub value: f64,
}

macro_rules! table {
    (counters { $($(#[doc = $help:literal])+ $counter:ident;)* }
     histograms { $($(#[doc = $hhelp:literal])+ $histogram:ident;)* }) => {
        /// All counters and histograms.
        #[derive(Default)]
        pub struct Metrics {
            $($(#[doc = $help])+ pub $counter: Counter,)*
            $($(#[doc = $hhelp])+ pub $histogram: Histogram,)*
        }

        impl Metrics {
            /// Every counter with its name and help.
            fn counters(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($counter), concat!($($help),+), self.$counter.get())),*]
            }

            fn histograms(&self) -> Vec<(&'static str, &'static str, &Histogram)> {
                vec![$((stringify!($histogram), concat!($($hhelp),+), &self.$histogram)),*]
            }
        }
    };
}

table! {
    counters {
        /// Requests received, of any kind.
        requests_total;
        /// Requests that were answered with an error.
        requests_refused_total;
        /// Requests refused with 429, which are among the refused.
        requests_overload_total;
        /// Bytes of requests.
        request_bytes_total;
        /// Replies sent.
        replies_total;
        /// Replies dropped because their client does not read.
        replies_dropped_total;
        /// Replies whose client had left.
        replies_gone_total;
        /// Clients that were disconnected because they did not read their replies.
        stalled_clients_ended_total;
        /// Messages received that were pushed.
        pushes_total;
        /// Pushed messages that were refused.
        pushes_refused_total;
        /// Times that pushing waited for the writer.
        push_waits_total;
        /// Triples inserted.
        triples_inserted_total;
        /// Triples deleted.
        triples_deleted_total;
        /// Mutations (requests) committed.
        mutations_total;
        /// Mutations that were repeats of earlier ones under the same idempotency key, and changed nothing.
        repeats_total;
        /// Mutations refused because another one came under their idempotency key.
        key_conflicts_total;
        /// Mutations refused because as many idempotency keys are remembered as may be.
        keys_refused_total;
        /// Group commits.
        commits_total;
        /// Mutations refused because the medium was full.
        full_refused_total;
        /// Times that the writer's queue was found locked.
        queue_contended_total;
        /// Times that the writer's queue was locked.
        queue_locked_total;
        /// Large reads that were handed to the pool.
        reads_pooled_total;
        /// Notifications sent.
        notifications_total;
        /// Times that notifications went on without a subscriber that did not keep up.
        slow_subscribers_total;
        /// Rejected pushes that were not announced, because there were too many at once.
        rejected_unannounced_total;
        /// Messages of subscribers that are no subscriptions.
        subscriber_garbage_total;
        /// Subscribers that were disconnected for asking for too many topics.
        subscribers_ended_total;
        /// Run files written by sealing.
        seals_total;
        /// Merges of run files.
        merges_total;
        /// Bytes that merges of run files have read.
        merge_read_bytes_total;
        /// Bytes that merges of run files have written.
        merge_written_bytes_total;
        /// Compactions that somebody started and that are done.
        compactions_total;
        /// Steps of sealing and merging that failed.
        maintenance_errors_total;
        /// Bytes of run files read against their checksums in the background.
        scrubbed_bytes_total;
        /// Times that all run files were read so.
        scrub_rounds_total;
        /// Log segments removed.
        segments_removed_total;
        /// HTTP requests.
        http_requests_total;
        /// HTTP requests refused with 429.
        http_limited_total;
        /// Triples found in memory by their hash.
        cache_memory_hits_total;
        /// Triples found in Redis by their hash.
        cache_redis_hits_total;
        /// Lookups by hash in the store.
        cache_misses_total;
        /// Lookups for which Redis was not asked, or did not have everything.
        cache_redis_skipped_total;
        /// Lookups for which Redis failed, or took too long.
        cache_redis_failed_total;
    }
    histograms {
        /// Time from a request's receipt to its reply.
        request_seconds;
        /// Time of a group commit, its sync included.
        commit_seconds;
        /// Time of sealing rows into a run file.
        seal_seconds;
    }
}

/// Powers of two, in nanoseconds, that bound the buckets told to Prometheus: 8 µs to 17 s.
const EXPORTED_POWERS: std::ops::RangeInclusive<usize> = 13..=34;

impl Metrics {
    /// The Prometheus text exposition format, version 0.0.4.
    pub fn prometheus(&self, gauges: &[Gauge]) -> String {
        let mut out = String::with_capacity(16 * 1024);
        for (name, help, value) in self.counters() {
            head(&mut out, name, help, "counter");
            let _ = writeln!(out, "cidstore_{name} {value}");
        }
        for gauge in gauges {
            head(&mut out, gauge.name, gauge.help, if gauge.counter { "counter" } else { "gauge" });
            let _ = writeln!(out, "cidstore_{} {}", gauge.name, gauge.value);
        }
        for (name, help, histogram) in self.histograms() {
            head(&mut out, name, help, "histogram");
            let counts = histogram.counts();
            for power in EXPORTED_POWERS {
                let le = (1u64 << power) as f64 / 1e9;
                let _ = writeln!(out, "cidstore_{name}_bucket{{le=\"{le}\"}} {}", counts.below(power));
            }
            let total = counts.total();
            let _ = writeln!(out, "cidstore_{name}_bucket{{le=\"+Inf\"}} {total}");
            let _ = writeln!(out, "cidstore_{name}_sum {}", counts.sum_ns as f64 / 1e9);
            let _ = writeln!(out, "cidstore_{name}_count {total}");
        }
        out
    }

    /// Every counter by name, for `stats`.
    pub fn values(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.counters().into_iter().map(|(name, _, value)| (name, value))
    }
}

fn head(out: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(out, "# HELP cidstore_{name} {}\n# TYPE cidstore_{name} {kind}", help.trim());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_text_has_every_number_with_help_and_type() {
        let metrics = Metrics::default();
        metrics.requests_total.add(3);
        metrics.commit_seconds.add(Duration::from_millis(2));
        let gauge = Gauge { name: "connections", help: "Open.", counter: false, value: 7.0 };
        let text = metrics.prometheus(&[gauge]);
        for line in [
            "# TYPE cidstore_requests_total counter",
            "cidstore_requests_total 3",
            "# TYPE cidstore_connections gauge",
            "cidstore_connections 7",
            "cidstore_commit_seconds_bucket{le=\"0.000008192\"} 0",
            "cidstore_commit_seconds_bucket{le=\"0.002097152\"} 1",
            "cidstore_commit_seconds_bucket{le=\"+Inf\"} 1",
            "cidstore_commit_seconds_sum 0.002",
            "cidstore_commit_seconds_count 1",
        ] {
            assert!(text.lines().any(|found| found == line), "no line {line:?} in\n{text}");
        }
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with("cidstore_") && value.parse::<f64>().is_ok(), "{line}");
        }
    }
}
