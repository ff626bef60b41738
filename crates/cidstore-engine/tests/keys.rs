//! Mutations under idempotency keys: done once, whatever comes in between.

use cidstore_disk::sim::SimDisk;
use cidstore_disk::{Disk, Open};
use cidstore_engine::files::Places;
use cidstore_engine::{Durability, Outcome, Refused, Store, StoreError, StoreOptions};
use cidstore_types::{Batch, Cid, Mutation, Op, Pattern, Triple};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const CATALOG: &str = "/data/cidstore.h5";
const TTL: u64 = 100;

fn open(disk: &SimDisk, keys_max: usize) -> Store {
    let options = StoreOptions {
        nonce: disk.operations(),
        segment_bytes: 1 << 12,
        key_ttl_s: TTL,
        keys_max,
        ..StoreOptions::default()
    };
    Store::open(Arc::new(disk.clone()), Path::new(CATALOG), options).unwrap().0
}

fn outcomes_file() -> PathBuf {
    Places::of(Path::new(CATALOG)).outcomes
}

fn triple(n: u64) -> Triple {
    Triple::new(Cid::from_two_lanes([0, n]), Cid::ZERO, Cid::MAX)
}

fn insert(n: u64, at: f64) -> Mutation {
    Mutation::Batch(Batch::new(Op::Insert, at, vec![triple(n)]))
}

fn delete(n: u64, at: f64) -> Mutation {
    Mutation::Batch(Batch::new(Op::Delete, at, vec![triple(n)]))
}

fn of_subject(n: u64) -> Mutation {
    Mutation::delete_matching(Pattern { s: Some(triple(n).s()), ..Pattern::ALL }, 1.0)
}

fn commit(store: &mut Store, mutation: Mutation) -> Result<Outcome, Refused> {
    let mut outcomes = store.commit(&[mutation], Durability::Fsync).unwrap();
    assert_eq!(outcomes.len(), 1);
    outcomes.pop().unwrap()
}

fn contains(store: &Store, n: u64) -> bool {
    store.reader().snapshot().contains(&triple(n)).unwrap()
}

/// Everything is sealed and nothing of it is left in the log, and a new process opens the store.
fn restart_without_log(disk: &SimDisk, mut store: Store) -> Store {
    let sealed = store.maintainer().checkpoint().unwrap();
    drop(store);
    // The next start goes on in a new segment, so that all before it can go.
    store = open(disk, 1000);
    store.wal().remove_before(sealed + 1).unwrap();
    assert_eq!(store.log().first_seq(), sealed + 1);
    drop(store);
    disk.crash(7);
    open(disk, 1000)
}

#[test]
fn a_repeat_hears_the_first_outcome_and_changes_nothing() {
    let disk = SimDisk::new();
    let mut store = open(&disk, 1000);
    let first = commit(&mut store, insert(1, 1.0).under(b"k")).unwrap();
    assert_eq!(first, Outcome { seq: 1, count: 1, affected: 1, is_repeat: false });
    let deleted = commit(&mut store, delete(1, 1.0).under(b"d")).unwrap();
    assert_eq!((deleted.seq, deleted.affected), (2, 1));
    for _ in 0..2 {
        let again = commit(&mut store, insert(1, 9.0).under(b"k")).unwrap();
        assert_eq!(again, Outcome { is_repeat: true, ..first });
        // Done once more it would delete nothing.
        let again = commit(&mut store, delete(1, 9.0).under(b"d")).unwrap();
        assert_eq!(again, Outcome { is_repeat: true, ..deleted });
        assert_eq!((contains(&store, 1), store.log().last_seq()), (false, 2));
        store = restart_without_log(&disk, store);
    }
}

#[test]
fn anything_else_under_a_key_is_refused() {
    let mut store = open(&SimDisk::new(), 1000);
    commit(&mut store, insert(1, 1.0).under(b"k")).unwrap();
    for other in [insert(2, 1.0), delete(1, 1.0), of_subject(1)] {
        let refused = commit(&mut store, other.under(b"k")).unwrap_err();
        assert_eq!(refused, Refused::KeyTaken { seq: 1 });
    }
    assert_eq!((contains(&store, 1), store.log().last_seq()), (true, 1));
    // Nothing is refused for it that has no key, or another.
    assert_eq!(commit(&mut store, insert(2, 1.0)).unwrap().seq, 2);
    assert_eq!(commit(&mut store, insert(2, 1.0).under(b"K")).unwrap().seq, 3);
}

#[test]
fn the_second_of_a_group_is_a_repeat_of_the_first() {
    let mut store = open(&SimDisk::new(), 1000);
    let group =
        [insert(1, 1.0).under(b"k"), delete(1, 1.0), insert(1, 2.0).under(b"k"), of_subject(7).under(b"k")];
    let outcomes = store.commit(&group, Durability::Fsync).unwrap();
    let first = Outcome { seq: 1, count: 1, affected: 1, is_repeat: false };
    assert_eq!(outcomes[0], Ok(first));
    assert_eq!(outcomes[2], Ok(Outcome { is_repeat: true, ..first }));
    assert_eq!(outcomes[3], Err(Refused::KeyTaken { seq: 1 }));
    assert!(!contains(&store, 1));
}

#[test]
fn a_delete_that_found_nothing_is_remembered() {
    let disk = SimDisk::new();
    let mut store = open(&disk, 1000);
    let first = commit(&mut store, of_subject(1).under(b"k")).unwrap();
    assert_eq!((first.seq, first.affected), (1, 0));
    commit(&mut store, insert(1, 1.0)).unwrap();
    store = restart_without_log(&disk, store);
    assert_eq!(commit(&mut store, of_subject(1).under(b"k")).unwrap(), Outcome { is_repeat: true, ..first });
    assert!(contains(&store, 1));
    // Without a key it takes no number, as ever.
    assert_eq!(commit(&mut store, of_subject(5)).unwrap().count, 0);
}

#[test]
fn a_failed_mutation_leaves_its_key_free() {
    let disk = SimDisk::new();
    let mut store = open(&disk, 1000);
    disk.set_capacity(Some(disk.used()));
    let large = Batch::new(Op::Insert, 1.0, (0..200).map(triple).collect());
    let refused = store.commit(&[Mutation::Batch(large).under(b"k")], Durability::Fsync).unwrap_err();
    assert!(refused.is_full(), "{refused}");
    disk.set_capacity(None);
    let done = commit(&mut store, insert(1, 1.0).under(b"k")).unwrap();
    assert!(!done.is_repeat);
}

#[test]
fn keys_are_forgotten_in_time_and_never_for_want_of_room() {
    let disk = SimDisk::new();
    let mut store = open(&disk, 2);
    for (key, at) in [(b"a", 0.0), (b"b", 50.0)] {
        commit(&mut store, insert(1, at).under(key)).unwrap();
    }
    let refused = commit(&mut store, insert(1, 60.0).under(b"c")).unwrap_err();
    assert_eq!(refused, Refused::TooManyKeys { limit: 2 });
    // Repeats are served, and what has no key.
    assert!(commit(&mut store, insert(1, 60.0).under(b"a")).unwrap().is_repeat);
    commit(&mut store, insert(1, 60.0)).unwrap();
    // The first is over now: there is room, and its own key is free.
    assert!(!commit(&mut store, insert(2, 101.0).under(b"a")).unwrap().is_repeat);
    assert_eq!(store.reader().stats().keys, 2);
    // Without any further key they go, too.
    commit(&mut store, insert(1, 1000.0)).unwrap();
    assert_eq!(store.reader().stats().keys, 0);
}

#[test]
fn a_store_without_keys_has_no_file_of_outcomes() {
    let disk = SimDisk::new();
    let mut store = open(&disk, 1000);
    commit(&mut store, insert(1, 1.0)).unwrap();
    store.maintainer().checkpoint().unwrap();
    assert!(!disk.exists(&outcomes_file()).unwrap());
    commit(&mut store, insert(2, 1.0).under(b"k")).unwrap();
    assert!(!disk.exists(&outcomes_file()).unwrap(), "the log has it");
    store.maintainer().checkpoint().unwrap();
    let bytes = disk.bytes(&outcomes_file()).unwrap();
    assert_eq!(bytes.len(), 64 + 56);
    // Nothing new under a key: the file stays as it is.
    commit(&mut store, insert(3, 1.0)).unwrap();
    let before = disk.operations();
    store.maintainer().checkpoint().unwrap();
    assert!(disk.operations() > before);
    assert_eq!(disk.bytes(&outcomes_file()).unwrap(), bytes);
}

/// The power is cut at each change of a seal that saves an outcome whose record is not durable.
#[test]
fn an_outcome_that_a_power_cut_took_never_comes_back() {
    let mut taken_with_file = 0;
    for n in 0.. {
        let disk = SimDisk::new();
        let mut store = open(&disk, 1000);
        commit(&mut store, insert(1, 1.0)).unwrap();
        store.commit(&[insert(2, 1.0).under(b"k")], Durability::Os).unwrap();
        disk.stop_at(n);
        let _ = store.maintainer().checkpoint();
        let stopped = disk.has_stopped();
        drop(store);
        disk.crash_where(&mut |_| false);
        let mut store = open(&disk, 1000);
        let there = contains(&store, 2);
        assert_eq!(store.reader().stats().keys, usize::from(there), "cut at {n}");
        taken_with_file += u32::from(!there && disk.exists(&outcomes_file()).unwrap());
        // Its number is given again, and sealed, without any new key.
        for other in 3..6 {
            commit(&mut store, insert(other, 1.0)).unwrap();
        }
        store.maintainer().checkpoint().unwrap();
        drop(store);
        let mut store = open(&disk, 1000);
        assert_eq!(commit(&mut store, insert(2, 2.0).under(b"k")).unwrap().is_repeat, there, "cut at {n}");
        if !stopped {
            break;
        }
    }
    assert!(taken_with_file > 0, "no cut came between the outcomes and the catalog");
}

#[test]
fn outcomes_of_another_store_are_not_taken_for_ones_own() {
    let disk = SimDisk::new();
    let path = outcomes_file();
    disk.create_dir_all(path.parent().unwrap()).unwrap();
    disk.open(&path, Open::Create).unwrap().write_at(b"left over", 0).unwrap();
    let opened = Store::open(Arc::new(disk), Path::new(CATALOG), StoreOptions::default());
    let Err(refused @ StoreError::CatalogMissing { .. }) = opened.map(|_| ()) else { panic!("it opened") };
    assert!(refused.to_string().contains("cidstore.h5.outcomes"), "{refused}");
}
