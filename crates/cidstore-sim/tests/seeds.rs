//! A fixed budget of histories, all that ever failed, and one small history with every failure.

use cidstore_sim::counts::Counts;
use cidstore_sim::{exhaustive, history};

/// Some seconds of them.
const SEEDS: u64 = 3000;

fn run(seed: u64) -> Counts {
    history::run_seed(seed).unwrap_or_else(|story| panic!("{story}"))
}

#[test]
fn seeds_that_failed_once() {
    for line in include_str!("../seeds.txt").lines().filter(|line| !line.starts_with('#')) {
        let seed = line.split_whitespace().next().and_then(|seed| seed.parse().ok());
        run(seed.unwrap_or_else(|| panic!("no seed in {line:?}")));
    }
}

#[test]
fn a_fixed_budget_of_seeds() {
    let mut counts = Counts::default();
    (0..SEEDS).for_each(|seed| counts.merge(&run(seed)));
    // Files are merged in some of them, and in others written anew one by one.
    assert!(counts.get("merges") > 10 && counts.get("rewrites") > 3, "{counts}");
}

#[test]
fn a_small_history_with_every_failure_at_every_operation() {
    let counts = exhaustive::run_some().unwrap_or_else(|story| panic!("{story}"));
    // It is not silently without any.
    assert!(counts.get("power_cuts") > 500, "{counts}");
    assert!(counts.get("io_errors") > 20 && counts.get("full") > 20, "{counts}");
    assert!(counts.get("read_errors") > 5 && counts.get("short_reads") > 0, "{counts}");
}

/// What fails can be looked at again only if it happens again.
#[test]
fn a_seed_does_the_same_operations_each_time() {
    for seed in (0..4000).step_by(97) {
        let trace = history::trace_of(seed);
        assert!(trace.len() > 5, "seed {seed} did next to nothing");
        assert_eq!(trace, history::trace_of(seed), "seed {seed}");
    }
}
