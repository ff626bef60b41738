//! What happens at one certain moment of sealing and merging: somebody wants the end, the catalog cannot be
//! put in its place, or room becomes free.

use cidstore_disk::sim::SimDisk;
use cidstore_disk::{Disk, DiskError, File, Map, Open, Result};
use cidstore_engine::hdf5::read_catalog;
use cidstore_engine::{Durability, Merging, Progress, Step, Store, StoreError, StoreOptions};
use cidstore_types::{Batch, Cid, Mutation, Op, Triple};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};

const PATH: &str = "/data/cidstore.h5";
/// Rows of a file.
const ROWS: usize = 500;

/// What is to happen, and what has.
#[derive(Default)]
struct Plan {
    /// Called when the pages of a file are given back for the first time.
    at_release: Option<Box<dyn FnOnce() + Send>>,
    releases: usize,
    /// Called when the room on the disk was looked at for the next time.
    after_look: Option<Box<dyn FnOnce() + Send>>,
    /// What fails of putting the catalog in its place.
    fails: Option<Put>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Put {
    /// It is not there then.
    Rename,
    /// It is there, and may not be after a power cut.
    Sync,
}

/// A simulated disk that something happens on.
#[derive(Clone, Default)]
struct PlannedDisk {
    sim: SimDisk,
    plan: Arc<Mutex<Plan>>,
}

impl PlannedDisk {
    fn fail(&self, op: &'static str, path: &Path, put: Put) -> Result<()> {
        if self.plan.lock().unwrap().fails == Some(put) {
            return Err(DiskError { op, path: path.to_owned(), source: std::io::ErrorKind::Other.into() });
        }
        Ok(())
    }

    /// Run files by name: those that there are, and those that the catalog names.
    fn runs(&self) -> [Vec<String>; 2] {
        let catalog = read_catalog(PATH, &self.sim.bytes(Path::new(PATH)).unwrap()).unwrap();
        let name = |run: &str| run.rsplit('/').next().unwrap().to_owned();
        let named = catalog.runs.iter().map(|run| name(&run.file)).collect();
        [self.sim.list(&Path::new(PATH).with_file_name("cidstore.h5.runs")).unwrap(), named]
    }
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
        if to == Path::new(PATH) {
            self.fail("rename", from, Put::Rename)?;
        }
        self.sim.rename(from, to)
    }
    fn remove(&self, path: &Path) -> Result<()> {
        self.sim.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> Result<()> {
        if Some(dir) == Path::new(PATH).parent() {
            self.fail("sync directory", dir, Put::Sync)?;
        }
        self.sim.sync_dir(dir)
    }
    fn map(&self, path: &Path) -> Result<Arc<dyn Map>> {
        Ok(Arc::new(PlannedMap { map: self.sim.map(path)?, plan: Arc::clone(&self.plan) }))
    }
    fn available_bytes(&self, dir: &Path) -> Result<u64> {
        let available = self.sim.available_bytes(dir);
        let happen = self.plan.lock().unwrap().after_look.take();
        if let Some(happen) = happen {
            happen();
        }
        available
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

fn open(disk: &PlannedDisk, run_rows_max: usize) -> Store {
    let options = StoreOptions { nonce: 1, run_rows_max, ..StoreOptions::default() };
    Store::open(Arc::new(disk.clone()), Path::new(PATH), options).unwrap().0
}

/// Commits the `n`-th so many rows.
fn commit(store: &mut Store, n: usize) {
    let cid = |lane, n: usize| Cid::from_two_lanes([lane, n as u64]);
    let rows = (n * ROWS..(n + 1) * ROWS).map(|n| Triple::new(cid(0, n % 90), cid(1, 0), cid(2, n)));
    let batch = Mutation::Batch(Batch::new(Op::Insert, 1.0, rows.collect()));
    store.commit(&[batch], Durability::Fsync).unwrap().remove(0).unwrap();
}

/// What a compaction would do is learnt from samples all over the files: the end does not wait for that.
#[test]
fn the_end_is_not_kept_waiting_by_the_choice_of_what_to_compact() {
    let disk = PlannedDisk::default();
    let mut store = open(&disk, 3 * ROWS / 2);
    for n in 0..6 {
        commit(&mut store, n);
        store.maintainer().checkpoint().unwrap();
    }
    let (_, merger) = store.maintainer().split();
    let releases = |plan: &Mutex<Plan>| std::mem::take(&mut plan.lock().unwrap().releases);
    releases(&disk.plan);
    merger.pending().unwrap();
    // Within the sample of each file, and after it, the pages of all are given back.
    let all = releases(&disk.plan);
    assert!(all > 0);
    let stopper = merger.stopper();
    disk.plan.lock().unwrap().at_release = Some(Box::new(move || stopper.stop()));
    assert!(matches!(merger.pending(), Err(StoreError::Stopped)));
    assert!(releases(&disk.plan) <= all / 6, "only the first file is looked at");
}

/// Nobody knows then which files the catalog names, so that none can be removed: there must not be a further
/// one with each attempt.
#[test]
fn a_catalog_that_cannot_be_replaced_costs_one_run_file() {
    for put in [Put::Rename, Put::Sync] {
        for sealing in [true, false] {
            let disk = PlannedDisk::default();
            let mut store = open(&disk, 100 * ROWS);
            let mut files = 0;
            for n in 0..2 {
                commit(&mut store, n);
                if n == 0 || !sealing {
                    store.maintainer().checkpoint().unwrap();
                    files += 1;
                }
            }
            let (mut sealer, mut merger) = store.maintainer().split();
            let mut attempt = || {
                if sealing {
                    return sealer.checkpoint().map(|_| ());
                }
                merger.step(Merging::Everything).map(|step| assert!(step != Step::Idle))
            };
            disk.plan.lock().unwrap().fails = Some(put);
            for _ in 0..5 {
                let error = attempt().unwrap_err();
                assert!(matches!(error, StoreError::Disk(_)), "{error}");
                assert_eq!(disk.runs()[0].len(), files + 1, "{put:?}");
            }
            disk.plan.lock().unwrap().fails = None;
            attempt().unwrap();
            merger.tidy().unwrap();
            let [there, named] = disk.runs();
            assert_eq!(there, named, "{put:?}");
            assert_eq!(named.len(), if sealing { 2 } else { 1 });
            let count = store.reader().snapshot().count(&cidstore_types::Pattern::ALL).unwrap();
            assert_eq!(count, 2 * ROWS as u64);
        }
    }
}

/// A compaction remembers what a result needs. How much is free by the time that it is given up is
/// something else.
#[test]
fn what_becomes_free_after_a_lack_of_room_does_not_count_as_needed() {
    let disk = PlannedDisk::default();
    let mut store = open(&disk, 100 * ROWS);
    for n in 0..2 {
        commit(&mut store, n);
        store.maintainer().checkpoint().unwrap();
    }
    let (_, mut merger) = store.maintainer().split();
    // While it is read everything is taken, and free again once that was seen.
    let (sim, plan) = (disk.sim.clone(), Arc::clone(&disk.plan));
    merger.on_progress(move |progress| {
        if let Progress::Moved { read: 1.., .. } = progress {
            sim.set_capacity(Some(sim.used()));
            let sim = sim.clone();
            plan.lock().unwrap().after_look = Some(Box::new(move || sim.set_capacity(None)));
        }
    });
    let error = merger.step(Merging::Everything).unwrap_err();
    let StoreError::NoRoomToMerge { available: 0, needed, .. } = error else { panic!("{error}") };
    assert_eq!(disk.sim.available_bytes(Path::new(PATH)).unwrap(), u64::MAX);
    merger.on_progress(|_| ());
    disk.sim.set_capacity(Some(disk.sim.used() + 2 * needed));
    let merged = Step::Merged { runs: 2, rows: 2 * ROWS as u64 };
    assert_eq!(merger.step(Merging::Everything).unwrap(), merged);
}
