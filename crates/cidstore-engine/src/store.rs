//! The store: log, runs and catalog as one thing that mutations are committed to.

use crate::builder::Builder;
use crate::error::{StoreError, UnreadablePage};
use crate::list::tidy_newer;
use crate::maintain::{Maintainer, Shared};
use crate::options::StoreOptions;
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
    /// Told of rows that were looked up.
    lookups: &'a dyn Fn(usize),
}

impl Staged<'_> {
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
        Ok((Self { shared, wal, payload: Vec::new(), lookups: Box::new(|_| ()) }, report))
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
            Ok((outcomes, newer, last_seq)) => {
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

    #[allow(clippy::type_complexity)]
    fn append_and_sync(
        &mut self,
        group: &[Mutation],
        durability: Durability,
    ) -> Result<(Vec<Result<Outcome, Refused>>, Vec<Arc<Run>>, Seq), WalError> {
        let view = Snapshot::clone(&self.shared.list.snapshot());
        let mut staged = Staged {
            shared: &self.shared,
            builder: Builder::default(),
            first_seq: view.as_of + 1,
            last_seq: view.as_of,
            before: view.runs.len(),
            view,
            lookups: &*self.lookups,
        };
        let mut outcomes = Vec::with_capacity(group.len());
        let mut matched = 0;
        for mutation in group {
            if matched >= self.shared.options.seal_rows {
                break;
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
                Mutation::DeleteMatching { pattern, received_at } => {
                    match matches(&mut staged, pattern, self.shared.options.batch_rows_max) {
                        Ok(rows) => matching = Batch::new(Op::Delete, *received_at, rows),
                        Err(refused) => {
                            outcomes.push(Err(refused));
                            continue;
                        }
                    }
                    matched += matching.rows.len();
                    (&matching, matching.rows.len() as u64)
                }
            };
            let count = batch.rows.len() as u64;
            if count > 0 {
                self.payload.clear();
                batch.encode_into(&mut self.payload);
                let (found, limit) = (self.payload.len(), PAYLOAD_BYTES_MAX);
                if found > limit {
                    outcomes.push(Err(Refused::TooManyBytes { found, limit }));
                    continue;
                }
                let first = self.wal.append(count as u32, &self.payload)?;
                debug_assert_eq!(first, staged.last_seq + 1, "log and snapshot number alike");
                staged.stage(batch);
                staged.last_seq += count;
            }
            outcomes.push(Ok(Outcome { seq: staged.last_seq, count, affected }));
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
        Ok((outcomes, newer, last_seq))
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
