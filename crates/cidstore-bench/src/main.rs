//! `cidstore-bench`: a load generator for cidstored, and the floors to compare it with.
//!
//! **Owns** the loads, what is timed, and the report. docs/benchmarks.md says how to run it and what
//! the figures mean.
//!
//! **Knows nothing of** the daemon's insides: it speaks the wire protocol, over bare sockets, since
//! it shares the machine with what it measures.

mod args;
mod daemon;
mod data;
mod encode;
mod floors;
mod load;
mod memory;
mod report;
mod suite;
mod wire;

use anyhow::Result;
use args::{Cli, Command};
use clap::Parser;
use report::Report;
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
        Command::Echo { bytes, requests } => suite::echo(&mut report, cli.runs, *bytes, *requests)?,
        Command::Fsync { writes } => suite::fsync(&mut report, &cli.folder(), cli.runs, *writes)?,
        Command::Ingest(args) => suite::ingest(&mut report, cli, args)?,
        Command::Query(args) => suite::query(&mut report, cli, args)?,
        Command::InsertLatency(args) => suite::insert_latency(&mut report, cli, args)?,
        Command::Suite(args) => suite::suite(&mut report, cli, args)?,
    }
    if let Some(path) = &cli.json {
        let text = format!("{:#}\n", report.json());
        if path.as_os_str() == "-" {
            print!("{text}");
            return Ok(());
        }
        std::fs::write(path, text)?;
    }
    print!("{}", report.table());
    Ok(())
}
