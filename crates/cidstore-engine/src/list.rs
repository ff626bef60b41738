//! The list of runs: what readers take a snapshot of, and the one place where it changes.

use crate::error::UnreadablePage;
use crate::mentions::Around;
use crate::merge::{MERGE_RUNS_MAX, Merge, NEVER_STOPPED};
use crate::policy::{self, Candidate};
use crate::run::Run;
use crate::snapshot::Snapshot;
use arc_swap::ArcSwap;
use cidstore_types::Seq;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The current runs. Readers never wait; the writer and the maintainer change the list under a lock
/// that is held for as long as a splice takes, or a merge of small runs.
pub struct RunList {
    current: ArcSwap<Snapshot>,
    /// Ids of runs that the maintainer is merging outside the lock.
    claimed: Mutex<BTreeSet<u64>>,
    next_id: AtomicU64,
}

/// A window of adjacent runs that the maintainer merges; no one else touches them meanwhile.
pub struct Claim {
    /// The runs, oldest first.
    pub runs: Vec<Arc<Run>>,
    /// See [`Around::newer`].
    pub newer: Vec<Arc<Run>>,
    /// See [`Around::older`].
    pub older: Option<Vec<Arc<Run>>>,
}

impl Claim {
    /// What is known of the runs around the window.
    pub fn around(&self) -> Around<'_> {
        Around { newer: &self.newer, older: self.older.as_deref() }
    }

    /// Whether all that was read of the runs was there.
    ///
    /// # Errors
    /// [`UnreadablePage`].
    pub fn check_readable(&self) -> Result<(), UnreadablePage> {
        let mut runs = self.runs.iter().chain(&self.newer).chain(self.older.iter().flatten());
        runs.try_for_each(|run| run.check_readable())
    }

    /// Whether no other run has to do with what the window says.
    pub fn is_alone(&self) -> bool {
        self.newer.is_empty() && self.older.as_ref().is_some_and(Vec::is_empty)
    }
}

impl RunList {
    /// A list that begins with these runs.
    pub fn new(runs: Vec<Arc<Run>>, as_of: Seq) -> Self {
        let next_id = runs.iter().map(|run| run.id + 1).max().unwrap_or(1);
        Self {
            current: ArcSwap::from_pointee(Snapshot { runs, as_of, forgotten: as_of }),
            claimed: Mutex::default(),
            next_id: AtomicU64::new(next_id),
        }
    }

    /// The current state.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// A new run id.
    pub fn new_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        // The set of ids is valid at every step, so a panic elsewhere cannot have broken it.
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes newer runs visible, all at once.
    pub fn publish(&self, newer: Vec<Arc<Run>>, as_of: Seq) {
        let _claimed = self.lock();
        let mut next = Snapshot::clone(&self.current.load());
        next.runs.extend(newer);
        next.as_of = as_of;
        self.current.store(Arc::new(next));
    }

    /// Merges small runs in memory, while the policy finds any, into runs of at most `rows_max`
    /// rows. Returns the rows merged.
    pub fn tidy(&self, fan_in: usize, rows_max: usize) -> usize {
        let mut merged = 0;
        let claimed = self.lock();
        loop {
            let snapshot = self.current.load_full();
            let busy = |run: &Run| !run.in_memory() || run.weight() >= rows_max || claimed.contains(&run.id);
            let Some(window) = policy::pick(&candidates(&snapshot.runs, busy), fan_in, rows_max) else {
                return merged;
            };
            let runs = &snapshot.runs[window.clone()];
            let run = Merge::new(runs, Around::bottom(window.start == 0), &NEVER_STOPPED)
                .into_memory(self.new_id());
            merged += run.len();
            let forgets = window.start == 0;
            self.splice(&snapshot, window, run, forgets);
        }
    }

    /// Whether [`RunList::filter_one`] may have something to do.
    pub fn lacks_filters(&self) -> bool {
        self.snapshot().runs.iter().any(|run| is_to_be_filtered(run))
    }

    /// Gives filters to one run in memory that lacks them. A commit does not make them, and a merge in
    /// memory takes no large runs: when nothing comes for long, lookups would search each of those.
    /// Returns whether there was one.
    pub fn filter_one(&self) -> bool {
        let claimed = self.lock();
        let snapshot = self.current.load_full();
        let wanted = |run: &Arc<Run>| is_to_be_filtered(run) && !claimed.contains(&run.id);
        let Some(at) = snapshot.runs.iter().position(wanted) else { return false };
        let merge = Merge::new(&snapshot.runs[at..=at], Around::bottom(at == 0), &NEVER_STOPPED);
        self.splice(&snapshot, at..at + 1, merge.into_memory(self.new_id()), at == 0);
        true
    }

    /// Claims the oldest runs in memory, at most as many as one merge takes. `None` where there are
    /// none.
    pub fn claim_memory(&self) -> Option<Claim> {
        let mut claimed = self.lock();
        let snapshot = self.current.load_full();
        let start = snapshot.runs.iter().position(|run| run.in_memory())?;
        assert!(!claimed.contains(&snapshot.runs[start].id), "there is one sealer");
        let end = snapshot.runs.len().min(start + MERGE_RUNS_MAX);
        Some(claim(&mut claimed, &snapshot, start..end))
    }

    /// Claims adjacent runs in files. Only the merger takes those out of the list, and it is who claims
    /// them: so they are still there.
    pub fn claim_window(
        &self,
        runs: &[Arc<Run>],
        newer: Vec<Arc<Run>>,
        older: Option<Vec<Arc<Run>>>,
    ) -> Claim {
        self.lock().extend(runs.iter().map(|run| run.id));
        Claim { runs: runs.to_vec(), newer, older }
    }

    /// Ends a claim. `replacement` takes the place of its runs, unless it is empty and in no file; `None`
    /// leaves them where they are.
    pub fn release(&self, done: &Claim, replacement: Option<Run>) {
        let mut claimed = self.lock();
        for run in &done.runs {
            claimed.remove(&run.id);
        }
        let Some(replacement) = replacement else { return };
        let snapshot = self.current.load_full();
        let Some(start) = snapshot.runs.iter().position(|run| run.id == done.runs[0].id) else {
            unreachable!("claimed runs stay in the list until they are released")
        };
        self.splice(&snapshot, start..start + done.runs.len(), replacement, done.older.is_some());
    }

    /// Puts a run in the place of the one that has its id: the same file, opened anew. Only the merger does
    /// that, and while it merges nothing.
    pub fn reopen(&self, run: Run) {
        let claimed = self.lock();
        assert!(!claimed.contains(&run.id), "there is one merger");
        let snapshot = self.current.load_full();
        let Some(at) = snapshot.runs.iter().position(|former| former.id == run.id) else {
            unreachable!("only the merger takes runs in files out of the list")
        };
        self.splice(&snapshot, at..at + 1, run, false);
    }

    /// The caller holds the lock. `forgets`: it was known what older runs mention, and tombstones that hide
    /// nothing may have been left out.
    fn splice(&self, snapshot: &Snapshot, window: Range<usize>, run: Run, forgets: bool) {
        let mut next = snapshot.clone();
        let merged = &snapshot.runs[window.clone()];
        if forgets && merged.iter().any(|run| !run.tombstones.spo.is_empty()) {
            let newest = merged.last().map_or(0, |run| run.seqs.1);
            next.forgotten = next.forgotten.max(newest);
        }
        let replacement = if run.is_empty() && run.in_memory() { None } else { Some(Arc::new(run)) };
        next.runs.splice(window, replacement);
        self.current.store(Arc::new(next));
    }
}

/// A larger one takes too long for something that a commit may have to wait for, and is sealed soon.
const FILTERED_ROWS_MAX: usize = 1 << 16;

fn is_to_be_filtered(run: &Run) -> bool {
    run.in_memory() && run.lacks_filters() && run.weight() <= FILTERED_ROWS_MAX
}

/// Runs as the policy sees them.
pub fn candidates(runs: &[Arc<Run>], busy: impl Fn(&Run) -> bool) -> Vec<Candidate> {
    runs.iter().map(|run| Candidate { rows: run.weight(), busy: busy(run) }).collect()
}

/// Merges runs that are not in any list yet, and are not the oldest, while the policy finds any.
pub fn tidy_newer(runs: &mut Vec<Arc<Run>>, fan_in: usize, new_id: impl Fn() -> u64) {
    while let Some(window) = policy::pick(&candidates(runs, |_| false), fan_in, usize::MAX) {
        let run =
            Merge::new(&runs[window.clone()], Around::bottom(false), &NEVER_STOPPED).into_memory(new_id());
        runs.splice(window, (!run.is_empty()).then(|| Arc::new(run)));
    }
}

fn claim(claimed: &mut BTreeSet<u64>, snapshot: &Snapshot, window: Range<usize>) -> Claim {
    let runs = snapshot.runs[window.clone()].to_vec();
    claimed.extend(runs.iter().map(|run| run.id));
    Claim { runs, newer: Vec::new(), older: (window.start == 0).then(Vec::new) }
}
