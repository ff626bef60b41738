//! Metadata may be hundreds of times larger than the rows that it belongs to: what bounds memory
//! counts it.

use cidstore_disk::sim::SimDisk;
use cidstore_engine::{Durability, Merging, Step, Store, StoreOptions};
use cidstore_types::{Batch, Cid, Mutation, Op, Pattern, Triple};
use std::path::Path;
use std::sync::Arc;

const SEAL_ROWS: usize = 1000;
const MEMORY_ROWS_MAX: usize = 2 * SEAL_ROWS;
/// What these bounds allow in bytes.
const MEMORY_BYTES_MAX: usize = MEMORY_ROWS_MAX * 128;
const TEXT_BYTES: usize = 16_000;
const BATCH_ROWS: u64 = 8;
/// A run of the replay is made before the bound is looked at: its metadata, and one batch more.
const REPLAYED_BYTES: usize = (8 << 20) + (4 << 20);

fn open(disk: &SimDisk, nonce: u64) -> Store {
    let options = StoreOptions {
        nonce,
        segment_bytes: 1 << 20,
        seal_rows: SEAL_ROWS,
        memory_rows_max: MEMORY_ROWS_MAX,
        ..StoreOptions::default()
    };
    Store::open(Arc::new(disk.clone()), Path::new("/data/cidstore.h5"), options).unwrap().0
}

fn triple(n: u64) -> Triple {
    Triple::new(Cid::from_two_lanes([0, n]), Cid::ZERO, Cid::MAX)
}

fn text(n: u64) -> String {
    format!(r#"{{"schema_version":"{n:>TEXT_BYTES$}"}}"#)
}

fn insert(store: &mut Store, first: u64, rows: u64) {
    let texts = (0..rows).map(|i| (i as u32, text(first + i).into())).collect();
    let rows = (first..first + rows).map(triple).collect();
    let mut batch = Batch::new(Op::Insert, 1.0, rows);
    batch.metadata = texts;
    store.commit(&[Mutation::Batch(batch)], Durability::Fsync).unwrap();
    store.tidy();
}

fn all_is_there(store: &Store, rows: u64) {
    let page = store.reader().snapshot().query(&Pattern::ALL, rows as usize + 1, None, true).unwrap();
    let records = page.records.unwrap();
    assert_eq!(records.len() as u64, rows);
    for (n, record) in records.iter().enumerate() {
        assert_eq!(record.triple, triple(n as u64));
        let version = record.metadata.schema_version.as_deref();
        assert_eq!(version, Some(&*format!("{n:>TEXT_BYTES$}")));
    }
}

#[test]
fn metadata_is_sealed_before_it_fills_memory() {
    let disk = SimDisk::new();
    let mut store = open(&disk, 0);
    let mut maintainer = store.maintainer();
    let (mut rows, mut sealed) = (0, 0);
    for _ in 0..200 {
        if store.memory_is_ripe() {
            assert!(matches!(maintainer.step(Merging::Needed).unwrap(), Step::Sealed { .. }));
            sealed += 1;
        }
        insert(&mut store, rows, BATCH_ROWS);
        rows += BATCH_ROWS;
        let stats = store.reader().stats();
        assert!(stats.memory_bytes <= MEMORY_BYTES_MAX, "{stats:?}");
    }
    assert!(sealed > 10, "sealed {sealed} times");
    while maintainer.step(Merging::Needed).unwrap() != Step::Idle {}
    all_is_there(&store, rows);
}

#[test]
fn what_is_replayed_fits_into_the_same_memory() {
    let disk = SimDisk::new();
    let mut store = open(&disk, 0);
    let mut rows = 0;
    while (rows as usize) * TEXT_BYTES < 2 * (MEMORY_BYTES_MAX + REPLAYED_BYTES) {
        insert(&mut store, rows, 200);
        rows += 200;
    }
    assert!(store.memory_is_full());
    drop(store);
    disk.kill();
    let store = open(&disk, 1);
    let stats = store.reader().stats();
    assert!(stats.memory_bytes <= MEMORY_BYTES_MAX + REPLAYED_BYTES, "{stats:?}");
    all_is_there(&store, rows);
}

#[test]
fn deletes_between_inserts_leave_few_runs() {
    let mut store = open(&SimDisk::new(), 0);
    let one = |op, n| Mutation::Batch(Batch::new(op, 1.0, vec![triple(n)]));
    // The triple of each delete was inserted in the same group, just before or long ago, or never.
    let group: Vec<Mutation> = (0..1000)
        .flat_map(|n| [one(Op::Insert, n), one(Op::Delete, [n, n / 2, n + 5000][n as usize % 3])])
        .collect();
    let outcomes = store.commit(&group, Durability::Fsync).unwrap();
    let mut present = std::collections::BTreeSet::new();
    for (mutation, outcome) in group.iter().zip(outcomes) {
        let Mutation::Batch(batch) = mutation else { unreachable!() };
        let affected = match batch.op {
            Op::Insert => {
                present.insert(batch.rows[0]);
                1
            }
            Op::Delete => u64::from(present.remove(&batch.rows[0])),
        };
        assert_eq!(outcome.unwrap().affected, affected);
    }
    let snapshot = store.reader().snapshot();
    assert!(snapshot.runs_len() <= 48, "{} runs", snapshot.runs_len());
    assert_eq!(snapshot.count(&Pattern::ALL).unwrap(), present.len() as u64);
}

#[test]
fn group_of_deletes_by_pattern_ends_where_memory_would_fill() {
    let mut store = open(&SimDisk::new(), 0);
    let mut maintainer = store.maintainer();
    let predicate = |p| Cid::from_two_lanes([0, p]);
    let rows =
        |p| (0..600).map(|n| Triple::new(Cid::from_two_lanes([0, n]), predicate(p), Cid::MAX)).collect();
    for p in 0..5 {
        store.commit(&[Mutation::Batch(Batch::new(Op::Insert, 1.0, rows(p)))], Durability::Fsync).unwrap();
        maintainer.checkpoint().unwrap();
    }
    let pattern = |p| Pattern { p: Some(predicate(p)), ..Pattern::ALL };
    let group: Vec<_> = (0..5).map(|p| Mutation::delete_matching(pattern(p), 1.0)).collect();
    let mut rest = &group[..];
    for expected in [2, 2, 1] {
        let outcomes = store.commit(rest, Durability::Fsync).unwrap();
        assert_eq!(outcomes.len(), expected);
        assert!(outcomes.iter().all(|outcome| outcome.as_ref().unwrap().affected == 600));
        rest = &rest[expected..];
        while maintainer.step(Merging::Needed).unwrap() != Step::Idle {}
    }
    assert_eq!(store.reader().snapshot().count(&Pattern::ALL).unwrap(), 0);
}
