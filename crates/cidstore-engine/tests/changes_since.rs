//! What is said of triples that were read some time ago: never that one is as it was when it is not, whatever was
//! sealed, merged and compacted since.

use cidstore_disk::sim::SimDisk;
use cidstore_engine::{Durability, Merging, Step, Store, StoreOptions};
use cidstore_types::{Batch, Cid, Mutation, Op, Seq, Triple, TripleRecord};
use std::path::Path;
use std::sync::Arc;

const TRIPLES: u64 = 60;
const ROUNDS: usize = 3000;

fn triple(n: u64) -> Triple {
    // Subjects in common, so that filters by subject alone do not decide.
    let [s, p, o] = [n / 4, 1, n].map(|lane| Cid::from_two_lanes([7, lane]));
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

#[test]
fn what_has_not_changed_is_what_it_was() {
    let options = StoreOptions { seal_rows: 40, memory_rows_max: 1000, ..StoreOptions::default() };
    let (mut store, _) =
        Store::open(Arc::new(SimDisk::new()), Path::new("/data/cidstore.h5"), options).unwrap();
    let mut maintainer = store.maintainer();
    let reader = store.reader();
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut known: Vec<Option<(Seq, Option<TripleRecord>)>> = vec![None; TRIPLES as usize];
    let (mut unchanged, mut changed) = (0, 0);
    for round in 0..ROUNDS {
        let rows: Vec<Triple> = (0..=numbers.below(3)).map(|_| triple(numbers.below(TRIPLES))).collect();
        let op = if numbers.below(2) == 0 { Op::Insert } else { Op::Delete };
        let batch = Batch::new(op, round as f64, rows);
        store.commit(&[Mutation::Batch(batch)], Durability::Os).unwrap()[0].as_ref().unwrap();
        match numbers.below(8) {
            0 => drop(store.tidy()),
            1 => drop(store.filter_one()),
            2 if store.memory_is_ripe() => drop(maintainer.step(Merging::Settling).unwrap()),
            3 if numbers.below(4) == 0 => {
                while maintainer.step(Merging::Everything).unwrap() != Step::Idle {}
            }
            _ => {}
        }
        let snapshot = reader.snapshot();
        for _ in 0..8 {
            let n = numbers.below(TRIPLES);
            let (triple, place) = (triple(n), &mut known[n as usize]);
            let now = snapshot.get(&triple.hash()).unwrap();
            if let Some((since, before)) = place {
                if snapshot.may_have_changed(&triple, *since) {
                    changed += 1;
                } else {
                    unchanged += 1;
                    assert_eq!(*before, now, "triple {n} of {since} at {}", snapshot.as_of());
                }
            }
            *place = Some((snapshot.as_of(), now));
        }
        let later = snapshot.as_of() + 1;
        assert!(snapshot.may_have_changed(&triple(0), later), "of a later state nothing is known");
    }
    // Else the test would say nothing.
    assert!(unchanged > ROUNDS && changed > ROUNDS, "{unchanged} unchanged, {changed} changed");
}
