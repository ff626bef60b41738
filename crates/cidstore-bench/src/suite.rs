//! What is measured, how often, and beside which floor.

use crate::args::{Cli, IngestArgs, InsertArgs, LoadArgs, Mode, QueryArgs, SuiteArgs};
use crate::daemon::{Daemon, Endpoints};
use crate::data::Data;
use crate::encode::Form;
use crate::floors::{self, Echo};
use crate::load::{self, Ingest};
use crate::memory::Sampler;
use crate::report::{Report, Unit};
use crate::wire;
use anyhow::{Context as _, Result};
use cidstore_types::Triple;
use rustix::process::Signal;
use std::path::Path;
use tempfile::TempDir;
use zeromq::{Context, SocketType};

const ECHO: &str = "echo";
const ECHO_P50: &str = "echo p50";
const FSYNC: &str = "fsync 4 KiB in place";
const FSYNC_APPEND: &str = "fsync 4 KiB appending";
const INSERT_FLOOR: &str = "echo p50 + fsync p50";

/// What a run measures: a daemon of its own (with its folder, removed at the end), or one that runs.
struct Target {
    daemon: Option<(Daemon, TempDir)>,
    endpoints: Endpoints,
    sampler: Option<Sampler>,
}

impl Target {
    fn of(cli: &Cli) -> Result<Self> {
        let Some(program) = &cli.daemon else {
            let endpoints = Endpoints { request: cli.endpoint.clone(), push: cli.push.clone() };
            return Ok(Self { daemon: None, endpoints, sampler: cli.pid.map(Sampler::start) });
        };
        let folder = tempfile::Builder::new().prefix("cidstore-bench-").tempdir_in(cli.folder())?;
        let daemon = Daemon::start(program, folder.path())?;
        let (endpoints, sampler) = (daemon.endpoints.clone(), Some(Sampler::start(daemon.pid())));
        Ok(Self { daemon: Some((daemon, folder)), endpoints, sampler })
    }

    fn report_memory(&self, report: &mut Report, when: &str) {
        if let Some(sampler) = &self.sampler {
            report.add(&format!("{when}: peak RSS"), Unit::Mebibytes, sampler.peak.resident_mib(), None);
            let anonymous = sampler.peak.anonymous_mib();
            report.add(&format!("{when}: peak anonymous"), Unit::Mebibytes, anonymous, None);
        }
    }
}

fn progress(text: &str) {
    eprintln!("cidstore-bench: {text}");
}

/// The floor of a round trip.
pub fn echo(report: &mut Report, runs: u32, bytes: usize, requests: usize) -> Result<()> {
    for _ in 0..runs {
        let server = Echo::start()?;
        report.add_latencies(ECHO, &floors::echo(&server, bytes, requests)?, None);
    }
    Ok(())
}

/// The floor of a durable write.
pub fn fsync(report: &mut Report, folder: &Path, runs: u32, writes: usize) -> Result<()> {
    for _ in 0..runs {
        report.add_latencies(FSYNC, &floors::fsync(folder, writes, false)?, None);
        report.add_latencies(FSYNC_APPEND, &floors::fsync(folder, writes, true)?, None);
    }
    Ok(())
}

fn load_of(args: &LoadArgs, data: Data, form: Form) -> Ingest {
    Ingest {
        data,
        first: 0,
        triples: args.triples,
        batch: args.batch.min(args.triples),
        connections: usize::from(args.connections),
        form,
    }
}

/// One load and its ceilings: the same batches through the echo, and their bare rows onto the disk.
fn one_ingest(report: &mut Report, target: &Target, folder: &Path, load: &Ingest, mode: Mode) -> Result<()> {
    let name = mode.name();
    let rate = |taken: std::time::Duration| load.triples as f64 / taken.as_secs_f64();
    let through_echo = format!("{name}: same batches to the echo");
    // A tenth is enough for a ceiling, and keeps its share of the time small.
    let short = Ingest { triples: (load.triples / 10).max(load.batch), ..*load };
    let server = Echo::start()?;
    let taken = load::over_req(&short, &server.endpoint, false)?;
    report.add(&through_echo, Unit::TriplesPerSecond, short.triples as f64 / taken.as_secs_f64(), None);
    drop(server);
    let stream = floors::disk_stream(folder, short.triples * Triple::BYTES as u64)?;
    let rows = stream / Triple::BYTES as f64;
    report.add("disk: 96-byte rows, fdatasync every 16 MiB", Unit::TriplesPerSecond, rows, None);

    let context = Context::new();
    let asker = wire::connect(&context, SocketType::REQ, &target.endpoints.request)?;
    let before = load::count(&asker)?;
    let taken = if mode.is_push() {
        load::over_push(load, &target.endpoints.push, &target.endpoints.request, before)?
    } else {
        load::over_req(load, &target.endpoints.request, true)?
    };
    let found = load::count(&asker)?;
    anyhow::ensure!(
        found == before + load.triples,
        "{found} triples after loading {} onto {before}: were some there already? (--seed)",
        load.triples
    );
    report.add(&format!("ingest {name}"), Unit::TriplesPerSecond, rate(taken), Some(&through_echo));
    Ok(())
}

/// `ingest`.
pub fn ingest(report: &mut Report, cli: &Cli, args: &IngestArgs) -> Result<()> {
    for run in 0..cli.runs {
        progress(&format!("run {} of {}: ingest {}", run + 1, cli.runs, args.mode.name()));
        let target = Target::of(cli)?;
        let load = load_of(&args.load, args.load.data.data(run), args.mode.form());
        one_ingest(report, &target, &cli.folder(), &load, args.mode)?;
        target.report_memory(report, &args.mode.name());
    }
    Ok(())
}

/// `query`.
pub fn query(report: &mut Report, cli: &Cli, args: &QueryArgs) -> Result<()> {
    for run in 0..cli.runs {
        let server = Echo::start()?;
        report.add_latencies(ECHO, &floors::echo(&server, 128, args.requests as usize)?, None);
        drop(server);
        let target = Target::of(cli)?;
        // A daemon that stays has the triples of the seed as given.
        let data = args.data.data(0);
        if target.daemon.is_some() {
            progress(&format!("run {} of {}: loading", run + 1, cli.runs));
            let load = LoadArgs { data: args.data, triples: args.triples, batch: 1000, connections: 4 };
            load::over_req(&load_of(&load, data, Form::Packed), &target.endpoints.request, true)?;
        }
        for parts in &args.parts {
            let request = &target.endpoints.request;
            let nanos = load::queries(data, args.triples, parts, args.limit, args.requests, request)?;
            report.add_latencies(&format!("query {parts}"), &nanos, Some(ECHO_P50));
        }
    }
    Ok(())
}

/// The floor of a durable insert, from the medians of one run.
fn insert_floor(report: &mut Report, cli: &Cli, requests: u64) -> Result<()> {
    let server = Echo::start()?;
    let mut echo = floors::echo(&server, 128, requests as usize)?;
    let writes = (requests as usize / 5).max(10);
    let mut fsync = floors::fsync(&cli.folder(), writes, false)?;
    report.add_latencies(ECHO, &echo, None);
    report.add_latencies(FSYNC, &fsync, None);
    report.add_latencies(FSYNC_APPEND, &floors::fsync(&cli.folder(), writes, true)?, None);
    let middle = |nanos: &mut Vec<u64>| {
        nanos.sort_unstable();
        nanos[nanos.len() / 2] as f64 / 1e3
    };
    let floor = middle(&mut echo) + middle(&mut fsync);
    report.add(INSERT_FLOOR, Unit::Micros, floor, None);
    Ok(())
}

/// `insert-latency`.
pub fn insert_latency(report: &mut Report, cli: &Cli, args: &InsertArgs) -> Result<()> {
    for run in 0..cli.runs {
        progress(&format!("run {} of {}: single inserts", run + 1, cli.runs));
        insert_floor(report, cli, args.requests)?;
        let target = Target::of(cli)?;
        let nanos = load::inserts(args.data.data(run), 0, args.requests, &target.endpoints.request)?;
        report.add_latencies("insert of one triple", &nanos, Some(INSERT_FLOOR));
    }
    Ok(())
}

/// `suite`.
pub fn suite(report: &mut Report, cli: &Cli, args: &SuiteArgs) -> Result<()> {
    cli.daemon.as_ref().context("the suite needs --daemon PROGRAM: it restarts it")?;
    report.note(format!(
        "{} triples, batches of {}, {} connections, shape {:?}; {}",
        args.load.triples,
        args.load.batch,
        args.load.connections,
        args.load.data.shape,
        machine(&cli.folder()),
    ));
    for run in 0..cli.runs {
        progress(&format!("run {} of {}: floors", run + 1, cli.runs));
        insert_floor(report, cli, args.requests)?;
        for (n, mode) in args.modes.iter().enumerate() {
            progress(&format!("run {} of {}: ingest {}", run + 1, cli.runs, mode.name()));
            let target = Target::of(cli)?;
            let data = args.load.data.data(run);
            let load = load_of(&args.load, data, mode.form());
            one_ingest(report, &target, &cli.folder(), &load, *mode)?;
            if n == 0 {
                after_loading(report, target, data, args, &mode.name())?;
            } else {
                target.report_memory(report, &mode.name());
            }
        }
    }
    verdicts(report);
    Ok(())
}

/// Queries, single inserts and restarts, on everything that was loaded.
fn after_loading(
    report: &mut Report,
    target: Target,
    data: Data,
    args: &SuiteArgs,
    mode: &str,
) -> Result<()> {
    let request = &target.endpoints.request;
    for (parts, limit) in [("sp", 100), ("s", 100), ("po", 100), ("spo", 1)] {
        let nanos = load::queries(data, args.load.triples, parts, limit, args.requests, request)?;
        report.add_latencies(&format!("query {parts}"), &nanos, Some(ECHO_P50));
    }
    let nanos = load::inserts(data, args.load.triples, args.requests / 5, request)?;
    report.add_latencies("insert of one triple", &nanos, Some(INSERT_FLOOR));
    target.report_memory(report, mode);
    let Target { daemon, sampler, .. } = target;
    drop(sampler);
    if let Some((daemon, folder)) = daemon {
        let daemon = daemon.restart(Signal::TERM)?;
        report.add(
            "ready after SIGTERM and start",
            Unit::Millis,
            daemon.ready_after.as_secs_f64() * 1e3,
            None,
        );
        let daemon = daemon.restart(Signal::KILL)?;
        report.add(
            "ready after SIGKILL and start",
            Unit::Millis,
            daemon.ready_after.as_secs_f64() * 1e3,
            None,
        );
        drop(daemon);
        folder.close()?;
    }
    Ok(())
}

/// Sets the medians beside what the project promises.
fn verdicts(report: &mut Report) {
    let (echo, fsync) = (report.median_of(ECHO_P50), report.median_of(&format!("{FSYNC} p50")));
    let mut lines = Vec::new();
    let mut at_most = |name: &str, limit: Option<f64>, why: &str| {
        if let (Some(found), Some(limit)) = (report.median_of(name), limit) {
            let met = if found <= limit { "met" } else { "MISSED" };
            lines.push(format!("{met}: {name} {found:.1}, at most {limit:.1} ({why})"));
        }
    };
    let insert = echo.zip(fsync).map(|(echo, fsync)| echo + 1.5 * fsync);
    at_most("insert of one triple p50", insert, "echo p50 + 1.5 × fsync p50");
    at_most("query sp p50", echo.map(|echo| 1.3 * echo), "1.3 × echo p50");
    at_most("ready after SIGTERM and start", Some(2_000.0), "2 s");
    at_most("ready after SIGKILL and start", Some(2_000.0), "2 s");
    at_most("req-packed: peak RSS", Some(700.0), "700 MiB");
    at_most("req-text: peak RSS", Some(700.0), "700 MiB");
    for (name, least) in [("ingest req-packed", 300_000.0), ("ingest req-text", 150_000.0)] {
        if let Some(found) = report.median_of(name) {
            let met = if found >= least { "met" } else { "MISSED" };
            lines.push(format!("{met}: {name} {found:.0}, at least {least:.0}"));
        }
    }
    for line in lines {
        report.note(line);
    }
}

/// What the figures were measured on.
fn machine(folder: &Path) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let disk = rustix::fs::statfs(folder).map_or(String::new(), |facts| match facts.f_type {
        0x0102_1994 => ", tmpfs: durability costs nothing here".into(),
        0x794c_7630 => ", overlayfs".into(),
        kind => format!(", file system type {kind:#x}"),
    });
    format!("{cores} cores, Linux {}{disk}", kernel.trim())
}
