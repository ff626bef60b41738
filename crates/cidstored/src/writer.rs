//! The one thread that changes the store: takes mutations from the queue, commits them in groups,
//! sends the replies.
//!
//! There is no timer in it by default: while one group is synced the next one gathers in the queue,
//! so the group's size follows the load.

use crate::config::Durability;
use crate::health::Work;
use crate::pulse::Organ;
use crate::push::Rejected;
use crate::req::{Replies, Ticket};
use crate::shared::Shared;
use cidstore_engine::{Outcome, Refused, Store, StoreError};
use cidstore_proto::{ErrorCode, RequestId};
use cidstore_types::{Mutation, Seq};
use cidstore_wal::WalError;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long the writer sleeps when there is nothing to do; anything that comes wakes it.
const IDLE: Duration = Duration::from_millis(500);
/// When nothing has come for this long there is time for what only makes lookups faster.
const NOTHING_COMES_AFTER: Duration = Duration::from_millis(50);
/// How long commits wait for rows to be sealed before the next look.
const MEMORY_FULL_WAIT: Duration = Duration::from_millis(5);

/// A mutation of at most so many triples is one that its client waits for before it sends the next.
const SINGLE_ROWS_MAX: usize = 8;

/// Memory that a row takes once it is decoded: 96 bytes in the batch, as many in its run, and
/// allocations of its own where it has metadata. A triple on the wire may have ten bytes.
const ROW_BYTES: usize = 200;

/// A mutation and who hears what became of it.
pub struct Job {
    /// What to do.
    pub mutation: Mutation,
    /// Who is told.
    pub to: Recipient,
}

impl Job {
    /// What counts against the bounds of the queue and of a group: the bytes it came in, or what its
    /// rows take in memory, whichever is more.
    pub fn cost(&self, payload_bytes: usize) -> usize {
        match &self.mutation {
            Mutation::Batch(batch) => payload_bytes.max(batch.rows.len() * ROW_BYTES),
            Mutation::DeleteMatching { .. } => payload_bytes,
        }
    }

    fn is_single(&self) -> bool {
        match &self.mutation {
            Mutation::Batch(batch) => batch.rows.len() <= SINGLE_ROWS_MAX,
            Mutation::DeleteMatching { .. } => true,
        }
    }
}

/// Who hears what became of a mutation.
pub enum Recipient {
    /// A client that waits for its reply.
    Client(Box<Ticket>),
    /// Subscribers, if it is refused.
    Subscribers(Option<RequestId>),
}

/// A mutation that was not committed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// For the reply.
    pub code: ErrorCode,
    /// For the reply.
    pub message: Arc<str>,
}

/// The writer's own state.
pub struct Writer {
    shared: Arc<Shared>,
    store: Store,
    replies: Arc<Replies>,
    rejected: Rejected,
    /// With durability by interval: when the log was synced last, and whether it has grown since.
    synced: Instant,
    dirty: bool,
}

impl Writer {
    /// A writer of the store.
    pub fn new(shared: Arc<Shared>, store: Store, replies: Arc<Replies>, rejected: Rejected) -> Self {
        Self { shared, store, replies, rejected, synced: Instant::now(), dirty: false }
    }

    /// Works until the queue is closed and empty; then makes everything durable.
    pub fn run(mut self) {
        let config = &self.shared.config;
        let (items, bytes) = (config.batch_size, config.batch_bytes_max.len());
        let linger = Duration::from_micros(config.linger_us.into());
        let shared = Arc::clone(&self.shared);
        let mut jobs: Vec<Job> = Vec::new();
        let mut mutations: Vec<Mutation> = Vec::new();
        let mut recipients: Vec<Recipient> = Vec::new();
        let spin = Duration::from_micros(config.spin_us.into());
        let mut single = false;
        loop {
            let idle_since = Instant::now();
            if single {
                shared.queue.spin(spin);
            }
            if !shared.queue.take(&mut jobs, items, bytes, self.idle_time()) {
                break;
            }
            // One small mutation soon after the other: most likely the next one is on its way.
            single = matches!(&jobs[..], [job] if job.is_single()) && idle_since.elapsed() < spin;
            shared.pulses.beat(Organ::Writer);
            if jobs.is_empty() && idle_since.elapsed() >= NOTHING_COMES_AFTER {
                while !shared.queue.is_ready() && self.store.filter_one() {}
            }
            if !linger.is_zero() && !jobs.is_empty() && jobs.len() < items {
                std::thread::sleep(linger);
                let left = items - jobs.len();
                shared.queue.take(&mut jobs, left, bytes, Duration::ZERO);
            }
            mutations.clear();
            for job in jobs.drain(..) {
                mutations.push(job.mutation);
                recipients.push(job.to);
            }
            loop {
                if !recipients.is_empty() {
                    let rest = &mutations[mutations.len() - recipients.len()..];
                    self.commit(rest, &mut recipients);
                }
                self.after_commit();
                if recipients.is_empty() {
                    break;
                }
            }
        }
        if self.dirty {
            self.sync();
        }
    }

    fn idle_time(&self) -> Duration {
        let idle = if self.store.lacks_filters() { NOTHING_COMES_AFTER } else { IDLE };
        match self.shared.config.durability {
            Durability::Interval(every) if self.dirty => {
                every.saturating_sub(self.synced.elapsed()).clamp(Duration::from_millis(1), idle)
            }
            _ => idle,
        }
    }

    /// Lets sealing go first when as many rows as allowed wait in memory for it.
    ///
    /// # Errors
    /// When sealing fails: memory stays bounded, so mutations are refused until it works again.
    fn wait_for_memory(&self) -> Result<(), Failure> {
        while self.store.memory_is_full() {
            if let Some(why) = self.shared.health.trouble(Work::Seal) {
                let message = format!("rows in memory cannot be sealed: {why}");
                let full = self.shared.health.seals_lack_room();
                let code = if full { ErrorCode::StorageFull } else { ErrorCode::Unavailable };
                return Err(Failure { code, message: message.into() });
            }
            self.shared.pulses.beat(Organ::Writer);
            self.shared.sealing.ring();
            std::thread::sleep(MEMORY_FULL_WAIT);
        }
        Ok(())
    }

    /// Commits a group, or the first part of it; whose mutations are done leave `recipients`.
    fn commit(&mut self, mutations: &[Mutation], recipients: &mut Vec<Recipient>) {
        if let Err(failure) = self.wait_for_memory() {
            return self.refuse(mutations, recipients, &failure);
        }
        let durability = match self.shared.config.durability {
            Durability::Fsync => cidstore_engine::Durability::Fsync,
            Durability::Os | Durability::Interval(_) => cidstore_engine::Durability::Os,
        };
        let start = Instant::now();
        let committed = self.store.commit(mutations, durability);
        self.shared.metrics.commit_seconds.add(start.elapsed());
        match committed {
            Ok(outcomes) => {
                let results =
                    outcomes.into_iter().map(|outcome| outcome.map_err(|refused| self.refused(&refused)));
                let results = results.collect();
                self.committed(mutations, recipients, results);
            }
            Err(error) => {
                let failure = self.failed(&error);
                if failure.code == ErrorCode::StorageFull {
                    self.shared.metrics.full_refused_total.add(recipients.len() as u64);
                }
                self.refuse(mutations, recipients, &failure);
            }
        }
    }

    /// Tells all of a group that nothing of it can be done now; but what was done before was.
    fn refuse(&self, mutations: &[Mutation], recipients: &mut Vec<Recipient>, failure: &Failure) {
        let result = |mutation| match self.store.known(mutation) {
            Some(known) => {
                self.shared.metrics.repeats_total.add(u64::from(known.is_ok()));
                known.map_err(|refused| self.refused(&refused))
            }
            None => Err(failure.clone()),
        };
        self.tell(recipients, mutations.iter().map(result).collect());
    }

    /// What a mutation hears that was refused, while the others of its group were not.
    fn refused(&self, refused: &Refused) -> Failure {
        let code = match refused {
            Refused::UnreadablePage(_) => ErrorCode::Internal,
            Refused::KeyTaken { .. } => {
                self.shared.metrics.key_conflicts_total.one();
                ErrorCode::Conflict
            }
            Refused::TooManyKeys { .. } => {
                self.shared.metrics.keys_refused_total.one();
                ErrorCode::Overloaded
            }
            Refused::TooManyMatches { .. } | Refused::TooManyRows { .. } | Refused::TooManyBytes { .. } => {
                ErrorCode::TooLarge
            }
        };
        Failure { code, message: refused.to_string().into() }
    }

    fn committed(
        &mut self,
        mutations: &[Mutation],
        recipients: &mut Vec<Recipient>,
        results: Vec<Result<Outcome, Failure>>,
    ) {
        let metrics = &self.shared.metrics;
        metrics.commits_total.one();
        metrics.mutations_total.add(results.len() as u64);
        let mut last: Option<Seq> = None;
        let mut wrote = false;
        for (mutation, outcome) in mutations.iter().zip(&results) {
            let Ok(outcome) = outcome else { continue };
            if outcome.is_repeat {
                metrics.repeats_total.one();
                continue;
            }
            last = Some(outcome.seq);
            wrote |= outcome.count > 0;
            let inserts =
                matches!(mutation, Mutation::Batch(batch) if batch.op == cidstore_types::Op::Insert);
            let counter =
                if inserts { &metrics.triples_inserted_total } else { &metrics.triples_deleted_total };
            counter.add(outcome.affected);
        }
        if wrote && self.shared.health.set_full(false) {
            tracing::info!("there is room again: writes resume");
        }
        self.tell(recipients, results);
        if let Some(seq) = last {
            self.dirty = true;
            self.shared.visible.advance(seq);
        }
    }

    /// What a failed commit means for the daemon and for those who wait.
    fn failed(&mut self, error: &StoreError) -> Failure {
        let message: Arc<str> = error.to_string().into();
        if error.is_full() {
            if self.shared.health.set_full(true) {
                tracing::error!(%error, "no room: mutations are refused until there is");
            }
            return Failure { code: ErrorCode::StorageFull, message };
        }
        if let StoreError::Wal(WalError::TooLarge { .. }) = error {
            return Failure { code: ErrorCode::TooLarge, message };
        }
        self.latch(&message);
        Failure { code: ErrorCode::Unavailable, message }
    }

    fn latch(&self, why: &str) {
        if self.shared.health.latched().is_none() {
            tracing::error!(why, "writes have stopped for good; reads go on");
        }
        self.shared.health.latch(why);
    }

    fn tell(&self, recipients: &mut Vec<Recipient>, results: Vec<Result<Outcome, Failure>>) {
        let mut written = Vec::with_capacity(recipients.len());
        for (recipient, result) in recipients.drain(..results.len()).zip(results) {
            match (recipient, result) {
                (Recipient::Client(ticket), result) => written.push((ticket, result)),
                (Recipient::Subscribers(_), Ok(_)) => {}
                (Recipient::Subscribers(request_id), Err(failure)) => {
                    self.rejected.tell(request_id, failure.code, &failure.message);
                }
            }
        }
        self.replies.tell(written);
    }

    /// What is done when the replies are out.
    fn after_commit(&mut self) {
        self.store.tidy();
        if self.store.memory_is_ripe() {
            self.shared.sealing.ring();
        }
        if let Durability::Interval(every) = self.shared.config.durability
            && self.dirty
            && self.synced.elapsed() >= every
        {
            self.sync();
        }
        let removable = self.shared.removable.swap(0, Ordering::AcqRel);
        if removable > 0 {
            match self.store.wal().remove_before(removable) {
                Ok(removed) => self.shared.metrics.segments_removed_total.add(removed as u64),
                Err(error) => tracing::warn!(%error, "cannot remove old log segments; trying again later"),
            }
        }
    }

    fn sync(&mut self) {
        self.synced = Instant::now();
        match self.store.wal().sync() {
            Ok(_) => self.dirty = false,
            Err(error) => self.latch(&error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cidstore_types::{Batch, Cid, Op, Triple};

    #[test]
    fn a_batch_counts_as_what_it_takes_in_memory() {
        let job = |rows: usize| {
            let triple = Triple::new(Cid::ZERO, Cid::ZERO, Cid::ZERO);
            let batch = Batch::new(Op::Insert, 0.0, vec![triple; rows]);
            Job { mutation: Mutation::Batch(batch), to: Recipient::Subscribers(None) }
        };
        // Written compactly, a triple has ten bytes on the wire and 96 in memory.
        assert!(job(1000).cost(10_000) >= 96_000);
        // With large metadata, the wire has more.
        assert_eq!(job(1).cost(60_000), 60_000);
        assert_eq!(job(0).cost(17), 17);
    }
}
