//! `cidstore-sim`: histories of a store on a simulated disk, by seed.

use anyhow::bail;
use cidstore_sim::campaign::{self, Seeds};
use cidstore_sim::counts::Counts;
use cidstore_sim::{exhaustive, history};
use clap::Parser;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Lets histories of a store happen on a simulated disk, and checks each against a model.
///
/// Exits 1 when one does not hold, after printing its seed, the shortest history that shows it and the
/// disk's last operations. See docs/reliability.md.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// How many seeds
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// From one seed to the next
    #[arg(long, default_value_t = 1, hide = true)]
    step: u64,
    /// Only this seed: tells its history, and what failed
    #[arg(long)]
    seed: Option<u64>,
    /// Small histories instead, with every failure at every operation
    #[arg(long)]
    exhaustive: bool,
    /// Begins no history after so many seconds
    #[arg(long)]
    budget_seconds: Option<u64>,
    /// Processes [default: as many as there are cores]
    #[arg(long)]
    jobs: Option<u64>,
    /// Prints the counts alone, for the process that adds them up
    #[arg(long, hide = true)]
    counts_only: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    let begin = Instant::now();
    if let Some(seed) = args.seed {
        println!("{}", history::describe(seed));
        return match history::run_seed(seed) {
            Ok(counts) => report(&counts, begin),
            Err(story) => bail!("{story}"),
        };
    }
    if args.exhaustive {
        return match exhaustive::run_all() {
            Ok(counts) => report(&counts, begin),
            Err(story) => bail!("{story}"),
        };
    }
    let seeds = Seeds { from: args.from, count: args.seeds, step: args.step };
    let budget = args.budget_seconds.map(Duration::from_secs);
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let jobs = args.jobs.unwrap_or(cores).clamp(1, args.seeds.max(1));
    let counts = if jobs == 1 {
        campaign::run(seeds, budget).map_err(anyhow::Error::msg)?
    } else {
        campaign::run_in_processes(seeds, jobs, budget)?
    };
    if args.counts_only {
        println!("{counts}");
        return Ok(());
    }
    report(&counts, begin)
}

#[expect(clippy::unnecessary_wraps, reason = "the last thing that is done")]
fn report(counts: &Counts, begin: Instant) -> anyhow::Result<()> {
    let seconds = begin.elapsed().as_secs_f64();
    println!("{counts}");
    let histories = counts.get("histories");
    println!("{histories} histories in {seconds:.1} s, {:.0} a second: all held", histories as f64 / seconds);
    Ok(())
}
