//! The store: log, runs and catalog as one thing that mutations are committed to.

use crate::builder::Builder;
use crate::error::{StoreError, UnreadablePage};
use crate::list::tidy_newer;
use crate::maintain::{Maintainer, Shared};
use crate::options::StoreOptions;
use crate::outcomes::{Asked, Entry, Staging};
use crate::pace::{Looked, Lookups};
use crate::run::Run;
use crate::snapshot::{QueryError, Snapshot};
use cidstore_disk::Disk;
use cidstore_types::{Batch, Mutation, Op, Pattern, Seq, Triple};
use cidstore_wal::{Log, PAYLOAD_BYTES_MAX, Wal, WalError};
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

/// What "committed" means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// On stable storage (fdatasync), shared by the whole group.
    #[default]
    Fsync,
    /// Handed to the operating system: survives the end of the process, not of the machine.
    Os,
}

/// What a mutation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Its last sequence number; if it took none, the last one given before it.
    pub seq: Seq,
    /// How many sequence numbers it took.
    pub count: u64,
    /// Inserted: triples of the request that are now present. Deleted: triples that were present
    /// and are gone.
    pub affected: u64,
    /// It was done before, under the same key: nothing happened now, and the above is what happened then.
    pub is_repeat: bool,
}

/// Why one mutation of a group was refused; the others of the group are not affected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A delete by pattern would be larger than a batch may be.
    #[error(
        "the pattern matches more than {limit} triples, the limit of one delete: bind more of s, p, o, \
         or delete in batches"
    )]
    TooManyMatches {
        /// The limit, in triples.
        limit: usize,
    },
    /// More triples than one batch may hold.
    #[error("a batch of {found} triples: the limit is {limit}")]
    TooManyRows {
        /// How many it held.
        found: usize,
        /// The limit, in triples.
        limit: usize,
    },
    /// More than one record of the log may hold.
    #[error("a mutation of {found} bytes in the log: the limit is {limit}; make several of it")]
    TooManyBytes {
        /// How many it took, in bytes.
        found: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// It came under a key that another one had.
    #[error(
        "idempotency_key: another request came under this key and took effect as mutation {seq}; a repeat of it \
         has to be the same, and anything else needs a key of its own"
    )]
    KeyTaken {
        /// The last sequence number of the other one.
        seq: Seq,
    },
    /// As many keys are remembered as may be.
    #[error(
        "idempotency_key: {limit} keys are remembered, the limit: mutations with further ones are refused until \
         the oldest are forgotten, or the limit is raised"
    )]
    TooManyKeys {
        /// The limit.
        limit: usize,
    },
    /// What there is to delete cannot be read.
    #[error(transparent)]
    UnreadablePage(#[from] UnreadablePage),
}

/// The writer's end of a store. There is one, and it is not shared.
pub struct Store {
    shared: Arc<Shared>,
    wal: Wal,
    payload: Vec<u8>,
    lookups: Box<dyn Fn(usize) + Send>,
    /// Some outcomes are remembered, and will have to be forgotten.
    forgets: bool,
}

/// A group being staged: what it will make visible once it is durable.
struct Staged<'a> {
    shared: &'a Shared,
    builder: Builder,
    first_seq: Seq,
    last_seq: Seq,
    /// The state before the group, and what was built of it so far: the runs from `before` on.
    view: Snapshot,
    before: usize,
    /// What became of its mutations that came under a key.
    outcomes: Staging,
    /// Told of rows that were looked up.
    lookups: &'a dyn Fn(usize),
}

/// What a group comes to once it is durable.
struct Committed {
    outcomes: Vec<Result<Outcome, Refused>>,
    newer: Vec<Arc<Run>>,
    last_seq: Seq,
    keyed: Vec<Entry>,
}

impl Entry {
    /// What a mutation hears that comes under the same key.
    fn again(self, asked: &Asked) -> Result<Outcome, Refused> {
        let Self { seq, request, count, affected, .. } = self;
        if request != asked.request {
            return Err(Refused::KeyTaken { seq });
        }
        Ok(Outcome { seq, count: count.into(), affected: affected.into(), is_repeat: true })
    }
}

impl Staged<'_> {
    /// What is known of the mutation's key: the first outcome if it is a repeat, or that it may not be used.
    fn known(&self, asked: &Asked, now: f64) -> Option<Result<Outcome, Refused>> {
        let StoreOptions { key_ttl_s: ttl, keys_max, .. } = self.shared.options;
        let known = &self.shared.outcomes;
        let first = self.outcomes.find(&asked.key).or_else(|| known.find(&asked.key, now, ttl));
        if let Some(first) = first {
            return Some(first.again(asked));
        }
        let room = keys_max.saturating_sub(self.outcomes.entries.len());
        (!known.has_room(room, now, ttl)).then_some(Err(Refused::TooManyKeys { limit: keys_max }))
    }

    /// Builds a run of what was staged, so that `view` shows all of it.
    fn build(&mut self) {
        if !self.builder.is_empty() {
            let run = self.builder.finish(self.shared.list.new_id(), (self.first_seq, self.last_seq));
            // Deletes that alternate with inserts leave a run each, and look into all of them.
            let mut built = self.view.runs.split_off(self.before);
            built.push(Arc::new(run));
            tidy_newer(&mut built, self.shared.options.memory_fan_in, || self.shared.list.new_id());
            self.view.runs.append(&mut built);
        }
        self.first_seq = self.last_seq + 1;
    }

    fn stage(&mut self, batch: &Batch) {
        let mut created_at = batch.created_at.iter().peekable();
        let mut metadata = batch.metadata.iter().peekable();
        for (i, triple) in batch.rows.iter().enumerate() {
            let own = created_at.next_if(|(row, _)| *row as usize == i);
            let text = metadata.next_if(|(row, _)| *row as usize == i);
            self.builder.push(
                batch.op,
                triple,
                own.map_or(batch.received_at, |(_, at)| *at),
                text.map(|(_, text)| &**text),
            );
        }
    }

    /// How many different triples of these are present in the staged state.
    fn present(&mut self, rows: &[Triple]) -> Result<u64, UnreadablePage> {
        self.build();
        let mut lookups = Lookups::new(self.lookups);
        let mut contains = |row: &Triple| {
            lookups.one();
            self.view.contains(row)
        };
        if let [row] = rows {
            return contains(row).map(u64::from);
        }
        let mut seen = HashSet::with_capacity(rows.len());
        rows.iter().filter(|row| seen.insert(**row)).map(|row| contains(row).map(u64::from)).sum()
    }
}

impl Store {
    /// Opens the store whose catalog is at `path` (`…/cidstore.h5`), or makes a new one there, and
    /// recovers: catalog first, then the log beyond it. The caller holds the store's lock.
    ///
    /// # Errors
    /// [`StoreError`]: what is wrong, where, and what to do. Nothing is changed or removed then.
    pub fn open(
        disk: Arc<dyn Disk>,
        path: &Path,
        options: StoreOptions,
    ) -> Result<(Self, crate::recover::OpenReport), StoreError> {
        let (shared, wal, report) = crate::recover::open(disk, path, options)?;
        let forgets = report.keys > 0;
        Ok((Self { shared, wal, payload: Vec::new(), lookups: Box::new(|_| ()), forgets }, report))
    }

    /// A handle for readers.
    pub fn reader(&self) -> Reader {
        Reader { shared: Arc::clone(&self.shared) }
    }

    /// The handle that seals and merges; there must be one only.
    pub fn maintainer(&self) -> Maintainer {
        Maintainer::new(Arc::clone(&self.shared))
    }

    /// Has `told` called, in the middle of commits too, after so many places in runs were looked at.
    pub fn on_lookups(&mut self, told: impl Fn(usize) + Send + 'static) {
        self.lookups = Box::new(told);
    }

    /// The log, for followers.
    pub fn log(&self) -> Log {
        self.wal.log()
    }

    /// The log's owner, for retention and for syncing by interval.
    pub fn wal(&mut self) -> &mut Wal {
        &mut self.wal
    }

    /// Whether as many rows as allowed wait in memory to be sealed: the caller lets the maintainer
    /// work before it commits more.
    pub fn memory_is_full(&self) -> bool {
        self.shared.memory_weight() >= self.shared.options.memory_rows_max
    }

    /// Whether so much waits in memory that the maintainer has something to seal.
    pub fn memory_is_ripe(&self) -> bool {
        self.shared.memory_weight() >= self.shared.options.seal_rows
    }

    /// What became of the first mutation under this one's key, if that is remembered: for when nothing can be
    /// committed.
    pub fn known(&self, mutation: &Mutation) -> Option<Result<Outcome, Refused>> {
        let asked = Asked::of(mutation.key()?);
        let (known, ttl) = (&self.shared.outcomes, self.shared.options.key_ttl_s);
        known.find(&asked.key, mutation.received_at(), ttl).map(|first| first.again(&asked))
    }

    /// Commits a group of mutations in their order. When it returns, all that were not refused are
    /// durable as far as `durability` says, and visible, all at once.
    ///
    /// How much deletes by pattern delete is known only then: a group in which they come to as many
    /// rows as are sealed at once ends there. There are fewer outcomes than mutations then; the caller
    /// commits the others next, when memory is not full.
    ///
    /// # Errors
    /// [`StoreError`]: nothing of the group took effect. After [`WalError::Full`] commits may be
    /// tried again; after any other error the log is latched and every later commit fails.
    pub fn commit(
        &mut self,
        group: &[Mutation],
        durability: Durability,
    ) -> Result<Vec<Result<Outcome, Refused>>, StoreError> {
        match self.append_and_sync(group, durability) {
            Ok(Committed { outcomes, newer, last_seq, keyed }) => {
                if !keyed.is_empty() || self.forgets {
                    self.remember(&keyed, group);
                }
                if last_seq > self.shared.list.snapshot().as_of {
                    self.shared.list.publish(newer, last_seq);
                }
                Ok(outcomes)
            }
            Err(error) => {
                self.wal.discard();
                Err(error.into())
            }
        }
    }

    /// Remembers what became of mutations that came under keys, before they are visible, and forgets what is
    /// over.
    fn remember(&mut self, keyed: &[Entry], group: &[Mutation]) {
        let now = group.last().map_or(0.0, Mutation::received_at);
        let left = self.shared.outcomes.add(keyed, now, self.shared.options.key_ttl_s);
        self.forgets = left > 0;
    }

    fn append_and_sync(&mut self, group: &[Mutation], durability: Durability) -> Result<Committed, WalError> {
        let view = Snapshot::clone(&self.shared.list.snapshot());
        let mut staged = Staged {
            shared: &self.shared,
            builder: Builder::default(),
            first_seq: view.as_of + 1,
            last_seq: view.as_of,
            before: view.runs.len(),
            view,
            outcomes: Staging::default(),
            lookups: &*self.lookups,
        };
        let mut outcomes = Vec::with_capacity(group.len());
        let mut matched = 0;
        for mutation in group {
            if matched >= self.shared.options.seal_rows {
                break;
            }
            let asked = mutation.key().map(Asked::of);
            if let Some(known) = asked.as_ref().and_then(|asked| staged.known(asked, mutation.received_at()))
            {
                outcomes.push(known);
                continue;
            }
            let matching;
            let (batch, affected) = match mutation {
                Mutation::Batch(batch) => {
                    let (found, limit) = (batch.rows.len(), self.shared.options.batch_rows_max);
                    if found > limit {
                        outcomes.push(Err(Refused::TooManyRows { found, limit }));
                        continue;
                    }
                    let affected = match batch.op {
                        Op::Insert => Ok(found as u64),
                        Op::Delete => staged.present(&batch.rows),
                    };
                    match affected {
                        Ok(affected) => (batch, affected),
                        Err(unreadable) => {
                            outcomes.push(Err(unreadable.into()));
                            continue;
                        }
                    }
                }
                Mutation::DeleteMatching { pattern, received_at, key } => {
                    let mut rows = match matches(&mut staged, pattern, self.shared.options.batch_rows_max) {
                        Ok(rows) => rows,
                        Err(refused) => {
                            outcomes.push(Err(refused));
                            continue;
                        }
                    };
                    let affected = rows.len() as u64;
                    matched += rows.len();
                    if rows.is_empty() && key.is_some() {
                        // The outcome needs a record: its repeat must not delete what comes in between.
                        rows.push(an_absent_one(pattern));
                    }
                    matching = Batch { key: key.clone(), ..Batch::new(Op::Delete, *received_at, rows) };
                    (&matching, affected)
                }
            };
            let count = batch.rows.len() as u64;
            if count > 0 {
                self.payload.clear();
                batch.encode_into(affected, &mut self.payload);
                let (found, limit) = (self.payload.len(), PAYLOAD_BYTES_MAX);
                if found > limit {
                    outcomes.push(Err(Refused::TooManyBytes { found, limit }));
                    continue;
                }
                let first = self.wal.append(count as u32, &self.payload)?;
                debug_assert_eq!(first, staged.last_seq + 1, "log and snapshot number alike");
                staged.stage(batch);
                staged.last_seq += count;
                if let Some(Asked { key, request }) = asked {
                    let (seq, received_at) = (staged.last_seq, batch.received_at);
                    let (count, affected) = (count as u32, affected as u32);
                    staged.outcomes.add(Entry { key, request, seq, received_at, count, affected });
                }
            }
            outcomes.push(Ok(Outcome { seq: staged.last_seq, count, affected, is_repeat: false }));
        }
        staged.build();
        let newer = staged.view.runs.split_off(staged.before);
        let last_seq = staged.last_seq;
        if !newer.is_empty() {
            match durability {
                Durability::Fsync => self.wal.sync()?,
                Durability::Os => self.wal.flush()?,
            };
        }
        Ok(Committed { outcomes, newer, last_seq, keyed: staged.outcomes.entries })
    }

    /// Merges the small runs that commits leave. Cheap; the caller does it after the replies are
    /// out. Returns the rows merged.
    pub fn tidy(&self) -> usize {
        let options = &self.shared.options;
        self.shared.list.tidy(options.memory_fan_in, options.tidy_rows_max)
    }

    /// Whether [`Store::filter_one`] has something to do.
    pub fn lacks_filters(&self) -> bool {
        self.shared.list.lacks_filters()
    }

    /// Makes lookups faster in one of the runs that commits leave: for when there is nothing to commit.
    /// Takes some milliseconds. Returns whether there was one.
    pub fn filter_one(&self) -> bool {
        self.shared.list.filter_one()
    }
}

/// The triples that match in the staged state, unless there are more than `limit`.
fn matches(staged: &mut Staged<'_>, pattern: &Pattern, limit: usize) -> Result<Vec<Triple>, Refused> {
    staged.build();
    let mut told = |looked: Looked| {
        (staged.lookups)(looked.places);
        true
    };
    let page = staged.view.query_while(pattern, limit, None, false, &mut told);
    let page = match page {
        Ok(page) => page.expect("nobody has enough"),
        Err(QueryError::UnreadablePage(unreadable)) => return Err(unreadable.into()),
        Err(QueryError::Cursor(_)) => unreachable!("a query without a cursor"),
    };
    if page.cursor.is_some() { Err(Refused::TooManyMatches { limit }) } else { Ok(page.rows) }
}

/// A triple that is not there, where none that matches is.
fn an_absent_one(pattern: &Pattern) -> Triple {
    let [s, p, o] = [pattern.s, pattern.p, pattern.o].map(Option::unwrap_or_default);
    Triple::new(s, p, o)
}

/// A handle for readers: cheap to clone, never waits for the writer.
#[derive(Clone)]
pub struct Reader {
    shared: Arc<Shared>,
}

impl Reader {
    /// The current state.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.list.snapshot()
    }

    /// Counts and sizes.
    pub fn stats(&self) -> crate::stats::EngineStats {
        self.shared.stats()
    }

    /// All mutations up to this one are in run files.
    pub fn sealed_seq(&self) -> Seq {
        self.shared.sealed_seq()
    }

    /// What looks for damage in run files.
    pub fn scrubber(&self) -> crate::scrub::Scrubber {
        crate::scrub::Scrubber::new(Arc::clone(&self.shared))
    }

    /// What identifies the store.
    pub fn store_id(&self) -> [u8; 16] {
        self.shared.store_id
    }
}

impl Shared {
    /// What lives in memory only, in rows, by [`Run::weight`].
    pub(crate) fn memory_weight(&self) -> usize {
        let snapshot = self.list.snapshot();
        snapshot.runs.iter().filter(|run| run.in_memory()).map(|run| run.weight()).sum()
    }
}
