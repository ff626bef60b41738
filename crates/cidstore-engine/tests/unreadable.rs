//! A run file that cannot be read any more where it is needed: what depends on it is refused, and told;
//! nothing else suffers, and the process goes on. Where it can be read again it is in service again.

use cidstore_disk::RealDisk;
use cidstore_engine::{
    Durability, Merging, QueryError, Refused, Snapshot, Step, Store, StoreError, StoreOptions, UnreadablePage,
};
use cidstore_types::{Batch, Cid, Mutation, Op, Pattern, Triple};
use std::fs;
use std::os::unix::fs::FileExt;
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

/// Has the disk fail for a moment: behind the end of a file its pages are as unreadable as those of a bad
/// sector. Returns what the next question about the last row says.
fn fail_for_a_moment(store: &Store, path: &Path) -> UnreadablePage {
    let bytes = fs::read(path).unwrap();
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(64 << 10).unwrap();
    let unreadable = ask(&store.reader().snapshot(), 2 * ROWS - 1).unwrap_err();
    file.write_all_at(&bytes, 0).unwrap();
    unreadable
}

#[test]
fn what_can_be_read_again_is_in_service_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, path) = store(dir.path());
    let (_, mut merger) = store.maintainer().split();
    assert_eq!(merger.unreadable(), []);
    // The scrub is in the middle of that file.
    let mut scrubber = store.reader().scrubber();
    while scrubber.step(100_000).bytes > 0 {}
    assert!(scrubber.step(100_000).bytes > 0, "of the second file");
    let before = store.reader().snapshot();
    for _ in 0..3 {
        let unreadable = fail_for_a_moment(&store, &path);
        assert_eq!(ask(&store.reader().snapshot(), 2 * ROWS - 1), Err(unreadable.clone()), "for good");
        assert_eq!(merger.unreadable(), [unreadable]);
        merger.reopen(&path).unwrap();
        assert_eq!(merger.unreadable(), []);
        for i in [0, ROWS - 1, ROWS, 2 * ROWS - 1] {
            assert_eq!(ask(&store.reader().snapshot(), i), Ok(true), "{i}");
        }
        assert_eq!(ask(&store.reader().snapshot(), 3 * ROWS), Ok(false));
        assert_eq!(store.reader().stats().damaged, [] as [Arc<str>; 0]);
    }
    // Whoever asks in what was there before is refused as before.
    ask(&before, 2 * ROWS - 1).unwrap_err();
    // Nothing is to be done with a file that is in service, nor with one that is not there.
    merger.reopen(&path).unwrap();
    merger.reopen(Path::new("/nowhere")).unwrap();

    // It is deleted from, and merged: its file stays as long as somebody has one of the runs of it.
    let delete = Mutation::delete_matching(of_subject(ROWS), 2.0);
    assert_eq!(store.commit(&[delete], Durability::Fsync).unwrap()[0].as_ref().unwrap().affected, 1);
    store.maintainer().checkpoint().unwrap();
    let after = store.reader().snapshot();
    while !matches!(merger.step(Merging::Everything).unwrap(), Step::Idle) {}
    assert_eq!(store.reader().stats().file_runs, 1);
    for held in [after, before] {
        merger.tidy().unwrap();
        assert!(path.exists());
        drop(held);
    }
    // The scrub has it open still.
    while !scrubber.step(1 << 20).round_ended {}
    merger.tidy().unwrap();
    assert!(!path.exists());
    drop((merger, store));
    let catalog = dir.path().join("cidstore.h5");
    let (store, _) = Store::open(Arc::new(RealDisk), &catalog, StoreOptions::default()).unwrap();
    let snapshot = store.reader().snapshot();
    let told = [0, ROWS, ROWS + 1, 2 * ROWS - 1].map(|i| ask(&snapshot, i));
    assert_eq!(told, [Ok(true), Ok(false), Ok(true), Ok(true)]);
}

#[test]
fn what_is_damaged_stays_out_of_service() {
    let dir = tempfile::tempdir().unwrap();
    let (store, path) = store(dir.path());
    let (_, mut merger) = store.maintainer().split();
    let unreadable = fail_for_a_moment(&store, &path);
    let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let len = file.metadata().unwrap().len();
    let still_refused = |error: StoreError| {
        assert_eq!(ask(&store.reader().snapshot(), 2 * ROWS - 1), Err(unreadable.clone()));
        assert_eq!(store.reader().stats().damaged.len(), 1);
        error
    };
    let flip = |at| {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    };
    // The head, and somewhere in the rows.
    for at in [100, len / 3] {
        flip(at);
        let error = still_refused(merger.reopen(&path).unwrap_err());
        assert!(matches!(error, StoreError::ColumnDamaged { .. }), "{error}");
        flip(at);
    }
    // All columns are there, and more.
    file.set_len(len + 1).unwrap();
    let error = still_refused(merger.reopen(&path).unwrap_err());
    assert!(matches!(error, StoreError::Run { .. }), "{error}");
    file.set_len(len / 2).unwrap();
    still_refused(merger.reopen(&path).unwrap_err());
    fs::rename(&path, dir.path().join("away")).unwrap();
    let error = still_refused(merger.reopen(&path).unwrap_err());
    assert!(matches!(error, StoreError::RunUnreadable { .. }), "{error}");
    assert_eq!(merger.unreadable(), std::slice::from_ref(&unreadable));
    // Nor is it tried when there is an end to everything.
    merger.stopper().stop();
    assert!(matches!(still_refused(merger.reopen(&path).unwrap_err()), StoreError::Stopped));
}

#[test]
fn damage_that_the_scrub_finds_is_of_the_file_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (store, path) = store(dir.path());
    let (_, mut merger) = store.maintainer().split();
    let mut scrubber = store.reader().scrubber();
    while scrubber.step(100_000).bytes > 0 {}
    assert!(scrubber.step(100_000).bytes > 0, "of the second file");
    fail_for_a_moment(&store, &path);
    merger.reopen(&path).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let at = file.metadata().unwrap().len() / 2;
    file.write_all_at(&[0x55; 4096], at).unwrap();
    let mut found = Vec::new();
    loop {
        let step = scrubber.step(100_000);
        found.extend(step.damage);
        if step.round_ended {
            break;
        }
    }
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(store.reader().stats().damaged, found);
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

    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(64 << 10).unwrap();
    let unreadable = ask(&snapshot, 2 * ROWS - 1).unwrap_err();
    assert_eq!((&unreadable.path, unreadable.first_seq, unreadable.last_seq), (&path, ROWS + 1, 2 * ROWS));
    assert!(unreadable.offset >= 64 << 10, "{unreadable}");
    // Its filters are gone as well, so that it might hold anything.
    assert_eq!(ask(&snapshot, 3 * ROWS), Err(unreadable.clone()));

    // Nobody deletes by what was not read; all else is taken.
    let delete = Mutation::delete_matching(of_subject(0), 2.0);
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
    while !matches!(store.maintainer().step(Merging::Settling).unwrap(), Step::Idle) {}
    assert!(path.exists());
    drop((snapshot, store));
    let again = Store::open(Arc::new(RealDisk), &dir.path().join("cidstore.h5"), StoreOptions::default());
    assert!(matches!(again, Err(StoreError::Run { .. })), "a start refuses it");
}
