//! A store that a program of a former format version wrote, and was killed while it had it open, opens and
//! lives on. In `format1` and `format2`: triples 0 to 399 and 1000 as below, of which every tenth of the first 300 has
//! metadata; the subject number 5 deleted after the first 300; sealed after 300 and after the delete and
//! 100 more; triple 1000 in the log only.

use cidstore_disk::RealDisk;
use cidstore_engine::hdf5::{FORMAT_VERSION, read_catalog};
use cidstore_engine::{Durability, Merging, Snapshot, Step, Store, StoreOptions};
use cidstore_types::{Batch, Cid, Mutation, Op, Pattern, Triple};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;

fn cid(kind: char, n: u64) -> Cid {
    Cid(Sha256::digest(format!("{kind}{n}")).into())
}

fn triple(n: u64) -> Triple {
    Triple::new(cid('s', n / 3), cid('p', n % 3), cid('o', n % 50))
}

fn holds_what_was_written(snapshot: &Snapshot) {
    for n in (0..400).chain([1000]) {
        let t = triple(n);
        let record = snapshot.get(&t.hash()).unwrap();
        if n / 3 == 5 {
            assert!(record.is_none() && !snapshot.contains(&t).unwrap(), "{n} was deleted");
            continue;
        }
        let record = record.unwrap_or_else(|| panic!("{n} is missing"));
        let since = if n < 300 { 1000 } else { 2000 };
        assert_eq!(record.created_at, (since + n) as f64);
        let version = (n < 300 && n % 10 == 0).then(|| format!("v{n}"));
        assert_eq!(record.metadata.schema_version, version, "{n}");
        let questions = [(true, true, false), (false, true, true), (true, false, true), (false, false, true)];
        for (s, p, o) in questions {
            let pattern = Pattern { s: s.then(|| t.s()), p: p.then(|| t.p()), o: o.then(|| t.o()) };
            assert!(
                snapshot.query(&pattern, 1000, None, false).unwrap().rows.contains(&t),
                "{n} {pattern:?}"
            );
        }
    }
    assert_eq!(snapshot.count(&Pattern::ALL).unwrap(), 398);
    let of_a_predicate = |n| snapshot.count(&Pattern { p: Some(cid('p', n)), ..Pattern::ALL }).unwrap();
    assert_eq!([0, 1, 2].map(of_a_predicate).iter().sum::<u64>(), 398);
}

#[test]
fn a_store_of_version_1_opens_and_gets_the_newest_version_as_it_is_written() {
    opens_and_gets_the_newest_version(1);
}

#[test]
fn a_store_of_version_2_opens_and_gets_the_newest_version_as_it_is_written() {
    opens_and_gets_the_newest_version(2);
}

fn opens_and_gets_the_newest_version(former: u32) {
    let dir = tempfile::tempdir().unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/format{former}"));
    for file in [
        "cidstore.h5",
        "cidstore.h5.runs/000001.h5",
        "cidstore.h5.runs/000002.h5",
        "cidstore.h5.wal/00000000000000000001.wal",
    ] {
        std::fs::create_dir_all(dir.path().join(file).parent().unwrap()).unwrap();
        std::fs::copy(from.join(file), dir.path().join(file)).unwrap();
    }
    let path = dir.path().join("cidstore.h5");
    let version = || read_catalog("catalog", &std::fs::read(&path).unwrap()).unwrap().format_version;
    assert_eq!(version(), former);
    let open = |nonce| {
        Store::open(Arc::new(RealDisk), &path, StoreOptions { nonce, ..StoreOptions::default() }).unwrap()
    };
    let (mut store, report) = open(1);
    assert_eq!((report.sealed_seq, report.last_seq, report.replayed), (403, 404, 1));
    holds_what_was_written(&store.reader().snapshot());

    let again = Batch::new(Op::Insert, 3000.0, vec![triple(1000)]);
    store.commit(&[Mutation::Batch(again)], Durability::Fsync).unwrap();
    let mut maintainer = store.maintainer();
    maintainer.checkpoint().unwrap();
    assert_eq!(version(), FORMAT_VERSION);
    assert!(matches!(maintainer.step(Merging::Settling).unwrap(), Step::Merged { runs: 3, rows: 398 }));
    drop((maintainer, store));
    let (store, _) = open(2);
    holds_what_was_written(&store.reader().snapshot());
}
