//! The store against a model, over random histories with crashes, failures and full disks.
//!
//! The model is a `BTreeMap` of what was acknowledged. A history runs on a simulated disk; after
//! each reopening the store must equal the model exactly, up to the one group that was in flight:
//! of that, any prefix of its mutations may be there, each whole or not at all.

use cidstore_disk::sim::SimDisk;
use cidstore_engine::{Durability, Outcome, Page, Snapshot, Step, Store, StoreOptions, changes};
use cidstore_types::{Batch, Cid, Mutation, Op, Pattern, Triple};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

type Model = BTreeMap<Triple, (f64, Option<String>)>;

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
        file_fan_in: 3,
        eager_rows_max: 100,
        run_rows_max: 150,
    }
}

#[derive(Debug, Clone)]
enum Action {
    Commit(Vec<Mutation>),
    Tidy,
    Step,
    Checkpoint,
    Kill,
    Crash(u64),
    /// The next operations run until the n-th I/O, where the power is cut.
    CutAt(u64, u64),
    /// The n-th I/O from now fails.
    Fail(u64, bool),
}

/// CIDs of every skew: uniform, 2-lane, tiny. Few of each, so that triples meet again.
fn cids() -> impl Strategy<Value = Cid> {
    let uniform = |i: u64| Cid::from_lanes([i.wrapping_mul(0x9e37_79b9_7f4a_7c15), i, !i, i << 7]);
    prop_oneof![
        (0u64..4).prop_map(uniform),
        (0u64..4).prop_map(|i| Cid::from_two_lanes([u64::MAX - i, i])),
        (0u64..4).prop_map(|i| Cid::from_two_lanes([0, i])),
    ]
}

fn triples() -> impl Strategy<Value = Triple> {
    [cids(), cids(), cids()].prop_map(|[s, p, o]| Triple::new(s, p, o))
}

fn patterns() -> impl Strategy<Value = Pattern> {
    let part = || proptest::option::of(cids());
    (part(), part(), part()).prop_map(|(s, p, o)| Pattern { s, p, o })
}

fn batches() -> impl Strategy<Value = Batch> {
    let metadata = proptest::option::of("[a-z]{0,8}");
    (any::<bool>(), vec((triples(), metadata), 1..25), 0u32..1_000_000).prop_map(|(delete, rows, at)| {
        let op = if delete { Op::Delete } else { Op::Insert };
        let mut batch = Batch::new(op, f64::from(at), rows.iter().map(|(triple, _)| *triple).collect());
        let texts = rows.iter().enumerate().filter(|_| !delete);
        batch.metadata = texts
            .filter_map(|(i, (_, text))| {
                Some((i as u32, format!(r#"{{"schema_version":"{}"}}"#, text.as_ref()?).into()))
            })
            .collect();
        batch
    })
}

fn mutations() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        4 => batches().prop_map(Mutation::Batch),
        1 => patterns().prop_map(|pattern| Mutation::DeleteMatching { pattern, received_at: 1.0 }),
    ]
}

fn actions() -> impl Strategy<Value = Action> {
    prop_oneof![
        12 => vec(mutations(), 1..4).prop_map(Action::Commit),
        3 => Just(Action::Tidy),
        4 => Just(Action::Step),
        1 => Just(Action::Checkpoint),
        1 => Just(Action::Kill),
        1 => any::<u64>().prop_map(Action::Crash),
        2 => (0u64..40, any::<u64>()).prop_map(|(n, seed)| Action::CutAt(n, seed)),
        1 => (0u64..20, any::<bool>()).prop_map(|(n, full)| Action::Fail(n, full)),
    ]
}

fn apply(model: &mut Model, mutation: &Mutation) -> u64 {
    match mutation {
        Mutation::Batch(batch) => {
            let mut affected = 0;
            for (i, triple) in batch.rows.iter().enumerate() {
                if batch.op == Op::Delete {
                    affected += u64::from(model.remove(triple).is_some());
                } else {
                    let text = batch.metadata.iter().find(|(row, _)| *row as usize == i);
                    let version = text.map(|(_, text)| text.to_string());
                    model.insert(*triple, (batch.received_at, version));
                    affected += 1;
                }
            }
            affected
        }
        Mutation::DeleteMatching { pattern, .. } => {
            let before = model.len();
            model.retain(|triple, _| !pattern.matches(triple));
            (before - model.len()) as u64
        }
    }
}

/// All pages of a query.
fn query_all(snapshot: &Snapshot, pattern: &Pattern, limit: usize) -> Vec<Triple> {
    let mut rows = Vec::new();
    let mut cursor: Option<Vec<u8>> = None;
    loop {
        let page: Page = snapshot.query(pattern, limit, cursor.as_deref(), false).unwrap();
        assert!(page.rows.len() <= limit);
        rows.extend(page.rows);
        match page.cursor {
            Some(next) => cursor = Some(next),
            None => return rows,
        }
    }
}

/// Whether the store is the model: every row, with its columns.
fn equals(snapshot: &Snapshot, model: &Model) -> bool {
    let page = snapshot.query(&Pattern::ALL, usize::MAX, None, true).unwrap();
    let records = page.records.unwrap();
    page.rows.len() == model.len()
        && model.iter().zip(&records).all(|((triple, (created_at, text)), record)| {
            let version = record.metadata.schema_version.as_ref();
            let stored = version.map(|version| format!(r#"{{"schema_version":"{version}"}}"#));
            record.triple == *triple && record.created_at.total_cmp(created_at).is_eq() && stored == *text
        })
}

/// Every way of asking, against the model.
fn check_questions(snapshot: &Snapshot, model: &Model, samples: &[Pattern]) {
    for pattern in samples {
        let expected: Vec<Triple> = model.keys().filter(|triple| pattern.matches(triple)).copied().collect();
        for limit in [1, 7, 1000] {
            let rows = query_all(snapshot, pattern, limit);
            let mut sorted = rows.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), rows.len(), "{pattern:?}: a triple twice");
            assert_eq!(sorted, expected, "{pattern:?}");
        }
        assert_eq!(snapshot.count(pattern), expected.len() as u64, "{pattern:?}");
    }
    for triple in model.keys() {
        assert!(snapshot.contains(triple));
        assert_eq!(snapshot.get(&triple.hash()).map(|record| record.triple), Some(*triple));
    }
}

struct World {
    disk: SimDisk,
    store: Option<Store>,
    model: Model,
    /// States that a crash may leave, beside `model`: after each mutation of the group in flight.
    maybe: Vec<Model>,
    starts: u64,
}

impl World {
    fn new() -> Self {
        let mut world =
            Self { disk: SimDisk::new(), store: None, model: Model::new(), maybe: Vec::new(), starts: 0 };
        world.open();
        world
    }

    fn open(&mut self) {
        self.store = None;
        self.starts += 1;
        let disk = Arc::new(self.disk.clone());
        let (store, _) = Store::open(disk, Path::new(PATH), options(self.starts))
            .unwrap_or_else(|error| panic!("a start must need no help: {error}"));
        let snapshot = store.reader().snapshot();
        let found = std::iter::once(&self.model).chain(&self.maybe).find(|model| equals(&snapshot, model));
        self.model = found
            .unwrap_or_else(|| panic!("neither what was acknowledged nor a part of the group in flight"))
            .clone();
        self.maybe.clear();
        self.store = Some(store);
    }

    fn commit(&mut self, group: &[Mutation]) {
        let store = self.store.as_mut().unwrap();
        let mut next = self.model.clone();
        let mut states = Vec::new();
        let mut affected = Vec::new();
        for mutation in group {
            affected.push(apply(&mut next, mutation));
            states.push(next.clone());
        }
        match store.commit(group, Durability::Fsync) {
            Ok(outcomes) => {
                let outcomes: Vec<Outcome> = outcomes.into_iter().map(Result::unwrap).collect();
                let told: Vec<u64> = outcomes.iter().map(|outcome| outcome.affected).collect();
                assert_eq!(told, affected);
                self.model = next;
                // A delete of nothing needs no log: it succeeds even when the log is latched, and
                // says nothing about the group that latched it.
                if outcomes.iter().any(|outcome| outcome.count > 0) {
                    self.maybe.clear();
                }
            }
            // Refused: as far as this process shows, nothing of it happened.
            Err(error) => {
                assert!(equals(&store.reader().snapshot(), &self.model));
                // A full disk is an answer: nothing of the group may come back. After any other
                // failure it is unknown what reached the medium, and the log is latched.
                if !error.is_full() {
                    self.maybe.extend(states);
                }
            }
        }
    }

    fn run(&mut self, action: &Action) {
        match action {
            Action::Commit(group) => self.commit(group),
            Action::Tidy => {
                self.store.as_ref().unwrap().tidy();
            }
            Action::Step => {
                let _ = self.store.as_ref().unwrap().maintainer().step();
            }
            Action::Checkpoint => {
                let store = self.store.as_ref().unwrap();
                let seq = store.reader().snapshot().as_of();
                if let Ok(sealed) = store.maintainer().checkpoint() {
                    assert!(sealed >= seq);
                }
            }
            Action::Kill => {
                self.disk.kill();
                self.open();
            }
            Action::Crash(seed) => {
                self.disk.crash(*seed);
                self.open();
            }
            Action::CutAt(n, seed) => {
                // Something is always going on when the power fails.
                self.disk.stop_at(*n);
                let rows =
                    (0..30).map(|i| Triple::new(Cid::ZERO, Cid::from_two_lanes([9, i]), Cid::MAX)).collect();
                self.commit(&[Mutation::Batch(Batch::new(Op::Insert, 5.0, rows))]);
                while !matches!(self.store.as_ref().unwrap().maintainer().step(), Ok(Step::Idle) | Err(_)) {}
                self.disk.crash(*seed);
                self.open();
            }
            Action::Fail(n, full) => {
                self.disk.fail_nth(*n, if *full { ErrorKind::StorageFull } else { ErrorKind::Other });
            }
        }
        let snapshot = self.store.as_ref().unwrap().reader().snapshot();
        assert!(equals(&snapshot, &self.model), "after {action:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn store_equals_model_through_crashes_and_failures(actions in vec(actions(), 1..40), samples in vec(patterns(), 12)) {
        let mut world = World::new();
        for action in &actions {
            world.run(action);
        }
        let snapshot = world.store.as_ref().unwrap().reader().snapshot();
        check_questions(&snapshot, &world.model, &samples);
    }

    #[test]
    fn changes_tell_the_same_story_as_the_store(groups in vec(vec(mutations(), 1..4), 1..12), since in 0u64..50, limit in 1usize..60) {
        let mut world = World::new();
        for group in &groups {
            world.commit(group);
        }
        let store = world.store.as_ref().unwrap();
        let mut told = Model::new();
        let mut next = 0;
        loop {
            let part = changes(&store.log(), next, limit).unwrap();
            if part.is_empty() {
                break;
            }
            for change in part {
                prop_assert_eq!(change.seq, next + 1);
                next = change.seq;
                match change.op {
                    Op::Insert => {
                        told.insert(change.triple, (change.created_at, change.metadata.map(String::from)));
                    }
                    Op::Delete => {
                        told.remove(&change.triple);
                    }
                }
            }
        }
        prop_assert_eq!(next, store.reader().snapshot().as_of());
        prop_assert_eq!(told, world.model.clone());
        let first = changes(&store.log(), since, 1).unwrap();
        prop_assert_eq!(first.first().map(|change| change.seq), (since < next).then_some(since + 1));
    }
}

/// Power cut at every single I/O of a small history, with several outcomes each.
#[test]
fn power_cut_at_every_operation() {
    let batch = |op, lows: std::ops::Range<u64>| {
        let rows = lows.map(|low| Triple::new(Cid::from_two_lanes([0, low]), Cid::ZERO, Cid::MAX)).collect();
        Mutation::Batch(Batch::new(op, 7.0, rows))
    };
    let history = [
        vec![batch(Op::Insert, 0..20), batch(Op::Insert, 20..30)],
        vec![batch(Op::Delete, 5..8)],
        vec![batch(Op::Insert, 30..60), batch(Op::Delete, 25..28)],
        vec![batch(Op::Insert, 100..140)],
        vec![batch(Op::Insert, 6..7), batch(Op::Delete, 100..101)],
    ];
    let mut cuts = 0;
    for step in 0.. {
        let mut finished = false;
        for seed in 0..6 {
            let mut world = World::new();
            let before = world.disk.operations();
            world.disk.stop_at(step);
            for group in &history {
                world.commit(group);
                let store = world.store.as_ref().unwrap();
                store.tidy();
                while !matches!(store.maintainer().step(), Ok(Step::Idle) | Err(_)) {}
            }
            finished = world.disk.operations() - before <= step;
            cuts += 1;
            world.disk.crash(seed * 7919 + step);
            world.open();
            check_questions(
                &world.store.as_ref().unwrap().reader().snapshot(),
                &world.model,
                &[Pattern::ALL],
            );
        }
        if finished {
            break;
        }
        assert!(step < 1000, "the history does not end");
    }
    assert!(cuts > 200, "{cuts} cuts");
}
