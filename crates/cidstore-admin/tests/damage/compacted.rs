//! A store after a compaction, whose files leave out what other files made unnecessary: damage in one of
//! them must not bring back what is deleted.

use crate::made::{CATALOG, Made, go_on, run_file, triple};
use crate::repair::repaired;
use cidstore_admin::verify::{VerifyOptions, verify};
use cidstore_disk::sim::SimDisk;
use cidstore_disk::{Disk, Open};
use cidstore_engine::{Durability, Merging, Step, Store, StoreOptions};
use cidstore_types::{Batch, Mutation, Op};
use std::path::Path;
use std::sync::Arc;

const ROWS: u64 = 2000;
const MORE: u64 = 700;

/// Three run files: rows, others, and the deletion of so many of the former beside some more; then
/// compacted. Returns also the bytes of the files before that.
fn compacted(with_history: bool, deleted: u64) -> (Made, Vec<Vec<u8>>) {
    let disk = SimDisk::new();
    // No two files are merged, as where each is as large as a file may be.
    let options = StoreOptions { segment_bytes: 1 << 16, run_rows_max: 1, ..StoreOptions::default() };
    let mut store = Store::open(Arc::new(disk.clone()), Path::new(CATALOG), options).unwrap().0;
    let mut history = Vec::new();
    let mut commit = |store: &mut Store, op, range| {
        let batch = Batch::new(op, 1000.0, std::ops::Range::map(range, triple).collect());
        history.push((store.wal().last_seq() + 1, batch.clone()));
        store.commit(&[Mutation::Batch(batch)], Durability::Fsync).unwrap().remove(0).unwrap();
    };
    commit(&mut store, Op::Insert, 0..ROWS);
    store.maintainer().checkpoint().unwrap();
    commit(&mut store, Op::Insert, ROWS..2 * ROWS);
    store.maintainer().checkpoint().unwrap();
    commit(&mut store, Op::Delete, 0..deleted);
    commit(&mut store, Op::Insert, 2 * ROWS..2 * ROWS + MORE);
    store.maintainer().checkpoint().unwrap();
    if !with_history {
        let sealed = store.reader().sealed_seq();
        store.wal().remove_before(sealed + 1).unwrap();
    }
    let former = (1..4).map(|number| disk.bytes(&run_file(number)).unwrap()).collect();
    let (_, mut merger) = store.maintainer().split();
    while merger.step(Merging::Everything).unwrap() != Step::Idle {}
    drop((merger, store));
    disk.kill();
    (Made { disk, history }, former)
}

#[test]
fn nothing_is_wrong_with_it() {
    for (with_history, deleted) in [(false, ROWS / 2), (true, ROWS / 2), (false, ROWS), (true, ROWS)] {
        let (made, _) = compacted(with_history, deleted);
        let sizes: Vec<_> = made.catalog().runs.iter().map(|run| (run.rows, run.tombstones)).collect();
        let tombstones = if with_history { deleted } else { 0 };
        assert_eq!(sizes, [(ROWS - deleted, 0), (ROWS, 0), (MORE, tombstones)]);
        let report = verify(&made.arc(), Path::new(CATALOG), VerifyOptions::default(), &mut go_on).unwrap();
        assert_eq!(report.findings, []);
        let (report, model) = repaired(&made);
        assert_eq!((report.losses, model), (Vec::new(), made.model()));
    }
}

#[test]
fn a_file_that_is_gone_is_made_from_the_log_without_what_was_deleted() {
    let (sound, _) = compacted(true, ROWS / 2);
    for number in sound.catalog().runs.iter().map(|run| run.id) {
        let made = sound.copy();
        made.remove(&run_file(number));
        let (report, model) = repaired(&made);
        assert_eq!((report.losses, model), (Vec::new(), made.model()), "file {number}");
    }
}

#[test]
fn what_a_file_loses_that_no_log_has_is_lost_and_nothing_else_comes_back() {
    let (sound, _) = compacted(false, ROWS / 2);
    let expected = sound.model();
    // The log has the last file's mutations.
    for number in sound.catalog().runs.iter().take(2).map(|run| run.id) {
        let made = sound.copy();
        made.remove(&run_file(number));
        let (report, model) = repaired(&made);
        assert!(!report.losses.is_empty() && !model.is_empty(), "file {number}");
        assert!(model.iter().all(|(triple, about)| expected.get(triple) == Some(about)), "file {number}");
    }
}

#[test]
fn a_catalog_made_anew_takes_the_latest_files_also_where_former_ones_are_left() {
    for (with_history, deleted) in [(false, ROWS / 2), (true, ROWS / 2), (false, ROWS), (true, ROWS)] {
        let (sound, former) = compacted(with_history, deleted);
        for leftover in [false, true] {
            let made = sound.copy();
            // As while another program has a former catalog open.
            for (number, bytes) in (1..).zip(former.iter().filter(|_| leftover)) {
                let path = run_file(number);
                if !made.disk.exists(&path).unwrap() {
                    let file = made.disk.open(&path, Open::Create).unwrap();
                    file.write_at(bytes, 0).unwrap();
                }
            }
            made.remove(Path::new(CATALOG));
            let (report, model) = repaired(&made);
            assert_eq!(
                (report.losses, model),
                (Vec::new(), made.model()),
                "{with_history} {deleted} {leftover}"
            );
        }
    }
}
