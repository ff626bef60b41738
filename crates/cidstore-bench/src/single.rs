//! Single measurements, and the floors, each beside which a figure is set.

use crate::args::{Cli, IngestArgs, InsertArgs, LoadArgs, QueryArgs};
use crate::encode::Form;
use crate::floors::{self, Echo};
use crate::load::{self, Ingest};
use crate::probe::{self, Queries};
use crate::progress;
use crate::suite::ingest::one_ingest;
use crate::target::Target;
use anyhow::Result;
use cidstore_bench::data::Data;
use cidstore_bench::report::{Report, Unit};
use cidstore_bench::stats::{quantile, sorted_micros};
use std::path::Path;

const ECHO: &str = "echo";
/// Name of the floor of a round trip.
pub const ECHO_P50: &str = "echo p50";
/// Name of the floor of a durable write; its p50 is a figure.
pub const FSYNC: &str = "fsync 4 KiB in place";
const FSYNC_APPEND: &str = "fsync 4 KiB appending";
/// Name of the floor of a durable insert.
pub const INSERT_FLOOR: &str = "echo p50 + fsync p50";

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

/// The floor of a durable insert, from the medians of one run.
pub fn insert_floor(report: &mut Report, cli: &Cli, requests: u64) -> Result<()> {
    let server = Echo::start()?;
    let echo = floors::echo(&server, 128, requests as usize)?;
    let writes = (requests as usize / 5).max(10);
    let fsync = floors::fsync(&cli.folder(), writes, false)?;
    report.add_latencies(ECHO, &echo, None);
    report.add_latencies(FSYNC, &fsync, None);
    report.add_latencies(FSYNC_APPEND, &floors::fsync(&cli.folder(), writes, true)?, None);
    let middle = |nanos: &[u64]| quantile(&sorted_micros(nanos), 0.5);
    report.add(INSERT_FLOOR, Unit::Micros, middle(&echo) + middle(&fsync), None);
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

/// `ingest`.
pub fn ingest(report: &mut Report, cli: &Cli, args: &IngestArgs) -> Result<()> {
    for run in 0..cli.runs {
        progress(&format!("run {} of {}: ingest {}", run + 1, cli.runs, args.mode.name()));
        let target = Target::of(cli)?;
        let load = load_of(&args.load, args.load.data.data(run), args.mode.form());
        one_ingest(report, &target.endpoints, &cli.folder(), &load, args.mode, || ())?;
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
        if target.is_fresh() {
            progress(&format!("run {} of {}: loading", run + 1, cli.runs));
            let load = LoadArgs { data: args.data, triples: args.triples, batch: 1000, connections: 4 };
            load::over_req(&load_of(&load, data, Form::Packed), &target.endpoints.request, true)?;
        }
        for parts in &args.parts {
            let queries = Queries { data, present: args.triples, parts, limit: args.limit };
            let nanos = probe::queries(&queries, args.requests, &target.endpoints.request)?;
            report.add_latencies(&format!("query {parts}"), &nanos, Some(ECHO_P50));
        }
    }
    Ok(())
}

/// `insert-latency`.
pub fn insert_latency(report: &mut Report, cli: &Cli, args: &InsertArgs) -> Result<()> {
    for run in 0..cli.runs {
        progress(&format!("run {} of {}: single inserts", run + 1, cli.runs));
        insert_floor(report, cli, args.requests)?;
        let target = Target::of(cli)?;
        let nanos = probe::inserts(args.data.data(run), 0, args.requests, &target.endpoints.request)?;
        report.add_latencies("insert of one triple", &nanos, Some(INSERT_FLOOR));
    }
    Ok(())
}
