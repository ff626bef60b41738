//! What is asked of the merging of run files, how it is, and how fast it may be.
//!
//! A pause and a rate hold up the one thread that merges, between two pieces of a file, and nobody else:
//! seals go on, so that writers never wait for either. But small files gather meanwhile, and every lookup
//! asks each of them. So both are passed over where merging is overdue: then only merges that keep the
//! number of files bounded are made, and `/status` says so.

use cidstore_engine::{EngineStats, Pending, Progress};
use cidstore_proto::CompactAction;
use serde_json::{Map, Value, json};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How often the thread that waits looks whether merging is overdue by now.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What was not used of the rate counts for so long: looking up and comparing rows moves no bytes.
const CREDIT: Duration = Duration::from_secs(1);

/// Why a merge is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cause {
    /// There are too many files.
    #[default]
    Needed,
    /// No more files come for the time being.
    Settling,
    /// Somebody started a compaction.
    Compaction,
}

impl Cause {
    fn name(self) -> &'static str {
        match self {
            Self::Needed => "needed",
            Self::Settling => "settling",
            Self::Compaction => "compaction",
        }
    }
}

/// How much there is in run files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sizes {
    /// How many there are.
    pub files: usize,
    /// Rows and tombstones in them.
    pub rows: usize,
    /// Their bytes.
    pub bytes: u64,
    /// See [`EngineStats::merges_overdue`].
    pub overdue: bool,
}

impl Sizes {
    /// By the engine's counts.
    pub fn of(stats: &EngineStats) -> Self {
        Self {
            files: stats.file_runs,
            rows: stats.file_rows,
            bytes: stats.file_bytes,
            overdue: stats.merges_overdue,
        }
    }
}

/// What the metrics tell.
pub struct Gauges {
    /// A compaction was started and is not done.
    pub started: bool,
    /// Somebody has merging wait.
    pub paused: bool,
    /// 0 for no limit.
    pub bytes_per_second: u64,
    /// Of the merge under way.
    pub bytes_done: u64,
    /// Of the merge under way.
    pub bytes_total: u64,
}

/// A compaction that was started.
#[derive(Clone, Copy)]
struct Started {
    /// Seconds since the epoch.
    at: f64,
    since: Instant,
    before: Sizes,
    read: u64,
    written: u64,
    merges: u64,
}

impl Started {
    fn report(&self, took: Duration) -> Map<String, Value> {
        let Value::Object(map) = json!({
            "started_at": self.at,
            "seconds": took.as_secs_f64(),
            "files_before": self.before.files,
            "rows_before": self.before.rows,
            "file_bytes_before": self.before.bytes,
            "bytes_read": self.read,
            "bytes_written": self.written,
            "merges": self.merges,
        }) else {
            unreachable!("a map was written")
        };
        map
    }
}

/// A merge under way.
struct Merge {
    cause: Cause,
    since: Instant,
    files: usize,
    rows: u64,
    done: u64,
    total: u64,
    /// It began, or went on, in spite of a pause.
    in_spite: bool,
    /// It does not wait, as it did before the daemon was seen to lack room.
    gives_way: bool,
}

#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct State {
    rate: u64,
    paused: bool,
    /// Merges that were made in spite of it.
    in_spite: u64,
    ended: bool,
    cause: Cause,
    merge: Option<Merge>,
    started: Option<Started>,
    last: Option<Map<String, Value>>,
    /// The last one that was cancelled.
    cancelled: Option<Map<String, Value>>,
    /// One was cancelled, and who merges does not know yet: what it does for a compaction is in vain.
    is_in_vain: bool,
    /// What was pending, and with which files.
    pending: Option<(Sizes, Pending)>,
    /// Somebody wants to know what is pending.
    wondered: bool,
    /// At the rate, what was moved so far takes up to then.
    paid: Option<Instant>,
}

/// What everybody knows of merging.
#[derive(Default)]
pub struct Compaction {
    state: Mutex<State>,
    changed: Condvar,
}

impl Compaction {
    /// At that rate; 0 for no limit.
    pub fn new(rate: u64) -> Self {
        Self { state: Mutex::new(State { rate, ..State::default() }), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a panic ends the process")
    }

    /// Does what is asked, with run files of these sizes, and tells everything as it is then: a
    /// compaction that was started is in the answer, however soon it is done.
    pub fn act(&self, action: CompactAction, sizes: Sizes) -> Map<String, Value> {
        let mut state = self.lock();
        match action {
            CompactAction::Status => {}
            CompactAction::Start => {
                let started = || Started {
                    at: crate::shared::now(),
                    since: Instant::now(),
                    before: sizes,
                    read: 0,
                    written: 0,
                    merges: 0,
                };
                state.started.get_or_insert_with(started);
            }
            CompactAction::Cancel => {
                if let Some(started) = state.started.take() {
                    state.cancelled = Some(started.report(started.since.elapsed()));
                    state.is_in_vain = true;
                }
            }
            CompactAction::Pause => state.paused = true,
            CompactAction::Resume => {
                (state.paused, state.in_spite) = (false, 0);
                if let Some(merge) = &mut state.merge {
                    merge.in_spite = false;
                }
            }
            CompactAction::Rate(rate) => state.rate = rate,
        }
        self.changed.notify_all();
        state.report(sizes)
    }

    /// The end: nobody waits any more.
    pub fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }

    /// Whether a compaction is to be made, or gone on with, now.
    pub fn is_wanted(&self) -> bool {
        let state = self.lock();
        state.started.is_some() && !state.paused
    }

    /// Whether a compaction was started, and is not done.
    pub fn is_started(&self) -> bool {
        self.lock().started.is_some()
    }

    /// Whether one was cancelled since this was last asked, so that its scope is to be forgotten.
    pub fn takes_cancel(&self) -> bool {
        std::mem::take(&mut self.lock().is_in_vain)
    }

    /// Whether a merge is under way, be it that it waits.
    pub fn is_merging(&self) -> bool {
        self.lock().merge.is_some()
    }

    /// Whether somebody has merging wait.
    pub fn is_paused(&self) -> bool {
        self.lock().paused
    }

    /// What comes next is for that reason.
    pub fn begin(&self, cause: Cause) {
        self.lock().cause = cause;
    }

    /// A step has ended; it merged something or not. Whether that was the first merge that was made in
    /// spite of a pause.
    pub fn step_ended(&self, merged: bool) -> bool {
        let mut state = self.lock();
        // One that was through before it came to wait has nothing to do with a pause that came meanwhile.
        let in_spite = state.merge.take().is_some_and(|merge| merge.in_spite) && merged;
        state.in_spite += u64::from(in_spite);
        if let (true, Some(started)) = (merged, state.compacting()) {
            started.merges += 1;
        }
        in_spite && state.in_spite == 1
    }

    /// The compaction is done; these are the sizes now. Tells what it did, unless it was cancelled: then one
    /// that was started since has yet to begin.
    pub fn done(&self, sizes: Sizes) -> Option<Value> {
        let mut state = self.lock();
        if state.is_in_vain {
            return None;
        }
        let started = state.started.take()?;
        let mut last = started.report(started.since.elapsed());
        last.insert("files_after".into(), sizes.files.into());
        last.insert("rows_after".into(), sizes.rows.into());
        last.insert("file_bytes_after".into(), sizes.bytes.into());
        state.last = Some(last.clone());
        state.pending = Some((sizes, Pending::default()));
        Some(last.into())
    }

    /// Somebody wants to know what is pending.
    pub fn wonder(&self) {
        self.lock().wondered = true;
    }

    /// Whether that should be found out, with run files of these sizes.
    pub fn takes_wonder(&self, sizes: Sizes) -> bool {
        let mut state = self.lock();
        std::mem::take(&mut state.wondered) && state.pending.is_none_or(|(of, _)| of != sizes)
    }

    /// It was found out.
    pub fn set_pending(&self, sizes: Sizes, pending: Pending) {
        self.lock().pending = Some((sizes, pending));
    }

    /// What the merge under way tells. Takes as long as pause and rate have it wait, unless `is_overdue`. A
    /// file that is half written holds room: where the daemon lacks some it waits with the first piece only,
    /// and not for long, so that the engine looks at what there is, and may give it up. Returns whether the
    /// merge is wanted: not where it is for a compaction that was cancelled.
    pub fn progress(
        &self,
        progress: Progress,
        is_overdue: &dyn Fn() -> bool,
        lacks_room: &dyn Fn() -> bool,
    ) -> bool {
        let holds_room = matches!(progress, Progress::Moved { written: 1.., .. });
        let mut state = self.lock();
        // A piece goes on at once where the one before it did not have to wait any longer.
        let mut waited = state.merge.as_ref().is_some_and(|merge| merge.gives_way);
        let bytes = match progress {
            Progress::Begun { runs, rows, bytes } => {
                let (cause, since) = (state.cause, Instant::now());
                state.merge = Some(Merge {
                    cause,
                    since,
                    files: runs,
                    rows,
                    done: 0,
                    total: bytes,
                    in_spite: false,
                    gives_way: false,
                });
                0
            }
            Progress::Moved { read, written } => {
                if let Some(merge) = &mut state.merge {
                    merge.done += read + written;
                }
                if let Some(started) = state.compacting() {
                    started.read += read;
                    started.written += written;
                }
                read + written
            }
        };
        let now = Instant::now();
        let from = state.paid.map_or(now, |paid| paid.max(now.checked_sub(CREDIT).unwrap_or(now)));
        loop {
            if state.cause == Cause::Compaction && state.is_in_vain {
                return false;
            }
            let now = Instant::now();
            // By the rate as it is now: it may change while this waits.
            let due = match state.rate {
                0 => now,
                rate => from + Duration::from_secs_f64(bytes as f64 / rate as f64),
            };
            let wait = if state.paused { LOOK_EVERY } else { due.saturating_duration_since(now) };
            let free = state.ended || wait.is_zero();
            // Only after a wait: what the daemon lacks may have become free without its knowing. Then the file
            // is finished, and the sooner the better: it holds the room of what it is made of, too.
            let gives_way = waited && holds_room && lacks_room();
            if free || gives_way || is_overdue() {
                let in_spite = state.paused && !free && !gives_way;
                if let Some(merge) = &mut state.merge {
                    merge.in_spite |= in_spite;
                    merge.gives_way = gives_way;
                }
                state.paid = Some(due.min(now + CREDIT));
                return true;
            }
            let woken = self.changed.wait_timeout(state, wait.min(LOOK_EVERY));
            state = woken.expect("a panic ends the process").0;
            waited = true;
        }
    }

    /// What somebody who looks after the daemon should know, and whether it is a reason to do something;
    /// `small` run files are small ones.
    pub fn judge(&self, sizes: Sizes, small: usize) -> (bool, String) {
        let state = self.lock();
        let files = sizes.files;
        if sizes.overdue && (state.paused || state.rate > 0) {
            let why = if state.paused { "the pause: resume it" } else { "the rate: raise it" };
            return (true, format!("{small} small run files, too many: merging goes on in spite of {why}"));
        }
        if state.paused && state.in_spite > 0 {
            let merges = state.in_spite;
            let text =
                format!("paused, and {merges} merges were made in spite of it, for there were too many");
            return (true, format!("{text} small run files: resume it"));
        }
        let what = match (&state.merge, &state.started) {
            _ if state.paused => "paused".into(),
            (Some(merge), _) => {
                let Merge { files, done, total, .. } = merge;
                format!("merging {files} files ({}), {done} of {total} bytes", merge.cause.name())
            }
            (None, Some(_)) => "compacting".into(),
            (None, None) => "idle".into(),
        };
        (false, format!("{what}; {files} run files, {small} of them small"))
    }

    /// For the metrics.
    pub fn gauges(&self) -> Gauges {
        let state = self.lock();
        let (bytes_done, bytes_total) =
            state.merge.as_ref().map_or((0, 0), |merge| (merge.done, merge.total));
        Gauges {
            started: state.started.is_some(),
            paused: state.paused,
            bytes_per_second: state.rate,
            bytes_done,
            bytes_total,
        }
    }
}

impl State {
    /// The compaction that what is merged now is for.
    fn compacting(&mut self) -> Option<&mut Started> {
        self.started.as_mut().filter(|_| self.cause == Cause::Compaction && !self.is_in_vain)
    }

    /// Everything, with run files of these sizes.
    fn report(&self, sizes: Sizes) -> Map<String, Value> {
        let state = self;
        let name = if state.paused {
            "paused"
        } else if state.started.is_some() || state.merge.is_some() {
            "running"
        } else {
            "idle"
        };
        let merge = state.merge.as_ref().map(|merge| {
            json!({
                "cause": merge.cause.name(),
                "files": merge.files,
                "rows": merge.rows,
                "bytes_done": merge.done,
                "bytes_total": merge.total,
                "seconds": merge.since.elapsed().as_secs_f64(),
            })
        });
        let pending = state.pending.filter(|(of, _)| *of == sizes && state.started.is_none());
        let pending = pending.map(
            |(_, pending)| json!({"files": pending.files, "rows": pending.rows, "file_bytes": pending.bytes}),
        );
        let Value::Object(map) = json!({
            "state": name,
            "bytes_per_second": state.rate,
            "overdue": sizes.overdue,
            "files": sizes.files,
            "rows": sizes.rows,
            "file_bytes": sizes.bytes,
            "merge": merge,
            "compaction": state.started.map(|started| started.report(started.since.elapsed())),
            "last": state.last,
            "cancelled": state.cancelled,
            "pending": pending,
        }) else {
            unreachable!("a map was written")
        };
        map
    }
}

#[cfg(test)]
mod tests;
