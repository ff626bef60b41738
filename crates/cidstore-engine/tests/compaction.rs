//! Compaction: few files, little that is dead, in stores larger than one merge too; and what it may not
//! leave out.

use cidstore_disk::Disk;
use cidstore_disk::sim::{ReadFault, SimDisk};
use cidstore_engine::hdf5::{Catalog, RunEntry, read_catalog};
use cidstore_engine::{
    Durability, Maintainer, Merger, Merging, Progress, Step, Store, StoreError, StoreOptions,
};
use cidstore_types::{Batch, Cid, Mutation, Op, Pattern, Triple};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

const PATH: &str = "/data/cidstore.h5";
/// Rows of a file that fills a merge.
const FULL: u64 = 1000;

fn row(n: u64) -> Triple {
    Triple::new(
        Cid::from_two_lanes([0, n % 400]),
        Cid::from_two_lanes([1, n % 3]),
        Cid::from_two_lanes([2, n]),
    )
}

struct Bench {
    disk: SimDisk,
    store: Store,
    maintainer: Maintainer,
}

impl Bench {
    /// A store whose merges take no more than one full file.
    fn new() -> Self {
        Self::on(SimDisk::new(), 1)
    }

    fn on(disk: SimDisk, nonce: u64) -> Self {
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

    fn commit(&mut self, op: Op, at: f64, rows: impl Iterator<Item = u64>) {
        let batch = Mutation::Batch(Batch::new(op, at, rows.map(row).collect()));
        self.store.commit(&[batch], Durability::Fsync).unwrap().remove(0).unwrap();
    }

    /// Commits and seals: a file of its own.
    fn file(&mut self, op: Op, at: f64, rows: impl Iterator<Item = u64>) {
        self.commit(op, at, rows);
        self.maintainer.checkpoint().unwrap();
    }

    /// The log loses everything but its last segment, in which the last batch is.
    fn forget_log(&mut self) {
        let seq = self.store.reader().sealed_seq();
        self.store.wal().remove_before(seq + 1).unwrap();
        assert_eq!(self.store.log().segments(), 1);
    }

    /// Compacts to the end. Returns the steps.
    fn compact(&mut self) -> Vec<(usize, u64)> {
        let (_, mut merger) = self.store.maintainer().split();
        steps(&mut merger)
    }

    /// The disk has so many bytes left.
    fn leave(&self, bytes: u64) {
        self.disk.set_capacity(Some(self.disk.used() + bytes));
    }

    fn catalog(&self) -> Catalog {
        read_catalog(PATH, &self.disk.bytes(Path::new(PATH)).unwrap()).unwrap()
    }

    /// Rows and tombstones of each run file, oldest first.
    fn files(&self) -> Vec<(u64, u64)> {
        self.catalog().runs.iter().map(|run| (run.rows, run.tombstones)).collect()
    }

    /// Every run file there is, by name.
    fn names(&self) -> Vec<String> {
        let mut names = self.disk.list(Path::new("/data/cidstore.h5.runs")).unwrap();
        names.sort();
        names
    }

    fn named(&self) -> Vec<String> {
        let name = |file: &str| file.rsplit('/').next().unwrap_or_default().to_owned();
        let mut names: Vec<_> = self.catalog().runs.iter().map(|run| name(&run.file)).collect();
        names.sort();
        names
    }

    /// Exactly these rows are there, each with its time, by every order.
    fn holds(&self, expected: impl Iterator<Item = (u64, f64)>) {
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

fn steps(merger: &mut Merger) -> Vec<(usize, u64)> {
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

#[test]
fn what_newer_files_mention_goes_and_then_their_tombstones() {
    let mut bench = Bench::new();
    for file in 0..4 {
        bench.file(Op::Insert, 1.0, file * FULL..(file + 1) * FULL);
    }
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
    let mut bench = Bench::new();
    for file in 0..3 {
        bench.file(Op::Insert, 1.0, file * FULL..(file + 1) * FULL);
    }
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
fn what_is_sealed_meanwhile_is_for_the_next_one() {
    let mut bench = Bench::new();
    for file in 0..6 {
        bench.file(Op::Insert, 1.0, file * 100..(file + 1) * 100);
    }
    let (_, mut merger) = bench.store.maintainer().split();
    let mut sealed = 6;
    // One more file for each step: it ends nevertheless.
    while merger.step(Merging::Everything).unwrap() != Step::Idle {
        bench.file(Op::Insert, 1.0, sealed * 100..(sealed + 1) * 100);
        sealed += 1;
        assert!(sealed < 50, "it does not end");
    }
    assert_eq!(bench.files().len() as u64, 1 + sealed - 6);
    assert_eq!(steps(&mut merger).len(), 1);
    assert_eq!(bench.files(), [(100 * sealed, 0)]);
    drop(merger);
    bench.holds((0..100 * sealed).map(|n| (n, 1.0)));
}

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
        let mut bench = Bench::new();
        bench.file(Op::Insert, 1.0, 0..100);
        bench.file(Op::Insert, 1.0, 100..200);
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

/// Two segments of the log.
const RESERVE: u64 = 2 * (64 << 10);

/// Bytes that merging counts for files.
fn room_for(files: &[RunEntry]) -> u64 {
    files.iter().map(|run| 128 * (run.file_bytes / 128).max(run.rows + run.tombstones)).sum()
}

/// The error says that so many bytes are needed.
#[track_caller]
fn lacks(step: Result<Step, StoreError>, needed: u64) {
    let error = step.unwrap_err();
    assert!(matches!(&error, StoreError::NoRoomToMerge { needed: n, .. } if *n == needed), "{error}");
}

#[test]
fn where_room_is_scarce_what_fits_is_merged() {
    let mut bench = Bench::new();
    for rows in [0..400, 400..800, 800..850, 850..900] {
        bench.file(Op::Insert, 1.0, rows);
    }
    let (_, mut merger) = bench.store.maintainer().split();
    let small = room_for(&bench.catalog().runs[2..]);
    for merging in [Merging::Settling, Merging::Everything] {
        bench.leave(RESERVE + small - 7);
        let before = bench.disk.tally();
        for _ in 0..2 {
            lacks(merger.step(merging), RESERVE + small);
        }
        assert_eq!(bench.disk.tally(), before, "nothing was begun");
        assert!(merger.step(merging).unwrap_err().to_string().contains("Free 7 bytes"));
    }
    bench.leave(RESERVE + small);
    assert_eq!(merger.step(Merging::Everything).unwrap(), Step::Merged { runs: 2, rows: 100 });
    assert_eq!(bench.files().len(), 3);
    // Next is what needs least: the result with the file before it.
    bench.leave(RESERVE);
    let needed = RESERVE + room_for(&bench.catalog().runs[1..]);
    lacks(merger.step(Merging::Everything), needed);
    bench.leave(needed);
    assert_eq!(merger.step(Merging::Everything).unwrap(), Step::Merged { runs: 2, rows: 500 });
    bench.disk.set_capacity(None);
    assert_eq!(steps(&mut merger), [(2, 900)]);
    bench.leave(0);
    for merging in [Merging::Needed, Merging::Settling, Merging::Everything] {
        assert_eq!(merger.step(merging).unwrap(), Step::Idle, "nothing to do needs no room");
    }
    drop(merger);
    bench.holds((0..900).map(|n| (n, 1.0)));
}

#[test]
fn what_is_merged_with_later_files_meanwhile_still_belongs_to_it() {
    let mut bench = Bench::new();
    for rows in [0..1000, 1000..1400, 1400..1500, 1500..1600] {
        bench.file(Op::Insert, 1.0, rows);
    }
    let (_, mut merger) = bench.store.maintainer().split();
    // It begins, and waits.
    bench.leave(RESERVE);
    assert!(matches!(merger.step(Merging::Everything), Err(StoreError::NoRoomToMerge { .. })));
    bench.disk.set_capacity(None);
    bench.file(Op::Insert, 1.0, 1600..1700);
    assert_eq!(merger.step(Merging::Settling).unwrap(), Step::Merged { runs: 3, rows: 300 });
    // One that comes after that is no affair of it.
    bench.file(Op::Insert, 1.0, 1700..1701);
    assert_eq!(steps(&mut merger), [(2, 700)]);
    assert_eq!(bench.files(), [(1000, 0), (700, 0), (1, 0)]);
    drop(merger);
    bench.holds((0..1701).map(|n| (n, 1.0)));
}

#[test]
fn what_is_dead_needs_no_room() {
    // Merging what is worn, and compacting what no other file fits beside.
    for (merging, rows, others) in [(Merging::Settling, 600, 0), (Merging::Everything, FULL, FULL)] {
        let mut bench = Bench::new();
        bench.file(Op::Insert, 1.0, 0..rows);
        if others > 0 {
            bench.file(Op::Insert, 1.0, rows..rows + others);
        }
        bench.file(Op::Delete, 2.0, 0..rows - 50);
        let oldest = room_for(&bench.catalog().runs[..1]);
        let (_, mut merger) = bench.store.maintainer().split();
        bench.leave(RESERVE);
        assert!(matches!(merger.step(merging), Err(StoreError::NoRoomToMerge { .. })));
        bench.leave(RESERVE + oldest / 2);
        let step = merger.step(merging).unwrap();
        assert!(matches!(step, Step::Merged { rows: 50, .. }), "{step:?}");
        drop(merger);
        bench.holds((rows - 50..rows + others).map(|n| (n, 1.0)));
    }
}

#[test]
fn a_merge_that_is_given_up_leaves_nothing_and_what_began_is_forgotten() {
    let mut bench = Bench::new();
    for file in 0..3 {
        bench.file(Op::Insert, 1.0, file * 200..(file + 1) * 200);
    }
    let files = bench.names();
    let (_, mut merger) = bench.store.maintainer().split();
    // At every piece in turn.
    for piece in 0..1000 {
        let (stop, mut pieces) = (merger.stopper(), 0);
        merger.on_progress(move |_| {
            if pieces == piece {
                stop.give_up();
            }
            pieces += 1;
        });
        let step = merger.step(Merging::Everything);
        if let Ok(step) = step {
            assert!(piece > 10, "only {piece} pieces");
            assert_eq!(step, Step::Merged { runs: 3, rows: 600 });
            break;
        }
        assert!(matches!(step, Err(StoreError::GivenUp)), "{step:?}");
        assert_eq!(bench.names(), files, "at piece {piece}");
    }
    assert_eq!(bench.names(), bench.named());
    merger.on_progress(|_| ());
    // A file that has come since is of the next one.
    bench.file(Op::Insert, 1.0, 600..700);
    merger.forget_compaction();
    assert_eq!(steps(&mut merger), [(2, 700)]);
    drop(merger);
    bench.holds((0..700).map(|n| (n, 1.0)));
}

#[test]
fn a_file_of_which_nothing_is_left_needs_no_room() {
    let mut bench = Bench::new();
    for file in 0..2 {
        bench.file(Op::Insert, 1.0, file * FULL..(file + 1) * FULL);
    }
    bench.file(Op::Delete, 2.0, 0..FULL);
    let (_, mut merger) = bench.store.maintainer().split();
    // Not what the file takes that keeps the place.
    bench.leave(RESERVE + 4096);
    assert_eq!(merger.step(Merging::Everything).unwrap(), Step::Merged { runs: 1, rows: 0 });
    let kept = &bench.catalog().runs[0];
    assert!(kept.rows == 0 && kept.file_bytes > 4096, "{kept:?}");
}

#[test]
fn a_merge_is_given_up_when_room_becomes_scarce_under_it() {
    let mut bench = Bench::new();
    for file in 0..3 {
        bench.file(Op::Insert, 1.0, file * 200..(file + 1) * 200);
    }
    let files = bench.names();
    // What the file takes: found out on a copy.
    let twin = bench.disk.fork();
    twin.kill();
    let mut twin = Bench::on(twin, 7);
    assert_eq!(twin.compact(), [(3, 600)]);
    let result = twin.catalog().runs[0].file_bytes;
    // Before the first byte of it is written, and after the last.
    for (written, left) in [(false, RESERVE + result - 1), (true, RESERVE / 2 - 1)] {
        let disk = bench.disk.clone();
        let (_, mut merger) = bench.store.maintainer().split();
        merger.on_progress(move |progress| {
            let writes = matches!(progress, Progress::Moved { written: 1.., .. });
            if writes == written {
                disk.set_capacity(Some(disk.used() + left));
            }
        });
        lacks(merger.step(Merging::Everything), left + 1);
        bench.disk.set_capacity(None);
        assert_eq!(bench.names(), files);
    }
    assert_eq!(bench.compact(), [(3, 600)]);
}

#[test]
fn what_is_not_written_yet_needs_room_and_what_is_written_to_its_end_none() {
    for allocates_late in [false, true] {
        let disk = SimDisk::new();
        if allocates_late {
            disk.allocate_late();
        }
        let mut bench = Bench::on(disk, 1);
        for file in 0..3 {
            bench.file(Op::Insert, 1.0, file * 200..(file + 1) * 200);
        }
        let mut nonce = 1;
        // On a copy, merges; when a byte is written, the disk has only so much left. Returns what is written.
        let mut merge = |byte: u64, left: u64| {
            let disk = bench.disk.fork();
            disk.kill();
            nonce += 1;
            let copy = Bench::on(disk.clone(), nonce);
            let (_, mut merger) = copy.store.maintainer().split();
            let all = Arc::new(AtomicU64::new(0));
            let sum = Arc::clone(&all);
            merger.on_progress(move |progress| {
                let Progress::Moved { written, .. } = progress else { return };
                let before = sum.fetch_add(written, Ordering::Relaxed);
                if (before + 1..=before + written).contains(&byte) {
                    disk.set_capacity(Some(disk.used() + left));
                }
            });
            (merger.step(Merging::Everything), all.load(Ordering::Relaxed))
        };
        let merged = Step::Merged { runs: 3, rows: 600 };
        let (step, last) = merge(u64::MAX, 0);
        assert_eq!(step.unwrap(), merged);
        // Enough for the log, and little more: the file has its room already, or not.
        match merge(1, RESERVE / 2 + 4096).0 {
            Err(StoreError::NoRoomToMerge { .. }) if allocates_late => {}
            step => assert_eq!((step.unwrap(), allocates_late), (merged, false)),
        }
        // Not enough for the log, but for the catalog.
        assert_eq!(merge(last, RESERVE / 4).0.unwrap(), merged);
    }
}

#[test]
fn a_window_that_has_no_room_after_all_does_not_hold_the_others_up() {
    let mut bench = Bench::new();
    for rows in [0..300, 300..600, 600..2000, 2000..2100, 2100..2200] {
        bench.file(Op::Insert, 1.0, rows);
    }
    let disk = bench.disk.clone();
    let (_, mut merger) = bench.store.maintainer().split();
    // As if the first were larger than was reckoned.
    merger.on_progress(move |progress| {
        if let Progress::Begun { rows, .. } = progress {
            disk.set_capacity((rows == 600).then(|| disk.used() + RESERVE));
        }
    });
    let mut step = || {
        bench.disk.set_capacity(None);
        merger.step(Merging::Everything)
    };
    assert!(matches!(step(), Err(StoreError::NoRoomToMerge { .. })));
    assert_eq!(step().unwrap(), Step::Merged { runs: 2, rows: 200 });
    assert!(matches!(step(), Err(StoreError::NoRoomToMerge { .. })), "it was forgotten");
    bench.disk.set_capacity(None);
    merger.on_progress(|_| ());
    assert_eq!(steps(&mut merger), [(2, 600)]);
}

#[test]
fn what_had_no_room_after_all_is_not_read_again_for_the_same_room() {
    let mut bench = Bench::new();
    // What is dead has no metadata, and what is not has much: by rows a third is left, by bytes more.
    let mut batch = Batch::new(Op::Insert, 1.0, (0..300).map(row).collect());
    let text = format!(r#"{{"schema_version":"{}"}}"#, "v".repeat(600));
    batch.metadata = (200..300).map(|at| (at, text.clone().into())).collect();
    bench.store.commit(&[Mutation::Batch(batch)], Durability::Fsync).unwrap().remove(0).unwrap();
    bench.maintainer.checkpoint().unwrap();
    bench.file(Op::Delete, 2.0, 0..200);
    let (_, mut merger) = bench.store.maintainer().split();
    let read = Arc::new(Mutex::new(0));
    let all = Arc::clone(&read);
    merger.on_progress(move |progress| {
        if let Progress::Moved { read, .. } = progress {
            *all.lock().unwrap() += read;
        }
    });
    // A step with so much room: how much it needs, and whether it has read something to know that.
    let disk = bench.disk.clone();
    let step = |merger: &mut Merger, room| {
        disk.set_capacity(Some(disk.used() + room));
        let step = merger.step(Merging::Everything);
        let has_read = std::mem::take(&mut *read.lock().unwrap()) > 0;
        let needed = step.map_err(|error| match error {
            StoreError::NoRoomToMerge { needed, available, .. } if available == room => needed,
            error => panic!("{error}"),
        });
        (needed, has_read)
    };
    // The least for which the estimate says that it is enough.
    let rooms = (RESERVE..).step_by(128);
    let mut tries = rooms.map(|room| (room, step(&mut merger, room)));
    let (room, (needed, _)) = tries.find(|(_, (_, has_read))| *has_read).unwrap();
    drop(tries);
    let needed = needed.unwrap_err();
    assert!(needed > room + 10_000, "{needed} bytes are needed, and there are {room}");
    for room in [room, room + 1, room - 128, room + 128] {
        let (least, has_read) = step(&mut merger, room);
        assert!(!has_read, "it was read again for {room} bytes of {needed}");
        assert!(room < least.unwrap_err() && least.unwrap_err() <= needed);
    }
    // Of what is mentioned by later files nothing is known: those with which the second is merged belong to it.
    bench.disk.set_capacity(None);
    for rows in [1000..1300, 1300..1600] {
        bench.file(Op::Insert, 1.0, rows);
    }
    assert_eq!(merger.step(Merging::Settling).unwrap(), Step::Merged { runs: 3, rows: 800 });
    *read.lock().unwrap() = 0;
    assert_eq!(step(&mut merger, room), (Err(needed), true));
    assert_eq!(step(&mut merger, room), (Err(needed), false));
    // With as much as it needs it is done.
    assert_eq!(step(&mut merger, needed), (Ok(Step::Merged { runs: 1, rows: 100 }), true));
    assert_eq!(bench.store.reader().snapshot().count(&Pattern::ALL).unwrap(), 700);
}

#[test]
fn what_is_kept_for_other_programs_gives_way_to_a_merge() {
    let mut bench = Bench::new();
    for file in 0..2 {
        bench.file(Op::Insert, 1.0, file * 400..(file + 1) * 400);
    }
    let reader = bench.disk.hold(Path::new(PATH));
    assert_eq!(bench.compact(), [(2, 800)]);
    bench.file(Op::Insert, 1.0, 800..900);
    assert_eq!(bench.names().len(), 4, "the reader's files are kept");
    let needed = room_for(&bench.catalog().runs);
    bench.leave(RESERVE + needed - 7);
    assert_eq!(bench.compact(), [(2, 900)]);
    assert!(!bench.names().contains(&"000001.h5".into()));
    drop(reader);
    bench.holds((0..900).map(|n| (n, 1.0)));
}

#[test]
fn files_that_no_merge_takes_do_not_call_for_one() {
    let mut bench = Bench::new();
    for file in 0..41 {
        bench.file(Op::Insert, 1.0, file * 10..(file + 1) * 10);
    }
    assert!(bench.store.reader().stats().merges_needed);
    bench.disk.remove(&Path::new(PATH).with_file_name(&bench.catalog().runs[20].file)).unwrap();
    let mut scrubber = bench.store.reader().scrubber();
    while !scrubber.step(1 << 20).round_ended {}
    let stats = bench.store.reader().stats();
    assert_eq!((stats.damaged.len(), stats.small_files, stats.merges_needed), (1, 40, false));
}

#[test]
fn merging_goes_on_around_a_file_that_cannot_be_opened() {
    let mut bench = Bench::new();
    for file in 0..4 {
        bench.file(Op::Insert, 1.0, file * 100..(file + 1) * 100);
    }
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
    let mut bench = Bench::new();
    for file in 0..3 {
        bench.file(Op::Insert, 1.0, file * 100..(file + 1) * 100);
    }
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

#[test]
fn files_that_make_nothing_unnecessary_are_not_read() {
    // So large that no other fits beside it.
    let full = FULL * 4 / 3;
    let mut bench = Bench::new();
    for file in 0..4 {
        bench.file(Op::Insert, 1.0, file * full..(file + 1) * full);
    }
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

#[test]
fn bytes_are_told_as_they_move_and_a_stop_between_two_pieces_leaves_nothing() {
    let mut bench = Bench::new();
    for file in 0..3 {
        bench.file(Op::Insert, 1.0, file * 200..(file + 1) * 200);
    }
    let before: u64 = bench.catalog().runs.iter().map(|run| run.file_bytes).sum();
    let told: Arc<Mutex<Vec<Progress>>> = Arc::default();
    let (_, mut merger) = bench.store.maintainer().split();
    let all = Arc::clone(&told);
    merger.on_progress(move |progress| all.lock().unwrap().push(progress));
    assert_eq!(merger.pending().unwrap(), cidstore_engine::Pending { files: 3, rows: 600, bytes: before });
    assert_eq!(merger.step(Merging::Everything).unwrap(), Step::Merged { runs: 3, rows: 600 });
    let told = std::mem::take(&mut *told.lock().unwrap());
    assert_eq!(told[0], Progress::Begun { runs: 3, rows: 600, bytes: 2 * before });
    let (mut read, mut written) = (0, 0);
    for progress in &told[1..] {
        let Progress::Moved { read: r, written: w } = progress else { panic!("{told:?}") };
        (read, written) = (read + r, written + w);
    }
    let after = bench.catalog().runs[0].file_bytes;
    assert!(read <= before && read > before / 2, "{read} of {before} bytes read");
    assert!(written <= after && written > after / 2, "{written} of {after} bytes written");
    assert_eq!(merger.pending().unwrap(), cidstore_engine::Pending::default());

    // Stopped at every piece in turn.
    bench.file(Op::Insert, 1.0, 600..700);
    let files = bench.names();
    for piece in 0..1000 {
        let disk = bench.disk.fork();
        disk.kill();
        let mut twin = Bench::on(disk, 10 + piece);
        let (_, mut merger) = twin.store.maintainer().split();
        let (stop, mut pieces) = (merger.stopper(), 0);
        merger.on_progress(move |_| {
            if pieces == piece {
                stop.stop();
            }
            pieces += 1;
        });
        let step = merger.step(Merging::Everything);
        drop(merger);
        if let Ok(step) = step {
            assert!(piece > 10, "only {piece} pieces");
            assert_eq!(step, Step::Merged { runs: 2, rows: 700 });
            break;
        }
        assert!(matches!(step, Err(StoreError::Stopped)), "{step:?}");
        assert_eq!(twin.names(), files, "at piece {piece}");
        twin.commit(Op::Insert, 1.0, 700..701);
        twin.holds((0..701).map(|n| (n, 1.0)));
    }
}
