//! Which adjacent runs to merge next: pure decisions over sizes.
//!
//! Runs are ranked in tiers by size, each `fan_in` times the one below. A window of adjacent runs
//! is merged when it holds `fan_in` runs of its largest tier; smaller ones among them go along, as
//! they cost little. So a row is merged about once a tier, and the number of runs stays logarithmic.
//! Sizes that alternate could still leave many small runs between large ones: beyond
//! [`RUNS_MAX`] the cheapest window is merged whatever its tiers.

use std::ops::Range;

/// Above this many runs, something is merged even where no tier is full.
pub const RUNS_MAX: usize = 48;

/// What the policy needs to know of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its rows.
    pub rows: usize,
    /// Not to be merged now: it is being merged already, or is not this caller's to merge.
    pub busy: bool,
}

fn tier(rows: usize, fan_in: usize) -> u32 {
    rows.max(1).ilog(fan_in)
}

/// The window of runs to merge next, if any; its result has at most `rows_max` rows.
pub fn pick(runs: &[Candidate], fan_in: usize, rows_max: usize) -> Option<Range<usize>> {
    let mut tiers: Vec<u32> = runs.iter().filter(|run| !run.busy).map(|run| tier(run.rows, fan_in)).collect();
    tiers.sort_unstable();
    tiers.dedup();
    tiers
        .iter()
        .find_map(|t| full_tier(runs, fan_in, *t, rows_max))
        .or_else(|| if runs.len() > RUNS_MAX { cheapest(runs, fan_in, rows_max) } else { None })
}

/// The first window of runs up to tier `t` that holds `fan_in` of exactly that tier.
fn full_tier(runs: &[Candidate], fan_in: usize, t: u32, rows_max: usize) -> Option<Range<usize>> {
    let (mut start, mut full, mut rows) = (0, 0, 0);
    for (i, run) in runs.iter().enumerate() {
        if run.busy || tier(run.rows, fan_in) > t {
            (start, full, rows) = (i + 1, 0, 0);
            continue;
        }
        rows += run.rows;
        full += usize::from(tier(run.rows, fan_in) == t);
        while rows > rows_max {
            rows -= runs[start].rows;
            full -= usize::from(tier(runs[start].rows, fan_in) == t);
            start += 1;
        }
        if full >= fan_in {
            return Some(start..i + 1);
        }
    }
    None
}

/// The window of `fan_in` runs, or fewer where there are not so many, with the fewest rows.
fn cheapest(runs: &[Candidate], fan_in: usize, rows_max: usize) -> Option<Range<usize>> {
    (2..=fan_in).rev().find_map(|width| {
        let windows = (0..(runs.len() + 1).saturating_sub(width)).map(|i| i..i + width);
        let rows = |window: &Range<usize>| runs[window.clone()].iter().map(|run| run.rows).sum::<usize>();
        windows
            .filter(|window| !runs[window.clone()].iter().any(|run| run.busy) && rows(window) <= rows_max)
            .min_by_key(rows)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const FAN_IN: usize = 4;

    /// Runs left when sizes arrive one after the other, and rows rewritten by merging.
    fn simulate(sizes: &[usize], rows_max: usize) -> (Vec<Candidate>, usize) {
        let mut runs: Vec<Candidate> = Vec::new();
        let mut rewritten = 0;
        for rows in sizes {
            runs.push(Candidate { rows: *rows, busy: false });
            while let Some(window) = pick(&runs, FAN_IN, rows_max) {
                let rows = runs[window.clone()].iter().map(|run| run.rows).sum();
                assert!(window.len() > 1 && rows <= rows_max);
                rewritten += rows;
                runs.splice(window, [Candidate { rows, busy: false }]);
            }
        }
        (runs, rewritten)
    }

    #[test]
    fn equal_commits_cost_one_merge_a_tier() {
        let (runs, rewritten) = simulate(&vec![1; 20_000], usize::MAX);
        assert!(runs.len() <= FAN_IN * 8, "{} runs", runs.len());
        assert!(rewritten <= 20_000 * 8, "{rewritten} rows rewritten");
    }

    #[test]
    fn busy_runs_are_left_alone() {
        let run = |busy| Candidate { rows: 1, busy };
        let runs = [run(false), run(false), run(true), run(false), run(false), run(false)];
        assert_eq!(pick(&runs, FAN_IN, 100), None);
        let runs = [run(true), run(false), run(false), run(false), run(false)];
        assert_eq!(pick(&runs, FAN_IN, 100), Some(1..5));
        assert_eq!(pick(&runs, FAN_IN, 3), None);
    }

    proptest! {
        #[test]
        fn runs_stay_bounded_whatever_the_sizes(sizes in vec(prop_oneof![Just(1usize), 1usize..100, Just(1_000_000)], 1..600)) {
            let (runs, _) = simulate(&sizes, usize::MAX);
            prop_assert!(runs.len() <= RUNS_MAX, "{} runs", runs.len());
            prop_assert_eq!(runs.iter().map(|run| run.rows).sum::<usize>(), sizes.iter().sum::<usize>());
        }
    }
}
