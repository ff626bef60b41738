//! How a verification is, for whoever asked for it, and what is asked of it.

use super::sight::Kind;
use crate::state::now;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Differences that are kept one by one; beyond them they are counted.
pub const DIFFERENCES_MAX: usize = 1000;

/// What is to be verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VerifyOptions {
    /// About so many triples, and keys, picked at random; `None` for all.
    pub sample: Option<u64>,
    /// What differs is written anew.
    pub repair: bool,
}

/// A key under which Redis does not hold what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The key.
    pub key: String,
    /// How it differs.
    pub kind: Kind,
    /// What differs, for people.
    pub what: String,
}

/// How a verification ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was looked at that was to be.
    Complete,
    /// Somebody did not want it to go on.
    Cancelled,
    /// The store could not be read; why, and what to do.
    Failed(String),
}

impl Outcome {
    /// Its name in replies.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Cancelled => "cancelled",
            Self::Failed(_) => "failed",
        }
    }
}

/// A verification, under way or done.
#[derive(Debug, Clone, PartialEq)]
pub struct VerificationReport {
    /// What it was asked for.
    pub options: VerifyOptions,
    /// What chooses the sample.
    pub seed: u64,
    /// Seconds since the epoch.
    pub started_at: f64,
    /// When it was done; `None` while it is under way.
    pub ended_at: Option<f64>,
    /// How it ended; `None` while it is under way.
    pub outcome: Option<Outcome>,
    /// About how many triples the store has.
    pub rows_about: u64,
    /// Triples of the store that it came by.
    pub rows: u64,
    /// Of these, triples that were compared with Redis.
    pub checked: u64,
    /// Keys of Redis that were looked up in the store; 0 until all triples are compared.
    pub keys: u64,
    /// Triples that Redis did not have.
    pub missing: u64,
    /// Keys with another value than the store has, or of a triple that the store does not have.
    pub stale: u64,
    /// Keys that look like the mirror's own, and are not.
    pub foreign: u64,
    /// Triples that changed each time they were looked at, so that nothing is known of them.
    pub changing: u64,
    /// Differences that were repaired, and then found to be.
    pub repaired: u64,
    /// What it waits for, if it does.
    pub waiting: Option<String>,
    /// The first [`DIFFERENCES_MAX`] differences.
    pub differences: Vec<Difference>,
}

impl VerificationReport {
    fn new(options: VerifyOptions) -> Self {
        Self {
            options,
            seed: fastrand::u64(..),
            started_at: now(),
            ended_at: None,
            outcome: None,
            rows_about: 0,
            rows: 0,
            checked: 0,
            keys: 0,
            missing: 0,
            stale: 0,
            foreign: 0,
            changing: 0,
            repaired: 0,
            waiting: None,
            differences: Vec::new(),
        }
    }

    /// Differences that are left.
    pub fn left(&self) -> u64 {
        self.missing + self.stale + self.foreign - self.repaired
    }

    /// Store and Redis hold the same, as far as was looked; `None` where not all of that could be told.
    pub fn is_equal(&self) -> Option<bool> {
        match (&self.outcome, self.left()) {
            (_, 1..) => Some(false),
            (Some(Outcome::Complete), 0) if self.changing == 0 => Some(true),
            _ => None,
        }
    }
}

#[derive(Default)]
struct Inner {
    running: Option<VerificationReport>,
    /// Somebody is at it.
    is_picked_up: bool,
    last: Option<VerificationReport>,
}

/// The verification of a mirror: asked for here, and told of here. One at a time.
#[derive(Default)]
pub struct Verification {
    inner: Mutex<Inner>,
    wanted: watch::Sender<bool>,
}

impl Verification {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Plain values: a panic elsewhere leaves nothing half-done here.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has one begin. `false` where one is under way: that one goes on.
    pub fn begin(&self, options: VerifyOptions) -> bool {
        let mut inner = self.inner();
        if inner.running.is_some() {
            return false;
        }
        inner.running = Some(VerificationReport::new(options));
        inner.is_picked_up = false;
        self.wanted.send_replace(true);
        true
    }

    /// Has the one under way not go on. `false` where there is none.
    pub fn cancel(&self) -> bool {
        let inner = self.inner();
        let was_wanted = inner.running.is_some() && self.wanted.send_replace(false);
        if was_wanted && !inner.is_picked_up {
            // Nobody has begun who would see it.
            drop(inner);
            self.end(Outcome::Cancelled);
        }
        was_wanted
    }

    /// Whoever compares is at it now. `false` where that is not wanted any more.
    pub(super) fn pick_up(&self) -> bool {
        let mut inner = self.inner();
        inner.is_picked_up = inner.running.is_some();
        inner.is_picked_up
    }

    /// Whether one is under way.
    pub fn is_running(&self) -> bool {
        self.inner().running.is_some()
    }

    /// The one under way.
    pub fn running(&self) -> Option<VerificationReport> {
        self.inner().running.clone()
    }

    /// The last one that is over.
    pub fn last(&self) -> Option<VerificationReport> {
        self.inner().last.clone()
    }

    pub(super) fn watch_wanted(&self) -> watch::Receiver<bool> {
        self.wanted.subscribe()
    }

    /// Changes the report of the one under way.
    pub(super) fn update<T: Default>(&self, change: impl FnOnce(&mut VerificationReport) -> T) -> T {
        self.inner().running.as_mut().map(change).unwrap_or_default()
    }

    /// It is over.
    pub(super) fn end(&self, outcome: Outcome) -> Option<VerificationReport> {
        let mut inner = self.inner();
        let mut report = inner.running.take()?;
        (report.ended_at, report.outcome, report.waiting) = (Some(now()), Some(outcome), None);
        inner.last = Some(report.clone());
        self.wanted.send_replace(false);
        Some(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_the_last_one_is_kept() {
        let verification = Verification::default();
        assert!(!verification.cancel() && verification.last().is_none());
        let options = VerifyOptions { sample: Some(5), repair: false };
        assert!(verification.begin(options) && !verification.begin(VerifyOptions::default()));
        assert_eq!(verification.running().unwrap().options, options);
        verification.update(|report| report.missing = 2);
        assert!(verification.pick_up());
        assert!(verification.cancel() && !*verification.watch_wanted().borrow());
        // Until whoever compares has seen that, it is under way.
        assert!(!verification.begin(options));
        verification.end(Outcome::Cancelled);
        let last = verification.last().unwrap();
        assert_eq!((last.missing, last.outcome), (2, Some(Outcome::Cancelled)));
        assert!(verification.running().is_none() && verification.begin(options));
    }

    #[test]
    fn one_that_is_cancelled_before_it_began_is_over() {
        let verification = Verification::default();
        assert!(verification.begin(VerifyOptions::default()) && verification.cancel());
        assert_eq!(verification.last().unwrap().outcome, Some(Outcome::Cancelled));
        assert!(!verification.pick_up() && !verification.cancel());
        assert!(verification.begin(VerifyOptions::default()) && verification.pick_up());
    }

    #[test]
    fn equal_is_what_was_looked_at_whole_and_has_nothing_left() {
        let mut report = VerificationReport::new(VerifyOptions::default());
        assert_eq!(report.is_equal(), None);
        report.outcome = Some(Outcome::Complete);
        assert_eq!(report.is_equal(), Some(true));
        (report.missing, report.stale, report.repaired) = (1, 2, 2);
        assert_eq!((report.left(), report.is_equal()), (1, Some(false)));
        (report.repaired, report.changing) = (3, 1);
        assert_eq!(report.is_equal(), None);
        (report.changing, report.outcome) = (0, Some(Outcome::Cancelled));
        assert_eq!(report.is_equal(), None);
    }
}
