//! Stores that histories begin with, made once: creating and sealing cost more than most histories.

use crate::generate::cid;
use crate::model::{Model, apply, metadata_text};
use cidstore_disk::sim::{Seeded, SimDisk};
use cidstore_engine::{Durability, Store, StoreOptions};
use cidstore_types::{Batch, Mutation, Op, Seq, Triple};
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// Where the catalog of every simulated store is.
pub const PATH: &str = "/data/cidstore.h5";

/// How many there are.
pub const TEMPLATES: usize = 4;

/// A store that was closed in order.
pub struct Template {
    pub disk: SimDisk,
    pub seq: Seq,
    pub model: Arc<Model>,
}

/// Number 0 is empty, 1 has one run file, 2 has six, 3 three with metadata and a log of which nothing
/// is needed any more.
pub fn template(number: usize) -> &'static Template {
    static MADE: [OnceLock<Template>; TEMPLATES] = [const { OnceLock::new() }; TEMPLATES];
    MADE[number].get_or_init(|| match number {
        0 => make(0, false, false),
        1 => make(1, false, true),
        2 => make(6, false, true),
        _ => make(3, true, false),
    })
}

fn make(runs: u64, metadata: bool, remove_log: bool) -> Template {
    let disk = SimDisk::new();
    let options = StoreOptions {
        new_store_id: *b"a simulated one.",
        nonce: 1 << 40,
        segment_bytes: 4096,
        ..StoreOptions::default()
    };
    let (mut store, _) =
        Store::open(Arc::new(disk.clone()), Path::new(PATH), options).expect("an empty disk");
    let (mut random, mut model) = (Seeded(runs), Model::new());
    for run in 0..runs {
        let mut part = || cid(random.below(3), random.below(4));
        let rows = (0..18).map(|_| Triple::new(part(), part(), part())).collect();
        let mut batch = Batch::new(Op::Insert, run as f64, rows);
        if metadata {
            batch.metadata = (0..9).map(|row| (row * 2, metadata_text("v").into())).collect();
        }
        let gone = batch.rows.iter().step_by(5).copied().collect();
        let group = [Mutation::Batch(batch), Mutation::Batch(Batch::new(Op::Delete, 1.0, gone))];
        for mutation in &group {
            let _ = apply(&mut model, mutation, usize::MAX);
        }
        store.commit(&group, Durability::Fsync).expect("a disk without limits");
        store.maintainer().checkpoint().expect("a disk without limits");
    }
    let seq = store.reader().snapshot().as_of();
    if remove_log {
        store.wal().remove_before(seq + 1).expect("a disk without limits");
    }
    drop(store);
    disk.kill();
    Template { disk, seq, model: Arc::new(model) }
}
