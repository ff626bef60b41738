//! Verifying: whether Redis holds what the store has, while both go on.
//!
//! First every triple of the store is looked up in Redis, then every key of Redis that looks like the mirror's
//! own is looked up in the store. The mirror is behind the store, so what differs is only suspected: it is
//! looked at again when the mirror has confirmed all that the log had at the first look, and counts where
//! neither side has changed since ([`sight`]). What is to be repaired goes to the follower, which writes it in
//! order with everything else (`repair`), and is looked at once more.
//!
//! It has connections of its own, on which it only reads: a pipeline of [`VALUES_AT_ONCE`] values at a time. A
//! connection that breaks costs what was under way. What it keeps in memory is bounded by [`SUSPECTS_MAX`] and
//! [`KNOWN_MAX`].

mod pick;
mod reading;
mod report;
mod sight;
mod walk;

pub use report::{DIFFERENCES_MAX, Difference, Outcome, Verification, VerificationReport, VerifyOptions};
pub use sight::Kind;

use crate::config::Target;
use crate::failure::Failure;
use crate::link::Link;
use crate::mirror::Mirror;
use crate::names::Names;
use crate::pace::backoff;
use crate::repair::Repair;
use crate::source::{self, RebuildSource};
use crate::state::{MirrorState, State, now};
use crate::sweep::VALUES_AT_ONCE;
use cidstore_types::{Seq, TripleHash};
use cidstore_wal::Log;
use reading::Place;
use redis::Value;
use sight::{Expected, Judged, Sight, Terms, describe};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Triples that are suspected to differ, before they are looked at again.
const SUSPECTS_MAX: usize = 4096;
/// Looks at a triple that changes each time, before it is counted as such.
const LOOKS_MAX: usize = 8;
/// Keys without a triple that are remembered, since `SCAN` may show a key twice; more may be counted twice.
const KNOWN_MAX: usize = 65_536;
/// How often what it waits for is told anew.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// A triple that differs.
struct Found {
    hash: TripleHash,
    sight: Sight,
    kind: Kind,
    what: String,
}

/// What compares, when it is asked to.
pub(crate) struct Verifier {
    state: Arc<MirrorState>,
    source: Arc<dyn RebuildSource>,
    log: Log,
    target: Target,
    names: Names,
    prefix: String,
    backoff_max: Duration,
    repairs: mpsc::Sender<Repair>,
    terms: Terms,
    link: Option<Link>,
    /// Failures in a row.
    failures: u32,
    place: Place,
    /// How often the servers turned out to be others, or to have other data.
    moves: u64,
    /// Another store writes under the same prefix: its keys cannot be told from stale ones.
    is_shared: bool,
    suspects: BTreeMap<TripleHash, Sight>,
    /// Keys without a triple that were counted.
    known: HashSet<TripleHash>,
}

impl Verifier {
    pub fn new(mirror: &Mirror, repairs: mpsc::Sender<Repair>) -> Self {
        Self {
            state: Arc::clone(&mirror.parts.state),
            source: Arc::clone(&mirror.parts.source),
            log: mirror.parts.log.clone(),
            target: mirror.target.clone(),
            names: mirror.names.clone(),
            prefix: mirror.config.prefix.clone(),
            backoff_max: mirror.config.backoff_max,
            repairs,
            terms: Terms::from(&mirror.config.form),
            link: None,
            failures: 0,
            place: Place::default(),
            moves: 0,
            is_shared: false,
            suspects: BTreeMap::new(),
            known: HashSet::new(),
        }
    }

    /// Verifies whenever it is asked to, as long as the mirror runs.
    pub async fn run(mut self) {
        let state = Arc::clone(&self.state);
        let (mut begun, mut ended) = (state.verification.watch_wanted(), state.verification.watch_wanted());
        while begun.wait_for(|wanted| *wanted).await.is_ok() {
            if !state.verification.pick_up() {
                continue;
            }
            tracing::info!("mirror: a verification begins");
            let outcome = tokio::select! {
                biased;
                _ = ended.wait_for(|wanted| !wanted) => Outcome::Cancelled,
                walked = self.walk() => match walked {
                    Ok(()) => Outcome::Complete,
                    Err(failure) => Outcome::Failed(failure.to_string()),
                },
            };
            self.link = None;
            self.suspects.clear();
            self.known.clear();
            let Some(report) = state.verification.end(outcome) else { continue };
            state.count(|c| c.verifications += 1);
            let VerificationReport { checked, keys, missing, stale, foreign, changing, repaired, .. } =
                report;
            let outcome = report.outcome.as_ref().map_or("", Outcome::as_str);
            tracing::info!(
                outcome,
                checked,
                keys,
                missing,
                stale,
                foreign,
                changing,
                repaired,
                "mirror: verified"
            );
        }
    }

    fn update<T: Default>(&self, change: impl FnOnce(&mut VerificationReport) -> T) -> T {
        self.state.verification.update(change)
    }

    /// Waits, and tells every second for what.
    async fn waiting<T>(&self, done: impl Future<Output = T>, why: impl Fn() -> String) -> T {
        let mut done = std::pin::pin!(done);
        loop {
            match tokio::time::timeout(TELL_EVERY, &mut done).await {
                Ok(done) => {
                    self.update(|report| report.waiting = None);
                    return done;
                }
                Err(_) => self.update(|report| report.waiting = Some(why())),
            }
        }
    }

    /// The mirror as it is, for [`Verifier::waiting`].
    fn mirror_is(&self) -> String {
        let report = self.state.report(self.log.last_seq(), now());
        let why = report.last_error.filter(|_| report.state == State::Failing);
        let why = why.map(|error| format!(": {}", error.message)).unwrap_or_default();
        format!("the mirror is {}{why}", report.state.as_str())
    }

    /// Both sides of these triples, the store as of `at_least` or later.
    async fn look(
        &mut self,
        hashes: &[TripleHash],
        at_least: Seq,
    ) -> Result<Vec<(Expected, Sight, Value)>, Failure> {
        let records = source::records(&self.source, hashes, at_least).await?;
        let expected: Vec<_> =
            hashes.iter().zip(&records).map(|(hash, record)| Expected::of(hash, record.as_ref())).collect();
        let sights = self.sights(hashes, &expected).await?;
        Ok(expected
            .into_iter()
            .zip(sights)
            .map(|(expected, (sight, reply))| (expected, sight, reply))
            .collect())
    }

    /// Waits until the mirror has confirmed all that the log has now; returns up to where that was. What was
    /// confirmed before a connection broke counts when the next one has found it still there.
    async fn confirmed(&self) -> Seq {
        let last = self.log.last_seq();
        let (mut cursor, mut state) = (self.state.watch_cursor(), self.state.subscribe());
        let confirmed = async {
            // The state has the senders, so that there are no errors.
            while !matches!(*state.borrow_and_update(), State::Live | State::CatchingUp)
                || *cursor.borrow_and_update() < last
            {
                tokio::select! {
                    _ = cursor.changed() => {}
                    _ = state.changed() => {}
                }
            }
        };
        let why = || {
            let cursor = self.state.cursor();
            let is = self.mirror_is();
            format!("Redis has mutations up to {cursor}, and has to have those up to {last}; {is}")
        };
        self.waiting(confirmed, why).await;
        last
    }

    /// Looks again at what differed, until each of them is equal, or different for certain, or changes so often
    /// that nothing is known of it. Returns those that differ, and how many change.
    async fn certain(&mut self, mut open: Vec<(TripleHash, Sight)>) -> Result<(Vec<Found>, u64), Failure> {
        let mut differ = Vec::new();
        for _ in 0..LOOKS_MAX {
            if open.is_empty() {
                break;
            }
            let last = self.confirmed().await;
            let mut again = Vec::new();
            for group in open.chunks(VALUES_AT_ONCE) {
                let hashes: Vec<_> = group.iter().map(|(hash, _)| *hash).collect();
                let looked = self.look(&hashes, last).await?;
                for ((hash, before), (expected, sight, reply)) in group.iter().zip(looked) {
                    match before.judge(sight) {
                        Judged::Equal => {}
                        Judged::Unsure => again.push((*hash, sight)),
                        Judged::Different(kind) => {
                            let kind = if self.is_shared && sight.is_absent() { Kind::Foreign } else { kind };
                            let what = describe(self.terms.form, kind, &expected, &reply);
                            differ.push(Found { hash: *hash, sight, kind, what });
                        }
                    }
                }
            }
            open = again;
        }
        Ok((differ, open.len() as u64))
    }

    /// Finds out which of the suspects differ, counts them, and has them repaired if that is wanted.
    async fn settle(&mut self) -> Result<(), Failure> {
        let suspects = std::mem::take(&mut self.suspects);
        let (differ, changing) = self.certain(suspects.into_iter().collect()).await?;
        let mut to_repair = Vec::new();
        let mut differences = 0;
        for Found { hash, sight, kind, what } in differ {
            if sight.is_absent() && !self.is_new(&hash) {
                continue;
            }
            differences += 1;
            let key = self.key_of(&hash);
            self.update(|report| {
                match kind {
                    Kind::Missing => report.missing += 1,
                    Kind::Stale => report.stale += 1,
                    Kind::Foreign => report.foreign += 1,
                }
                if report.differences.len() < DIFFERENCES_MAX {
                    report.differences.push(Difference { key, kind, what });
                }
            });
            if kind != Kind::Foreign {
                to_repair.push(hash);
            }
        }
        self.state.count(|c| c.differences += differences);
        let repairs = self.update(|report| {
            report.changing += changing;
            report.options.repair
        });
        if repairs {
            self.repair(&to_repair).await?;
        }
        Ok(())
    }

    fn key_of(&self, hash: &TripleHash) -> String {
        format!("{}{hash}", self.prefix)
    }

    /// Whether a key without a triple was not counted yet, as far as that is remembered.
    fn is_new(&mut self, hash: &TripleHash) -> bool {
        if self.known.len() < KNOWN_MAX { self.known.insert(*hash) } else { !self.known.contains(hash) }
    }

    /// Has the follower write these triples anew, and looks whether it did.
    async fn repair(&mut self, hashes: &[TripleHash]) -> Result<(), Failure> {
        for group in hashes.chunks(VALUES_AT_ONCE) {
            self.hand_over(group).await?;
            let looked = self.look(group, 0).await?;
            let left: Vec<_> = group
                .iter()
                .zip(looked)
                .filter(|(_, (_, sight, _))| sight.difference().is_some())
                .map(|(hash, (_, sight, _))| (*hash, sight))
                .collect();
            let (differ, changing) = self.certain(left).await?;
            let repaired = (group.len() - differ.len()) as u64 - changing;
            self.state.count(|c| c.repaired += repaired);
            self.update(|report| report.repaired += repaired);
        }
        Ok(())
    }

    async fn hand_over(&mut self, hashes: &[TripleHash]) -> Result<(), Failure> {
        loop {
            let (done, told) = oneshot::channel();
            let repairing = async {
                // Without a follower nobody is left to tell, and the end is near.
                self.repairs.send(Repair { hashes: hashes.to_vec(), done }).await.ok()?;
                told.await.ok()
            };
            let why =
                || format!("the mirror is to write {} triples anew; {}", hashes.len(), self.mirror_is());
            match self.waiting(repairing, why).await {
                Some(repaired) => return repaired,
                // Its connection broke meanwhile.
                None => tokio::time::sleep(backoff(1, self.backoff_max, fastrand::f64())).await,
            }
        }
    }
}
