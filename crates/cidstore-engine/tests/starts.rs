//! Starts that are not like the others: on a full disk, with files that are missing or damaged.

use cidstore_disk::sim::SimDisk;
use cidstore_disk::{Disk, Open};
use cidstore_engine::hdf5::{RunSource, read_run};
use cidstore_engine::{Durability, Merging, OpenReport, Step, Store, StoreError, StoreOptions};
use cidstore_types::{Batch, Cid, Mutation, Op, Pattern, Triple};
use std::io::ErrorKind;
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
    store.reader().snapshot().count(&Pattern::ALL).unwrap()
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
        assert!(matches!(maintainer.step(Merging::Settling), Ok(Step::Sealed { rows: 60, .. })));
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
            assert!(matches!(maintainer.step(Merging::Settling), Ok(Step::Sealed { .. })));
        }
        let error = loop {
            match maintainer.step(Merging::Settling) {
                Ok(Step::Merged { .. }) => panic!("{column}: merged"),
                Ok(_) => {}
                Err(error) => break error.to_string(),
            }
        };
        assert!(error.contains(file.to_str().unwrap()) && error.contains(column), "{error}");
        assert!(error.contains(&format!("at {}", place.offset)), "{error}");
        // It is left alone from now on, and told; the others are merged without it.
        for i in 4..10 {
            insert(&mut store, i * 60..(i + 1) * 60).unwrap();
            while maintainer.step(Merging::Settling).unwrap() != Step::Idle {}
        }
        assert!(disk.exists(file).unwrap());
        let stats = store.reader().stats();
        assert_eq!(stats.damaged.iter().map(|what| &**what).collect::<Vec<_>>(), [&*error]);
        assert!(stats.file_runs < 6, "{stats:?}");
    }
}

/// A store with two run files of 60 rows each.
fn two_runs() -> (SimDisk, [&'static Path; 2]) {
    let disk = SimDisk::new();
    let (mut store, _) = open(&disk, 0).unwrap();
    for i in 0..2 {
        insert(&mut store, i * 60..(i + 1) * 60).unwrap();
        store.maintainer().checkpoint().unwrap();
    }
    disk.kill();
    let paths = ["/data/cidstore.h5.runs/000001.h5", "/data/cidstore.h5.runs/000002.h5"].map(Path::new);
    (disk, paths)
}

#[test]
fn run_file_that_is_not_what_it_was_keeps_the_store_from_starting() {
    type Damage = fn(&SimDisk, [&Path; 2]);
    let damages: [(&str, Damage); 4] = [
        ("not found", |disk, [_, second]| disk.remove(second).unwrap()),
        ("the length is 5000, the catalog says", |disk, [_, second]| {
            disk.open(second, Open::Write).unwrap().set_len(5000).unwrap();
        }),
        ("CRC-32C of the file's head", |disk, [_, second]| disk.flip_bit(second, 8 * 100)),
        // The file of another run.
        ("CRC-32C of the file's head", |disk, [first, second]| {
            let bytes = disk.files()[first].clone();
            disk.open(second, Open::Write).unwrap().write_at(&bytes, 0).unwrap();
        }),
    ];
    for (what, damage) in damages {
        let (disk, paths) = two_runs();
        let before = disk.files();
        damage(&disk, paths);
        let damaged = disk.files();
        let error = open(&disk, 1).err().unwrap_or_else(|| panic!("{what}: it starts")).to_string();
        for part in [what, "cidstore.h5.runs/00000", "60 rows of mutations ", "from a backup"] {
            assert!(error.contains(part), "{part:?} is not in: {error}");
        }
        // Nothing else was touched, so that putting it back is all that is needed.
        assert_eq!(disk.files(), damaged);
        for (path, bytes) in before {
            let _ = disk.remove(&path);
            disk.open(&path, Open::Create).unwrap().write_at(&bytes, 0).unwrap();
        }
        assert_eq!(count(&open(&disk, 2).unwrap().0), 120);
    }
}

/// A catalog of an earlier day does not name the files of later ones.
#[test]
fn wrong_catalog_costs_no_file() {
    let disk = SimDisk::new();
    let (mut store, _) = open(&disk, 0).unwrap();
    insert(&mut store, 0..60).unwrap();
    store.maintainer().checkpoint().unwrap();
    let early = disk.files()[Path::new(PATH)].clone();
    let mut last = 60;
    while store.log().first_seq() == 1 || disk.exists(Path::new("/data/cidstore.h5.runs/000001.h5")).unwrap()
    {
        insert(&mut store, last..last + 60).unwrap();
        last += 60;
        store.maintainer().checkpoint().unwrap();
        store.maintainer().step(Merging::Settling).unwrap();
        let sealed = store.reader().sealed_seq();
        store.wal().remove_before(sealed).unwrap();
    }
    drop(store);
    disk.kill();
    let before = disk.files();
    let put = |bytes: &[u8]| {
        disk.remove(Path::new(PATH)).unwrap();
        disk.open(Path::new(PATH), Open::Create).unwrap().write_at(bytes, 0).unwrap();
    };
    put(&early);
    let error = open(&disk, 1).err().expect("its run file was merged into another").to_string();
    assert!(error.contains("000001.h5") && error.contains("not found"), "{error}");
    put(&before[Path::new(PATH)]);
    assert_eq!(disk.files(), before);
    assert_eq!(count(&open(&disk, 2).unwrap().0), last);
}

#[test]
fn damaged_or_missing_catalog_keeps_the_store_from_starting() {
    let (disk, _) = two_runs();
    disk.flip_bit(Path::new(PATH), 8 * 3000);
    let error = open(&disk, 1).err().expect("it is damaged").to_string();
    assert!(error.contains(PATH) && error.contains("Restore it from a backup"), "{error}");
    disk.remove(Path::new(PATH)).unwrap();
    let error = open(&disk, 1).err().expect("it is missing").to_string();
    assert!(error.contains(PATH) && error.contains("Put it back from a backup"), "{error}");
}

/// Whatever fails while a run file is made, the next attempt succeeds, and nothing is left over.
#[test]
fn failed_seals_leave_nothing_behind() {
    let mut left_over = Vec::new();
    for n in 0.. {
        let disk = SimDisk::new();
        let (mut store, _) = open(&disk, 0).unwrap();
        insert(&mut store, 0..60).unwrap();
        let mut maintainer = store.maintainer();
        let before = disk.operations();
        disk.fail_nth(n, ErrorKind::StorageFull);
        let _ = maintainer.step(Merging::Settling);
        if disk.operations() - before <= n {
            break;
        }
        maintainer.checkpoint().unwrap();
        while maintainer.step(Merging::Settling).unwrap() != Step::Idle {}
        assert_eq!(count(&store), 60);
        let runs = disk.list(Path::new("/data/cidstore.h5.runs")).unwrap();
        assert!(!runs.is_empty());
        if runs.len() > 1 {
            left_over.push(n);
        }
    }
    // But where the catalog's rename, or the sync of that, failed: the file may be named.
    assert!(left_over.len() <= 2, "{left_over:?}");
}
