//! Real threads over real files: one writer, a sealer, a merger, readers, a follower of the log. How
//! long it takes is decided by counts, not by time.
//!
//! Round r inserts a batch and, in the same group, deletes the batch of some rounds before. So the
//! number that a snapshot is as of tells exactly which batches it must hold, each whole.

use cidstore_disk::RealDisk;
use cidstore_engine::{Durability, Merging, Reader, Step, Store, StoreError, StoreOptions};
use cidstore_types::{Batch, BatchRef, Cid, Mutation, Op, Pattern, Seq, Triple};
use cidstore_wal::Log;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

const ROUNDS: u64 = 600;
const ROWS: u64 = 40;
/// So many rounds' batches are there at a time.
const KEPT: u64 = 25;
/// Queries that each reader makes at least.
const QUERIES_MIN: usize = 300;

/// A spread of subjects and objects, so that batches lie within each other.
fn triple(round: u64, i: u64) -> Triple {
    let spread = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Triple::new(
        Cid::from_lanes([spread(round * ROWS + i), 0, 0, i]),
        Cid::from_two_lanes([0, round]),
        Cid::from_lanes([spread(i), round % 7, 0, 0]),
    )
}

fn batch(op: Op, round: u64) -> Mutation {
    Mutation::Batch(Batch::new(op, round as f64, (0..ROWS).map(|i| triple(round, i)).collect()))
}

/// The last number of a round.
fn end_of(round: u64) -> Seq {
    let deletes = round.saturating_sub(KEPT);
    (round + deletes) * ROWS
}

/// The last round that a state includes; the state must end with it.
fn round_at(as_of: Seq) -> u64 {
    let round = (0..=ROUNDS).take_while(|round| end_of(*round) <= as_of).last().unwrap();
    assert_eq!(end_of(round), as_of, "a group in part");
    round
}

fn write(store: &mut Store, flushed: &AtomicU64, maintenance_ended: impl Fn() -> bool) {
    for round in 1..=ROUNDS {
        while store.memory_is_full() {
            assert!(!maintenance_ended(), "nobody seals");
            thread::yield_now();
        }
        let mut group = vec![batch(Op::Insert, round)];
        if round > KEPT {
            group.push(batch(Op::Delete, round - KEPT));
        }
        // Now and then durable: the disk is not what is tested here.
        let durability = if round % 16 == 0 { Durability::Fsync } else { Durability::Os };
        let outcomes = store.commit(&group, durability).unwrap();
        assert!(outcomes.iter().all(|outcome| outcome.as_ref().unwrap().affected == ROWS));
        flushed.store(end_of(round), Ordering::Release);
        store.tidy();
        if round % 20 == 0 {
            let sealed = store.reader().sealed_seq();
            store.wal().remove_before(sealed + 1).unwrap();
        }
    }
}

fn read(reader: &Reader, seed: u64, done: &AtomicBool) {
    let (mut last, mut queries, mut random) = (0, 0, seed);
    loop {
        // Seen first, so that one more look comes after the end.
        let ended = done.load(Ordering::Acquire);
        let snapshot = reader.snapshot();
        let as_of = snapshot.as_of();
        assert!(as_of >= last, "from {last} back to {as_of}");
        last = as_of;
        let round = round_at(as_of);
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Of all rounds up to a few after this one.
        let asked = (random >> 33) % (round + 3) + 1;
        let present = asked <= round && asked + KEPT > round;
        let pattern = Pattern { p: Some(Cid::from_two_lanes([0, asked])), ..Pattern::ALL };
        let page = snapshot.query(&pattern, 1000, None, false).unwrap();
        let expected = if present { ROWS } else { 0 };
        assert_eq!((page.rows.len() as u64, page.as_of), (expected, as_of), "round {asked} as of {round}");
        assert_eq!(snapshot.count(&pattern).unwrap(), expected);
        let one = triple(asked, random % ROWS);
        assert_eq!(snapshot.contains(&one).unwrap(), present);
        assert_eq!(snapshot.get(&one.hash()).unwrap().is_some(), present);
        if queries % 64 == 0 {
            assert_eq!(snapshot.count(&Pattern::ALL).unwrap(), round.min(KEPT) * ROWS);
        }
        queries += 1;
        if ended && queries >= QUERIES_MIN {
            assert_eq!(round, ROUNDS);
            return;
        }
    }
}

/// Reads the log to its end, through its segments' removal.
fn follow(log: &Log, flushed: &AtomicU64, done: &AtomicBool) {
    let mut next = 1;
    while next <= end_of(ROUNDS) {
        let Ok(mut tail) = log.tail(next) else {
            // Removed: goes on with what there is.
            assert!(log.first_seq() > next);
            next = log.first_seq();
            continue;
        };
        loop {
            let ended = done.load(Ordering::Acquire);
            let promised = flushed.load(Ordering::Acquire);
            match tail.next() {
                Ok(Some(entry)) => {
                    let rows = BatchRef::decode(entry.payload).unwrap();
                    assert_eq!((entry.first_seq, rows.len() as u64), (next, ROWS));
                    next += ROWS;
                }
                Ok(None) => {
                    assert!(next > promised, "the log ends at {next}, {promised} was committed");
                    assert!(!ended || next > end_of(ROUNDS));
                    if ended {
                        return;
                    }
                    thread::yield_now();
                }
                Err(_) => {
                    assert!(log.first_seq() > next, "{next} is in the log");
                    break;
                }
            }
        }
    }
}

/// Steps until there is nothing to do any more; how many did something.
fn steps(written: &AtomicBool, mut step: impl FnMut() -> Result<Step, StoreError>) -> usize {
    let mut done = 0;
    loop {
        let ended = written.load(Ordering::Acquire);
        match step().unwrap() {
            Step::Idle if ended => return done,
            Step::Idle => thread::yield_now(),
            _ => done += 1,
        }
    }
}

#[test]
fn every_state_that_a_reader_sees_is_one_between_two_groups() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cidstore.h5");
    let options = || StoreOptions {
        segment_bytes: 1 << 16,
        seal_rows: 500,
        memory_rows_max: 2000,
        memory_fan_in: 4,
        tidy_rows_max: 400,
        small_files_max: 3,
        run_rows_max: 20_000,
        ..StoreOptions::default()
    };
    let (mut store, _) = Store::open(std::sync::Arc::new(RealDisk), &path, options()).unwrap();
    let (written, flushed) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut sealer, mut merger) = store.maintainer().split();
    let (reader, log) = (store.reader(), store.log());
    let (mut sealed, mut merged) = (0, 0);
    thread::scope(|scope| {
        let (written, flushed, reader, log) = (&written, &flushed, &reader, &log);
        let sealing = scope.spawn(move || steps(written, || sealer.step()));
        let merging = scope.spawn(move || steps(written, || merger.step(Merging::Needed)));
        for seed in 1..=3 {
            scope.spawn(move || read(reader, seed, written));
        }
        scope.spawn(|| follow(log, flushed, written));
        write(&mut store, flushed, || sealing.is_finished());
        written.store(true, Ordering::Release);
        (sealed, merged) = (sealing.join().unwrap(), merging.join().unwrap());
    });
    assert!(sealed > 0 && merged > 0, "{sealed} seals, {merged} merges: nothing was tested");
    store.maintainer().checkpoint().unwrap();
    drop((store, reader, log));
    let (store, _) = Store::open(std::sync::Arc::new(RealDisk), &path, options()).unwrap();
    assert_eq!(store.reader().snapshot().count(&Pattern::ALL).unwrap(), KEPT * ROWS);
}
