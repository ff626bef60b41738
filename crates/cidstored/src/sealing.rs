//! The thread that seals memory into run files, and that says how much of the log is still needed.

use crate::health::Work;
use crate::req::{Addressee, Event};
use crate::retry::Retry;
use crate::service;
use crate::shared::Shared;
use crate::transport::Mailbox;
use cidstore_engine::{Sealer, Step, StoreError};
use cidstore_types::Seq;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How long the thread sleeps without work; the writer and requests wake it.
const IDLE: Duration = Duration::from_secs(1);

/// What others ask of the thread.
#[derive(Default)]
pub struct Requests(Mutex<Asked>);

#[derive(Default)]
struct Asked {
    checkpoints: Vec<Addressee>,
    finish: bool,
}

impl Requests {
    fn lock(&self) -> MutexGuard<'_, Asked> {
        self.0.lock().expect("a panic ends the process")
    }

    /// Asks for everything so far to be sealed, and for a reply then.
    ///
    /// # Errors
    /// Who asks, when the end has been asked for: nobody would answer.
    pub fn checkpoint(&self, to: Addressee) -> Result<(), Box<Addressee>> {
        let mut asked = self.lock();
        if asked.finish {
            return Err(Box::new(to));
        }
        asked.checkpoints.push(to);
        Ok(())
    }

    /// Asks for everything to be sealed, and for the end. To be called when the writer has ended.
    pub fn finish(&self) {
        self.lock().finish = true;
    }

    /// Who waits, and whether the end is asked for: then nobody comes after these.
    fn take(&self) -> (Vec<Addressee>, bool) {
        let mut asked = self.lock();
        (std::mem::take(&mut asked.checkpoints), asked.finish)
    }
}

/// The thread's own state.
pub struct Sealing {
    shared: Arc<Shared>,
    sealer: Sealer,
    requests: Arc<Requests>,
    replies: Arc<Mailbox<Event>>,
    retry: Retry,
}

impl Sealing {
    /// Sealing of a store.
    pub fn new(
        shared: Arc<Shared>,
        sealer: Sealer,
        requests: Arc<Requests>,
        replies: Arc<Mailbox<Event>>,
    ) -> Self {
        let retry = Retry::new(Work::Seal, Arc::clone(&shared));
        Self { shared, sealer, requests, replies, retry }
    }

    /// Works until it is asked to finish.
    pub fn run(mut self) {
        loop {
            let (asked, finish) = self.requests.take();
            if finish || !asked.is_empty() {
                self.checkpoint(asked);
            }
            if finish {
                return;
            }
            // The bell rings for every group that is committed: no reason to try what has just failed.
            let mut wait = self.retry.wait(Instant::now());
            if wait.is_zero() {
                wait = self.step();
            }
            self.judge_log();
            if !wait.is_zero() {
                self.shared.sealing.wait(wait);
            }
        }
    }

    fn checkpoint(&mut self, asked: Vec<Addressee>) {
        let start = Instant::now();
        let before = self.shared.engine().reader.sealed_seq();
        let result = self.sealer.checkpoint();
        match &result {
            Ok(seq) => {
                if *seq > before {
                    self.shared.metrics.seals_total.one();
                    self.shared.metrics.seal_seconds.add(start.elapsed());
                }
                tracing::info!(seq, "everything up to here is sealed");
                self.retry.went_well();
                self.shared.merging.ring();
            }
            Err(error) => drop(self.failed(error)),
        }
        let replies = asked.into_iter().map(|to| {
            let bytes = service::checkpoint_reply(&to, result.as_ref());
            Event::Answered { to, bytes, refused: result.is_err() }
        });
        self.replies.extend(replies.collect::<Vec<_>>());
    }

    /// One piece of work. Returns how long to wait for the next.
    fn step(&mut self) -> Duration {
        let start = Instant::now();
        match self.sealer.step() {
            Ok(Step::Sealed { rows, sealed_seq }) => {
                self.shared.metrics.seals_total.one();
                self.shared.metrics.seal_seconds.add(start.elapsed());
                tracing::debug!(rows, sealed_seq, elapsed = ?start.elapsed(), "sealed");
                self.retry.went_well();
                self.shared.merging.ring();
                Duration::ZERO
            }
            Ok(_) => {
                self.retry.went_well();
                IDLE
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Returns how long to wait before the next step.
    fn failed(&mut self, error: &StoreError) -> Duration {
        // First, so that who sees the trouble knows which it is.
        self.shared.health.set_seals_lack_room(error.is_full());
        self.retry.after(error, Instant::now())
    }

    /// Tells the writer, who owns the log, how much of it nobody needs any more.
    fn judge_log(&self) {
        let engine = self.shared.engine();
        let log = &engine.log;
        let needs = Needs {
            last: log.last_seq(),
            sealed: engine.reader.sealed_seq(),
            published: self.shared.published.load(Ordering::Acquire),
            mirror: self.shared.mirror.retain_from(),
            changes: self.shared.config.changes_retain,
            over: log.bytes() > self.shared.config.wal_retain_bytes_max.0,
        };
        let keep_from = needs.keep_from();
        if log.segments() > 1 && log.first_stored_seq() < keep_from {
            self.shared.removable.store(keep_from, Ordering::Release);
            self.shared.queue.poke();
        }
    }
}

/// Who still needs which part of the log.
struct Needs {
    last: Seq,
    /// Everything up to here is in run files.
    sealed: Seq,
    /// The publisher reads from here.
    published: Seq,
    /// The mirror reads from here.
    mirror: Option<Seq>,
    /// How many mutations are kept for `changes`.
    changes: u64,
    /// The log is larger than it may be.
    over: bool,
}

impl Needs {
    /// The first mutation that must stay in the log.
    fn keep_from(&self) -> Seq {
        // Without these the store itself, or a subscriber, would lose something.
        let must = (self.sealed + 1).min(self.published);
        let changes = (self.last + 1).saturating_sub(self.changes);
        let mirror = self.mirror.unwrap_or(Seq::MAX);
        match self.over {
            false => must.min(changes).min(mirror),
            // The mirror's claim goes first: it then owes a rebuild from the runs.
            true if mirror < must.min(changes) => must.min(changes),
            true => must,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{Envelope, Route};
    use cidstore_proto::Encoding;

    #[test]
    fn a_checkpoint_is_seen_by_the_last_look_or_refused() {
        let to = |client: &[u8]| Addressee {
            route: Route { client: client.into(), envelope: Envelope::Bare },
            encoding: Encoding::Json,
            request_id: None,
            received: Instant::now(),
            place: None,
            connection: None,
        };
        let requests = Requests::default();
        requests.checkpoint(to(b"early")).unwrap();
        requests.finish();
        let late = requests.checkpoint(to(b"late")).unwrap_err();
        assert_eq!(&*late.route.client, b"late");
        let (asked, finish) = requests.take();
        assert_eq!((asked.len(), finish), (1, true));
    }

    #[test]
    fn the_log_is_kept_for_who_needs_it_and_bounded_in_the_end() {
        let needs = |sealed, published, mirror, over| {
            Needs { last: 1000, sealed, published, mirror, changes: 100, over }.keep_from()
        };
        assert_eq!(needs(500, 1001, None, false), 501);
        assert_eq!(needs(1000, 1001, None, false), 901);
        assert_eq!(needs(1000, 700, None, false), 700);
        assert_eq!(needs(1000, 1001, Some(300), false), 300);
        // Too large because of the mirror: its claim is dropped, not that of `changes`.
        assert_eq!(needs(1000, 1001, Some(300), true), 901);
        // Too large although the mirror is up to date: `changes` gives way.
        assert_eq!(needs(1000, 1001, Some(1001), true), 1001);
        // What is not sealed is never given up.
        assert_eq!(needs(200, 1001, Some(100), true), 201);
    }
}
