//! A store on a simulated disk whose merges take few rows, and what is asked of it.

use cidstore_disk::Disk;
use cidstore_disk::sim::SimDisk;
use cidstore_engine::hdf5::{Catalog, read_catalog};
use cidstore_engine::{Durability, Maintainer, Merger, Merging, Step, Store, StoreOptions};
use cidstore_types::{Batch, Cid, Mutation, Op, Pattern, Triple};
use std::path::Path;
use std::sync::Arc;

pub const PATH: &str = "/data/cidstore.h5";
/// Rows of a file that fills a merge.
pub const FULL: u64 = 1000;
/// What merging leaves of the disk: two segments of the log.
pub const RESERVE: u64 = 2 * (64 << 10);

pub fn row(n: u64) -> Triple {
    Triple::new(
        Cid::from_two_lanes([0, n % 400]),
        Cid::from_two_lanes([1, n % 3]),
        Cid::from_two_lanes([2, n]),
    )
}

pub struct Bench {
    pub disk: SimDisk,
    pub store: Store,
    pub maintainer: Maintainer,
}

impl Bench {
    /// A store whose merges take no more than one full file.
    pub fn new() -> Self {
        Self::on(SimDisk::new(), 1)
    }

    /// The same, with so many files of so many rows each.
    pub fn with(files: u64, rows: u64) -> Self {
        let mut bench = Self::new();
        for file in 0..files {
            bench.file(Op::Insert, 1.0, file * rows..(file + 1) * rows);
        }
        bench
    }

    pub fn on(disk: SimDisk, nonce: u64) -> Self {
        let options = StoreOptions {
            nonce,
            segment_bytes: 64 << 10,
            run_rows_max: 3 * FULL as usize / 2,
            ..StoreOptions::default()
        };
        let store = Store::open(Arc::new(disk.clone()), Path::new(PATH), options).unwrap().0;
        let maintainer = store.maintainer();
        Self { disk, store, maintainer }
    }

    pub fn commit(&mut self, op: Op, at: f64, rows: impl Iterator<Item = u64>) {
        let batch = Mutation::Batch(Batch::new(op, at, rows.map(row).collect()));
        self.store.commit(&[batch], Durability::Fsync).unwrap().remove(0).unwrap();
    }

    /// Commits and seals: a file of its own.
    pub fn file(&mut self, op: Op, at: f64, rows: impl Iterator<Item = u64>) {
        self.commit(op, at, rows);
        self.maintainer.checkpoint().unwrap();
    }

    /// The log loses everything but its last segment, in which the last batch is.
    pub fn forget_log(&mut self) {
        let seq = self.store.reader().sealed_seq();
        self.store.wal().remove_before(seq + 1).unwrap();
        assert_eq!(self.store.log().segments(), 1);
    }

    /// Compacts to the end. Returns the steps.
    pub fn compact(&mut self) -> Vec<(usize, u64)> {
        let (_, mut merger) = self.store.maintainer().split();
        steps(&mut merger)
    }

    /// The disk has so many bytes left.
    pub fn leave(&self, bytes: u64) {
        self.disk.set_capacity(Some(self.disk.used() + bytes));
    }

    pub fn catalog(&self) -> Catalog {
        read_catalog(PATH, &self.disk.bytes(Path::new(PATH)).unwrap()).unwrap()
    }

    /// Rows and tombstones of each run file, oldest first.
    pub fn files(&self) -> Vec<(u64, u64)> {
        self.catalog().runs.iter().map(|run| (run.rows, run.tombstones)).collect()
    }

    /// Every run file there is, by name.
    pub fn names(&self) -> Vec<String> {
        let mut names = self.disk.list(Path::new("/data/cidstore.h5.runs")).unwrap();
        names.sort();
        names
    }

    pub fn named(&self) -> Vec<String> {
        let name = |file: &str| file.rsplit('/').next().unwrap_or_default().to_owned();
        let mut names: Vec<_> = self.catalog().runs.iter().map(|run| name(&run.file)).collect();
        names.sort();
        names
    }

    /// Exactly these rows are there, each with its time, by every order.
    pub fn holds(&self, expected: impl Iterator<Item = (u64, f64)>) {
        let mut expected: Vec<_> = expected.map(|(n, at)| (row(n), at)).collect();
        expected.sort_unstable_by_key(|(row, _)| *row);
        let snapshot = self.store.reader().snapshot();
        let page = snapshot.query(&Pattern::ALL, usize::MAX, None, true).unwrap();
        let found: Vec<_> = page.records.unwrap().iter().map(|r| (r.triple, r.created_at)).collect();
        assert_eq!(found, expected);
        for p in 0..3 {
            let p = Cid::from_two_lanes([1, p]);
            let count = expected.iter().filter(|(row, _)| row.p() == p).count() as u64;
            assert_eq!(snapshot.count(&Pattern { p: Some(p), ..Pattern::ALL }).unwrap(), count);
        }
        for (row, _) in expected.iter().step_by(37) {
            assert!(snapshot.get(&row.hash()).unwrap().is_some());
        }
    }
}

/// Compacts to the end. Returns the steps: how many files each took, and rows of the result.
pub fn steps(merger: &mut Merger) -> Vec<(usize, u64)> {
    let mut steps = Vec::new();
    loop {
        match merger.step(Merging::Everything).unwrap() {
            Step::Merged { runs, rows } => steps.push((runs, rows)),
            Step::Idle => return steps,
            sealed @ Step::Sealed { .. } => panic!("{sealed:?}"),
        }
        assert!(steps.len() < 1000, "it does not end: {steps:?}");
    }
}
