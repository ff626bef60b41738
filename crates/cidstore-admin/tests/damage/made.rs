//! A store with something of everything, on a simulated disk, and the model of what it holds.

use cidstore_admin::Stage;
use cidstore_disk::sim::{Seeded, SimDisk};
use cidstore_disk::{Disk, Open};
use cidstore_engine::files::{Places, read_catalog};
use cidstore_engine::hdf5::{Catalog, Extent, RunSource, read_run};
use cidstore_engine::{Durability, Store, StoreOptions};
use cidstore_types::{Batch, Cid, Metadata, Mutation, Op, Pattern, Seq, Triple};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Watches and never stops.
pub fn go_on(_: Stage<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// The file of a run.
pub fn run_file(number: u64) -> PathBuf {
    Places::of(Path::new(CATALOG)).run(number)
}

pub const CATALOG: &str = "/data/cidstore.h5";

/// Triples, with `created_at` and the `schema_version` of their metadata.
pub type Model = BTreeMap<Triple, (f64, Option<String>)>;

/// A store, and what was done to it: first sequence number and batch.
#[derive(Clone)]
pub struct Made {
    pub disk: SimDisk,
    pub history: Vec<(Seq, Batch)>,
}

pub fn triple(i: u64) -> Triple {
    let cid = |low| Cid::from_lanes([low, 0, 0, low]);
    Triple::new(cid(i % 700), cid(i % 11), cid(i / 3))
}

pub fn open(disk: &SimDisk, nonce: u64) -> Result<Store, cidstore_engine::StoreError> {
    // One run file for each seal, and segments of a few records.
    let options = StoreOptions {
        nonce,
        segment_bytes: 1 << 16,
        seal_rows: 1 << 20,
        memory_rows_max: 1 << 21,
        small_files_max: 64,
        ..StoreOptions::default()
    };
    Store::open(Arc::new(disk.clone()), Path::new(CATALOG), options).map(|(store, _)| store)
}

/// Three run files, the first two of 3000 and more rows, and a log that reaches back to mutation
/// `keep_from` and beyond what is sealed.
pub fn made(keep_from: Seq) -> Made {
    let disk = SimDisk::new();
    let mut store = open(&disk, 0).unwrap();
    let mut history = Vec::new();
    let mut random = Seeded(7);
    let mut commit = |store: &mut Store, op, range: std::ops::Range<u64>| {
        let mut batch = Batch::new(op, 1000.0 + range.start as f64, range.map(triple).collect());
        if op == Op::Insert {
            let rows = batch.rows.len() as u32;
            batch.created_at = (0..rows).step_by(5).map(|row| (row, f64::from(row))).collect();
            let mut text = |row| format!(r#"{{"schema_version":"v{row}-{}"}}"#, random.below(1000));
            batch.metadata = (0..rows).step_by(3).map(|row| (row, text(row).into())).collect();
        }
        let first = store.wal().last_seq() + 1;
        store.commit(&[Mutation::Batch(batch.clone())], Durability::Fsync).unwrap();
        history.push((first, batch));
    };
    for i in 0..25 {
        commit(&mut store, Op::Insert, i * 200..(i + 1) * 200);
    }
    store.maintainer().checkpoint().unwrap();
    for i in 0..25 {
        commit(&mut store, Op::Insert, 4000 + i * 200..4000 + (i + 1) * 200);
        commit(&mut store, Op::Delete, i * 20..i * 20 + 7);
    }
    store.maintainer().checkpoint().unwrap();
    for i in 0..5 {
        commit(&mut store, Op::Insert, 20_000 + i * 20..20_000 + (i + 1) * 20);
    }
    store.maintainer().checkpoint().unwrap();
    for i in 0..30 {
        commit(&mut store, Op::Insert, 30_000 + i * 100..30_000 + (i + 1) * 100);
        commit(&mut store, Op::Delete, i * 33..i * 33 + 5);
    }
    let sealed = store.reader().sealed_seq();
    store.wal().remove_before(keep_from.min(sealed + 1)).unwrap();
    assert_eq!(store.reader().stats().file_runs, 3);
    drop(store);
    disk.kill();
    Made { disk, history }
}

impl Made {
    /// The same store on a disk of its own.
    pub fn copy(&self) -> Self {
        let disk = SimDisk::new();
        for (path, bytes) in self.disk.files() {
            disk.create_dir_all(path.parent().unwrap()).unwrap();
            let file = disk.open(&path, Open::Create).unwrap();
            file.write_at(&bytes, 0).unwrap();
            file.sync_all().unwrap();
            disk.sync_dir(path.parent().unwrap()).unwrap();
        }
        Self { disk, history: self.history.clone() }
    }

    pub fn arc(&self) -> Arc<dyn Disk> {
        Arc::new(self.disk.clone())
    }

    pub fn catalog(&self) -> Catalog {
        read_catalog(&self.disk, Path::new(CATALOG)).unwrap()
    }

    pub fn bytes(&self, path: &Path) -> Vec<u8> {
        self.disk.files()[path].clone()
    }

    pub fn write(&self, path: &Path, bytes: &[u8], offset: u64) {
        let file = self.disk.open(path, Open::Write).unwrap();
        file.write_at(bytes, offset).unwrap();
        file.sync_all().unwrap();
    }

    pub fn cut(&self, path: &Path, len: u64) {
        let file = self.disk.open(path, Open::Write).unwrap();
        file.set_len(len).unwrap();
        file.sync_all().unwrap();
    }

    pub fn remove(&self, path: &Path) {
        self.disk.remove(path).unwrap();
        self.disk.sync_dir(path.parent().unwrap()).unwrap();
    }

    /// The log's segments by their first number.
    pub fn segments(&self) -> Vec<(Seq, PathBuf)> {
        cidstore_wal::inspect::segments(&self.disk, &Places::of(Path::new(CATALOG)).wal).unwrap()
    }

    /// The columns of a run that are not empty.
    pub fn columns(&self, number: u64) -> Vec<(&'static str, Extent)> {
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("run.h5");
        std::fs::write(&copy, self.bytes(&run_file(number))).unwrap();
        let layout = read_run(RunSource::File(&copy)).unwrap();
        let used = layout.columns.iter().filter(|(_, extent)| extent.bytes > 0);
        used.map(|(column, extent)| (column.name(), *extent)).collect()
    }

    /// What holds after all mutations but those.
    pub fn model_without(&self, lost: &[(Seq, Seq)]) -> Model {
        let mut model = Model::new();
        for (first, batch) in &self.history {
            let mut payload = Vec::new();
            batch.encode_into(batch.rows.len() as u64, &mut payload);
            let stored = cidstore_types::BatchRef::decode(&payload).unwrap();
            for (seq, row) in (*first..).zip(stored.rows()) {
                if lost.iter().any(|(from, to)| (*from..=*to).contains(&seq)) {
                    continue;
                }
                match batch.op {
                    Op::Insert => {
                        let version =
                            row.metadata.and_then(|text| Metadata::from_stored(text).schema_version);
                        model.insert(row.triple, (row.created_at, version));
                    }
                    Op::Delete => {
                        model.remove(&row.triple);
                    }
                }
            }
        }
        model
    }

    pub fn model(&self) -> Model {
        self.model_without(&[])
    }
}

/// All that a store says it holds, by every way of asking.
pub fn told_by(store: &Store) -> Model {
    let snapshot = store.reader().snapshot();
    let all = snapshot.query(&Pattern::ALL, usize::MAX, None, true).unwrap();
    let model: Model = all
        .records
        .unwrap()
        .into_iter()
        .map(|record| (record.triple, (record.created_at, record.metadata.schema_version)))
        .collect();
    assert_eq!(model.len(), all.rows.len(), "each row once");
    for p in 0..11 {
        let pattern = Pattern { p: Some(triple(p).p()), ..Pattern::ALL };
        let rows = snapshot.query(&pattern, usize::MAX, None, false).unwrap().rows;
        let expected: Vec<_> = model.keys().filter(|triple| Some(triple.p()) == pattern.p).collect();
        assert_eq!(rows.len(), expected.len());
    }
    for (triple, (created_at, _)) in model.iter().step_by(37) {
        assert_eq!(snapshot.get(&triple.hash()).unwrap().map(|record| record.created_at), Some(*created_at));
        let pattern = Pattern { o: Some(triple.o()), ..Pattern::ALL };
        assert!(snapshot.query(&pattern, usize::MAX, None, false).unwrap().rows.contains(triple));
    }
    model
}
