//! Queries of all eight patterns beside the echo, scans in pages, single inserts.

use super::Store;
use crate::args::SuiteArgs;
use crate::floors::Echo;
use crate::probe::{self, Queries};
use crate::single::INSERT_FLOOR;
use crate::target::Subject;
use crate::wire;
use anyhow::Result;
use cidstore_bench::data::PATTERNS;
use cidstore_bench::report::{Report, Unit};
use cidstore_bench::stats::{quantile, sorted_micros};
use std::time::Instant;
use zeromq::{Context, SocketType};

/// Rows of an answer at most: the triples asked for have no more, but by predicate and by nothing.
const ROWS: u16 = 10;

/// Bytes of the message that the echo gets, about those of a query.
const ECHO_BYTES: usize = 128;

/// All of it; answers how many triples were inserted.
///
/// # Errors
/// Of libzmq; refusals and wrong answers.
pub fn all(report: &mut Report, subject: &Subject, store: Store, args: &SuiteArgs) -> Result<u64> {
    let endpoint = &subject.endpoints().request;
    for parts in PATTERNS {
        lookups(report, endpoint, store, parts, args.requests)?;
    }
    for page in [100_000, 10_000] {
        let (rows, taken) = probe::scan(endpoint, page, args.scan_rows)?;
        let name = format!("REQ scan in pages of {page}");
        report.add(&name, Unit::TriplesPerSecond, rows as f64 / taken.as_secs_f64(), None);
    }
    let requests = args.requests / 5;
    let nanos = probe::inserts(store.data, store.triples, requests, endpoint)?;
    report.add_latencies("insert of one triple", &nanos, Some(INSERT_FLOOR));
    Ok(probe::with_warm_up(requests))
}

/// Queries by these parts, in turns with round trips through the echo.
fn lookups(report: &mut Report, endpoint: &str, store: Store, parts: &str, requests: u64) -> Result<()> {
    let server = Echo::start()?;
    let context = Context::new();
    let daemon = wire::connect(&context, SocketType::REQ, endpoint)?;
    let echo = wire::connect(&context, SocketType::REQ, &server.endpoint)?;
    let queries = Queries { data: store.data, present: store.triples, parts, limit: ROWS };
    let (mut request, message) = (Vec::new(), [0x80; ECHO_BYTES]);
    let (asked, echoed) = probe::in_turns(
        requests,
        |i| probe::query(&daemon, &queries, i, &mut request),
        |_| {
            let start = Instant::now();
            wire::ask(&echo, &message)?;
            Ok(start.elapsed().as_nanos() as u64)
        },
    )?;
    let name = format!("REQ {}", named(parts));
    let beside = format!("echo beside {name}");
    report.add_latencies(&beside, &echoed, None);
    report.add_latencies(&name, &asked, Some(&format!("{beside} p50")));
    let (asked, echoed) = (sorted_micros(&asked), sorted_micros(&echoed));
    let ratio = quantile(&asked, 0.5) / quantile(&echoed, 0.5);
    report.add(&format!("{name}: p50 over that of the echo"), Unit::Times, ratio, None);
    let above = quantile(&asked, 0.99) - quantile(&echoed, 0.99);
    report.add(&format!("{name}: p99 above that of the echo"), Unit::Micros, above, None);
    Ok(())
}

/// The pattern in the names of figures.
pub fn named(parts: &str) -> &str {
    if parts.is_empty() { "any" } else { parts }
}
