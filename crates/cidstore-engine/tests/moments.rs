//! What happens at one certain moment of merging: somebody wants the end.

use cidstore_disk::sim::SimDisk;
use cidstore_disk::{Disk, File, Map, Open, Result};
use cidstore_engine::{Durability, Store, StoreError, StoreOptions};
use cidstore_types::{Batch, Cid, Mutation, Op, Triple};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};

const PATH: &str = "/data/cidstore.h5";
/// Rows of a file that fills a merge.
const FULL: usize = 500;

/// What is to happen, and what has.
#[derive(Default)]
struct Plan {
    /// Called when the pages of a file are given back for the first time.
    at_release: Option<Box<dyn FnOnce() + Send>>,
    releases: usize,
}

/// A simulated disk that something happens on.
#[derive(Clone, Default)]
struct PlannedDisk {
    sim: SimDisk,
    plan: Arc<Mutex<Plan>>,
}

impl Disk for PlannedDisk {
    fn open(&self, path: &Path, how: Open) -> Result<Arc<dyn File>> {
        self.sim.open(path, how)
    }
    fn list(&self, dir: &Path) -> Result<Vec<String>> {
        self.sim.list(dir)
    }
    fn exists(&self, path: &Path) -> Result<bool> {
        self.sim.exists(path)
    }
    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        self.sim.create_dir_all(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.sim.rename(from, to)
    }
    fn remove(&self, path: &Path) -> Result<()> {
        self.sim.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.sim.sync_dir(dir)
    }
    fn map(&self, path: &Path) -> Result<Arc<dyn Map>> {
        Ok(Arc::new(PlannedMap { map: self.sim.map(path)?, plan: Arc::clone(&self.plan) }))
    }
    fn available_bytes(&self, dir: &Path) -> Result<u64> {
        self.sim.available_bytes(dir)
    }
}

struct PlannedMap {
    map: Arc<dyn Map>,
    plan: Arc<Mutex<Plan>>,
}

// SAFETY: the bytes are those of another map, which lives as long.
unsafe impl Map for PlannedMap {
    fn bytes(&self) -> &[u8] {
        self.map.bytes()
    }
    fn release(&self, _range: Range<usize>) {
        let mut plan = self.plan.lock().unwrap();
        plan.releases += 1;
        if let Some(happen) = plan.at_release.take() {
            happen();
        }
    }
}

fn open(disk: &PlannedDisk) -> Store {
    let options = StoreOptions { nonce: 1, run_rows_max: 3 * FULL / 2, ..StoreOptions::default() };
    Store::open(Arc::new(disk.clone()), Path::new(PATH), options).unwrap().0
}

/// Commits the `n`-th so many rows.
fn commit(store: &mut Store, n: usize) {
    let cid = |lane, n: usize| Cid::from_two_lanes([lane, n as u64]);
    let rows = (n * FULL..(n + 1) * FULL).map(|n| Triple::new(cid(0, n % 90), cid(1, 0), cid(2, n)));
    let batch = Mutation::Batch(Batch::new(Op::Insert, 1.0, rows.collect()));
    store.commit(&[batch], Durability::Fsync).unwrap().remove(0).unwrap();
}

/// What a compaction would do is learnt from samples all over the files: the end does not wait for that.
#[test]
fn the_end_is_not_kept_waiting_by_the_choice_of_what_to_compact() {
    let disk = PlannedDisk::default();
    let mut store = open(&disk);
    for n in 0..6 {
        commit(&mut store, n);
        store.maintainer().checkpoint().unwrap();
    }
    let (_, merger) = store.maintainer().split();
    let releases = |plan: &Mutex<Plan>| std::mem::take(&mut plan.lock().unwrap().releases);
    releases(&disk.plan);
    merger.pending().unwrap();
    // After the sample of each file the pages of all are given back.
    let all = releases(&disk.plan);
    assert!(all > 0);
    let stopper = merger.stopper();
    disk.plan.lock().unwrap().at_release = Some(Box::new(move || stopper.stop()));
    assert!(matches!(merger.pending(), Err(StoreError::Stopped)));
    assert_eq!(releases(&disk.plan), all / 6, "only the first file was looked at");
}
