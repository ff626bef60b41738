//! Rates of the last minute, from samples that are taken each few seconds.

use super::Metrics;
use super::histogram::Counts;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How far back rates look.
const SPAN: Duration = Duration::from_mins(1);
/// Samples are this far apart, so that a window holds few.
const DISTANCE: Duration = Duration::from_secs(5);

struct Sample {
    at: Instant,
    requests: u64,
    pushes: u64,
    refused: u64,
    locked: u64,
    contended: u64,
    latency: Counts,
    seal: Counts,
}

impl Sample {
    fn take(metrics: &Metrics, at: Instant) -> Self {
        Self {
            at,
            requests: metrics.requests_total.get(),
            pushes: metrics.pushes_total.get(),
            refused: metrics.requests_refused_total.get() + metrics.pushes_refused_total.get(),
            locked: metrics.queue_locked_total.get(),
            contended: metrics.queue_contended_total.get(),
            latency: metrics.request_seconds.counts(),
            seal: metrics.seal_seconds.counts(),
        }
    }
}

/// What the last minute was like; of a shorter time right after the start.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rates {
    /// Time that 99 of 100 requests did not exceed, in seconds.
    pub latency_p99_s: f64,
    /// Requests and pushed messages a second.
    pub throughput_ops: f64,
    /// Mean time of sealing memory into a file, in seconds; over the process's life if the last
    /// minute had none.
    pub flush_duration_s: f64,
    /// Share of the writer queue's lockings that found it locked.
    pub lock_contention_ratio: f64,
    /// Share of requests and pushed messages that were refused.
    pub error_rate: f64,
}

/// Samples of the last minute.
pub struct Window(Mutex<VecDeque<Sample>>);

impl Window {
    /// A window that begins now.
    pub fn new(metrics: &Metrics) -> Self {
        Self(Mutex::new([Sample::take(metrics, Instant::now())].into()))
    }

    /// To be called now and then.
    pub fn tick(&self, metrics: &Metrics, now: Instant) {
        let mut samples = self.0.lock().expect("a panic ends the process");
        if samples.back().is_none_or(|last| now.duration_since(last.at) >= DISTANCE) {
            samples.push_back(Sample::take(metrics, now));
        }
        // The oldest one stays until the next is as old as the span.
        while samples.len() > 1 && now.duration_since(samples[1].at) >= SPAN {
            samples.pop_front();
        }
    }

    /// The rates between the oldest sample and now.
    pub fn rates(&self, metrics: &Metrics, now: Instant) -> Rates {
        let samples = self.0.lock().expect("a panic ends the process");
        let Some(then) = samples.front() else { return Rates::default() };
        let now = Sample::take(metrics, now);
        let seconds = now.at.duration_since(then.at).as_secs_f64().max(1e-3);
        let ratio = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        let messages = (now.requests - then.requests) + (now.pushes - then.pushes);
        let recent = now.seal.since(&then.seal);
        let seals = if recent.total() > 0 { recent } else { now.seal };
        Rates {
            latency_p99_s: now.latency.since(&then.latency).quantile(0.99),
            throughput_ops: messages as f64 / seconds,
            flush_duration_s: ratio(seals.sum_ns, seals.total()) / 1e9,
            lock_contention_ratio: ratio(now.contended - then.contended, now.locked - then.locked),
            error_rate: ratio(now.refused - then.refused, messages),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_last_minute_only() {
        let metrics = Metrics::default();
        let window = Window::new(&metrics);
        let start = Instant::now();
        metrics.requests_total.add(1_000_000);
        metrics.requests_refused_total.add(1_000_000);
        metrics.request_seconds.add(Duration::from_secs(100));
        for s in (5..=120).step_by(5) {
            window.tick(&metrics, start + Duration::from_secs(s));
        }
        metrics.requests_total.add(60);
        metrics.pushes_total.add(60);
        metrics.pushes_refused_total.add(30);
        metrics.request_seconds.add(Duration::from_millis(1));
        let rates = window.rates(&metrics, start + Duration::from_mins(2));
        assert!((1.9..2.1).contains(&rates.throughput_ops), "{rates:?}");
        assert!((rates.error_rate - 0.25).abs() < 1e-9, "{rates:?}");
        assert!((0.001..0.00126).contains(&rates.latency_p99_s), "{rates:?}");
        let samples = window.0.lock().unwrap().len();
        assert!(samples <= 14, "{samples}");
    }
}
