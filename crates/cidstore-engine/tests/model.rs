//! The store against a model, over random histories with crashes, failures and full disks.
//!
//! The model is a `BTreeMap` of what was acknowledged. A history runs on a simulated disk; after
//! each start the store must be the model after some mutation, not before the last durable one: what
//! was committed without waiting for the medium may be gone from some mutation on, and the group that
//! was in flight may be there up to some mutation. The maintainer's I/O is interleaved with commits.

#[path = "model/expect.rs"]
mod expect;
#[path = "model/generate.rs"]
mod generate;
#[path = "model/hook.rs"]
mod hook;
#[path = "model/world.rs"]
mod world;

use cidstore_engine::{Durability, Merging, Step, changes};
use cidstore_types::{Batch, Cid, Mutation, Op, Pattern, Triple};
use expect::{Model, check_questions};
use generate::{actions, mutations, patterns};
use proptest::collection::vec;
use proptest::prelude::*;
use std::sync::{Arc, Mutex};
use world::{End, World};

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn store_equals_model_through_crashes_and_failures(actions in vec(actions(), 1..60), samples in vec(patterns(), 12)) {
        let world = Arc::new(Mutex::new(World::new()));
        for action in &actions {
            world::run(&world, action);
        }
        let mut world = world.lock().unwrap();
        world.compare_all();
        check_questions(&world.snapshot(), world.model(), &samples);
    }

    #[test]
    fn changes_tell_the_same_story_as_the_store(groups in vec(vec(mutations(), 1..4), 1..12), since in 0u64..50, limit in 1usize..60) {
        let mut world = World::new();
        for group in &groups {
            world.commit(group, Durability::Fsync);
        }
        let store = world.store();
        let mut told = Model::new();
        let mut next = 0;
        loop {
            let part = changes(&store.log(), next, limit).unwrap();
            if part.is_empty() {
                break;
            }
            for change in part {
                prop_assert_eq!(change.seq, next + 1);
                next = change.seq;
                match change.op {
                    Op::Insert => {
                        told.insert(change.triple, (change.created_at, change.metadata.map(String::from)));
                    }
                    Op::Delete => {
                        told.remove(&change.triple);
                    }
                }
            }
        }
        prop_assert_eq!(next, store.reader().snapshot().as_of());
        prop_assert_eq!(&told, world.model());
        if since <= next {
            let first = changes(&store.log(), since, 1).unwrap();
            prop_assert_eq!(first.first().map(|change| change.seq), (since < next).then_some(since + 1));
        }
    }
}

/// Power cut at every single I/O of a start, the very first one included.
#[test]
fn power_cut_at_every_operation_of_a_start() {
    let rows = |lows: std::ops::Range<u64>| {
        let rows = lows.map(|low| Triple::new(Cid::from_two_lanes([0, low]), Cid::ZERO, Cid::MAX)).collect();
        Mutation::Batch(Batch::new(Op::Insert, 7.0, rows))
    };
    for rounds in 0..5 {
        for n in 0.. {
            let mut cut = false;
            for seed in 0..8 {
                let mut world = if rounds == 0 { World::cut_first(n, seed) } else { World::new() };
                for i in 1..rounds {
                    world.commit(&[rows(i * 50..i * 50 + 70)], Durability::Os);
                    if i == 2 {
                        world.store().maintainer().checkpoint().unwrap();
                    }
                }
                cut = world.cut_start(n, seed * 31 + n);
            }
            if !cut {
                break;
            }
        }
    }
}

/// Power cut, or kill and a power cut after the next start, at every single I/O of a small history,
/// with several outcomes each.
#[test]
fn power_cut_at_every_operation() {
    let batch = |op, lows: std::ops::Range<u64>| {
        let rows = lows.map(|low| Triple::new(Cid::from_two_lanes([0, low]), Cid::ZERO, Cid::MAX)).collect();
        Mutation::Batch(Batch::new(op, 7.0, rows))
    };
    let history = [
        vec![batch(Op::Insert, 0..20), batch(Op::Insert, 20..30)],
        vec![batch(Op::Delete, 5..8)],
        vec![batch(Op::Insert, 30..60), batch(Op::Delete, 25..28)],
        vec![batch(Op::Insert, 100..140)],
        vec![batch(Op::Insert, 6..7), batch(Op::Delete, 100..101)],
    ];
    let mut cuts = 0;
    for step in 0.. {
        let mut finished = false;
        for (seed, durability, kill_first) in (0..4).flat_map(|seed| {
            [
                (seed, Durability::Fsync, false),
                (seed, Durability::Fsync, true),
                (seed, Durability::Os, false),
                (seed, Durability::Os, true),
            ]
        }) {
            let mut world = World::new();
            let before = world.disk.sim.operations();
            world.disk.sim.stop_at(step);
            for group in &history {
                world.commit(group, durability);
                world.store().tidy();
                while !matches!(world.store().maintainer().step(Merging::Needed), Ok(Step::Idle) | Err(_)) {}
            }
            finished = world.disk.sim.operations() - before <= step;
            cuts += 1;
            if kill_first {
                world.restart(End::Kill);
            }
            world.restart(End::PowerCut(seed * 7919 + step));
            check_questions(&world.snapshot(), world.model(), &[Pattern::ALL]);
        }
        if finished {
            break;
        }
        assert!(step < 1000, "the history does not end");
    }
    assert!(cuts > 600, "{cuts} cuts");
}
