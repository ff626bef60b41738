//! Where room is scarce: what is merged nevertheless, what is told, and what is given up.

use crate::bench::{Bench, FULL, PATH, RESERVE, row, steps};
use cidstore_disk::sim::SimDisk;
use cidstore_engine::hdf5::RunEntry;
use cidstore_engine::{Durability, Merger, Merging, Progress, Step, StoreError};
use cidstore_types::{Batch, Mutation, Op, Pattern};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

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
fn a_file_of_which_nothing_is_left_needs_no_room() {
    let mut bench = Bench::with(2, FULL);
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
    let mut bench = Bench::with(3, 200);
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

/// A file of 300 rows, of which the first 200 are to be deleted. What is dead then has no metadata, and
/// what is not has much: by rows a third is left, by bytes more.
fn larger_than_it_seems() -> Bench {
    let mut bench = Bench::new();
    let mut batch = Batch::new(Op::Insert, 1.0, (0..300).map(row).collect());
    let text = format!(r#"{{"schema_version":"{}"}}"#, "v".repeat(600));
    batch.metadata = (200..300).map(|at| (at, text.clone().into())).collect();
    bench.store.commit(&[Mutation::Batch(batch)], Durability::Fsync).unwrap().remove(0).unwrap();
    bench.maintainer.checkpoint().unwrap();
    bench
}

#[test]
fn what_had_no_room_after_all_is_not_read_again_for_the_same_room() {
    let mut bench = larger_than_it_seems();
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
fn what_was_given_up_half_written_is_not_read_again_before_there_is_room_for_all_of_it() {
    let mut bench = larger_than_it_seems();
    // Others are too many to be merged with it.
    bench.commit(Op::Insert, 1.0, 1000..1800);
    bench.file(Op::Delete, 2.0, 0..200);
    let (_, mut merger) = bench.store.maintainer().split();
    let needed = |step: Result<Step, StoreError>| match step {
        Err(StoreError::NoRoomToMerge { needed, .. }) => needed,
        step => panic!("{step:?}"),
    };
    bench.leave(RESERVE);
    let estimate = needed(merger.step(Merging::Everything));
    // Enough becomes free while it is read, and too little is left when some of it is written.
    let disk = bench.disk.clone();
    merger.on_progress(move |progress| match progress {
        Progress::Moved { read: 1.., .. } => disk.set_capacity(None),
        Progress::Moved { written: 1.., .. } => disk.set_capacity(Some(disk.used() + RESERVE / 2 - 1)),
        _ => {}
    });
    let files = bench.names();
    bench.leave(estimate);
    lacks(merger.step(Merging::Everything), RESERVE / 2);
    assert_eq!(bench.names(), files);
    // Read again, it would be given up again.
    bench.leave(estimate);
    let all = needed(merger.step(Merging::Everything));
    assert!(all > estimate + 10_000, "{all} bytes are needed, and it seemed to be {estimate}");
    bench.leave(all - 1);
    lacks(merger.step(Merging::Everything), all);
    // With as much as it needs it is done.
    merger.on_progress(|_| ());
    bench.leave(all);
    assert_eq!(merger.step(Merging::Everything).unwrap(), Step::Merged { runs: 1, rows: 100 });
    assert_eq!(all, RESERVE + bench.catalog().runs[0].file_bytes);
}

#[test]
fn what_is_kept_for_other_programs_gives_way_to_a_merge() {
    let mut bench = Bench::with(2, 400);
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
