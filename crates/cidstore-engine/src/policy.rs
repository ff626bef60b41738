//! Which adjacent runs to merge next: pure decisions over sizes.
//!
//! Runs are ranked in tiers by size, each `fan_in` times the one below. A window of adjacent runs
//! is merged when it holds `fan_in` runs of its largest tier; smaller ones among them go along, as
//! they cost little. So a row is merged about once a tier, and the number of runs stays logarithmic.
//!
//! Merging is eager only up to a size, since a merge keeps its inputs resident and its thread busy in
//! proportion to them, while what another tier less saves a lookup is one run's filters. Larger
//! results are made only where there are more than [`RUNS_MAX`] runs. Sizes that alternate could
//! still leave many small runs between large ones: then the cheapest window is merged whatever its
//! tiers.
//!
//! Runs that are mostly deleted are a matter of their own ([`worn`]): a scan passes over each tombstone
//! and what it deletes, and only a merge of the oldest runs takes both away.

use crate::merge::MERGE_RUNS_MAX;
use std::ops::Range;

/// Above this many runs that are not busy, something is merged even where no tier is full, or only with
/// a result larger than those that are merged eagerly. The others do not count: whoever merges runs in
/// memory can do nothing about the number of files.
pub const RUNS_MAX: usize = 48;

/// What the policy needs to know of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its rows.
    pub rows: usize,
    /// Not to be merged now: it is being merged already, or is not this caller's to merge.
    pub busy: bool,
}

/// Most rows of a merge's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// While there are few runs.
    pub eager: usize,
    /// At all.
    pub at_all: usize,
}

fn tier(rows: usize, fan_in: usize) -> u32 {
    rows.max(1).ilog(fan_in)
}

/// The window of runs to merge next, if any.
pub fn pick(runs: &[Candidate], fan_in: usize, limits: Limits) -> Option<Range<usize>> {
    let mut tiers: Vec<u32> = runs.iter().filter(|run| !run.busy).map(|run| tier(run.rows, fan_in)).collect();
    tiers.sort_unstable();
    tiers.dedup();
    let full = |rows_max| tiers.iter().find_map(|t| full_tier(runs, fan_in, *t, rows_max));
    full(limits.eager).or_else(|| {
        if runs.iter().filter(|run| !run.busy).count() <= RUNS_MAX {
            return None;
        }
        full(limits.at_all).or_else(|| cheapest(runs, fan_in, limits.at_all))
    })
}

/// The widest window of the oldest runs of whose rows a quarter are tombstones, so that a merge may
/// leave half of them, if there is one. `parts` are the triples and tombstones of each run. What such a
/// merge costs was paid for by deletes: each tombstone is rewritten by one, and none is left.
pub fn worn(runs: &[Candidate], parts: &[(usize, usize)], rows_max: usize) -> Option<Range<usize>> {
    let (mut rows, mut triples, mut tombstones, mut widest) = (0, 0, 0, None);
    for (i, (run, part)) in runs.iter().zip(parts).enumerate().take(MERGE_RUNS_MAX) {
        rows += run.rows;
        if run.busy || rows > rows_max {
            break;
        }
        triples += part.0;
        tombstones += part.1;
        if tombstones > 0 && 3 * tombstones >= triples {
            widest = Some(0..i + 1);
        }
    }
    widest
}

/// The first window of runs up to tier `t` that holds `fan_in` of exactly that tier, or as many runs
/// as one merge takes.
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
        if full >= fan_in || i + 1 - start == MERGE_RUNS_MAX {
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
    const UNLIMITED: Limits = Limits { eager: usize::MAX, at_all: usize::MAX };

    /// Runs left when sizes arrive one after the other, and rows rewritten by merging.
    fn simulate(sizes: &[usize], limits: Limits) -> (Vec<Candidate>, usize) {
        let mut runs: Vec<Candidate> = Vec::new();
        let mut rewritten = 0;
        for rows in sizes {
            runs.push(Candidate { rows: *rows, busy: false });
            while let Some(window) = pick(&runs, FAN_IN, limits) {
                let rows = runs[window.clone()].iter().map(|run| run.rows).sum();
                assert!((2..=MERGE_RUNS_MAX).contains(&window.len()) && rows <= limits.at_all);
                assert!(rows <= limits.eager || runs.len() > RUNS_MAX);
                rewritten += rows;
                runs.splice(window, [Candidate { rows, busy: false }]);
            }
        }
        (runs, rewritten)
    }

    #[test]
    fn equal_commits_cost_one_merge_a_tier() {
        let (runs, rewritten) = simulate(&vec![1; 20_000], UNLIMITED);
        assert!(runs.len() <= FAN_IN * 8, "{} runs", runs.len());
        assert!(rewritten <= 20_000 * 8, "{rewritten} rows rewritten");
    }

    #[test]
    fn busy_runs_are_left_alone() {
        let run = |busy| Candidate { rows: 1, busy };
        let runs = [run(false), run(false), run(true), run(false), run(false), run(false)];
        let at_most = |rows| Limits { eager: rows, at_all: rows };
        assert_eq!(pick(&runs, FAN_IN, at_most(100)), None);
        let runs = [run(true), run(false), run(false), run(false), run(false)];
        assert_eq!(pick(&runs, FAN_IN, at_most(100)), Some(1..5));
        assert_eq!(pick(&runs, FAN_IN, at_most(3)), None);
    }

    #[test]
    fn a_window_of_many_tiers_is_no_wider_than_a_merge() {
        // Seven of the largest tier, and before each of them three of every tier below.
        let few = |tier: u32| std::iter::repeat_n(FAN_IN.pow(tier), FAN_IN - 1);
        let group: Vec<usize> = (0..5).rev().flat_map(few).collect();
        let mut runs: Vec<Candidate> = Vec::new();
        for _ in 0..7 {
            runs.push(Candidate { rows: FAN_IN.pow(5), busy: false });
            runs.extend(group.iter().map(|rows| Candidate { rows: *rows, busy: false }));
        }
        let window = pick(&runs, 8, UNLIMITED).unwrap();
        assert!(window.len() <= MERGE_RUNS_MAX, "{window:?}");
        let window = pick(&runs, 7, UNLIMITED).unwrap();
        assert!(window.len() <= MERGE_RUNS_MAX, "{window:?}");
    }

    #[test]
    fn runs_of_another_merger_do_not_count() {
        let mut runs = vec![Candidate { rows: 1_000_000, busy: true }; 2 * RUNS_MAX];
        runs.extend([Candidate { rows: 1, busy: false }; FAN_IN - 1]);
        assert_eq!(pick(&runs, FAN_IN, UNLIMITED), None);
        runs.push(Candidate { rows: 1, busy: false });
        assert_eq!(pick(&runs, FAN_IN, UNLIMITED), Some(2 * RUNS_MAX..2 * RUNS_MAX + FAN_IN));
    }

    #[test]
    fn the_oldest_runs_are_merged_where_much_of_them_is_deleted() {
        let run = |rows| Candidate { rows, busy: false };
        let runs = [run(100), run(50), run(100), run(10)];
        let parts = |tombstones: [usize; 4]| {
            let part = |i: usize| (runs[i].rows - tombstones[i], tombstones[i]);
            [part(0), part(1), part(2), part(3)]
        };
        assert_eq!(worn(&runs, &parts([0, 0, 0, 10]), 1000), None);
        assert_eq!(worn(&runs, &parts([0, 50, 0, 0]), 1000), Some(0..2), "a third of the first two");
        assert_eq!(worn(&runs, &parts([0, 0, 60, 10]), 1000), Some(0..4));
        assert_eq!(worn(&runs, &parts([0, 0, 60, 10]), 250), None, "too many to merge");
        assert_eq!(worn(&runs, &parts([0, 50, 60, 10]), 250), Some(0..3));
        // Rows with metadata count for more where the size is bounded, and for one where they are deleted.
        assert_eq!(worn(&[run(100)], &[(1, 1)], 100), Some(0..1), "what it deleted may be gone already");
        assert_eq!(worn(&[run(2)], &[(2, 0)], 10), None);
        let busy = [run(100), Candidate { rows: 50, busy: true }];
        assert_eq!(worn(&busy, &[(100, 0), (0, 50)], 1000), None);
    }

    #[test]
    fn large_results_are_made_only_where_there_are_too_many_runs() {
        let limits = Limits { eager: 16, at_all: 64 };
        // Fewer by what is not merged yet: three of each of the two tiers below.
        let few = RUNS_MAX - 6;
        let (runs, rewritten) = simulate(&vec![1; 16 * few], limits);
        assert_eq!((runs.len(), rewritten), (few, 16 * few * 2));
        assert!(runs.iter().all(|run| run.rows == 16));
        let (runs, _) = simulate(&vec![1; 16 * (RUNS_MAX + 1)], limits);
        assert!(runs.len() <= RUNS_MAX);
        assert_eq!(runs[0].rows, 64);
    }

    proptest! {
        #[test]
        fn runs_stay_bounded_whatever_the_sizes(
            sizes in vec(prop_oneof![Just(1usize), 1usize..100, Just(1_000_000)], 1..600),
            eager in prop_oneof![Just(usize::MAX), 1usize..1000],
        ) {
            let (runs, _) = simulate(&sizes, Limits { eager, ..UNLIMITED });
            prop_assert!(runs.len() <= RUNS_MAX, "{} runs", runs.len());
            prop_assert_eq!(runs.iter().map(|run| run.rows).sum::<usize>(), sizes.iter().sum::<usize>());
        }
    }
}
