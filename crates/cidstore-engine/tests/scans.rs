//! Scans tell what they look at, and end where their caller has enough.

use cidstore_disk::sim::SimDisk;
use cidstore_engine::{Durability, Looked, Merging, Step, Store, StoreOptions};
use cidstore_types::{Batch, Cid, Mutation, Op, Pattern, Triple};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const ROWS: u64 = 5000;
const P: Cid = Cid::MAX;

fn row(n: u64) -> Triple {
    Triple::new(Cid::from_two_lanes([0, n]), P, Cid::from_two_lanes([1, n]))
}

fn commit(store: &mut Store, op: Op, rows: impl Iterator<Item = u64>) {
    let batch = Mutation::Batch(Batch::new(op, 1.0, rows.map(row).collect()));
    store.commit(&[batch], Durability::Fsync).unwrap().remove(0).unwrap();
}

fn open() -> Store {
    let disk = Arc::new(SimDisk::new());
    Store::open(disk, Path::new("/data/cidstore.h5"), StoreOptions::default()).unwrap().0
}

/// All rows in one run, and all but the last one deleted in another.
fn nearly_all_deleted() -> Store {
    let mut store = open();
    commit(&mut store, Op::Insert, 0..ROWS);
    commit(&mut store, Op::Delete, 0..ROWS - 1);
    store
}

/// Patterns of two orders that match all rows.
fn patterns() -> [Pattern; 2] {
    [Pattern::ALL, Pattern { p: Some(P), ..Pattern::ALL }]
}

#[test]
fn what_is_deleted_is_looked_at_too_and_a_scan_ends_where_it_is_enough() {
    let store = nearly_all_deleted();
    let snapshot = store.reader().snapshot();
    for pattern in patterns() {
        for enough in [1, 1000, 5000] {
            let mut rows = 0;
            let mut go_on = |looked: Looked| {
                rows += looked.rows;
                rows < enough
            };
            let page = snapshot.query_while(&pattern, 1, None, false, &mut go_on).unwrap();
            assert!(page.is_none());
            assert!((enough..enough + 200).contains(&rows), "{rows} rows looked at, {enough} are enough");
            let mut rows = 0;
            let count = snapshot.count_while(&pattern, &mut |looked| {
                rows += looked.rows;
                rows < enough
            });
            assert!(count == Ok(None) && (enough..enough + 200).contains(&rows), "{count:?}, {rows}");
        }
        let mut rows = 0;
        let mut go_on = |looked: Looked| {
            rows += looked.rows;
            true
        };
        let page = snapshot.query_while(&pattern, 1, None, false, &mut go_on).unwrap().unwrap();
        assert_eq!(page.rows, [row(ROWS - 1)]);
        assert_eq!(rows as u64, 2 * ROWS - 1, "each row and each tombstone once");
        assert_eq!(snapshot.count(&pattern).unwrap(), 1);
    }
}

#[test]
fn what_was_deleted_is_merged_away_by_and_by() {
    let mut store = open();
    let mut maintainer = store.maintainer();
    commit(&mut store, Op::Insert, 0..ROWS);
    maintainer.checkpoint().unwrap();
    commit(&mut store, Op::Delete, 0..ROWS / 10);
    maintainer.checkpoint().unwrap();
    assert_eq!(maintainer.step(Merging::Needed).unwrap(), Step::Idle, "not for so little");
    commit(&mut store, Op::Delete, 0..ROWS - 1);
    maintainer.checkpoint().unwrap();
    assert_eq!(maintainer.step(Merging::Needed).unwrap(), Step::Merged { runs: 3, rows: 1 });
    assert_eq!(maintainer.step(Merging::Needed).unwrap(), Step::Idle);
    assert_eq!(store.reader().snapshot().query(&Pattern::ALL, 2, None, false).unwrap().rows, [row(ROWS - 1)]);
    commit(&mut store, Op::Delete, ROWS - 1..ROWS);
    maintainer.checkpoint().unwrap();
    assert_eq!(maintainer.step(Merging::Needed).unwrap(), Step::Merged { runs: 2, rows: 0 });
    assert_eq!(store.reader().snapshot().runs_len(), 0);
}

#[test]
fn rows_in_another_order_than_their_file_s_stand_at_a_place_each() {
    let store = nearly_all_deleted();
    let snapshot = store.reader().snapshot();
    let places = patterns().map(|pattern| {
        let mut places = 0;
        let counted = snapshot.count_while(&pattern, &mut |looked| {
            places += looked.places;
            true
        });
        assert!(counted.is_ok());
        places as u64
    });
    assert_eq!(places[1], 2 * ROWS - 1);
    assert!((ROWS / 100..ROWS / 10).contains(&places[0]), "{places:?}");
}

#[test]
fn what_is_one_range_is_counted_without_a_look() {
    let mut store = open();
    commit(&mut store, Op::Insert, 0..ROWS);
    let snapshot = store.reader().snapshot();
    for pattern in patterns() {
        let count = snapshot.count_while(&pattern, &mut |looked| panic!("{looked:?}"));
        assert_eq!(count, Ok(Some(ROWS)));
    }
}

#[test]
fn deletes_tell_what_they_look_up_before_they_are_done() {
    let mut store = open();
    let (told, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (Arc::clone(&told), Arc::clone(&most));
    store.on_lookups(move |rows| {
        counts.0.fetch_add(rows, Ordering::Relaxed);
        counts.1.fetch_max(rows, Ordering::Relaxed);
    });
    commit(&mut store, Op::Insert, 0..ROWS);
    assert_eq!(told.load(Ordering::Relaxed), 0, "an insert looks nothing up");
    commit(&mut store, Op::Delete, 0..3000);
    assert_eq!(told.swap(0, Ordering::Relaxed), 3000);
    commit(&mut store, Op::Delete, 0..1);
    assert_eq!(told.swap(0, Ordering::Relaxed), 1);
    let matching = Mutation::delete_matching(Pattern { p: Some(P), ..Pattern::ALL }, 1.0);
    let outcome = store.commit(&[matching], Durability::Fsync).unwrap().remove(0).unwrap();
    assert_eq!(outcome.affected, ROWS - 3000);
    // The 3000 that are gone are passed over, with their tombstones, one of them written twice.
    assert_eq!(told.load(Ordering::Relaxed), 2000 + 2 * 3000 + 1);
    assert!(most.load(Ordering::Relaxed) < 300, "in slices");
}
