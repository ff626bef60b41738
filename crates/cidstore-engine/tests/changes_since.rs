//! What is said of triples that were read some time ago: never that one is as it was when it is not, whatever was
//! sealed, merged and compacted since.

use cidstore_disk::sim::SimDisk;
use cidstore_engine::{Durability, Merging, Step, Store, StoreOptions};
use cidstore_types::{Batch, Cid, Mutation, Op, Seq, Triple, TripleRecord};
use std::path::Path;
use std::sync::Arc;

fn triple(n: u64) -> Triple {
    let [s, p, o] = [n, 1, n % 3].map(|lane| Cid::from_two_lanes([7, lane]));
    Triple::new(s, p, o)
}

/// Numbers that look random (xorshift64*, Vigna 2016).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }
}

/// How a store is used.
struct Usage {
    triples: u64,
    /// Rows of a batch, at most.
    rows_max: u64,
    rounds: usize,
    /// Triples that are looked at after each commit.
    looks: usize,
    /// Rows that are sealed at once, if any are.
    seal_rows: Option<usize>,
}

/// Uses a store; how often it said that a triple has not changed, and that it may have, while others did.
fn use_store(usage: &Usage) -> [usize; 2] {
    let Usage { triples, rows_max, rounds, looks, seal_rows } = *usage;
    let options = StoreOptions { memory_rows_max: 1 << 20, ..StoreOptions::default() };
    let options = StoreOptions { seal_rows: seal_rows.unwrap_or(1 << 20), ..options };
    let disk = Arc::new(SimDisk::new());
    let (mut store, _) = Store::open(disk, Path::new("/data/cidstore.h5"), options).unwrap();
    let mut maintainer = store.maintainer();
    let reader = store.reader();
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut known: Vec<Option<(Seq, Option<TripleRecord>)>> = vec![None; triples as usize];
    let mut said = [0; 2];
    for round in 0..rounds {
        let count = 1 + numbers.below(rows_max);
        let rows: Vec<Triple> = (0..count).map(|_| triple(numbers.below(triples))).collect();
        let op = if numbers.below(2) == 0 { Op::Insert } else { Op::Delete };
        let batch = Batch::new(op, round as f64, rows);
        store.commit(&[Mutation::Batch(batch)], Durability::Os).unwrap()[0].as_ref().unwrap();
        match numbers.below(40) {
            0..10 => {
                store.tidy();
            }
            10..15 => {
                store.filter_one();
            }
            15..30 if seal_rows.is_some() && store.memory_is_ripe() => {
                maintainer.step(Merging::Needed).unwrap();
            }
            30..32 if seal_rows.is_some() => {
                maintainer.step(Merging::Settling).unwrap();
            }
            32 if seal_rows.is_some() => while maintainer.step(Merging::Everything).unwrap() != Step::Idle {},
            _ => {}
        }
        let snapshot = reader.snapshot();
        for _ in 0..looks {
            let n = numbers.below(triples);
            let (triple, place) = (triple(n), &mut known[n as usize]);
            let now = snapshot.get(&triple.hash()).unwrap();
            if let Some((since, before)) = place {
                let may_have_changed = snapshot.may_have_changed(&triple, *since);
                if !may_have_changed {
                    assert_eq!(*before, now, "triple {n} of {since} at {}", snapshot.as_of());
                }
                said[usize::from(may_have_changed)] += 1;
            }
            *place = Some((snapshot.as_of(), now));
        }
        assert!(
            snapshot.may_have_changed(&triple(0), snapshot.as_of() + 1),
            "of a later state nothing is known"
        );
        assert!(!snapshot.may_have_changed(&triple(0), snapshot.as_of()));
    }
    said
}

#[test]
fn what_has_not_changed_in_memory_is_what_it_was() {
    let usage = Usage { triples: 60, rows_max: 3, rounds: 5000, looks: 8, seal_rows: None };
    let [unchanged, changed] = use_store(&usage);
    // Else the test would say nothing.
    assert!(unchanged > 5000 && changed > 5000, "{unchanged} unchanged, {changed} changed");
}

#[test]
fn what_has_not_changed_in_files_is_what_it_was() {
    // So many that files have filters, which leave open what else may be.
    let usage = Usage { triples: 2000, rows_max: 100, rounds: 1500, looks: 200, seal_rows: Some(600) };
    let [unchanged, changed] = use_store(&usage);
    assert!(unchanged > 10_000 && changed > 10_000, "{unchanged} unchanged, {changed} changed");
}
