//! What the project promises, beside what was found.

use crate::single::{ECHO_P50, FSYNC};
use cidstore_bench::data::PATTERNS;
use cidstore_bench::promise::Limit::{AtLeast, AtMost, NeverAbove};
use cidstore_bench::report::Report;

/// Judges the figures of a size. `largest`: what is promised of the largest store is promised here.
pub fn judge(report: &mut Report, size: u64, largest: bool) {
    let rate = if size > super::slices::SLICE { 600_000.0 } else { 1_000_000.0 };
    for mode in ["req-packed", "push-packed"] {
        report.judge(&format!("ingest {mode}"), AtLeast(rate), "");
        report.judge(&format!("ingest {mode}, 0 M to 10 M"), AtLeast(1_000_000.0), "");
        report.judge(&format!("ingest {mode} over Oxigraph's bulk load"), AtLeast(8.0), "");
        report.judge(&format!("ingest {mode} over Oxigraph's batches"), AtLeast(15.0), "");
    }
    for mode in ["req-text", "push-text"] {
        report.judge(&format!("ingest {mode}"), AtLeast(400_000.0), "");
    }
    let lookup = if size > super::slices::SLICE { 5.0 } else { 2.0 };
    for parts in PATTERNS.map(super::requests::named) {
        report.judge(&format!("inside: {parts} p50"), AtMost(lookup), "");
    }
    for parts in PATTERNS.map(super::requests::named) {
        report.judge(&format!("REQ {parts}: p50 over that of the echo"), AtMost(1.15), "");
        report.judge(&format!("REQ {parts}: p99 above that of the echo"), AtMost(100.0), "");
    }
    report.judge("inside: scan", AtLeast(5_000_000.0), "");
    report.judge("REQ scan in pages of 100000", AtLeast(1_000_000.0), "");
    let floors = report.median_of(ECHO_P50).zip(report.median_of(&format!("{FSYNC} p50")));
    if let Some((echo, fsync)) = floors {
        let limit = AtMost(echo + 1.5 * fsync);
        report.judge("insert of one triple p50", limit, "echo p50 + 1.5 × fsync p50");
    }
    if largest {
        // The log keeps the last million changes, which is much of a small store.
        report.judge("disk after compaction", AtMost(130.0), "");
    }
    report.judge("write amplification", AtMost(6.0), "");
    for mode in ["req-packed", "req-text", "push-packed", "push-text"] {
        report.judge(&format!("{mode}: peak anonymous"), AtMost(1024.0), "");
    }
    report.judge("under load: peak anonymous", AtMost(1024.0), "");
    for what in ["query sp", "insert"] {
        report.judge(&format!("under load: {what}, stalls over 50 ms"), NeverAbove(0.0), "");
    }
    report.judge("ready after SIGTERM", AtMost(3_000.0), "");
    report.judge("ready after SIGKILL", AtMost(3_000.0), "");
    report.judge("log replay", AtLeast(1_000_000.0), "");
}
