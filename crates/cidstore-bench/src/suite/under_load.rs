//! Latencies while an ingest goes on at half of what was measured as its maximum.
//!
//! Everything follows schedules ([`crate::pace`]): the batches, queries by (s, p), single inserts, and round
//! trips through the echo, which tell what the machine itself does to a request while two cores are
//! shared like this.

use super::Store;
use super::merges::Merges;
use crate::encode;
use crate::floors::Echo;
use crate::load::Ingest;
use crate::pace::{self, Real, Sample, paced};
use crate::probe::{self, Queries};
use crate::target::{Subject, report_memory};
use crate::wire;
use anyhow::{Context as _, Result};
use cidstore_bench::report::{Report, Unit};
use cidstore_bench::stats::{quantile, sorted_micros};
use rustix::process::Signal;
use rustix::thread::set_current_timer_slack;
use std::num::NonZeroU64;
use std::thread;
use std::time::{Duration, Instant};
use zeromq::{Context, Socket, SocketType};

/// Requests of a kind: few enough to cost the machine little, enough for a p99.9 in half a minute.
struct Kind {
    per_second: u32,
    /// They share the requests, so that one that takes long does not keep others from being sent.
    connections: u64,
}

const QUERIES: Kind = Kind { per_second: 500, connections: 4 };
/// One may wait for a group of batches to be committed, which takes milliseconds.
const INSERTS: Kind = Kind { per_second: 200, connections: 8 };
/// As the queries, which they are compared with.
const ECHOES: Kind = Kind { ..QUERIES };
/// A request that takes longer is a stall.
const STALL: Duration = Duration::from_millis(50);
/// Fewer samples than this have no p99.9.
const SAMPLES_MIN: usize = 1000;

/// What happened to the requests of each kind.
struct Seen {
    queries: Vec<Sample>,
    inserts: Vec<Sample>,
    echoes: Vec<Sample>,
    batches: Vec<Sample>,
}

/// Measures for so many seconds on a daemon that is started again for it. `load` says how batches are
/// sent, and with which number their triples begin; its rate was `maximum`.
///
/// # Errors
/// Of libzmq; refusals and wrong answers.
pub fn measure(
    report: &mut Report,
    subject: &mut Subject,
    store: Store,
    load: &Ingest,
    maximum: f64,
    seconds: u64,
) -> Result<()> {
    subject.end(Signal::TERM)?;
    subject.start(&[])?;
    let watch = subject.watch();
    let end = Duration::from_secs(seconds);
    let echo = Echo::start()?;
    // Before the first of anything is due there is time to connect.
    let start = Instant::now() + Duration::from_millis(200);
    let merges = Merges::watch(subject.daemon().pid(), start)?;
    let seen =
        requests(&subject.endpoints().request, &echo.endpoint, store, load, maximum / 2.0, start, end)?;
    let merging = merges.end()?;

    let name = |what: &str| format!("under load: {what}");
    let last = seen.batches.iter().map(|batch| batch.done).max().unwrap_or(end);
    let rate = (seen.batches.len() as u64 * load.batch) as f64 / last.as_secs_f64();
    report.add(&name("ingest"), Unit::TriplesPerSecond, rate, None);
    let merged: Duration = merging.iter().map(|(from, to)| to.saturating_sub(*from)).sum();
    report.add(
        &name("share of the time with a merge"),
        Unit::Times,
        merged.as_secs_f64() / end.as_secs_f64(),
        None,
    );
    for (what, samples) in [("echo", &seen.echoes), ("query sp", &seen.queries), ("insert", &seen.inserts)] {
        let stalls = pace::stalls(samples, STALL) as f64;
        report.add(&name(&format!("{what}, stalls over 50 ms")), Unit::Count, stalls, None);
        latencies(report, &name(what), samples);
        let (during, between) = pace::split(samples, &merging);
        latencies(report, &name(&format!("{what}, during merges")), &during);
        latencies(report, &name(&format!("{what}, between merges")), &between);
    }
    report_memory(report, &watch, "under load");
    Ok(())
}

fn latencies(report: &mut Report, name: &str, samples: &[Sample]) {
    if samples.len() < SAMPLES_MIN {
        return;
    }
    let nanos: Vec<_> = samples.iter().map(|sample| sample.latency().as_nanos() as u64).collect();
    report.add_latencies(name, &nanos, None);
    report.add(&format!("{name} max"), Unit::Micros, quantile(&sorted_micros(&nanos), 1.0), None);
}

/// All the loops, each connection in a thread of its own.
fn requests(
    endpoint: &str,
    echo: &str,
    store: Store,
    load: &Ingest,
    rate: f64,
    start: Instant,
    end: Duration,
) -> Result<Seen> {
    let queries = Queries { data: store.data, present: store.triples, parts: "sp", limit: 10 };
    let every = Duration::from_secs_f64(load.batch as f64 / rate);
    // Beyond all batches, so that each is a triple that is not there yet.
    let inserts_from = load.first + (end.as_nanos() / every.as_nanos() + 1) as u64 * load.batch;
    let schedule = |every, connections| Schedule { start, every, end, connections };
    let of = |kind: &Kind| schedule(Duration::from_secs(1) / kind.per_second, kind.connections);
    let batch = |socket: &Socket, n, request: &mut Vec<u8>| {
        load.encode(n, request);
        wire::expect_ok(&wire::ask(socket, request)?)
    };
    let insert = |socket: &Socket, n, request: &mut Vec<u8>| {
        encode::insert(request, store.data.triple(inserts_from + n));
        wire::expect_ok(&wire::ask(socket, request)?)
    };
    let query = |socket: &Socket, n, request: &mut Vec<u8>| {
        probe::query(socket, &queries, n, request).map(|_nanos| ())
    };
    let round_trip = |socket: &Socket, _, _: &mut Vec<u8>| {
        wire::ask(socket, &[0x80; 128])?;
        Ok(())
    };
    let batches = schedule(every, load.connections as u64);
    thread::scope(|scope| {
        let batches = scope.spawn(move || loops(batches, endpoint, batch));
        let inserts = scope.spawn(move || loops(of(&INSERTS), endpoint, insert));
        let echoes = scope.spawn(move || loops(of(&ECHOES), echo, round_trip));
        let asked = scope.spawn(move || loops(of(&QUERIES), endpoint, query));
        let join = |thread: thread::ScopedJoinHandle<'_, Result<Vec<Sample>>>, what| {
            thread
                .join()
                .expect("a thread of the load panicked")
                .with_context(|| format!("{what} under load"))
        };
        Ok(Seen {
            batches: join(batches, "batches")?,
            inserts: join(inserts, "single inserts")?,
            echoes: join(echoes, "echoes")?,
            queries: join(asked, "queries")?,
        })
    })
}

/// When requests are due, and over how many connections.
#[derive(Debug, Clone, Copy)]
struct Schedule {
    start: Instant,
    every: Duration,
    end: Duration,
    connections: u64,
}

/// [`paced`] by the machine's clock, a thread for each connection; all samples in the order in which
/// they were due.
fn loops(
    schedule: Schedule,
    endpoint: &str,
    request: impl Fn(&Socket, u64, &mut Vec<u8>) -> Result<()> + Sync,
) -> Result<Vec<Sample>> {
    let Schedule { start, every, end, connections } = schedule;
    let work = |connection| {
        // The default lets the kernel wake a thread 50 µs late to save energy.
        set_current_timer_slack(NonZeroU64::new(1)).context("setting the timer slack")?;
        let socket = wire::connect(&Context::new(), SocketType::REQ, endpoint)?;
        let mut bytes = Vec::new();
        thread::sleep(start.saturating_duration_since(Instant::now()));
        let share = (connection, connections);
        paced(&Real { start }, every, end, share, |n| request(&socket, n, &mut bytes))
    };
    let mut samples = thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..connections).map(|n| scope.spawn(move || work(n))).collect();
        let all: Result<Vec<_>> =
            threads.into_iter().map(|thread| thread.join().expect("a thread of the load panicked")).collect();
        all.map(|all| all.concat())
    })?;
    samples.sort_unstable_by_key(|sample| sample.due);
    Ok(samples)
}
