//! The whole table: at each size, loads and what can be asked of a store after the first of them.
//!
//! Each load has a daemon and a folder of its own. Figures that belong to a size carry it.

mod disk;
pub mod ingest;
mod limits;
mod merges;
mod others;
mod requests;
mod restart;
mod slices;
mod under_load;

use crate::args::{Cli, Mode, SuiteArgs};
use crate::load::Ingest;
use crate::single::insert_floor;
use crate::target::{Subject, report_memory};
use crate::watch::folder_bytes;
use crate::{progress, write_json};
use anyhow::{Context as _, Result};
use cidstore_bench::data::Data;
use cidstore_bench::report::{Report, Unit};
use std::path::Path;

/// `suite`.
pub fn run(report: &mut Report, cli: &Cli, args: &SuiteArgs) -> Result<()> {
    cli.daemon.as_ref().context("the suite needs --daemon PROGRAM: it restarts it")?;
    report.note(format!(
        "batches of {}, {} connections, shape {:?}; {}",
        args.batch,
        args.connections,
        args.data.shape,
        machine(&cli.folder()),
    ));
    for run in 0..cli.runs {
        report.about(None);
        if let Some(program) = &args.peers {
            progress(&format!("run {} of {}: peers", run + 1, cli.runs));
            let store = Store { data: args.data.data(run), triples: args.peer_triples };
            others::peers(report, program, store, &cli.folder())?;
        }
        for size in &args.sizes {
            let step = |what: &str| progress(&format!("run {} of {}, {size}: {what}", run + 1, cli.runs));
            report.about(None);
            step("floors");
            insert_floor(report, cli, args.requests)?;
            report.about(Some(*size));
            for (n, mode) in args.modes.iter().enumerate() {
                let load = Ingest {
                    data: args.data.data(run),
                    first: 0,
                    triples: *size,
                    batch: args.batch.min(*size),
                    connections: usize::from(args.connections),
                    form: mode.form(),
                };
                one_store(report, cli, args, &load, *mode, n == 0, &step)?;
                write_json(cli, report)?;
            }
        }
    }
    for size in &args.sizes {
        report.about(Some(*size));
        limits::judge(report, *size, args.sizes.iter().max() == Some(size));
    }
    Ok(())
}

/// Everything about one store, from its first triple to its removal.
fn one_store(
    report: &mut Report,
    cli: &Cli,
    args: &SuiteArgs,
    load: &Ingest,
    mode: Mode,
    all: bool,
    step: &dyn Fn(&str),
) -> Result<()> {
    step(&format!("ingest {}", mode.name()));
    let mut subject = Subject::fresh(cli)?;
    let watch = subject.watch();
    let mut used = disk::Used::default();
    ingest::one_ingest(report, subject.endpoints(), &cli.folder(), load, mode, || {
        used = disk::Used { at_end: folder_bytes(subject.folder()), at_most: watch.peak.folder_bytes() };
    })?;
    over_peers(report, mode);
    if all {
        step("waiting for compaction");
        disk::after_ingest(report, &subject, load.triples, used)?;
        step("queries, scans, single inserts");
        let store = Store { data: load.data, triples: load.triples };
        let inserted = requests::all(report, &subject, store, args)?;
        report_memory(report, &watch, &mode.name());
        drop(watch);
        step("restarts");
        restart::ready(report, &mut subject)?;
        if let Some(program) = &args.in_process {
            step("inside the process");
            others::in_process(report, &mut subject, program, store, args)?;
        }
        step("restart with a log to replay");
        let more = Ingest { first: load.triples + inserted, ..*load };
        let replayed = restart::replay(report, &mut subject, &more, args.replay_rows)?;
        if args.under_load_s > 0 {
            step("latency under load");
            let maximum = report.last_of(&format!("ingest {}", mode.name())).unwrap_or_default();
            let more = Ingest { first: more.first + replayed, triples: u64::MAX, ..*load };
            under_load::measure(report, &mut subject, store, &more, maximum, args.under_load_s)?;
        }
    } else {
        report_memory(report, &watch, &mode.name());
    }
    Ok(())
}

/// The rate of the load just measured, in multiples of Oxigraph's of the same run.
fn over_peers(report: &mut Report, mode: Mode) {
    let name = format!("ingest {}", mode.name());
    for (peer, what) in
        [("oxigraph: bulk load", "bulk load"), ("oxigraph: batches of 1000, not synced", "batches")]
    {
        if let Some((ours, theirs)) = report.last_of(&name).zip(report.last_of(peer)) {
            report.add(&format!("{name} over Oxigraph's {what}"), Unit::Times, ours / theirs, None);
        }
    }
}

/// What is in the store.
#[derive(Debug, Clone, Copy)]
struct Store {
    data: Data,
    /// Those numbered from 0.
    triples: u64,
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
