//! A real store in a temporary folder, with run files to back up.

// Each test program uses a part of it.
#![allow(dead_code)]

use cidstore_admin::{Stage, Watch};
use cidstore_disk::RealDisk;
use cidstore_engine::{Durability, Maintainer, Merging, Step, Store, StoreOptions};
use cidstore_types::{Batch, Cid, Mutation, Op, Pattern, Triple, TripleRecord};
use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// A store that is open, and its maintainer.
pub struct Made {
    pub store: Store,
    pub maintainer: Maintainer,
}

/// A folder and the path of a catalog in it.
pub fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("cidstore.h5");
    (folder, data)
}

pub fn triple(n: u64) -> Triple {
    let cid = |n| Cid::from_lanes([n % 3, 0, n, 7]);
    Triple::new(cid(n / 4), cid(n % 5), cid(n))
}

pub fn metadata(n: u64) -> Option<Box<str>> {
    n.is_multiple_of(3)
        .then(|| format!("{{\"provenance\":{{\"n\":{n},\"x\":1.0}},\"confidence\":0.5}}").into())
}

impl Made {
    pub fn open(data: &Path) -> Self {
        Self::open_as(data, [7; 16])
    }

    /// Of this id, where there is no store yet.
    pub fn open_as(data: &Path, new_store_id: [u8; 16]) -> Self {
        let options =
            StoreOptions { new_store_id, nonce: 9, segment_bytes: 1 << 16, ..StoreOptions::default() };
        let (store, _) = Store::open(Arc::new(RealDisk), data, options).unwrap();
        let maintainer = store.maintainer();
        Self { store, maintainer }
    }

    fn commit(&mut self, batch: Batch) -> u64 {
        let outcomes = self.store.commit(&[Mutation::Batch(batch)], Durability::Fsync).unwrap();
        outcomes[0].clone().unwrap().seq
    }

    pub fn insert(&mut self, numbers: Range<u64>) -> u64 {
        let mut batch = Batch::new(Op::Insert, 1000.25, numbers.clone().map(triple).collect());
        for (row, n) in (0..).zip(numbers) {
            if n.is_multiple_of(2) {
                batch.created_at.push((row, n as f64 / 8.0));
            }
            if let Some(text) = metadata(n) {
                batch.metadata.push((row, text));
            }
        }
        self.commit(batch)
    }

    /// Bare triples, under an idempotency key.
    pub fn insert_under(&mut self, numbers: Range<u64>, key: &[u8]) -> u64 {
        self.commit(Batch::new(Op::Insert, 1000.25, numbers.map(triple).collect()).under(key))
    }

    pub fn delete(&mut self, numbers: Range<u64>) -> u64 {
        self.commit(Batch::new(Op::Delete, 0.0, numbers.map(triple).collect()))
    }

    /// Seals all there is into a run file of its own.
    pub fn seal(&mut self) -> u64 {
        self.maintainer.checkpoint().unwrap()
    }

    /// Merges run files until there is nothing to merge, and removes what may be removed.
    pub fn merge(&mut self) -> usize {
        let mut merged = 0;
        while let Step::Merged { runs, .. } = self.maintainer.step(Merging::Settling).unwrap() {
            merged += runs;
        }
        merged
    }

    pub fn content(&self) -> BTreeMap<Triple, (u64, TripleRecord)> {
        let page = self.store.reader().snapshot().query(&Pattern::ALL, usize::MAX, None, true).unwrap();
        let records = page.records.unwrap().into_iter();
        records.map(|record| (record.triple, (record.created_at.to_bits(), record))).collect()
    }

    pub fn as_of(&self) -> u64 {
        self.store.reader().snapshot().as_of()
    }
}

/// A store with three run files, one with tombstones, metadata, times; closed.
pub fn small_store(data: &Path) {
    let mut made = Made::open(data);
    made.insert(0..300);
    made.seal();
    made.delete(100..150);
    made.insert(290..400);
    made.seal();
    made.insert(10..12);
    made.seal();
}

/// All files below a folder, by their relative paths.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found.into_iter().map(|path| path.strip_prefix(folder).unwrap().to_owned()).collect()
}

/// First cells, without quotes, of the tables in a section of `docs/FORMAT.md`.
pub fn documented(heading: &str) -> Vec<&'static str> {
    let text = concat!("\n", include_str!("../../../../docs/FORMAT.md"));
    let begin = format!("\n{heading}\n");
    let at = text.find(&begin).unwrap_or_else(|| panic!("heading {heading}")) + begin.len();
    let lines = text[at..].lines().take_while(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect()
}

/// Watches without stopping anything.
pub fn go_on() -> Box<Watch<'static>> {
    Box::new(|_: Stage<'_>| ControlFlow::Continue(()))
}

/// Stops at the n-th stage, from 0 on.
pub fn stop_at(n: u64) -> Box<Watch<'static>> {
    let mut left = n;
    Box::new(move |_: Stage<'_>| {
        if left == 0 {
            return ControlFlow::Break(());
        }
        left -= 1;
        ControlFlow::Continue(())
    })
}
