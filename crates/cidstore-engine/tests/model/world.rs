//! A store on a simulated disk, beside the model of what it must be.

use crate::expect::{Model, apply, check_questions, equals};
use crate::generate::{Action, Live};
use crate::hook::HookDisk;
use cidstore_disk::sim::Holder;
use cidstore_engine::hdf5::read_catalog;
use cidstore_engine::{
    Durability, Maintainer, Merging, Outcome, Snapshot, Step, Store, StoreError, StoreOptions, changes,
};
use cidstore_types::{Batch, BatchRef, Cid, Mutation, Op, Pattern, Seq, Triple};
use cidstore_wal::{Tail, WalError};
use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

const PATH: &str = "/data/cidstore.h5";

fn options(nonce: u64) -> StoreOptions {
    StoreOptions {
        new_store_id: *b"a model's store.",
        nonce,
        segment_bytes: 4096,
        batch_rows_max: 10_000,
        seal_rows: 24,
        memory_rows_max: 80,
        memory_fan_in: 3,
        tidy_rows_max: 16,
        small_files_max: 3,
        run_rows_max: 150,
    }
}

/// A mutation that took numbers.
#[derive(Clone)]
struct Record {
    first: Seq,
    op: Op,
    /// In the order of their numbers, unless the store chose it.
    rows: Vec<Triple>,
    by_pattern: bool,
}

impl Record {
    fn last(&self) -> Seq {
        self.first + self.rows.len() as u64 - 1
    }

    fn holds(&self, seq: Seq, op: Op, triple: &Triple) -> bool {
        let row = &self.rows[(seq - self.first) as usize];
        self.op == op && if self.by_pattern { self.rows.contains(triple) } else { row == triple }
    }
}

/// How a process ends.
#[derive(Debug, Clone, Copy)]
pub enum End {
    Kill,
    PowerCut(u64),
}

pub struct World {
    pub disk: HookDisk,
    pub store: Option<Store>,
    /// The state after each mutation, from the last durable one to the last visible one.
    states: BTreeMap<Seq, Model>,
    visible: Seq,
    /// All up to here outlives a power cut.
    durable: Seq,
    records: Vec<Record>,
    /// What was in flight when the log was latched: a start may find any part of it, each record
    /// whole or not at all.
    in_flight: Vec<(Record, Model)>,
    held: VecDeque<(Arc<Snapshot>, Model)>,
    /// Other programs that have a catalog open, and the run files that it names.
    lookers: VecDeque<(Holder, Vec<PathBuf>)>,
    tail: Option<Tail>,
    /// The follower has seen all up to here.
    seen: Seq,
    starts: u64,
}

impl World {
    pub fn new() -> Self {
        Self::on(HookDisk::new())
    }

    /// The power is cut at the n-th I/O of the very first start.
    pub fn cut_first(n: u64, seed: u64) -> Self {
        let disk = HookDisk::new();
        disk.sim.stop_at(n);
        let _ = Store::open(Arc::new(disk.clone()), Path::new(PATH), options(99));
        disk.sim.crash(seed);
        Self::on(disk)
    }

    fn on(disk: HookDisk) -> Self {
        let mut world = Self {
            disk,
            store: None,
            states: BTreeMap::from([(0, Model::new())]),
            visible: 0,
            durable: 0,
            records: Vec::new(),
            in_flight: Vec::new(),
            held: VecDeque::new(),
            lookers: VecDeque::new(),
            tail: None,
            seen: 0,
            starts: 0,
        };
        world.open();
        world
    }

    pub fn model(&self) -> &Model {
        &self.states[&self.visible]
    }

    pub fn store(&self) -> &Store {
        self.store.as_ref().expect("it is open")
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.store().reader().snapshot()
    }

    /// The process ends in some way, and a new one starts.
    pub fn restart(&mut self, end: End) {
        self.note_durable();
        match end {
            End::Kill => {
                self.disk.sim.kill();
                // What the operating system was given, it keeps.
                self.durable = self.visible;
            }
            End::PowerCut(seed) => self.disk.sim.crash(seed),
        }
        self.forget_process();
        self.open();
    }

    fn forget_process(&mut self) {
        (self.store, self.tail) = (None, None);
        self.held.clear();
        // A start does not know who reads.
        self.lookers.clear();
    }

    /// Killed, and the power is cut at the n-th I/O of the next start. Whether it would have done
    /// more.
    pub fn cut_start(&mut self, n: u64, seed: u64) -> bool {
        self.note_durable();
        self.forget_process();
        self.disk.sim.kill();
        self.disk.sim.stop_at(n);
        self.starts += 1;
        let started = Store::open(Arc::new(self.disk.clone()), Path::new(PATH), options(self.starts)).is_ok();
        self.disk.sim.crash(seed);
        self.open();
        !started
    }

    fn open(&mut self) {
        self.starts += 1;
        let (mut store, _) = Store::open(Arc::new(self.disk.clone()), Path::new(PATH), options(self.starts))
            .unwrap_or_else(|error| panic!("a start must need no help: {error}"));
        let snapshot = store.reader().snapshot();
        let found = snapshot.as_of();
        assert!(found >= self.durable, "{found}, but {} was durable", self.durable);
        for (record, model) in std::mem::take(&mut self.in_flight) {
            self.states.insert(record.last(), model);
            self.records.push(record);
        }
        let model = self.states.remove(&found).unwrap_or_else(|| panic!("half of a record: {found}"));
        assert!(equals(&snapshot, &model), "not the state after mutation {found}");
        self.records.retain(|record| record.last() <= found);
        self.states = BTreeMap::from([(found, model)]);
        // What a start found must not be gone at the next one.
        assert_eq!(store.wal().synced_seq(), found);
        (self.visible, self.durable) = (found, found);
        if self.seen > found {
            let ahead = store.log().tail(self.seen + 1).err();
            assert!(matches!(ahead, Some(WalError::Ahead { last }) if last == found), "{ahead:?}");
            self.seen = found;
        }
        self.store = Some(store);
    }

    /// Forgets the states that can no longer come back.
    fn note_durable(&mut self) {
        if let Some(store) = &mut self.store {
            self.durable = self.durable.max(store.wal().synced_seq()).max(store.reader().sealed_seq());
            assert!(self.durable <= self.visible);
            self.states = self.states.split_off(&self.durable);
        }
    }

    pub fn commit(&mut self, group: &[Mutation], durability: Durability) {
        let mut next = self.model().clone();
        let mut last = self.visible;
        let mut took = Vec::new();
        let mut expected = Vec::new();
        for (i, mutation) in group.iter().enumerate() {
            let (affected, op, rows, by_pattern) = apply(&mut next, mutation);
            let first = last + 1;
            last += rows.len() as u64;
            expected.push(Outcome { seq: last, count: rows.len() as u64, affected });
            if !rows.is_empty() {
                took.push((i, Record { first, op, rows, by_pattern }, next.clone()));
            }
        }
        let store = self.store.as_mut().expect("it is open");
        let latched = store.wal().latched().is_some();
        match store.commit(group, durability) {
            Ok(outcomes) => {
                let outcomes: Vec<Outcome> = outcomes.into_iter().map(Result::unwrap).collect();
                let done = outcomes.len();
                assert!(done > 0 || group.is_empty());
                assert_eq!(outcomes, expected[..done]);
                took.retain(|(i, _, _)| *i < done);
                last = outcomes.last().map_or(last, |outcome| outcome.seq);
                if durability == Durability::Fsync && !took.is_empty() {
                    assert_eq!(store.wal().synced_seq(), last);
                }
                for (_, record, model) in took {
                    self.states.insert(record.last(), model);
                    self.records.push(record);
                }
                self.visible = last;
                self.note_durable();
                if done < group.len() {
                    return self.commit(&group[done..], durability);
                }
            }
            // Refused: as far as this process shows, nothing of it happened. A full disk is an
            // answer: nothing of the group may come back. After any other failure it is unknown
            // what reached the medium, and the log is latched.
            Err(error) => {
                if !error.is_full() && !latched {
                    self.in_flight = took.into_iter().map(|(_, record, model)| (record, model)).collect();
                }
            }
        }
        assert!(equals(&self.snapshot(), self.model()), "after a commit");
    }

    pub fn live(&mut self, live: &Live) {
        match live {
            Live::Commit(group) => self.commit(group, Durability::Fsync),
            Live::CommitOs(group) => self.commit(group, Durability::Os),
            Live::Tidy => {
                self.store().tidy();
            }
            Live::Seal => {
                let (mut sealer, _) = self.store().maintainer().split();
                let _ = sealer.step();
            }
            Live::Hold => self.held.push_back((self.snapshot(), self.model().clone())),
            Live::Compare => {
                if let Some((snapshot, model)) = self.held.pop_front() {
                    check_questions(&snapshot, &model, &[Pattern::ALL]);
                    assert!(equals(&snapshot, &model), "a snapshot of {} changed", snapshot.as_of());
                }
            }
            Live::Look => self.look(),
            Live::LookAway => drop(self.lookers.pop_front()),
            Live::RemoveLog => {
                let sealed = self.store().reader().sealed_seq();
                // It may fail, and is tried again some time.
                let _ = self.store.as_mut().unwrap().wal().remove_before(sealed + 1);
            }
            Live::Follow(records) => self.follow(*records),
            Live::Changes(since, limit) => self.check_changes(since.index(self.visible as usize + 2), *limit),
        }
        assert!(equals(&self.snapshot(), self.model()), "after {live:?}");
        self.check_lookers();
    }

    fn look(&mut self) {
        let path = Path::new(PATH);
        let catalog = read_catalog("the catalog", &self.disk.sim.files()[path]).unwrap();
        let files = catalog.runs.iter().map(|run| path.parent().unwrap().join(&run.file)).collect();
        self.lookers.push_back((self.disk.sim.hold(path), files));
    }

    /// Whoever has a catalog open finds all that it names.
    pub fn check_lookers(&self) {
        let files = self.disk.sim.files();
        for named in self.lookers.iter().flat_map(|(_, named)| named) {
            assert!(files.contains_key(named), "{} is gone under a reader", named.display());
        }
    }

    fn record_of(&self, seq: Seq) -> &Record {
        let at = self.records.partition_point(|record| record.last() < seq);
        &self.records[at]
    }

    fn follow(&mut self, records: usize) {
        let log = self.store().log();
        for _ in 0..records {
            let mut tail = match self.tail.take().map_or_else(|| log.tail(self.seen + 1), Ok) {
                Ok(tail) => tail,
                Err(error) => return self.fell_behind(&error),
            };
            assert_eq!(tail.next_seq(), self.seen + 1);
            match tail.next() {
                Ok(Some(entry)) => {
                    let batch = BatchRef::decode(entry.payload).unwrap();
                    let record = self.record_of(entry.first_seq);
                    assert_eq!((entry.first_seq, entry.first_seq), (self.seen + 1, record.first));
                    assert_eq!(entry.count as usize, record.rows.len());
                    for (seq, row) in (entry.first_seq..).zip(batch.rows()) {
                        assert!(record.holds(seq, batch.op, &row.triple), "the log's record at {seq}");
                    }
                    self.seen = record.last();
                }
                Ok(None) => assert_eq!(self.seen, self.visible, "a tail ends before the log does"),
                Err(error) => return self.fell_behind(&error),
            }
            self.tail = Some(tail);
        }
    }

    fn fell_behind(&mut self, error: &WalError) {
        let first = self.store().log().first_seq();
        assert!(matches!(error, WalError::Gone { oldest } if *oldest == first), "{error}");
        assert!(self.seen + 1 < first, "what comes after {} is there", self.seen);
        self.seen = first - 1;
    }

    fn check_changes(&self, since: usize, limit: usize) {
        let log = self.store().log();
        let since = since as Seq;
        match changes(&log, since, limit) {
            Ok(changes) => {
                assert_eq!(changes.len() as u64, (self.visible - since).min(limit as u64));
                for (seq, change) in (since + 1..).zip(changes) {
                    assert_eq!(change.seq, seq);
                    assert!(self.record_of(seq).holds(seq, change.op, &change.triple), "change {seq}");
                }
            }
            Err(StoreError::Wal(WalError::Gone { oldest })) => {
                assert_eq!(oldest, log.first_seq());
                assert!(since + 1 < oldest);
            }
            Err(StoreError::Wal(WalError::Ahead { last })) => assert!(last == self.visible && since > last),
            Err(error) => panic!("{error}"),
        }
    }

    /// All that was kept is compared.
    pub fn compare_all(&mut self) {
        while !self.held.is_empty() {
            self.live(&Live::Compare);
        }
    }
}

/// The maintainer works; before the n-th operation of its I/O something else happens.
fn maintain<T>(
    world: &Arc<Mutex<World>>,
    between: &[(u64, Live)],
    work: impl FnOnce(&mut Maintainer) -> T,
) -> T {
    let (mut maintainer, disk) = {
        let world = world.lock().unwrap();
        (world.store().maintainer(), world.disk.clone())
    };
    let mut queue: Vec<(u64, Live)> = between.to_vec();
    queue.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    let (within, mut operations) = (Arc::clone(world), 0);
    let hook = move |path: &Path| {
        // While the catalog is replaced, whoever wants to replace it waits.
        let catalog = path.to_str().is_some_and(|path| !path.contains(".runs"));
        while let Some((_, live)) =
            queue.pop_if(|(at, live)| *at <= operations && !(catalog && matches!(live, Live::Seal)))
        {
            within.lock().unwrap().live(&live);
        }
        operations += 1;
    };
    disk.with_hook(hook, || work(&mut maintainer))
}

pub fn run(world: &Arc<Mutex<World>>, action: &Action) {
    let lock = || world.lock().unwrap();
    let end = |seed: Option<u64>| seed.map_or(End::Kill, End::PowerCut);
    match action {
        Action::Live(live) => lock().live(live),
        Action::Step(between) => {
            let _ = maintain(world, between, |maintainer| maintainer.step(Merging::Settling));
        }
        Action::Checkpoint(between) => {
            let seq = lock().visible;
            if let Ok(sealed) = maintain(world, between, Maintainer::checkpoint) {
                assert!(sealed >= seq);
            }
        }
        Action::Merge(between) => {
            let (_, merger) = lock().store().maintainer().split();
            let mut merger = merger;
            let _ = maintain(world, between, |_| merger.step(Merging::Needed));
        }
        Action::Kill => lock().restart(End::Kill),
        Action::Crash(seed) => lock().restart(End::PowerCut(*seed)),
        Action::CutAt(n, seed) => {
            // Something is always going on when the power fails.
            let mut world = lock();
            world.disk.sim.stop_at(*n);
            let rows =
                (0..30).map(|i| Triple::new(Cid::ZERO, Cid::from_two_lanes([9, i]), Cid::MAX)).collect();
            world.commit(&[Mutation::Batch(Batch::new(Op::Insert, 5.0, rows))], Durability::Fsync);
            while !matches!(world.store().maintainer().step(Merging::Needed), Ok(Step::Idle) | Err(_)) {}
            world.restart(end(*seed));
        }
        Action::CutStart(n, seed) => {
            lock().cut_start(*n, *seed);
        }
        Action::Fail(n, full) => {
            lock().disk.sim.fail_nth(*n, if *full { ErrorKind::StorageFull } else { ErrorKind::Other });
        }
    }
    let world = lock();
    assert!(equals(&world.snapshot(), world.model()), "after {action:?}");
    world.check_lookers();
}
