//! A run file that cannot be read any more where it is needed: what depends on it is refused, and told;
//! nothing else suffers, and the process goes on.

use cidstore_disk::RealDisk;
use cidstore_engine::{
    Durability, Merging, QueryError, Refused, Snapshot, Store, StoreError, StoreOptions, UnreadablePage,
};
use cidstore_types::{Batch, Cid, Mutation, Op, Pattern, Triple};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Enough for filters and samples.
const ROWS: u64 = 5000;

fn triple(i: u64) -> Triple {
    let cid = |low| Cid::from_lanes([low, 0, 0, low]);
    Triple::new(cid(i), cid(i % 7), cid(i / 3))
}

fn of_subject(i: u64) -> Pattern {
    Pattern { s: Some(triple(i).s()), ..Pattern::ALL }
}

fn insert(store: &mut Store, range: std::ops::Range<u64>) {
    let batch = Batch::new(Op::Insert, 1.0, range.map(triple).collect());
    store.commit(&[Mutation::Batch(batch)], Durability::Fsync).unwrap();
}

/// A store of two run files in `dir`, and the path of the second.
fn store(dir: &Path) -> (Store, PathBuf) {
    let path = dir.join("cidstore.h5");
    let (mut store, _) = Store::open(Arc::new(RealDisk), &path, StoreOptions::default()).unwrap();
    for range in [0..ROWS, ROWS..2 * ROWS] {
        insert(&mut store, range);
        store.maintainer().checkpoint().unwrap();
    }
    assert_eq!(store.reader().stats().file_runs, 2);
    (store, dir.join("cidstore.h5.runs/000002.h5"))
}

/// What every question about `i` says, which is the same.
fn ask(snapshot: &Snapshot, i: u64) -> Result<bool, UnreadablePage> {
    let asked = triple(i);
    let page = match snapshot.query(&of_subject(i), 10, None, true) {
        Ok(page) => Ok(!page.rows.is_empty()),
        Err(QueryError::UnreadablePage(unreadable)) => Err(unreadable),
        Err(QueryError::Cursor(error)) => panic!("{error}"),
    };
    assert_eq!(snapshot.count(&of_subject(i)).map(|count| count == 1), page);
    assert_eq!(snapshot.contains(&asked), page);
    assert_eq!(snapshot.get(&asked.hash()).map(|record| record.is_some()), page);
    page
}

#[test]
fn what_cannot_be_read_is_refused_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, path) = store(dir.path());
    let snapshot = store.reader().snapshot();
    for i in [0, ROWS - 1, ROWS, 2 * ROWS - 1] {
        assert_eq!(ask(&snapshot, i), Ok(true));
    }
    assert_eq!(ask(&snapshot, 3 * ROWS), Ok(false));

    // Behind the end of a file its pages are as unreadable as those of a bad sector.
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(64 << 10).unwrap();
    let unreadable = ask(&snapshot, 2 * ROWS - 1).unwrap_err();
    assert_eq!((&unreadable.path, unreadable.first_seq, unreadable.last_seq), (&path, ROWS + 1, 2 * ROWS));
    assert!(unreadable.offset >= 64 << 10, "{unreadable}");
    // Its filters are gone as well, so that it might hold anything.
    assert_eq!(ask(&snapshot, 3 * ROWS), Err(unreadable.clone()));

    // Nobody deletes by what was not read; all else is taken.
    let delete = Mutation::DeleteMatching { pattern: of_subject(0), received_at: 2.0 };
    let one = Mutation::Batch(Batch::new(Op::Delete, 2.0, vec![triple(0)]));
    let outcomes = store.commit(&[delete, one], Durability::Fsync).unwrap();
    let refused = Err(Refused::UnreadablePage(unreadable.clone()));
    assert_eq!(outcomes, [refused.clone(), refused]);
    insert(&mut store, 2 * ROWS..3 * ROWS);
    assert_eq!(store.maintainer().checkpoint().unwrap(), 3 * ROWS);

    // It is known as damaged, and is not merged into anything.
    let stats = store.reader().stats();
    assert_eq!(stats.damaged.len(), 1, "{:?}", stats.damaged);
    assert!(stats.damaged[0].contains("000002.h5"), "{:?}", stats.damaged);
    while !matches!(store.maintainer().step(Merging::Settling).unwrap(), cidstore_engine::Step::Idle) {}
    assert!(path.exists());
    drop((snapshot, store));
    let again = Store::open(Arc::new(RealDisk), &dir.path().join("cidstore.h5"), StoreOptions::default());
    assert!(matches!(again, Err(StoreError::Run { .. })), "a start refuses it");
}
