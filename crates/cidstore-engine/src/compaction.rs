//! Compaction: what somebody asks for, rather than what the number of files asks for. As few run files
//! as `run_rows_max` allows, and little in them that nobody needs.
//!
//! It goes over the run files that there are when it begins, from the oldest on, and takes one window of
//! adjacent ones after the other, or one file alone ([`policy::everything`]). What is sealed meanwhile is
//! for the next compaction, so that it ends while writes go on. When a whole pass has changed nothing it
//! is done. Every step leaves fewer files, or fewer rows in as many, so that there is such a pass; on a
//! store that is compact the first one is, which looks at a sample of the rows and writes nothing.
//!
//! Where the disk has little room it takes what fits, and what is dead counts for nothing there. A pass in
//! which nothing fits is an error, and no end: it is tried again. What fits is an estimate, though, where it
//! counts on what is dead, and how large a result is gets known when all of its window was read. So it is
//! remembered what did not fit after all, and that is not read again until there is as much room as it needs.
//!
//! A store may be too large for one merge. A window is then merged with an eye on the files around it:
//! rows that a newer one mentions are left out, and tombstones for which no older one has anything.
//! From the oldest on, a tombstone is looked at when the rows that it hides are gone already.
//!
//! **Why that is right**
//! - *The newest run that mentions a triple decides about it, and stays.* A row is left out of a run
//!   only if a newer run mentions its triple. That is so in every state that shows the result: it takes
//!   the place of its window in the list by one splice, and in the catalog by one rename.
//! - *Only run files are asked, and only those that the catalog names.* What is in memory may be lost
//!   with the end of the log in a power cut; then a row that it deletes or replaces must be there. The
//!   catalog on disk named the newer file before the result is in it, and does after any crash.
//! - *What is asked stays as it is.* Only the one merger takes files out of the list; a sealer beside it
//!   adds some behind all of them, which are newer and were not asked: they may hide more, not less.
//! - *A snapshot* holds the runs that it began with. `created_at` and metadata go with the row that
//!   decides, which no step leaves out.
//! - *A tombstone goes only if every older run was asked, and is sound*, and if the log has nothing of
//!   what they hold. For a repair makes a damaged run file anew from the log, where it can: all rows
//!   would come back that the file held before they were left out, and nothing would hide them.
//! - *No file that was asked is damaged*: each is read against its checksums first, once.
//! - A window of which nothing is left keeps its place by a file without rows, as long as other files
//!   have to do with it. A catalog that is made anew from the files would otherwise take a former one,
//!   and show rows whose tombstones are gone.

use crate::error::StoreError;
use crate::list::Claim;
use crate::maintain::Shared;
use crate::mentions::{Around, Dead};
use crate::policy::{self, Candidate};
use crate::room::Room;
use crate::run::Run;
use crate::seal::RunFile;
use crate::snapshot::Snapshot;
use cidstore_types::Seq;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

/// What a compaction would rewrite, about, if it began now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pending {
    /// Run files that would be merged with others, or written anew.
    pub files: usize,
    /// Their rows.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A compaction that has begun.
pub(crate) struct Compaction {
    /// Run files with mutations up to this one belong to it, also those that have newer ones since: what must
    /// be merged meanwhile may take some of its files together with later ones.
    upto: Seq,
    /// In this pass, windows behind this mutation are next.
    after: Seq,
    /// This pass has changed something, or passed something over: it is not the last.
    changed: bool,
    /// Numbers of the files that were read against their checksums, or written by it.
    verified: BTreeSet<u64>,
    /// What is merged now.
    tried: Option<Window>,
    /// What had no room after all, and how much there must be, with the reserve.
    unfit: Vec<(Window, u64)>,
}

/// What decides how large the result of a window is.
#[derive(PartialEq, Eq)]
struct Window {
    /// Its runs, by id.
    runs: Vec<u64>,
    /// Those before it, if they can be asked: without some of them, or when the log has nothing any more of
    /// what they hold, tombstones go that would stay.
    older: Option<Vec<u64>>,
    /// The end of those behind it. The further it is, the more they mention.
    upto: Seq,
}

impl Window {
    fn of(shared: &Shared, files: &[Arc<Run>], window: &Range<usize>) -> Self {
        let ids = |runs: &[Arc<Run>]| runs.iter().map(|run| run.id).collect();
        let older = around(shared, files, window).1.map(ids);
        let upto = files.last().map_or(0, |run| run.seqs.1);
        Self { runs: ids(&files[window.clone()]), older, upto }
    }
}

impl Compaction {
    /// Of the files that there are.
    pub(crate) fn of(shared: &Shared) -> Self {
        let upto = files(&shared.list.snapshot(), Seq::MAX).last().map_or(0, |run| run.seqs.1);
        let verified = BTreeSet::new();
        Self { upto, after: 0, changed: false, verified, tried: None, unfit: Vec::new() }
    }

    /// The next window to merge; `None` when there is nothing more to gain.
    ///
    /// # Errors
    /// [`StoreError::Stopped`]; [`StoreError::NoRoomToMerge`] where nothing that is left to do fits.
    pub(crate) fn next(&mut self, shared: &Shared, room: &Room) -> Result<Option<Claim>, StoreError> {
        // What was passed over in a pass that changed nothing is looked at again, or its lack of room would be
        // forgotten.
        if !self.changed {
            self.after = 0;
        }
        // The least that something needs for which there is no room.
        let mut least: Option<u64> = None;
        let mut lacks = |needed| least = Some(least.map_or(needed, |least| least.min(needed)));
        loop {
            let snapshot = shared.list.snapshot();
            let files = files(&snapshot, self.upto);
            let from = files.partition_point(|run| run.seqs.0 <= self.after);
            match choose(shared, files, from, room) {
                Ok(Some(range)) => {
                    let window = Window::of(shared, files, &range);
                    let unfit = self.unfit.iter().find(|(unfit, _)| *unfit == window);
                    if let Some((_, needed)) = unfit.filter(|(_, needed)| room.is_less_than(*needed)) {
                        lacks(*needed);
                        self.after = files[range.end - 1].seqs.1;
                        continue;
                    }
                    self.tried = Some(window);
                    return claim(shared, files, range).map(Some);
                }
                Ok(None) => {}
                Err(StoreError::NoRoomToMerge { needed, .. }) => lacks(needed),
                Err(error) => return Err(error),
            }
            // From the first file on there may be something that fits now.
            self.after = 0;
            if !std::mem::take(&mut self.changed) {
                return least.map_or(Ok(None), |needed| Err(room.lacks_bytes(needed)));
            }
        }
    }

    /// The files that are asked, and not merged, and were not read against their checksums yet.
    pub(crate) fn unverified(&self, claim: &Claim) -> Vec<Arc<RunFile>> {
        let asked = claim.newer.iter().chain(claim.older.iter().flatten());
        let files = asked.filter_map(|run| run.file.as_ref());
        files.filter(|file| !self.verified.contains(&file.number)).cloned().collect()
    }

    /// There was no room for a window, after all. `needed` is how much there must be for its result to be
    /// begun, with the reserve, if that is known by now. What was missing says less: a file that is half
    /// written needs less than one that is made anew, and what is free by now may be more or less.
    pub(crate) fn lacked_room(&mut self, claim: &Claim, error: &StoreError, needed: Option<u64>) {
        self.pass_over(claim);
        // Quotas and thin pools show when they are used up only: what is missing is not known, and it is
        // tried again.
        if !matches!(error, StoreError::NoRoomToMerge { .. }) {
            return;
        }
        if let (Some(window), Some(needed)) = (self.tried.take(), needed) {
            self.unfit.retain(|(unfit, _)| unfit.runs[0] != window.runs[0]);
            self.unfit.push((window, needed));
        }
    }

    /// A file can be asked again what it mentions: something may be smaller than it was.
    pub(crate) fn forget_lack_of_room(&mut self) {
        self.unfit.clear();
    }

    /// Those behind the window come first now.
    fn pass_over(&mut self, claim: &Claim) {
        self.after = claim.runs.last().map_or(self.after, |run| run.seqs.1);
        self.changed = true;
    }

    /// A window is merged, into the file of that number if there is one.
    pub(crate) fn merged(&mut self, claim: &Claim, asked: &[Arc<RunFile>], number: Option<u64>) {
        self.pass_over(claim);
        self.verified.extend(asked.iter().map(|file| file.number).chain(number));
    }
}

/// What a compaction would do in its first pass.
///
/// # Errors
/// [`StoreError::Stopped`].
pub(crate) fn pending(shared: &Shared) -> Result<Pending, StoreError> {
    let snapshot = shared.list.snapshot();
    let files = files(&snapshot, Seq::MAX);
    let (mut pending, mut from) = (Pending::default(), 0);
    while let Some(window) = choose(shared, files, from, &Room::endless())? {
        from = window.end;
        pending.files += window.len();
        for run in &files[window] {
            pending.rows += run.len() as u64;
            pending.bytes += run.file.as_ref().map_or(0, |file| file.bytes);
        }
    }
    Ok(pending)
}

/// The run files that have mutations up to that one.
fn files(snapshot: &Snapshot, upto: Seq) -> &[Arc<Run>] {
    let others = |run: &Arc<Run>| run.in_memory() || run.seqs.0 > upto;
    &snapshot.runs[..snapshot.runs.iter().position(others).unwrap_or(snapshot.runs.len())]
}

/// The next window from `from` on. That samples files all over the disk, and may take seconds.
///
/// # Errors
/// [`StoreError::Stopped`]; [`StoreError::NoRoomToMerge`].
fn choose(
    shared: &Shared,
    files: &[Arc<Run>],
    from: usize,
    room: &Room,
) -> Result<Option<Range<usize>>, StoreError> {
    let candidate = |run: &Arc<Run>| Candidate { rows: run.weight(), busy: run.damage().is_some() };
    let candidates: Vec<_> = files.iter().map(candidate).collect();
    // A run is the largest of several windows.
    let mut known = vec![None; files.len()];
    let dead = |at: usize| {
        if shared.refuse_if_stopped().is_err() {
            return 0;
        }
        let (newer, older) = around(shared, files, &(at..at + 1));
        let run = &files[at];
        let dead = Dead::of(run, &Around { newer: &newer, older }, &shared.stop_merging).weight(run);
        give_back(files);
        dead
    };
    let mut dead = |at: usize| *known[at].get_or_insert_with(|| dead(at));
    let rows_max = shared.options.run_rows_max;
    let window = policy::within(room.rows(), &candidates, |room| {
        policy::everything(&candidates, from, rows_max, room, &mut dead)
    });
    shared.refuse_if_stopped()?;
    window.map_err(|lack| room.lacks(lack))
}

/// Claims a window, with the files around it that are asked. Each is read against its checksums before it has
/// a say, so only those are that make something of the window unnecessary; and the older ones, all of which
/// are needed for any tombstone, only for so many that it is worth that.
fn claim(shared: &Shared, files: &[Arc<Run>], window: Range<usize>) -> Result<Claim, StoreError> {
    let (newer, older) = around(shared, files, &window);
    let (mut by, mut idle, mut rows) = (vec![false; newer.len()], 0, 0);
    for run in &files[window.clone()] {
        let dead = Dead::of(run, &Around { newer: &newer, older }, &shared.stop_merging);
        by.iter_mut().zip(dead.by).for_each(|(by, more)| *by |= more);
        (idle, rows) = (idle + dead.idle, rows + run.len());
    }
    give_back(files);
    shared.refuse_if_stopped()?;
    let newer = newer.into_iter().zip(by).filter_map(|(run, by)| by.then_some(run)).collect();
    let older = older.filter(|older| older.is_empty() || policy::gains(idle, rows));
    Ok(shared.list.claim_window(&files[window], newer, older.map(<[_]>::to_vec)))
}

/// A sample is all over the files; nobody else needs these pages.
pub(crate) fn give_back(files: &[Arc<Run>]) {
    for run in files {
        run.release_mapped();
    }
}

/// The files around a window that can be asked: newer ones that are sound, and all older ones or none.
fn around<'a>(
    shared: &Shared,
    files: &'a [Arc<Run>],
    window: &Range<usize>,
) -> (Vec<Arc<Run>>, Option<&'a [Arc<Run>]>) {
    let newer = files[window.end..].iter().filter(|run| run.damage().is_none()).cloned().collect();
    let older = &files[..window.start];
    let sound = older.iter().all(|run| run.damage().is_none());
    let logged = older.last().is_some_and(|last| last.seqs.1 >= shared.log.first_stored_seq());
    (newer, (sound && !logged).then_some(older))
}
