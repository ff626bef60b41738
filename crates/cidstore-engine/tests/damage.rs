//! Columns that are not what was written: questions may be answered wrongly then, and are answered.

use cidstore_disk::sim::{Seeded, SimDisk};
use cidstore_disk::{Disk, Open};
use cidstore_engine::hdf5::{Extent, RunSource, read_run};
use cidstore_engine::{Durability, Snapshot, Store, StoreOptions};
use cidstore_types::{Batch, Cid, Mutation, Op, Pattern, Triple};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const PATH: &str = "/data/cidstore.h5";
const RUN: &str = "/data/cidstore.h5.runs/000002.h5";
/// Enough for filters.
const ROWS: u64 = 5000;

fn open(disk: &SimDisk, nonce: u64) -> Store {
    let options = StoreOptions { nonce, small_files_max: 64, ..StoreOptions::default() };
    Store::open(Arc::new(disk.clone()), Path::new(PATH), options).unwrap().0
}

fn triple(i: u64) -> Triple {
    let cid = |low| Cid::from_lanes([low, 0, 0, low]);
    Triple::new(cid(i % 700), cid(i % 11), cid(i / 3))
}

/// A store of two run files: the second deletes some of the first, and has metadata.
fn store() -> SimDisk {
    let disk = SimDisk::new();
    let mut store = open(&disk, 0);
    for (op, range) in [(Op::Insert, 0..ROWS), (Op::Insert, ROWS / 2..ROWS * 2), (Op::Delete, 0..50)] {
        let mut batch = Batch::new(op, 1.0, range.map(triple).collect());
        if op == Op::Insert {
            batch.metadata = (0..900).map(|row| (row * 3, r#"{"schema_version":"v2"}"#.into())).collect();
        }
        store.commit(&[Mutation::Batch(batch)], Durability::Fsync).unwrap();
        if store.reader().sealed_seq() == 0 {
            store.maintainer().checkpoint().unwrap();
        }
    }
    store.maintainer().checkpoint().unwrap();
    assert_eq!(store.reader().stats().file_runs, 2);
    drop(store);
    disk.kill();
    disk
}

fn copy(files: &BTreeMap<PathBuf, Vec<u8>>) -> SimDisk {
    let disk = SimDisk::new();
    for (path, bytes) in files {
        disk.create_dir_all(path.parent().unwrap()).unwrap();
        disk.open(path, Open::Create).unwrap().write_at(bytes, 0).unwrap();
    }
    disk
}

fn columns(bytes: &[u8]) -> Vec<(&'static str, Extent)> {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("run.h5");
    std::fs::write(&copy, bytes).unwrap();
    let layout = read_run(RunSource::File(&copy)).unwrap();
    let used = layout.columns.iter().filter(|(_, extent)| extent.bytes > 0);
    used.map(|(column, extent)| (column.name(), *extent)).collect()
}

/// Asks everything there is to ask.
fn ask(snapshot: &Snapshot) {
    for i in (0..2 * ROWS).step_by(397).chain([u64::MAX]) {
        let asked = triple(i);
        let _ = (snapshot.contains(&asked), snapshot.get(&asked.hash()));
        for bound in 0..8 {
            let part = |bit, value| (bound & bit != 0).then_some(value);
            let pattern = Pattern { s: part(1, asked.s()), p: part(2, asked.p()), o: part(4, asked.o()) };
            let mut cursor = None;
            for page in 0..3 {
                let found = snapshot.query(&pattern, 40, cursor.as_deref(), page % 2 == 0);
                let Ok(found) = found else { break };
                assert!(found.records.is_none_or(|records| records.len() == found.rows.len()));
                cursor = found.cursor;
                if cursor.is_none() {
                    break;
                }
            }
        }
    }
    for p in 0..11 {
        let pattern = Pattern { p: Some(triple(p).p()), ..Pattern::ALL };
        let _ = (snapshot.count(&pattern), snapshot.query(&pattern, 2000, None, true));
    }
    let _ = (snapshot.count(&Pattern::ALL), snapshot.query(&Pattern::ALL, usize::MAX, None, true));
}

#[test]
fn no_damaged_column_ends_the_process() {
    let sound = store().files();
    let columns = columns(&sound[Path::new(RUN)]);
    assert!(columns.len() >= 15, "all of them: {columns:?}");
    for (_, extent) in columns {
        for seed in 0..3 {
            let disk = copy(&sound);
            let mut bytes = vec![0xff; extent.bytes as usize];
            let mut random = Seeded(seed);
            match seed {
                0 => {}
                1 => bytes.fill_with(|| random.next_u64() as u8),
                // Some rows only, among sound ones.
                _ => {
                    let start = extent.offset as usize;
                    let end = start + bytes.len();
                    bytes.copy_from_slice(&disk.files()[Path::new(RUN)][start..end]);
                    for _ in 0..20 {
                        let at = random.below(bytes.len() as u64) as usize;
                        bytes[at] = random.next_u64() as u8;
                    }
                }
            }
            disk.open(Path::new(RUN), Open::Write).unwrap().write_at(&bytes, extent.offset).unwrap();
            let mut store = open(&disk, 1 + seed);
            ask(&store.reader().snapshot());
            // Nor do deletes, which read, and the merge that finds out.
            let pattern = Pattern { p: Some(triple(3).p()), ..Pattern::ALL };
            let group = [Mutation::delete_matching(pattern, 2.0)];
            store.commit(&group, Durability::Fsync).unwrap();
            store.maintainer().checkpoint().unwrap();
        }
    }
}
