//! What is remembered of mutations under idempotency keys, where files are damaged.

use crate::made::{CATALOG, go_on, open};
use cidstore_admin::Weight;
use cidstore_admin::repair::{LossKind, RepairReport, repair};
use cidstore_admin::verify::{VerifyOptions, verify};
use cidstore_disk::sim::SimDisk;
use cidstore_disk::{Disk, Open};
use cidstore_engine::files::Places;
use cidstore_engine::{Durability, Store};
use cidstore_types::{Batch, Mutation, Op, Triple};
use cidstore_wal::inspect::segments;
use std::path::Path;
use std::sync::Arc;

fn keyed(n: u8) -> Mutation {
    Mutation::Batch(Batch::new(Op::Insert, 1.0, vec![Triple([n; 96])])).under(&[n])
}

fn commit(store: &mut Store, mutation: Mutation) {
    assert!(!store.commit(&[mutation], Durability::Fsync).unwrap()[0].as_ref().unwrap().is_repeat);
}

/// Mutation n under key n: 1 is sealed and left the log, 2 is sealed and in the log, 3 to 5 are in the log only.
fn made() -> SimDisk {
    let disk = SimDisk::new();
    let mut store = open(&disk, 0).unwrap();
    commit(&mut store, keyed(1));
    drop(store);
    let mut store = open(&disk, 1).unwrap();
    commit(&mut store, keyed(2));
    store.maintainer().checkpoint().unwrap();
    store.wal().remove_before(2).unwrap();
    assert_eq!(store.log().first_seq(), 2);
    for n in 3..=5 {
        commit(&mut store, keyed(n));
    }
    drop(store);
    disk.kill();
    disk
}

/// The keys that are known, each with the outcome of its mutation.
fn known(disk: &SimDisk) -> Vec<u8> {
    let mut store = open(disk, disk.operations()).unwrap();
    let mut known = Vec::new();
    for n in 1..=5 {
        // Refused where the key is known, and nothing at all where it is free.
        let other = Mutation::Batch(Batch::new(Op::Delete, 1.0, Vec::new())).under(&[n]);
        if store.commit(&[other], Durability::Fsync).unwrap()[0].is_err() {
            let again = store.commit(&[keyed(n)], Durability::Fsync).unwrap().remove(0).unwrap();
            assert_eq!((again.is_repeat, again.seq, again.affected), (true, n.into(), 1));
            known.push(n);
        }
    }
    known
}

fn repaired(disk: &SimDisk) -> RepairReport {
    let arc: Arc<dyn Disk> = Arc::new(disk.clone());
    let report = repair(&arc, Path::new(CATALOG), false, &mut go_on).unwrap();
    let verified = verify(&arc, Path::new(CATALOG), VerifyOptions::default(), &mut go_on).unwrap();
    assert!(verified.is_sound(), "{verified:#?}");
    assert_eq!(repair(&arc, Path::new(CATALOG), false, &mut go_on).unwrap(), RepairReport::default());
    report
}

#[test]
fn damage_to_the_outcomes_is_found_and_given_up_as_far_as_the_log_does_not_know_better() {
    let path = Places::of(Path::new(CATALOG)).outcomes;
    let bytes = made().bytes(&path).unwrap();
    assert_eq!(bytes.len(), 64 + 2 * 56);
    for at in [0, 9, 13, 20, 35, 41, 50, 60, 70, 100, 175] {
        let disk = made();
        assert_eq!(known(&disk), [1, 2, 3, 4, 5]);
        disk.kill();
        disk.flip_bit(&path, at * 8);
        let refused = open(&disk, 98).map(|_| ()).unwrap_err().to_string();
        assert!(refused.contains("cidstore.h5.outcomes") && refused.contains("cidctl repair"), "{refused}");
        let arc: Arc<dyn Disk> = Arc::new(disk.clone());
        let verified = verify(&arc, Path::new(CATALOG), VerifyOptions::default(), &mut go_on).unwrap();
        let damage = verified.findings.iter().find(|finding| finding.weight == Weight::Damage).unwrap();
        assert_eq!(damage.path, path);
        let report = repaired(&disk);
        let [loss] = &report.losses[..] else { panic!("{report:#?}") };
        assert_eq!((loss.kind, loss.seqs), (LossKind::Lost, (1, 1)));
        assert_eq!(known(&disk), [2, 3, 4, 5]);
    }
}

#[test]
fn outcomes_outlive_the_catalog() {
    let disk = made();
    disk.remove(Path::new(CATALOG)).unwrap();
    let report = repaired(&disk);
    assert_eq!(report.losses, []);
    assert_eq!(known(&disk), [1, 2, 3, 4, 5]);
}

#[test]
fn outcomes_outlive_the_log_but_for_those_of_records_that_do_not() {
    let disk = made();
    let (_, segment) = segments(&disk, &Places::of(Path::new(CATALOG)).wal).unwrap().pop().unwrap();
    // In the record of mutation 4, of which the next one says that it was durable.
    let bytes = disk.bytes(&segment).unwrap();
    let at = bytes.windows(96).position(|window| window == [4; 96]).unwrap();
    let file = disk.open(&segment, Open::Write).unwrap();
    file.write_at(&[0xff], at as u64).unwrap();
    file.sync_all().unwrap();
    let report = repaired(&disk);
    assert_eq!(report.losses.iter().map(|loss| loss.seqs).collect::<Vec<_>>(), [(4, 4)]);
    assert_eq!(known(&disk), [1, 2, 3, 5]);
}
