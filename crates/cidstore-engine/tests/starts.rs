//! Starts that are not like the others: on a full disk, with files that are missing or damaged.

use cidstore_disk::sim::SimDisk;
use cidstore_engine::hdf5::{RunSource, read_run};
use cidstore_engine::{Durability, OpenReport, Step, Store, StoreError, StoreOptions};
use cidstore_types::{Batch, Cid, Mutation, Op, Pattern, Triple};
use std::path::Path;
use std::sync::Arc;

const PATH: &str = "/data/cidstore.h5";

fn open(disk: &SimDisk, nonce: u64) -> Result<(Store, OpenReport), StoreError> {
    let options = StoreOptions {
        nonce,
        segment_bytes: 1 << 16,
        seal_rows: 50,
        memory_rows_max: 100,
        tidy_rows_max: 30,
        ..StoreOptions::default()
    };
    Store::open(Arc::new(disk.clone()), Path::new(PATH), options)
}

fn insert(store: &mut Store, lows: std::ops::Range<u64>) -> Result<(), StoreError> {
    let rows = lows.map(|low| Triple::new(Cid::from_two_lanes([0, low]), Cid::ZERO, Cid::MAX)).collect();
    let mutation = Mutation::Batch(Batch::new(Op::Insert, 1.0, rows));
    store.commit(&[mutation], Durability::Fsync).map(|_| ())
}

fn count(store: &Store) -> u64 {
    store.reader().snapshot().count(&Pattern::ALL)
}

/// Bytes of all files.
fn used(disk: &SimDisk) -> u64 {
    disk.files().values().map(|bytes| bytes.len() as u64).sum()
}

/// What the log holds can be more than memory should: sealing some of it is no condition for
/// answering.
#[test]
fn full_disk_is_no_reason_not_to_start() {
    let disk = SimDisk::new();
    let (mut store, _) = open(&disk, 0).unwrap();
    for i in 0..12 {
        insert(&mut store, i * 20..(i + 1) * 20).unwrap();
    }
    drop(store);
    disk.kill();
    // Not a byte: a new segment's header finds its room where the last one's reserve was.
    disk.set_capacity(Some(used(&disk)));
    let (mut store, _) = open(&disk, 1).unwrap();
    assert_eq!(count(&store), 240);
    disk.set_capacity(None);
    insert(&mut store, 240..250).unwrap();
    store.maintainer().checkpoint().unwrap();
    drop(store);
    let (store, report) = open(&disk, 2).unwrap();
    assert_eq!((count(&store), report.replayed), (250, 0));
}

/// A merge would give what is damaged a checksum that fits.
#[test]
fn no_damaged_column_is_merged_into_a_new_file() {
    for column in ["triples", "created_at", "index/pos", "index/osp", "index/hash_prefix", "index/hash_row"] {
        let disk = SimDisk::new();
        let (mut store, _) = open(&disk, 0).unwrap();
        let mut maintainer = store.maintainer();
        insert(&mut store, 0..60).unwrap();
        assert!(matches!(maintainer.step(), Ok(Step::Sealed { rows: 60, .. })));
        let file = Path::new("/data/cidstore.h5.runs/000001.h5");
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("run.h5");
        std::fs::write(&copy, &disk.files()[file]).unwrap();
        let layout = read_run(RunSource::File(&copy)).unwrap();
        let (_, place) = layout.columns.iter().find(|(id, _)| id.name() == column).unwrap();
        // The least significant bit of some value in the middle, so that nothing but a checksum tells.
        disk.flip_bit(file, (place.offset + place.bytes / 2) * 8);
        for i in 1..4 {
            insert(&mut store, i * 60..(i + 1) * 60).unwrap();
            assert!(matches!(maintainer.step(), Ok(Step::Sealed { .. })));
        }
        let error = loop {
            match maintainer.step() {
                Ok(Step::Merged { .. }) => panic!("{column}: merged"),
                Ok(_) => {}
                Err(error) => break error.to_string(),
            }
        };
        assert!(error.contains(file.to_str().unwrap()) && error.contains(column), "{error}");
        assert!(error.contains(&format!("at {}", place.offset)), "{error}");
    }
}
