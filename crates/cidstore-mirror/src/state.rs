//! What the mirror does and how far it is, for `/status` and metrics. One line in the log for each
//! change of state, none per triple.

use crate::endpoint::Address;
use crate::failure::{Category, Failure};
use crate::pace::Rate;
use crate::verify::Verification;
use cidstore_types::Seq;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
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
    /// Verifications finished.
    pub verifications: u64,
    /// Differences that verifications found, foreign keys included.
    pub differences: u64,
    /// Differences that verifications had repaired.
    pub repaired: u64,
    /// Failures by category, in the order of [`Category::ALL`].
    pub errors: [u64; Category::ALL.len()],
}

/// A rebuild under way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rebuilding {
    /// Seconds since the epoch.
    pub started_at: f64,
    /// About how many rows it has to write.
    pub rows_about: u64,
}

/// A rebuild that is done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rebuilt {
    /// Seconds since the epoch.
    pub started_at: f64,
    /// How long it took, interruptions included.
    pub seconds: f64,
    /// Rows that it wrote.
    pub rows: u64,
}

/// A look at the mirror at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// What it does.
    pub state: State,
    /// `host:port/db`; empty when no mirror is configured.
    pub target: String,
    /// The servers that it is, or was last, connected to.
    pub servers: Vec<String>,
    /// Every mutation up to it is in Redis.
    pub cursor: Seq,
    /// Mutations that Redis misses.
    pub lag: u64,
    /// Age of the oldest mutation that Redis misses, in seconds; 0 when it misses none.
    pub lag_seconds: f64,
    /// Rows that the rebuild under way, or the latest one, has written.
    pub rebuilt_rows: u64,
    /// The rebuild under way; it may wait for a connection.
    pub rebuilding: Option<Rebuilding>,
    /// Somebody asked for a rebuild, and it has not begun yet.
    pub rebuild_wanted: bool,
    /// The last rebuild that is done.
    pub rebuilt: Option<Rebuilt>,
    /// Triples written or removed a second, of late.
    pub rate: f64,
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
    rate: Rate,
    lines: f64,
    lines_at: Instant,
    lines_dropped: u64,
}

/// The mirror's state, shared with whoever shows it.
pub struct MirrorState {
    inner: Mutex<Inner>,
    cursor: watch::Sender<Seq>,
    /// How often the cursor went back: whoever reads Redis may then find older values for a while.
    setbacks: AtomicU64,
    rebuild_wanted: watch::Sender<bool>,
    /// What compares the store with Redis.
    pub verification: Verification,
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
            servers: Vec::new(),
            cursor: 0,
            lag: 0,
            lag_seconds: 0.0,
            rebuilt_rows: 0,
            rebuilding: None,
            rebuild_wanted: false,
            rebuilt: None,
            rate: 0.0,
            last_error: None,
            counters: Counters::default(),
        };
        let inner = Inner {
            report,
            oldest: None,
            retain_from: None,
            rate: Rate::new(Instant::now()),
            lines: LINES_AT_ONCE,
            lines_at: Instant::now(),
            lines_dropped: 0,
        };
        Self {
            inner: Mutex::new(inner),
            cursor: watch::Sender::new(0),
            setbacks: AtomicU64::new(0),
            rebuild_wanted: watch::Sender::new(false),
            verification: Verification::default(),
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
        let mut inner = self.inner();
        let mut report = inner.report.clone();
        report.cursor = self.cursor();
        report.rebuild_wanted = self.rebuild_is_wanted();
        report.rate = inner.rate_at(Instant::now());
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
        *self.cursor.borrow()
    }

    /// Has everything written anew from the store: at once where the mirror is connected, else as soon as it
    /// is, also after a restart. `false` where a rebuild is under way, or wanted already: that one goes on.
    pub fn want_rebuild(&self) -> bool {
        let inner = self.inner();
        inner.report.rebuilding.is_none() && !self.rebuild_wanted.send_replace(true)
    }

    /// Whether Redis has every mutation up to this seq, as far as the mirror knows. What is read of Redis from
    /// now on is not older, as long as the mirror [still knows so](MirrorState::still_holds) afterwards and the
    /// server that answers has an epoch key that says so, too.
    pub fn holds(&self, seq: Seq) -> Option<Held> {
        let setbacks = self.setbacks.load(SeqCst);
        (self.state() == State::Live && self.cursor() >= seq).then_some(Held { setbacks })
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
        if self.cursor.send_replace(seq) > seq {
            self.setbacks.fetch_add(1, SeqCst);
        }
    }

    /// Follows the cursor.
    pub(crate) fn watch_cursor(&self) -> watch::Receiver<Seq> {
        self.cursor.subscribe()
    }

    pub(crate) fn set_servers(&self, servers: &[Address]) {
        self.inner().report.servers = servers.iter().map(ToString::to_string).collect();
    }

    pub(crate) fn rebuild_is_wanted(&self) -> bool {
        *self.rebuild_wanted.borrow()
    }

    pub(crate) fn watch_rebuild_wanted(&self) -> watch::Receiver<bool> {
        self.rebuild_wanted.subscribe()
    }

    /// A rebuild begins, of about so many rows.
    pub(crate) fn rebuild_begins(&self, rows_about: u64) {
        let mut inner = self.inner();
        inner.report.rebuilt_rows = 0;
        inner.report.rebuilding = Some(Rebuilding { started_at: now(), rows_about });
        self.rebuild_wanted.send_replace(false);
    }

    /// It is done.
    pub(crate) fn rebuild_ends(&self) {
        let report = &mut self.inner().report;
        report.counters.rebuilds += 1;
        report.rebuilt = report.rebuilding.take().map(|Rebuilding { started_at, .. }| Rebuilt {
            started_at,
            seconds: (now() - started_at).max(0.0),
            rows: report.rebuilt_rows,
        });
    }

    pub(crate) fn set_oldest(&self, received_at: Option<f64>) {
        self.inner().oldest = received_at;
    }

    pub(crate) fn count(&self, add: impl FnOnce(&mut Counters)) {
        let mut inner = self.inner();
        add(&mut inner.report.counters);
        inner.rate_at(Instant::now());
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
    fn rate_at(&mut self, now: Instant) -> f64 {
        let Counters { sets, unlinks, .. } = self.report.counters;
        self.rate.look(now, sets + unlinks)
    }

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
