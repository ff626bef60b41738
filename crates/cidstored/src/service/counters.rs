//! The replies to `stats` and `metrics`.

use crate::http::gauges;
use crate::shared::Shared;
use serde_json::{Map, Value, json};
use std::time::Instant;

/// Sizes, positions, lags and every counter by its name in the metrics, and which store it is.
pub fn stats(shared: &Shared) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("status".into(), "ok".into());
    for gauge in gauges(shared) {
        // Whole numbers as such, so that a client may use them as counts and positions.
        let whole = gauge.value.fract() == 0.0 && gauge.value.abs() < 9e15;
        let value = if whole { json!(gauge.value as i64) } else { json!(gauge.value) };
        map.insert(gauge.name.into(), value);
    }
    for (name, value) in shared.metrics.values() {
        map.insert(name.into(), value.into());
    }
    map.insert("mirror_state".into(), shared.mirror.state().as_str().into());
    if let Some(engine) = shared.engine.get() {
        let digits = engine.reader.store_id().map(|byte| format!("{byte:02x}"));
        map.insert("store_id".into(), digits.concat().into());
    }
    map
}

/// The same with the six names that older clients ask for. Times are in seconds.
pub fn metrics(shared: &Shared) -> Map<String, Value> {
    let rates = shared.window.rates(&shared.metrics, Instant::now());
    let mut map = stats(shared);
    for (name, value) in [
        ("latency_p99", rates.latency_p99_s),
        ("throughput_ops", rates.throughput_ops),
        ("buffer_occupancy", shared.queue.occupancy()),
        ("flush_duration", rates.flush_duration_s),
        ("lock_contention_ratio", rates.lock_contention_ratio),
        ("error_rate", rates.error_rate),
    ] {
        map.insert(name.into(), value.into());
    }
    map
}
