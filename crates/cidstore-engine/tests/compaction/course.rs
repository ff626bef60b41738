//! Which files belong to a compaction, what is told while it goes on, and its end before it is done.

use crate::bench::{Bench, RESERVE, steps};
use cidstore_engine::{MergeStop, Merger, Merging, Pending, Progress, Step, StoreError};
use cidstore_types::Op;
use std::sync::{Arc, Mutex};

/// Somebody has enough, in one way or the other, at the piece of this number.
fn at_piece(merger: &mut Merger, piece: u64, has_enough: fn(&MergeStop)) {
    let (stop, mut pieces) = (merger.stopper(), 0);
    merger.on_progress(move |_| {
        if pieces == piece {
            has_enough(&stop);
        }
        pieces += 1;
    });
}

#[test]
fn what_is_sealed_meanwhile_is_for_the_next_one() {
    let mut bench = Bench::with(6, 100);
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
fn a_merge_that_is_given_up_leaves_nothing_and_what_began_is_forgotten() {
    let mut bench = Bench::with(3, 200);
    let files = bench.names();
    let (_, mut merger) = bench.store.maintainer().split();
    // At every piece in turn.
    for piece in 0..1000 {
        at_piece(&mut merger, piece, MergeStop::give_up);
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
fn bytes_are_told_as_they_move_and_a_stop_between_two_pieces_leaves_nothing() {
    let mut bench = Bench::with(3, 200);
    let before: u64 = bench.catalog().runs.iter().map(|run| run.file_bytes).sum();
    let told: Arc<Mutex<Vec<Progress>>> = Arc::default();
    let (_, mut merger) = bench.store.maintainer().split();
    let all = Arc::clone(&told);
    merger.on_progress(move |progress| all.lock().unwrap().push(progress));
    assert_eq!(merger.pending().unwrap(), Pending { files: 3, rows: 600, bytes: before });
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
    assert_eq!(merger.pending().unwrap(), Pending::default());

    // Stopped at every piece in turn.
    bench.file(Op::Insert, 1.0, 600..700);
    let files = bench.names();
    for piece in 0..1000 {
        let disk = bench.disk.fork();
        disk.kill();
        let mut twin = Bench::on(disk, 10 + piece);
        let (_, mut merger) = twin.store.maintainer().split();
        at_piece(&mut merger, piece, MergeStop::stop);
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
