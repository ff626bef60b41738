//! Measurements by other programs, whose reports are taken over.

use super::Store;
use crate::args::SuiteArgs;
use crate::target::Subject;
use anyhow::{Context as _, Result, anyhow, ensure};
use cidstore_bench::report::Report;
use clap::ValueEnum as _;
use rustix::process::Signal;
use std::path::Path;
use std::process::{Command, Stdio};

/// Has the engine's example `in_process` measure the store, while there is no daemon on it.
///
/// # Errors
/// When the program fails; as [`Subject::end`] and [`Subject::start`].
pub fn in_process(
    report: &mut Report,
    subject: &mut Subject,
    program: &Path,
    store: Store,
    args: &SuiteArgs,
) -> Result<()> {
    subject.end(Signal::TERM)?;
    let mut command = on(store, program)?;
    command.arg(subject.catalog()).args(["--scan-rows", &args.scan_rows.to_string()]);
    report_of(report, command)?;
    subject.start(&[])
}

/// Has the program of `bench/peers` measure other stores with this data.
///
/// # Errors
/// When the program fails.
pub fn peers(report: &mut Report, program: &Path, store: Store, folder: &Path) -> Result<()> {
    let mut command = on(store, program)?;
    command.arg("--dir").arg(folder);
    report_of(report, command)
}

/// The program with the arguments that say which triples.
fn on(store: Store, program: &Path) -> Result<Command> {
    let shape = store.data.shape.to_possible_value().context("a shape without a name")?;
    let mut command = Command::new(program);
    command.args(["--shape", shape.get_name()]);
    command.args(["--triples", &store.triples.to_string(), "--seed", &store.data.seed.to_string()]);
    Ok(command)
}

/// Runs a program that prints its report as JSON, and takes it over.
///
/// # Errors
/// When it fails, or prints something else.
fn report_of(report: &mut Report, mut command: Command) -> Result<()> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("starting {}", command.get_program().display()))?;
    ensure!(output.status.success(), "{} ended with {}", command.get_program().display(), output.status);
    let json = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{} printed no report as JSON", command.get_program().display()))?;
    report.absorb(&json).map_err(|error| anyhow!("{}: {error}", command.get_program().display()))
}
