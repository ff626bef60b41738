//! What is only known at the moment of the scrape.

use crate::metrics::Gauge;
use crate::shared::{Shared, now};

/// Sizes, positions and lags, for the metrics.
pub fn gauges(shared: &Shared) -> Vec<Gauge> {
    let mut all = Vec::with_capacity(40);
    let mut push = |name, help, value: f64, counter| all.push(Gauge { name, help, counter, value });
    let ready = shared.health.not_ready().is_none();
    push("ready", "1 while mutations and queries are served.", f64::from(u8::from(ready)), false);
    push("uptime_seconds", "Time since the start.", shared.started.elapsed().as_secs_f64(), false);
    push("writer_queue_items", "Mutations that wait for the writer.", shared.queue.len() as f64, false);
    push(
        "writer_queue_occupancy",
        "How full the writer's queue is, 0 to 1.",
        shared.queue.occupancy(),
        false,
    );
    let held = shared.outstanding.bytes() as f64;
    push("reply_bytes_outstanding", "Bytes of large replies that no client has taken yet.", held, false);
    if let Some(connections) = shared.connections.get() {
        push("connections", "Open connections to the ZeroMQ sockets.", connections.open() as f64, false);
        let refused = connections.refused() as f64;
        push("connections_refused_total", "Connections closed because there were too many.", refused, true);
        let failed = connections.accept_failed() as f64;
        push("accepts_failed_total", "Connections that the system could not give.", failed, true);
        let failed = connections.handshake_failed() as f64;
        push("handshakes_failed_total", "Connections that ended in their handshake.", failed, true);
    }
    if let Some(cache) = &shared.reading.cache {
        push("cache_entries", "Triples kept in memory by their hash.", cache.entries() as f64, false);
        push("cache_bytes", "Bytes that they take, about.", cache.bytes() as f64, false);
        let evictions = cache.evictions() as f64;
        push("cache_evictions_total", "Triples that went to make room for others.", evictions, true);
    }
    if let Some(limits) = &shared.http_limits {
        let alone = f64::from(u8::from(limits.is_alone()));
        push("http_limits_alone", "1 while limits are to be shared, and Redis does not count.", alone, false);
    }
    if let Some(engine) = shared.engine.get() {
        let stats = engine.reader.stats();
        push("seq", "Last visible mutation.", stats.seq as f64, false);
        push("sealed_seq", "Last mutation that is in run files.", stats.sealed_seq as f64, false);
        push("idempotency_keys", "Mutations remembered for their repeats.", stats.keys as f64, false);
        push("memory_runs", "Runs in memory.", stats.memory_runs as f64, false);
        push("memory_rows", "Rows of runs in memory.", stats.memory_rows as f64, false);
        push("memory_bytes", "Bytes of runs in memory.", stats.memory_bytes as f64, false);
        push("file_runs", "Run files.", stats.file_runs as f64, false);
        push("file_rows", "Rows of run files.", stats.file_rows as f64, false);
        push("file_bytes", "Bytes of run files.", stats.file_bytes as f64, false);
        push(
            "small_files",
            "Run files at most half as large as they may be.",
            stats.small_files as f64,
            false,
        );
        let merging = shared.compaction.gauges();
        let flag = |yes: bool| f64::from(u8::from(yes));
        push(
            "compaction_running",
            "1 while a compaction that was started is not done.",
            flag(merging.started),
            false,
        );
        push("merging_paused", "1 while somebody has merging wait.", flag(merging.paused), false);
        push(
            "merging_overdue",
            "1 while merging passes over pause and rate.",
            flag(stats.merges_overdue),
            false,
        );
        let rate = merging.bytes_per_second as f64;
        push(
            "merging_bytes_per_second",
            "What merging may read and write a second; 0 for no limit.",
            rate,
            false,
        );
        let done = merging.bytes_done as f64;
        push("merge_bytes_done", "Bytes that the merge under way has read and written.", done, false);
        let total = merging.bytes_total as f64;
        push(
            "merge_bytes_total",
            "Bytes that the merge under way will read and write, at most.",
            total,
            false,
        );
        push("damaged_run_files", "Run files known to be damaged.", stats.damaged.len() as f64, false);
        push("tombstones", "Tombstones in all runs.", stats.tombstones as f64, false);
        push("rows_written_total", "Rows written by sealing and merging.", stats.rows_written as f64, true);
        push("wal_bytes", "Bytes of the log.", engine.log.bytes() as f64, false);
        push("wal_segments", "Segments of the log.", engine.log.segments() as f64, false);
        push("wal_first_seq", "Oldest mutation in the log.", engine.log.first_seq() as f64, false);
        let mirror = shared.mirror.report(engine.log.last_seq(), now());
        push("mirror_lag", "Mutations that Redis misses.", mirror.lag as f64, false);
        push("mirror_lag_seconds", "Age of the oldest of them.", mirror.lag_seconds, false);
        push("mirror_cursor", "Redis has everything up to here.", mirror.cursor as f64, false);
        let live = mirror.state == cidstore_mirror::State::Live;
        push("mirror_live", "1 while Redis follows closely.", f64::from(u8::from(live)), false);
        let counters = mirror.counters;
        push("mirror_sets_total", "SET commands confirmed.", counters.sets as f64, true);
        push("mirror_unlinks_total", "UNLINK commands confirmed.", counters.unlinks as f64, true);
        push("mirror_connects_total", "Connections made to Redis.", counters.connects as f64, true);
        push("mirror_rebuilds_total", "Rebuilds of Redis.", counters.rebuilds as f64, true);
        push("mirror_rows_per_second", "Triples written or removed a second, of late.", mirror.rate, false);
        push("mirror_bytes_total", "Bytes of confirmed commands, about.", counters.bytes as f64, true);
        push(
            "mirror_reconnects_total",
            "Connections made after the first.",
            counters.reconnects as f64,
            true,
        );
        let verifying = f64::from(u8::from(shared.mirror.verification.is_running()));
        push("mirror_verifying", "1 while store and Redis are compared.", verifying, false);
        let verified = counters.verifications as f64;
        push("mirror_verifications_total", "Comparisons of store and Redis, finished.", verified, true);
        let differences = counters.differences as f64;
        push(
            "mirror_differences_total",
            "Differences that these found, foreign keys too.",
            differences,
            true,
        );
        push("mirror_repaired_total", "Of these, those that were repaired.", counters.repaired as f64, true);
        let errors = counters.errors.iter().sum::<u64>() as f64;
        push("mirror_errors_total", "Failures of the mirror.", errors, true);
    }
    all
}
