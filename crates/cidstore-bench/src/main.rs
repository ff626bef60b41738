//! `cidstore-bench`: a load generator for cidstored, and the floors to compare it with.
//!
//! **Owns** the loads, and what is timed; the triples and the report are the library's.
//! docs/benchmarks.md says how to run it and what the figures mean.
//!
//! **Knows nothing of** the daemon's insides: it speaks the wire protocol, over bare sockets, since
//! it shares the machine with what it measures. What is measured inside the engine, another program
//! measures, whose report is taken over.

mod args;
mod ask;
mod daemon;
mod encode;
mod floors;
mod load;
mod pace;
mod probe;
mod single;
mod suite;
mod target;
mod watch;
mod wire;

use anyhow::{Context as _, Result};
use args::{Cli, Command};
use cidstore_bench::report::Report;
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cidstore-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let mut report = Report::default();
    match &cli.command {
        Command::EchoServer => return floors::serve_echo(),
        Command::Echo { bytes, requests } => single::echo(&mut report, cli.runs, *bytes, *requests)?,
        Command::Fsync { writes } => single::fsync(&mut report, &cli.folder(), cli.runs, *writes)?,
        Command::Ingest(args) => single::ingest(&mut report, cli, args)?,
        Command::Query(args) => single::query(&mut report, cli, args)?,
        Command::InsertLatency(args) => single::insert_latency(&mut report, cli, args)?,
        Command::Suite(args) => suite::run(&mut report, cli, args)?,
    }
    if cli.json_to_stdout() {
        println!("{:#}", report.json());
        return Ok(());
    }
    write_json(cli, &report)?;
    print!("{}", report.table());
    Ok(())
}

/// Writes the report to the file that it is wanted in; what takes hours does so now and then.
fn write_json(cli: &Cli, report: &Report) -> Result<()> {
    match &cli.json {
        Some(path) if !cli.json_to_stdout() => {
            let text = format!("{:#}\n", report.json());
            std::fs::write(path, text).with_context(|| path.display().to_string())
        }
        _ => Ok(()),
    }
}

/// Says what goes on.
fn progress(text: &str) {
    eprintln!("cidstore-bench: {text}");
}
