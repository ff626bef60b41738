//! What is left out, and what must stay: rows that newer files mention, and tombstones that hide nothing.

use crate::bench::{Bench, FULL, row, steps};
use cidstore_engine::{Durability, Merging, Progress, Step};
use cidstore_types::{Batch, Mutation, Op};
use std::sync::{Arc, Mutex};

#[test]
fn what_newer_files_mention_goes_and_then_their_tombstones() {
    let mut bench = Bench::with(4, FULL);
    // Half of the oldest, a quarter of the second, next to nothing of the others.
    bench.file(Op::Delete, 2.0, (0..FULL).filter(|n| n % 2 == 0).chain(FULL..FULL + FULL / 4).chain([2000]));
    // Some of it again, with another time, and some that was never deleted.
    bench.file(Op::Insert, 3.0, (0..FULL).step_by(10).chain((3 * FULL..4 * FULL).step_by(7)));
    bench.forget_log();
    let deleted =
        |n: u64| n < FULL && n.is_multiple_of(2) || (FULL..FULL + FULL / 4).contains(&n) || n == 2000;
    let again = |n: u64| {
        n < FULL && n.is_multiple_of(10)
            || (3 * FULL..4 * FULL).contains(&n) && (n - 3 * FULL).is_multiple_of(7)
    };
    let expected: Vec<_> = (0..4 * FULL)
        .filter(|n| !deleted(*n) || again(*n))
        .map(|n| (n, if again(n) { 3.0 } else { 1.0 }))
        .collect();
    bench.holds(expected.iter().copied());
    let before = bench.store.reader().stats();
    let steps = bench.compact();
    bench.holds(expected.iter().copied());
    let after = bench.store.reader().stats();
    assert!(after.file_rows <= expected.len() + expected.len() / 16, "{before:?}\n{after:?}");
    assert!(before.file_rows > expected.len() + 1500);
    // The file that hides one row for which no file was rewritten hides it still.
    assert_eq!(
        after.tombstones,
        usize::from(bench.files().iter().any(|(rows, _)| *rows == FULL)),
        "{:?}",
        bench.files()
    );
    let written: u64 = steps.iter().map(|(_, rows)| rows).sum();
    assert!(written <= 2 * before.file_rows as u64, "{steps:?}");
    assert_eq!(bench.compact(), [], "done is done");
    assert_eq!(bench.names(), bench.named(), "no debris");
    // The same after a start.
    let Bench { disk, .. } = bench;
    disk.kill();
    let mut bench = Bench::on(disk, 2);
    bench.holds(expected.into_iter());
    assert_eq!(bench.compact(), []);
}

#[test]
fn as_long_as_the_log_has_older_mutations_tombstones_stay() {
    let mut bench = Bench::new();
    bench.file(Op::Insert, 1.0, 0..FULL);
    bench.file(Op::Insert, 1.0, FULL..2 * FULL);
    bench.file(Op::Delete, 2.0, 0..FULL / 2);
    assert_eq!(bench.store.log().first_seq(), 1);
    bench.compact();
    // What is deleted is gone from its file. The log could bring it back, and a tombstone would hide it.
    assert_eq!(bench.store.reader().stats().tombstones as u64, FULL / 2);
    assert_eq!(bench.files()[0], (FULL / 2, 0));
    bench.forget_log();
    bench.compact();
    assert_eq!(bench.store.reader().stats().tombstones, 0);
    let snapshot = bench.store.reader().snapshot();
    assert!(!snapshot.contains(&row(0)).unwrap() && snapshot.contains(&row(FULL - 1)).unwrap());
}

#[test]
fn a_file_of_which_nothing_is_left_keeps_its_place_until_its_neighbours_take_it() {
    let mut bench = Bench::with(3, FULL);
    bench.file(Op::Delete, 2.0, FULL..2 * FULL);
    bench.forget_log();
    let (_, mut merger) = bench.store.maintainer().split();
    let mut empty = 0;
    while merger.step(Merging::Everything).unwrap() != Step::Idle {
        let runs = bench.catalog().runs;
        assert!(runs.windows(2).all(|pair| pair[1].first_seq == pair[0].last_seq + 1), "a gap: {runs:?}");
        empty += runs.iter().filter(|run| run.rows + run.tombstones == 0).count();
    }
    assert!(empty > 0, "no file lost all its rows");
    assert_eq!(bench.store.reader().stats().tombstones, 0);
    drop(merger);
    let left = || (0..FULL).chain(2 * FULL..3 * FULL).map(|n| (n, 1.0));
    bench.holds(left());
    let Bench { disk, .. } = bench;
    disk.kill();
    let mut bench = Bench::on(disk, 2);
    bench.holds(left());
    // All that is left is deleted, too: then nothing stays, places neither.
    bench.file(Op::Delete, 3.0, 0..3 * FULL);
    bench.forget_log();
    bench.compact();
    bench.holds(std::iter::empty());
    assert_eq!(bench.names(), Vec::<String>::new());
}

#[test]
fn what_memory_deletes_stays_in_the_files_until_that_is_sealed() {
    let mut bench = Bench::new();
    bench.file(Op::Insert, 1.0, 0..FULL);
    bench.file(Op::Insert, 1.0, FULL..2 * FULL);
    bench.forget_log();
    // Acknowledged before it is durable: a power cut may take it back.
    let batch = Mutation::Batch(Batch::new(Op::Delete, 2.0, (0..FULL).map(row).collect()));
    bench.store.commit(&[batch], Durability::Os).unwrap().remove(0).unwrap();
    assert_eq!(bench.compact(), []);
    let Bench { disk, .. } = bench;
    // Nothing of what was not synced survives.
    disk.crash_where(&mut |_| false);
    let bench = Bench::on(disk, 2);
    let snapshot = bench.store.reader().snapshot();
    assert!((0..2 * FULL).all(|n| snapshot.contains(&row(n)).unwrap()), "it was taken for deleted");
}

#[test]
fn files_that_make_nothing_unnecessary_are_not_read() {
    // So large that no other fits beside it.
    let full = FULL * 4 / 3;
    let mut bench = Bench::with(4, full);
    // Two small ones, with a tombstone: not worth reading all the others for.
    bench.file(Op::Insert, 1.0, 4 * full..4 * full + 50);
    bench.commit(Op::Insert, 1.0, 4 * full + 50..4 * full + 150);
    bench.file(Op::Delete, 2.0, [7777].into_iter());
    bench.forget_log();
    let before = bench.catalog().runs[3].last_seq;
    assert!(bench.store.log().first_seq() > before, "it is the log that keeps the tombstone");
    let small: u64 = bench.catalog().runs[4..].iter().map(|run| run.file_bytes).sum();
    let read = Arc::new(Mutex::new(0));
    let (_, mut merger) = bench.store.maintainer().split();
    let all = Arc::clone(&read);
    merger.on_progress(move |progress| {
        if let Progress::Moved { read, .. } = progress {
            *all.lock().unwrap() += read;
        }
    });
    assert_eq!(steps(&mut merger), [(2, 151)]);
    let read = *read.lock().unwrap();
    assert!(0 < read && read <= small, "{read} bytes read of {small}");
    drop(merger);
    bench.holds((0..4 * full + 150).map(|n| (n, 1.0)));
}
