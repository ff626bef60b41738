//! Many seeds, on all cores.
//!
//! Each worker is a process of its own: HDF5 has one lock for all threads of a process.

use crate::counts::Counts;
use crate::history::run_seed;
use anyhow::{Context, bail};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Which seeds.
#[derive(Debug, Clone, Copy)]
pub struct Seeds {
    /// The first.
    pub from: u64,
    /// How many.
    pub count: u64,
    /// From one to the next.
    pub step: u64,
}

/// After so many seeds, what was tried so far is told on standard error: a campaign takes long, and one
/// that is interrupted has shown something, too.
const TOLD_SEEDS: u64 = 20_000;

/// Runs seeds one after another, for so long at most.
///
/// # Errors
/// The story of the first that fails.
pub fn run(seeds: Seeds, budget: Option<Duration>) -> Result<Counts, String> {
    let begin = Instant::now();
    let mut counts = Counts::default();
    for i in 0..seeds.count {
        if budget.is_some_and(|budget| begin.elapsed() >= budget) {
            break;
        }
        counts.merge(&run_seed(seeds.from.wrapping_add(i.wrapping_mul(seeds.step)))?);
        if (i + 1).is_multiple_of(TOLD_SEEDS) {
            let (from, step) = (seeds.from, seeds.step);
            eprintln!("seeds {from}, {}, …: {} of {} held: {counts}", from + step, i + 1, seeds.count);
        }
    }
    Ok(counts)
}

/// Runs seeds in `jobs` processes of this program, each of which takes every `jobs`-th.
///
/// # Errors
/// The story of a seed that failed; what the system says.
pub fn run_in_processes(seeds: Seeds, jobs: u64, budget: Option<Duration>) -> anyhow::Result<Counts> {
    let program = std::env::current_exe().context("this program's own path")?;
    let mut workers = Vec::new();
    for job in 0..jobs {
        let mut command = Command::new(&program);
        let count = (seeds.count + jobs - 1 - job) / jobs;
        let from = seeds.from.wrapping_add(job.wrapping_mul(seeds.step));
        command.args(["--jobs", "1", "--counts-only"]);
        command.args(["--seeds", &count.to_string(), "--from", &from.to_string()]);
        command.args(["--step", &(jobs * seeds.step).to_string()]);
        if let Some(budget) = budget {
            command.args(["--budget-seconds", &budget.as_secs().to_string()]);
        }
        workers.push(command.stdout(Stdio::piped()).spawn().context("cannot start a worker")?);
    }
    let mut counts = Counts::default();
    let mut failed = None;
    for worker in &mut workers {
        let mut text = String::new();
        for line in BufReader::new(worker.stdout.take().context("a worker without output")?).lines() {
            text = text + &line? + "\n";
        }
        let status = worker.wait()?;
        match Counts::parse(&text).filter(|_| status.success()) {
            Some(more) => counts.merge(&more),
            None => failed = failed.or(Some(format!("{text}a worker ended with {status}"))),
        }
    }
    match failed {
        Some(story) => bail!("{story}"),
        None => Ok(counts),
    }
}
