//! Files that are damaged, or that the disk does not give back or does not let go.

use crate::bench::{Bench, FULL, PATH, steps};
use cidstore_disk::Disk;
use cidstore_disk::sim::ReadFault;
use cidstore_engine::{Merging, Step, StoreError};
use cidstore_types::Op;
use std::io::ErrorKind;
use std::path::Path;

#[test]
fn damage_in_a_file_that_is_only_asked_is_found_before_it_has_a_say() {
    let mut bench = Bench::new();
    bench.file(Op::Insert, 1.0, 0..FULL);
    bench.file(Op::Insert, 1.0, FULL..2 * FULL);
    bench.file(Op::Delete, 2.0, 0..FULL / 2);
    bench.forget_log();
    let asked = bench.catalog().runs[2].clone();
    let path = Path::new(PATH).with_file_name(&asked.file);
    let at = asked.file_bytes / 2;
    bench.disk.flip_bit(&path, at * 8);
    let (_, mut merger) = bench.store.maintainer().split();
    let error = merger.step(Merging::Everything).unwrap_err();
    assert!(matches!(error, StoreError::ColumnDamaged { .. }), "{error}");
    assert!(error.to_string().contains("000003.h5"), "{error}");
    // From then on it is not asked, and what it deletes stays where it is.
    assert_eq!(steps(&mut merger), []);
    assert_eq!(bench.files()[0], (FULL, 0));
    assert_eq!(bench.names(), bench.named());
}

#[test]
fn a_merge_whose_inputs_cannot_be_removed_is_a_merge() {
    let mut left_behind = 0;
    for n in 0.. {
        let bench = Bench::with(2, 100);
        let (_, mut merger) = bench.store.maintainer().split();
        let before = bench.disk.tally().io_errors;
        bench.disk.fail_from(n, ErrorKind::Other);
        let step = merger.step(Merging::Everything);
        if bench.disk.tally().io_errors == before {
            break;
        }
        if bench.store.reader().stats().file_runs > 1 {
            continue;
        }
        assert!(matches!(step, Ok(Step::Merged { runs: 2, rows: 200 })), "{n}: {step:?}");
        let error = merger.step(Merging::Everything).unwrap_err();
        assert!(error.to_string().contains("cannot remove"), "{error}");
        left_behind += 1;
        bench.disk.heal();
        assert_eq!(merger.step(Merging::Everything).unwrap(), Step::Idle);
        assert_eq!(bench.names(), bench.named());
    }
    assert_eq!(left_behind, 2, "either of the two, and both");
}

#[test]
fn files_that_no_merge_takes_do_not_call_for_one() {
    let bench = Bench::with(41, 10);
    assert!(bench.store.reader().stats().merges_needed);
    bench.disk.remove(&Path::new(PATH).with_file_name(&bench.catalog().runs[20].file)).unwrap();
    let mut scrubber = bench.store.reader().scrubber();
    while !scrubber.step(1 << 20).round_ended {}
    let stats = bench.store.reader().stats();
    assert_eq!((stats.damaged.len(), stats.small_files, stats.merges_needed), (1, 40, false));
}

#[test]
fn merging_goes_on_around_a_file_that_cannot_be_opened() {
    let bench = Bench::with(4, 100);
    let (_, mut merger) = bench.store.maintainer().split();
    let damaged = || bench.store.reader().stats().damaged;
    // What the system lacks is no damage.
    bench.disk.fail_nth_read(0, ReadFault::NoMemory);
    let error = merger.step(Merging::Everything).unwrap_err();
    assert!(error.to_string().contains("000001.h5"), "{error}");
    assert_eq!(damaged(), []);
    bench.disk.remove(&Path::new(PATH).with_file_name(&bench.catalog().runs[1].file)).unwrap();
    let error = merger.step(Merging::Everything).unwrap_err();
    assert!(error.to_string().contains("000002.h5: "), "{error}");
    assert_eq!(damaged().iter().map(ToString::to_string).collect::<Vec<_>>(), [error.to_string()]);
    assert_eq!(steps(&mut merger), [(2, 200)]);
    drop(merger);
    assert_eq!(bench.files(), [(100, 0), (100, 0), (200, 0)]);
    bench.holds((0..400).map(|n| (n, 1.0)));
}

#[test]
fn the_scrub_tells_once_of_a_file_that_cannot_be_opened() {
    let bench = Bench::with(3, 100);
    bench.disk.remove(&Path::new(PATH).with_file_name(&bench.catalog().runs[1].file)).unwrap();
    let mut scrubber = bench.store.reader().scrubber();
    let mut round = || {
        let mut told = Vec::new();
        loop {
            let scrubbed = scrubber.step(1 << 20);
            told.extend(scrubbed.damage);
            if scrubbed.round_ended {
                return told;
            }
        }
    };
    // Of the first file nothing is known after this.
    bench.disk.fail_nth_read(0, ReadFault::NoMemory);
    let told = round();
    assert!(told.len() == 1 && told[0].contains("000002.h5"), "{told:?}");
    assert_eq!(bench.store.reader().stats().damaged, told);
    assert_eq!(round(), []);
}
