//! Which adjacent runs to merge next: pure decisions over sizes.
//!
//! In memory ([`pick`]) runs are ranked in tiers by size, each `fan_in` times the one below. A window of
//! adjacent runs is merged when it holds `fan_in` runs of its largest tier; smaller ones among them go
//! along, as they cost little. So a row is merged about once a tier, and the number of runs stays
//! logarithmic. Sizes that alternate could still leave many small runs between large ones: then the
//! cheapest window is merged whatever its tiers.
//!
//! Run files are merged as late as may be while more of them come ([`pick_needed`]): what one file less
//! saves a lookup is a look at its filters, while a merge takes the processor and the disk from those who
//! wait for their writes. So it is done in one go for as many files as one merge takes and one file may
//! hold, and a row is rewritten once. When no more files come ([`pick_settling`]), they are merged into
//! as few as that pays for: each merge at least doubles the size of the largest run that it takes, so that
//! a row is rewritten once for each doubling at most, however often it is tried.
//!
//! Runs that are mostly deleted are a matter of their own ([`worn`]): a scan passes over each tombstone
//! and what it deletes, and only a merge of the oldest runs takes both away.
//!
//! Where somebody asks for it ([`everything`]), there are as few run files as their size allows, and what
//! is dead in them goes, as long as that is not a large file rewritten for next to nothing.

use crate::merge::MERGE_RUNS_MAX;
use std::ops::Range;

/// Above this many runs that are not busy, something is merged in memory even where no tier is full. The
/// others do not count: whoever merges runs in memory can do nothing about the number of files.
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

/// The window of runs in memory to merge next, if any, into one of at most `rows_max` rows.
pub fn pick(runs: &[Candidate], fan_in: usize, rows_max: usize) -> Option<Range<usize>> {
    let mut tiers: Vec<u32> = runs.iter().filter(|run| !run.busy).map(|run| tier(run.rows, fan_in)).collect();
    tiers.sort_unstable();
    tiers.dedup();
    tiers.iter().find_map(|t| full_tier(runs, fan_in, *t, rows_max)).or_else(|| {
        let many = runs.iter().filter(|run| !run.busy).count() > RUNS_MAX;
        if many { cheapest(runs, fan_in, rows_max) } else { None }
    })
}

/// The window of run files to merge next while more of them come, if any: where there are more than
/// `runs_max` of at most half of `rows_max` rows. Larger ones do not count, since two of them may be too
/// large for one. The disk has room for a result of `room` rows.
pub fn pick_needed(
    runs: &[Candidate],
    runs_max: usize,
    rows_max: usize,
    room: usize,
) -> Option<Range<usize>> {
    let small = runs.iter().filter(|run| !run.busy && run.rows <= rows_max / 2).count();
    if small <= runs_max {
        return None;
    }
    let (is_scarce, rows_max) = (room < rows_max, rows_max.min(room));
    // Many tiny files, of a checkpoint every second say, are no reason to rewrite a large one. Where room is
    // scarce files stay small ones, however often they are merged: there one is not rewritten for little.
    let pays = |rows, largest| !is_scarce || rows - largest >= rows / 4;
    pick_settling(runs, rows_max).or_else(|| widest(runs, rows_max, pays))
}

/// The window of run files to merge next when no more of them come, if any.
pub fn pick_settling(runs: &[Candidate], rows_max: usize) -> Option<Range<usize>> {
    widest(runs, rows_max, |rows, largest| rows >= 2 * largest)
}

/// Of the windows that hold at most `rows_max` rows and pay (by their rows, and those of their largest
/// run), the one of the most runs; of those the one of the fewest rows.
fn widest(runs: &[Candidate], rows_max: usize, pays: impl Fn(usize, usize) -> bool) -> Option<Range<usize>> {
    let mut best: Option<(usize, Range<usize>)> = None;
    for start in 0..runs.len() {
        let (mut rows, mut largest) = (0, 0);
        for (i, run) in runs.iter().enumerate().skip(start).take(MERGE_RUNS_MAX) {
            rows += run.rows;
            largest = run.rows.max(largest);
            if run.busy || rows > rows_max {
                break;
            }
            let len = i + 1 - start;
            let better = best
                .as_ref()
                .is_none_or(|(least, best)| len > best.len() || len == best.len() && rows < *least);
            if len > 1 && better && pays(rows, largest) {
                best = Some((rows, start..i + 1));
            }
        }
    }
    best.map(|(_, window)| window)
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

/// There is not even room for so many rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lack(pub usize);

/// What `pick` finds where the disk has room for a result of `room` rows. It fits, the more so the more
/// room it is given.
///
/// # Errors
/// With the least room in which it would find something, if that is more.
pub fn within(
    room: usize,
    runs: &[Candidate],
    mut pick: impl FnMut(usize) -> Option<Range<usize>>,
) -> Result<Option<Range<usize>>, Lack> {
    let mut enough: usize = runs.iter().map(|run| run.rows).sum();
    let found = pick(room);
    if found.is_some() || room >= enough || pick(enough).is_none() {
        return Ok(found);
    }
    let mut too_little = room;
    while enough - too_little > 1 {
        let between = too_little + (enough - too_little) / 2;
        if pick(between).is_some() {
            enough = between;
        } else {
            too_little = between;
        }
    }
    Err(Lack(enough))
}

/// Rows that are left, at most, of `rows` rows of which `dead` are dead by a sample. That may be off by a
/// few in a hundred, and a few that are dead may have to stay.
pub fn left(rows: usize, dead: usize) -> usize {
    let alive = rows.saturating_sub(dead);
    rows.min(alive + alive / 8 + rows / 64)
}

/// A run is rewritten if that gains at least this part of what is written, as a divisor: rows that it
/// is merged with, or that nobody needs.
const GAIN: usize = 16;

/// Whether so many rows less are worth writing `rows` rows.
pub fn gains(less: usize, rows: usize) -> bool {
    less * GAIN >= rows.max(1)
}

/// The first window of run files from `from` on that a compaction rewrites: as many as one merge takes
/// and one file may hold, or one alone because of what is dead in it. The disk has room for a result of
/// `room` rows. `dead` says how many rows of a run nobody needs, about, and is asked only where that
/// matters.
pub fn everything(
    runs: &[Candidate],
    from: usize,
    rows_max: usize,
    room: usize,
    mut dead: impl FnMut(usize) -> usize,
) -> Option<Range<usize>> {
    for start in from..runs.len() {
        let (mut end, mut rows) = (start, 0);
        // Rows that are left of the runs up to there: those that are dead need no room.
        let (mut rest, mut counted) = (0, start);
        while end < runs.len().min(start + MERGE_RUNS_MAX) && !runs[end].busy {
            rows += runs[end].rows;
            // One that is larger than all this was written once, and can be again.
            if rows > rows_max && end > start {
                break;
            }
            if rows > room {
                rest += (counted..=end).map(|at| left(runs[at].rows, dead(at))).sum::<usize>();
                counted = end + 1;
                if rest > room {
                    break;
                }
            }
            end += 1;
        }
        while end > start {
            let sizes = || runs[start..end].iter().map(|run| run.rows).enumerate();
            let rows = sizes().map(|(_, rows)| rows).sum::<usize>().max(1);
            let (largest, most) = sizes().max_by_key(|(_, rows)| *rows).unwrap_or_default();
            let others = rows - most.max(1);
            if gains(others, rows) || gains(others + dead(start + largest), rows) {
                return Some(start..end);
            }
            // The largest stays as it is, and those before it are merged without it.
            end = start + largest;
        }
    }
    None
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

/// The window of `fan_in` runs, or fewer where there are not so many, with the fewest rows, among those in
/// which no run is larger than all others: a large one is not rewritten for a few rows.
fn cheapest(runs: &[Candidate], fan_in: usize, rows_max: usize) -> Option<Range<usize>> {
    (2..=fan_in).rev().find_map(|width| {
        let windows = (0..(runs.len() + 1).saturating_sub(width)).map(|i| i..i + width);
        let rows = |window: &Range<usize>| runs[window.clone()].iter().map(|run| run.rows).sum::<usize>();
        let pays = |window: &Range<usize>| {
            let largest = runs[window.clone()].iter().map(|run| run.rows).max().unwrap_or(0);
            (2 * largest..=rows_max).contains(&rows(window))
        };
        windows
            .filter(|window| !runs[window.clone()].iter().any(|run| run.busy) && pays(window))
            .min_by_key(rows)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const FAN_IN: usize = 4;
    const FILES_MAX: usize = 40;
    const ROWS_MAX: usize = 640;
    /// Of ten rows each: 40 000 rows.
    const FILES: usize = 4000;

    /// Runs left when sizes arrive one after the other, and rows rewritten by merging.
    fn simulate(
        sizes: &[usize],
        rows_max: usize,
        pick: impl Fn(&[Candidate]) -> Option<Range<usize>>,
    ) -> (Vec<Candidate>, usize) {
        let mut runs: Vec<Candidate> = Vec::new();
        let mut rewritten = 0;
        for rows in sizes {
            runs.push(Candidate { rows: *rows, busy: false });
            rewritten += merge_all(&mut runs, rows_max, &pick);
        }
        (runs, rewritten)
    }

    fn merge_all(
        runs: &mut Vec<Candidate>,
        rows_max: usize,
        pick: impl Fn(&[Candidate]) -> Option<Range<usize>>,
    ) -> usize {
        let mut rewritten = 0;
        while let Some(window) = pick(runs) {
            let rows = runs[window.clone()].iter().map(|run| run.rows).sum();
            assert!((2..=MERGE_RUNS_MAX).contains(&window.len()) && rows <= rows_max);
            rewritten += rows;
            runs.splice(window, [Candidate { rows, busy: false }]);
        }
        rewritten
    }

    fn in_memory(runs: &[Candidate]) -> Option<Range<usize>> {
        pick(runs, FAN_IN, usize::MAX)
    }

    fn needed(runs: &[Candidate]) -> Option<Range<usize>> {
        pick_needed(runs, FILES_MAX, ROWS_MAX, usize::MAX)
    }

    fn settling(runs: &[Candidate]) -> Option<Range<usize>> {
        pick_settling(runs, ROWS_MAX)
    }

    #[test]
    fn equal_commits_cost_one_merge_a_tier() {
        let (runs, rewritten) = simulate(&vec![1; 20_000], usize::MAX, in_memory);
        assert!(runs.len() <= FAN_IN * 8, "{} runs", runs.len());
        assert!(rewritten <= 20_000 * 8, "{rewritten} rows rewritten");
    }

    #[test]
    fn large_runs_in_memory_are_not_rewritten_for_a_few_rows() {
        // Between two powers of the fan-in, so that the last tier is never merged as one.
        const TIDY_ROWS_MAX: usize = 1 << 11;
        const ROWS: usize = 31_250;
        let tidy = |runs: &[Candidate]| {
            let busy = |run: &Candidate| Candidate { busy: run.rows >= TIDY_ROWS_MAX, ..*run };
            pick(&runs.iter().map(busy).collect::<Vec<_>>(), 8, TIDY_ROWS_MAX)
        };
        let mostly_one = [1, 1, 1, 1, 1, 1, 1, 1, 1, 2];
        for groups in [&[1][..], &mostly_one, &[2], &[1, 2, 3], &[8], &[9], &[64], &[375, 5], &[625]] {
            let sizes: Vec<usize> = groups.iter().copied().cycle().take(ROWS).collect();
            let sum = |sum: &mut usize, rows: &usize| {
                *sum += rows;
                (*sum <= ROWS).then_some(*rows)
            };
            let sizes: Vec<usize> = sizes.iter().scan(0, sum).collect();
            let (runs, rewritten) = simulate(&sizes, TIDY_ROWS_MAX, tidy);
            assert!(rewritten <= 8 * ROWS, "groups of {groups:?}: {rewritten} rows rewritten");
            assert!(runs.len() <= MERGE_RUNS_MAX, "groups of {groups:?}: {} runs", runs.len());
        }
    }

    #[test]
    fn busy_runs_are_left_alone() {
        let run = |busy| Candidate { rows: 1, busy };
        let runs = [run(false), run(false), run(true), run(false), run(false), run(false)];
        assert_eq!(pick(&runs, FAN_IN, 100), None);
        assert_eq!(pick_settling(&runs, 100), Some(3..6));
        assert_eq!(pick_needed(&runs, 4, 100, 100), Some(3..6));
        assert_eq!(pick_needed(&runs, 5, 100, 100), None);
        let runs = [run(true), run(false), run(false), run(false), run(false)];
        assert_eq!(pick(&runs, FAN_IN, 100), Some(1..5));
        assert_eq!(pick(&runs, FAN_IN, 3), None);
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
        for window in
            [pick(&runs, 8, usize::MAX), pick(&runs, 7, usize::MAX), pick_settling(&runs, usize::MAX)]
        {
            let window = window.unwrap();
            assert!(window.len() <= MERGE_RUNS_MAX, "{window:?}");
        }
    }

    #[test]
    fn runs_of_another_merger_do_not_count() {
        let mut runs = vec![Candidate { rows: 1_000_000, busy: true }; 2 * RUNS_MAX];
        runs.extend([Candidate { rows: 1, busy: false }; FAN_IN - 1]);
        assert_eq!(in_memory(&runs), None);
        runs.push(Candidate { rows: 1, busy: false });
        assert_eq!(in_memory(&runs), Some(2 * RUNS_MAX..2 * RUNS_MAX + FAN_IN));
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
    fn while_files_come_a_row_is_rewritten_once() {
        for files in [FILES_MAX, 400, 4000, 40_000] {
            let (runs, rewritten) = simulate(&vec![10; files], ROWS_MAX, needed);
            assert!(rewritten <= 10 * files, "{rewritten} of {} rows rewritten", 10 * files);
            let small = runs.iter().filter(|run| run.rows == 10).count();
            assert!(small <= FILES_MAX);
            // The others are large enough.
            let large = runs.len() - small;
            assert!(large * (FILES_MAX * 10) <= 10 * files, "{large} large ones of {files}");
        }
    }

    #[test]
    fn a_large_file_is_not_rewritten_for_tiny_ones() {
        let large = 300;
        let mut sizes = vec![large];
        sizes.extend([1; 200]);
        let (runs, rewritten) = simulate(&sizes, ROWS_MAX, needed);
        assert_eq!(runs[0].rows, large);
        assert!(rewritten <= 2 * 200, "{rewritten} rows rewritten for 200");
        // Where nothing else is left, it is.
        let alternating: Vec<usize> = (0..=FILES_MAX).flat_map(|_| [ROWS_MAX / 2 + 1, 1]).collect();
        let (runs, _) = simulate(&alternating, ROWS_MAX, needed);
        assert!(runs.iter().filter(|run| run.rows == 1).count() <= FILES_MAX);
    }

    #[test]
    fn what_has_settled_stays_as_it_is() {
        let (mut runs, _) = simulate(&vec![10; FILES], ROWS_MAX, needed);
        let rewritten = merge_all(&mut runs, ROWS_MAX, settling);
        assert!(rewritten <= 40_000, "{rewritten}");
        assert!(runs.len() <= 40_000 / (ROWS_MAX / 2), "{} runs", runs.len());
        // One file after the other, with pauses: each row goes along with each doubling.
        let (runs, rewritten) = simulate(&vec![10; FILES], ROWS_MAX, settling);
        assert!(runs.len() <= 40_000 / (ROWS_MAX / 2) + 6, "{} runs", runs.len());
        assert!(rewritten <= 6 * 40_000, "{rewritten}");
    }

    fn none_dead(_: usize) -> usize {
        0
    }

    fn sizes(sizes: &[usize]) -> Vec<Candidate> {
        sizes.iter().map(|rows| Candidate { rows: *rows, busy: false }).collect()
    }

    #[test]
    fn a_compaction_takes_as_many_as_fit_but_no_large_one_for_next_to_nothing() {
        let all = |runs: &[usize]| everything(&sizes(runs), 0, ROWS_MAX, usize::MAX, none_dead);
        assert_eq!(all(&[300, 300, 300]), Some(0..2));
        assert_eq!(all(&[400, 300, 400]), None, "no two fit");
        assert_eq!(all(&[ROWS_MAX]), None);
        assert_eq!(all(&[]), None);
        assert_eq!(all(&[600, 1, 1, 600]), Some(1..3));
        assert_eq!(all(&[1, 1, 600, 1]), Some(0..2));
        assert_eq!(all(&[1, 600, 1, 600, 1]), None);
        assert_eq!(all(&[600, 40]), Some(0..2), "a sixteenth");
        assert_eq!(all(&[600, 39]), None);
        assert_eq!(all(&[1; 100]), Some(0..MERGE_RUNS_MAX));
        assert_eq!(everything(&sizes(&[1; 100]), 64, ROWS_MAX, 64, none_dead), Some(64..100));
        let mut runs = sizes(&[10, 10, 10, 10]);
        runs[1].busy = true;
        assert_eq!(everything(&runs, 0, ROWS_MAX, usize::MAX, none_dead), Some(2..4));
    }

    #[test]
    fn a_compaction_rewrites_one_alone_for_what_is_dead_in_it() {
        let with =
            |runs: &[usize], dead: &[usize]| everything(&sizes(runs), 0, ROWS_MAX, usize::MAX, |at| dead[at]);
        assert_eq!(with(&[600, 600], &[0, 37]), None);
        assert_eq!(with(&[600, 600], &[0, 38]), Some(1..2));
        assert_eq!(with(&[600, 10], &[20, 0]), None);
        assert_eq!(with(&[600, 10], &[30, 0]), Some(0..2), "together they are worth it");
        assert_eq!(with(&[2 * ROWS_MAX, 600], &[ROWS_MAX, 0]), Some(0..1), "larger than a merge would make");
        let mut runs = sizes(&[600, 600]);
        runs[0].busy = true;
        assert_eq!(everything(&runs, 0, ROWS_MAX, usize::MAX, |_| 600), Some(1..2));
    }

    #[test]
    fn a_compaction_rewrites_a_row_once_for_each_time_that_files_become_64_times_fewer() {
        // One pass after the other, as long as one changes something.
        let compact = |mut runs: Vec<Candidate>| {
            let (mut rewritten, mut passes) = (0, 0);
            loop {
                let (mut from, mut changed) = (0, false);
                while let Some(window) = everything(&runs, from, 1 << 20, usize::MAX, none_dead) {
                    let rows = runs[window.clone()].iter().map(|run| run.rows).sum();
                    (rewritten, from, changed) = (rewritten + rows, window.start + 1, true);
                    runs.splice(window, [Candidate { rows, busy: false }]);
                }
                if !changed {
                    return (runs.len(), rewritten, passes);
                }
                passes += 1;
            }
        };
        let (files, rewritten, passes) = compact(sizes(&vec![10; 10_000]));
        assert_eq!((files, passes), (1, 3));
        assert!(rewritten <= 3 * 100_000, "{rewritten}");
        assert_eq!(compact(sizes(&[100_000])), (1, 0, 0));
    }

    #[test]
    fn where_there_is_little_room_what_fits_is_merged() {
        let runs = sizes(&[300, 200, 100, 60, 50, 300]);
        assert_eq!(pick_needed(&runs, 5, ROWS_MAX, ROWS_MAX), Some(1..5));
        assert_eq!(pick_needed(&runs, 5, ROWS_MAX, 210), Some(2..5));
        assert_eq!(pick_needed(&runs, 5, ROWS_MAX, 110), Some(3..5));
        assert_eq!(pick_needed(&runs, 5, ROWS_MAX, 109), None);
        assert_eq!(pick_needed(&runs, 6, ROWS_MAX, 210), None, "small is what it was");
        let everything = |room, dead: [usize; 6]| everything(&runs, 0, ROWS_MAX, room, |at| dead[at]);
        assert_eq!(everything(ROWS_MAX, [0; 6]), Some(0..3));
        assert_eq!(everything(210, [0; 6]), Some(2..5));
        assert_eq!(everything(100, [0; 6]), None);
        // What is dead needs no room, but for a margin.
        assert_eq!(everything(100, [200, 0, 0, 0, 0, 0]), None);
        assert_eq!(everything(117, [200, 0, 0, 0, 0, 0]), Some(0..1));
        assert_eq!(everything(4, [0, 0, 0, 0, 0, 300]), Some(5..6));
    }

    #[test]
    fn the_least_room_that_helps_is_told() {
        let runs = sizes(&[300, 200, 100, 60, 50, 300]);
        let needed = |room| pick_needed(&runs, 5, ROWS_MAX, room);
        assert_eq!(within(109, &runs, needed), Err(Lack(110)));
        assert_eq!(within(0, &runs, needed), Err(Lack(110)));
        assert_eq!(within(110, &runs, needed), Ok(Some(3..5)));
        assert_eq!(within(0, &runs, |_| None), Ok(None), "no room would help");
        assert_eq!(within(0, &[], |_| None), Ok(None));
    }

    proptest! {
        #[test]
        fn a_compaction_ends(
            rows in vec(prop_oneof![Just(1usize), 1usize..100, Just(ROWS_MAX), 1usize..2 * ROWS_MAX], 0..200),
        ) {
            let (mut runs, mut steps) = (sizes(&rows), 0);
            while let Some(window) = everything(&runs, 0, ROWS_MAX, usize::MAX, none_dead) {
                let together: usize = runs[window.clone()].iter().map(|run| run.rows).sum();
                prop_assert!(window.len() > 1 && together <= ROWS_MAX);
                runs.splice(window, [Candidate { rows: together, busy: false }]);
                steps += 1;
            }
            prop_assert!(steps <= rows.len());
            // Of three neighbours that fit together none is left, unless one is most of them.
            for three in runs.windows(3) {
                let together: usize = three.iter().map(|run| run.rows).sum();
                let most = three.iter().map(|run| run.rows).max().unwrap_or(0);
                prop_assert!(together > ROWS_MAX || (together - most) * GAIN < together, "{three:?}");
            }
        }

        #[test]
        fn runs_stay_bounded_whatever_the_sizes(
            sizes in vec(prop_oneof![Just(1usize), 1usize..100, Just(ROWS_MAX)], 1..600),
        ) {
            let total = sizes.iter().sum::<usize>();
            let (runs, _) = simulate(&sizes, usize::MAX, in_memory);
            prop_assert!(runs.len() <= RUNS_MAX, "{} runs", runs.len());
            prop_assert_eq!(runs.iter().map(|run| run.rows).sum::<usize>(), total);
            let (runs, _) = simulate(&sizes, ROWS_MAX, needed);
            let mergeable = runs.windows(2).filter(|pair| pair[0].rows + pair[1].rows <= ROWS_MAX).count();
            let small = runs.iter().filter(|run| run.rows <= ROWS_MAX / 2).count();
            prop_assert!(small <= FILES_MAX || mergeable == 0, "{} small runs", small);
            let (runs, _) = simulate(&sizes, ROWS_MAX, settling);
            prop_assert_eq!(runs.iter().map(|run| run.rows).sum::<usize>(), total);
        }
    }
}
