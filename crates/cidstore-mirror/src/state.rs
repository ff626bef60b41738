//! What the mirror does and how far it is, for `/status` and metrics. One line in the log for each
//! change of state, none per triple.

use crate::failure::{Category, Failure};
use cidstore_types::Seq;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// Log lines about changes of state that may come at once; beyond it one each [`LINE_INTERVAL`],
/// so that a connection that breaks many times a second does not fill the log.
const LINES_AT_ONCE: f64 = 12.0;
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// What the mirror does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// Not configured, or not running any more.
    #[default]
    Off,
    /// On its way to Redis for the first time.
    Connecting,
    /// Writing what Redis misses.
    CatchingUp,
    /// Redis holds all but the newest moments.
    Live,
    /// Writing everything anew from the store, because the log does not reach back far enough.
    Rebuilding,
    /// Cannot go on for now; tries again and again.
    Failing,
}

impl State {
    /// Its name on `/status` and in notifications.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Connecting => "connecting",
            Self::CatchingUp => "catching_up",
            Self::Live => "live",
            Self::Rebuilding => "rebuilding",
            Self::Failing => "failing",
        }
    }
}

/// The latest failure.
#[derive(Debug, Clone, PartialEq)]
pub struct LastError {
    /// Who can mend it.
    pub category: Category,
    /// What happened and what to do.
    pub message: String,
    /// When, in seconds since the epoch.
    pub at: f64,
}

/// Totals since the start of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// `SET` commands that Redis confirmed.
    pub sets: u64,
    /// `UNLINK` commands that Redis confirmed.
    pub unlinks: u64,
    /// Bytes of confirmed commands, about.
    pub bytes: u64,
    /// Connections made.
    pub connects: u64,
    /// Connections made after the first.
    pub reconnects: u64,
    /// Rebuilds finished.
    pub rebuilds: u64,
    /// Failures by category, in the order of [`Category::ALL`].
    pub errors: [u64; Category::ALL.len()],
}

/// A look at the mirror at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// What it does.
    pub state: State,
    /// `host:port/db`; empty when no mirror is configured.
    pub target: String,
    /// Every mutation up to it is in Redis.
    pub cursor: Seq,
    /// Mutations that Redis misses.
    pub lag: u64,
    /// Age of the oldest mutation that Redis misses, in seconds; 0 when it misses none.
    pub lag_seconds: f64,
    /// Rows that the rebuild under way, or the latest one, has written.
    pub rebuilt_rows: u64,
    /// The latest failure, also when it is over.
    pub last_error: Option<LastError>,
    /// Totals.
    pub counters: Counters,
}

struct Inner {
    report: Report,
    /// Time of receipt of the oldest mutation that Redis misses, where it is known.
    oldest: Option<f64>,
    /// The mirror needs the log from here on; `None` without a mirror.
    retain_from: Option<Seq>,
    lines: f64,
    lines_at: Instant,
    lines_dropped: u64,
}

/// The mirror's state, shared with whoever shows it.
pub struct MirrorState {
    inner: Mutex<Inner>,
    cursor: AtomicU64,
    /// How often the cursor went back: whoever reads Redis may then find older values for a while.
    setbacks: AtomicU64,
    changes: watch::Sender<State>,
}

/// Redis had everything up to some seq at one moment; see [`MirrorState::holds`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    setbacks: u64,
}

impl Default for MirrorState {
    fn default() -> Self {
        Self::new()
    }
}

/// Seconds since the epoch.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

impl MirrorState {
    /// State `off`, nothing counted.
    pub fn new() -> Self {
        let report = Report {
            state: State::Off,
            target: String::new(),
            cursor: 0,
            lag: 0,
            lag_seconds: 0.0,
            rebuilt_rows: 0,
            last_error: None,
            counters: Counters::default(),
        };
        let inner = Inner {
            report,
            oldest: None,
            retain_from: None,
            lines: LINES_AT_ONCE,
            lines_at: Instant::now(),
            lines_dropped: 0,
        };
        Self {
            inner: Mutex::new(inner),
            cursor: AtomicU64::new(0),
            setbacks: AtomicU64::new(0),
            changes: watch::Sender::new(State::Off),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Plain values: a panic elsewhere leaves nothing half-done here.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything at this moment. `log_last` is the newest seq of the log, `now` is in seconds since
    /// the epoch.
    pub fn report(&self, log_last: Seq, now: f64) -> Report {
        let inner = self.inner();
        let mut report = inner.report.clone();
        report.cursor = self.cursor();
        if report.state != State::Off {
            report.lag = log_last.saturating_sub(report.cursor);
        }
        if report.lag > 0 {
            report.lag_seconds = inner.oldest.map_or(0.0, |oldest| (now - oldest).max(0.0));
        }
        report
    }

    /// What the mirror does.
    pub fn state(&self) -> State {
        *self.changes.borrow()
    }

    /// Every mutation up to it is in Redis. It goes back when Redis turns out to have lost data.
    pub fn cursor(&self) -> Seq {
        self.cursor.load(Relaxed)
    }

    /// Whether Redis has every mutation up to this seq, as far as the mirror knows. What is read of Redis from
    /// now on is not older, as long as the mirror [still knows so](MirrorState::still_holds) afterwards and the
    /// server that answers has an epoch key that says so, too.
    pub fn holds(&self, seq: Seq) -> Option<Held> {
        let setbacks = self.setbacks.load(SeqCst);
        (self.state() == State::Live && self.cursor.load(SeqCst) >= seq).then_some(Held { setbacks })
    }

    /// Whether nothing older was sent to Redis since.
    pub fn still_holds(&self, held: Held) -> bool {
        self.setbacks.load(SeqCst) == held.setbacks
    }

    /// The mirror needs the log from this seq on, also after a restart. `None`: it needs nothing.
    /// Dropping more than that is harmless: it costs a rebuild from the store.
    pub fn retain_from(&self) -> Option<Seq> {
        self.inner().retain_from
    }

    /// Follows the changes of state.
    pub fn subscribe(&self) -> watch::Receiver<State> {
        self.changes.subscribe()
    }

    pub(crate) fn configured(&self, target: &str) {
        self.inner().report.target = target.into();
    }

    pub(crate) fn set_retain_from(&self, seq: Option<Seq>) {
        self.inner().retain_from = seq;
    }

    /// Goes back before anything is sent again.
    pub(crate) fn set_cursor(&self, seq: Seq) {
        if self.cursor.swap(seq, SeqCst) > seq {
            self.setbacks.fetch_add(1, SeqCst);
        }
    }

    pub(crate) fn set_oldest(&self, received_at: Option<f64>) {
        self.inner().oldest = received_at;
    }

    pub(crate) fn count(&self, add: impl FnOnce(&mut Counters)) {
        add(&mut self.inner().report.counters);
    }

    pub(crate) fn set_rebuilt_rows(&self, rows: u64) {
        self.inner().report.rebuilt_rows = rows;
    }

    /// Enters a state, with what led there, for the log line.
    pub(crate) fn enter(&self, state: State, why: &str) {
        self.change(state, None, why);
    }

    /// Enters [`State::Failing`] and counts the failure.
    pub(crate) fn fail(&self, failure: &Failure) {
        {
            let report = &mut self.inner().report;
            report.counters.errors[failure.category as usize] += 1;
        }
        self.change(State::Failing, Some(failure), "");
    }

    /// Counts a failure that does not keep the mirror from going on, and tells of it.
    pub(crate) fn note(&self, failure: &Failure) {
        let mut inner = self.inner();
        inner.report.counters.errors[failure.category as usize] += 1;
        inner.report.last_error =
            Some(LastError { category: failure.category, message: failure.to_string(), at: now() });
        let line = inner.may_log();
        drop(inner);
        if let Some(dropped) = line {
            tracing::warn!(category = failure.category.as_str(), dropped, "mirror: {failure}");
        }
    }

    fn change(&self, state: State, failure: Option<&Failure>, why: &str) {
        let mut inner = self.inner();
        // A failure of another kind is news, too: refused yesterday, wrong password today.
        let kind = |error: &LastError| Some(error.category) == failure.map(|f| f.category);
        let same_kind = failure.is_none() || inner.report.last_error.as_ref().is_some_and(kind);
        let news = inner.report.state != state || !same_kind;
        if let Some(failure) = failure {
            inner.report.last_error =
                Some(LastError { category: failure.category, message: failure.to_string(), at: now() });
        }
        if !news {
            return;
        }
        inner.report.state = state;
        let line = inner.may_log();
        let target = inner.report.target.clone();
        drop(inner);
        self.changes.send_replace(state);
        let Some(dropped) = line else { return };
        let (state, cursor) = (state.as_str(), self.cursor());
        if let Some(failure) = failure {
            let category = failure.category.as_str();
            tracing::warn!(state, target_server = target, cursor, category, dropped, "mirror: {failure}");
        } else {
            tracing::info!(state, target_server = target, cursor, dropped, "mirror: {why}");
        }
    }

    /// Writes the line that was held back, once there is room for it again.
    pub(crate) fn log_held_back(&self) {
        let mut inner = self.inner();
        if inner.lines_dropped == 0 {
            return;
        }
        if let Some(dropped) = inner.may_log() {
            let (state, cursor) = (inner.report.state.as_str(), self.cursor());
            drop(inner);
            tracing::info!(state, cursor, dropped, "mirror: changed state more often than is logged");
        }
    }
}

impl Inner {
    /// Takes one line from the allowance: how many were held back before it, or `None` to hold
    /// back this one, too.
    fn may_log(&mut self) -> Option<u64> {
        let since = self.lines_at.elapsed().as_secs_f64() / LINE_INTERVAL.as_secs_f64();
        self.lines = (self.lines + since).min(LINES_AT_ONCE);
        self.lines_at = Instant::now();
        if self.lines < 1.0 {
            self.lines_dropped += 1;
            return None;
        }
        self.lines -= 1.0;
        Some(std::mem::take(&mut self.lines_dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_lag_and_failures() {
        let state = MirrorState::new();
        assert_eq!((state.report(9, 100.0).lag, state.retain_from()), (0, None));
        let mut changes = state.subscribe();
        state.configured("h:1/0");
        state.set_cursor(4);
        state.set_oldest(Some(97.5));
        let failure = Failure::network("gone");
        state.fail(&failure);
        state.fail(&failure);
        let report = state.report(9, 100.0);
        assert_eq!((report.state, report.lag, report.cursor), (State::Failing, 5, 4));
        assert!((report.lag_seconds - 2.5).abs() < 1e-9);
        assert_eq!(report.counters.errors[Category::Network as usize], 2);
        assert!(report.last_error.unwrap().message.contains("gone"));
        assert_eq!(*changes.borrow_and_update(), State::Failing);
        state.enter(State::Live, "");
        assert!(changes.has_changed().unwrap());
        assert!(state.report(4, 100.0).lag_seconds == 0.0);
    }

    #[test]
    fn what_redis_holds_is_known_until_the_cursor_goes_back() {
        let state = MirrorState::new();
        state.set_cursor(7);
        assert_eq!(state.holds(7), None, "it is not live");
        state.enter(State::Live, "");
        assert_eq!(state.holds(8), None);
        let held = state.holds(7).unwrap();
        state.set_cursor(9);
        assert!(state.still_holds(held));
        state.set_cursor(5);
        state.set_cursor(9);
        assert!(!state.still_holds(held), "older values were sent again meanwhile");
        assert!(state.holds(9).is_some_and(|held| state.still_holds(held)));
    }

    #[test]
    fn lines_are_bounded() {
        let state = MirrorState::new();
        let lines = (0..1000).filter(|_| state.inner().may_log().is_some()).count();
        // Room for a slow machine, on which some of the allowance comes back meanwhile.
        assert!((12..100).contains(&lines), "{lines}");
        assert!(state.inner().lines_dropped > 900);
    }
}
