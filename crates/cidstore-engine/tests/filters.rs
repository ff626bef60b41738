//! Filters of runs in memory, for which commits do not wait.

use cidstore_disk::sim::SimDisk;
use cidstore_engine::{Durability, Store, StoreOptions};
use cidstore_types::{Batch, Cid, Mutation, Op, Pattern, Triple};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

fn rows(numbers: Range<u64>) -> Vec<Triple> {
    let cid = |n| Cid::from_two_lanes([n, n]);
    numbers.map(|n| Triple::new(cid(n), cid(n % 3), cid(n % 100))).collect()
}

fn commit(store: &mut Store, op: Op, numbers: Range<u64>) {
    let batch = Mutation::Batch(Batch::new(op, 1.0, rows(numbers)));
    store.commit(&[batch], Durability::Os).unwrap().remove(0).unwrap();
}

#[test]
fn runs_that_are_left_alone_get_filters_when_there_is_time() {
    let (mut store, _) =
        Store::open(Arc::new(SimDisk::new()), Path::new("/data/store.h5"), StoreOptions::default()).unwrap();
    // A row, and others that are too few: a search costs as little.
    commit(&mut store, Op::Insert, 0..1);
    commit(&mut store, Op::Insert, 1..100);
    assert!(!store.lacks_filters() && !store.filter_one());
    for n in 1..6 {
        commit(&mut store, Op::Insert, 3000 * n..3000 * (n + 1));
    }
    commit(&mut store, Op::Delete, 3000..3500);
    let before = store.reader().snapshot();
    for _ in 0..6 {
        assert!(store.lacks_filters() && store.filter_one());
    }
    assert!(!store.lacks_filters() && !store.filter_one());
    let after = store.reader().snapshot();
    assert_eq!((before.runs_len(), before.as_of()), (after.runs_len(), after.as_of()));
    for n in (0..18_000).step_by(7) {
        let triple = rows(n..n + 1)[0];
        let is_there = !(100..3500).contains(&n);
        assert_eq!(after.contains(&triple).unwrap(), is_there, "{n}");
        let pattern = Pattern { s: Some(triple.s()), p: Some(triple.p()), o: None };
        assert_eq!(after.count(&pattern).unwrap(), u64::from(is_there), "{n}");
    }
    let objects = Pattern { o: Some(rows(7..8)[0].o()), ..Pattern::ALL };
    assert_eq!(
        after.query(&objects, 1000, None, false).unwrap().rows,
        before.query(&objects, 1000, None, false).unwrap().rows
    );
}
