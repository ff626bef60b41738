//! Small histories with everything that can go wrong, one thing at a time, at every single operation.
//!
//! The power is cut before each change of the disk, with every subset of what was not synced where
//! there are few parts, and with each part alone, all but each, each prefix and some random subsets
//! where there are many; and again at every change of the start that follows. Each change fails with
//! an I/O error and for want of room; each read fails and is short. At the end every byte that means
//! something is damaged.

use crate::counts::Counts;
use crate::generate::{Action, End, Fault, Live, Plan, Start, cid};
use crate::history::{catch, run};
use crate::keys;
use crate::rot::{Anatomy, Damage};
use crate::schedule::Shared;
use crate::templates::PATH;
use crate::world::World;
use cidstore_disk::sim::{ReadFault, Seeded, SimDisk};
use cidstore_engine::{Durability, Merging, Store, StoreOptions};
use cidstore_types::{Batch, Mutation, Op, Pattern, Triple};
use std::path::Path;
use std::sync::Arc;

/// With so many parts at most, every subset of them is tried.
const PARTS_ALL: u64 = 6;
/// Of more parts, so many random subsets.
const RANDOM_SUBSETS: u64 = 16;

/// All small histories.
///
/// # Errors
/// What did not hold, and in which case.
pub fn run_all() -> Result<Counts, String> {
    let mut counts = Counts::default();
    for (name, plan) in plans() {
        counts.merge(&cases(name, &plan, true)?);
    }
    Ok(counts)
}

/// The two smallest histories, and fewer kinds of trouble.
///
/// # Errors
/// As [`run_all`].
pub fn run_some() -> Result<Counts, String> {
    let mut counts = Counts::default();
    for (name, plan) in plans().iter().take(2) {
        counts.merge(&cases(name, plan, false)?);
    }
    Ok(counts)
}

/// What survives of the unsynced parts: the numbers of those that do, or a seed.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    Subset(u64),
    Only(u64),
    AllBut(u64),
    First(u64),
    Random(u64),
}

fn outcomes(parts: u64) -> Vec<Outcome> {
    if parts <= PARTS_ALL {
        return (0..1 << parts).map(Outcome::Subset).collect();
    }
    let each = (0..parts).flat_map(|i| [Outcome::Only(i), Outcome::AllBut(i), Outcome::First(i)]);
    each.chain([Outcome::First(parts)]).chain((0..RANDOM_SUBSETS).map(Outcome::Random)).collect()
}

fn cut(disk: &SimDisk, outcome: Outcome) {
    let mut next = 0;
    let mut random = Seeded(match outcome {
        Outcome::Random(seed) => seed,
        _ => 0,
    });
    disk.crash_where(&mut |_| {
        let i = next;
        next += 1;
        match outcome {
            Outcome::Subset(parts) => parts >> i & 1 == 1,
            Outcome::Only(part) => i == part,
            Outcome::AllBut(part) => i != part,
            Outcome::First(parts) => i < parts,
            Outcome::Random(_) => random.one_in(2),
        }
    });
}

/// Everything that can go wrong in one history.
fn cases(name: &str, plan: &Plan, all: bool) -> Result<Counts, String> {
    let mut counts = Counts::default();
    let told = |case: String| move |what: String| format!("{name}, {case}: {what}");
    for n in 0.. {
        let cut_here = catch(|| power_cuts(plan, n, all)).map_err(told(format!("cut at {n}")))?;
        let Some(more) = cut_here else { break };
        counts.merge(&more);
    }
    let faults = [
        Fault::Error,
        Fault::Full,
        Fault::ErrorForGood,
        Fault::Read(ReadFault::Error),
        Fault::Read(ReadFault::Short),
    ];
    for fault in faults {
        for n in 0.. {
            let mut failing = plan.clone();
            failing.actions.insert(0, Action::Fail(n, fault));
            failing.last_cut = n;
            let passed =
                run(&failing, 0).map_err(|failure| told(format!("{fault:?} at {n}"))(failure.what))?;
            let hit = ["io_errors", "full", "read_errors", "short_reads"];
            counts.merge(&passed.counts);
            if hit.iter().all(|name| passed.counts.get(name) == 0) {
                break;
            }
        }
    }
    if all {
        counts.merge(&catch(|| damages(plan)).map_err(told("damage".to_owned()))?);
    }
    Ok(counts)
}

/// The history up to its n-th change of the disk, where the power is cut in every way. `None` if it
/// has not so many.
fn power_cuts(plan: &Plan, n: u64, all: bool) -> Option<Counts> {
    let shared = Shared::new(World::begin(plan, 0));
    shared.lock().disk.sim.stop_at(n);
    let stopped = shared.act_until_stopped(&plan.actions);
    let mut world = shared.lock();
    if !stopped {
        return None;
    }
    world.abandon();
    let mut counts = Counts::default();
    for outcome in outcomes(world.disk.sim.unsynced_parts()) {
        let twin = world.disk.sim.fork();
        cut(&twin, outcome);
        let again = twin.fork();
        judge(&world, &twin, &format!("{outcome:?}"));
        counts.add("histories", 1);
        counts.add("power_cuts", 1);
        for m in 0.. {
            // A start after a cut start after a cut: with one outcome for each place where it is cut.
            let third = again.fork();
            third.stop_at(m);
            drop(open(&world, &third));
            if !third.has_stopped() {
                break;
            }
            third.crash(n * 1000 + m);
            judge(&world, &third, &format!("{outcome:?}, then cut at {m} of the start"));
            counts.add("histories", 1);
            counts.add("power_cuts", 2);
            if !all {
                break;
            }
        }
    }
    Some(counts)
}

fn open(world: &World, disk: &SimDisk) -> Result<Store, String> {
    let options = StoreOptions { nonce: 1000 + disk.operations(), ..world.options.clone() };
    let opened = Store::open(Arc::new(disk.clone()), Path::new(PATH), options);
    opened.map(|(store, _)| store).map_err(|error| error.to_string())
}

fn judge(world: &World, disk: &SimDisk, case: &str) {
    let mut store =
        open(world, disk).unwrap_or_else(|error| panic!("{case}: a start must need no help: {error}"));
    let found = store.reader().snapshot();
    let judged = world.oracle.judge(&found, world.oracle.durable());
    let judged = judged.and_then(|()| keys::check(&mut store, &world.oracle, found.as_of()));
    judged.unwrap_or_else(|what| panic!("{case}: {what}"));
}

/// The whole history, and then one bit of every byte that means something.
fn damages(plan: &Plan) -> Counts {
    let shared = Shared::new(World::begin(plan, 0));
    shared.act_until_stopped(&plan.actions);
    let mut world = shared.lock();
    world.abandon();
    world.disk.sim.kill();
    let anatomy = Anatomy::of(&world.disk.sim);
    for path in world.disk.sim.names() {
        let bytes = world.disk.sim.bytes(&path).expect("it is there");
        for at in 0..bytes.len() as u64 {
            let column = anatomy.is_column(&path, at);
            // Each start costs what it costs: of columns and of zeros, a sample.
            if (column || bytes[at as usize] == 0) && at % 97 != 0 {
                continue;
            }
            world.check_damage(&anatomy, &path, &Damage::Flip(at * 8 + at % 8));
        }
        for len in (0..bytes.len() as u64).step_by(509) {
            world.check_damage(&anatomy, &path, &Damage::Cut(len));
        }
    }
    let mut counts = world.counts();
    counts.add("histories", world.counts.get("damaged"));
    counts
}

/// The small histories, the smallest first.
fn plans() -> Vec<(&'static str, Plan)> {
    let batch = |op, lows: std::ops::Range<u64>| {
        let rows = lows.map(|low| Triple::new(cid(2, low), cid(0, 0), cid(1, low % 3))).collect();
        Mutation::Batch(Batch::new(op, 7.0, rows))
    };
    let commit = |durability, group: Vec<Mutation>| Action::Live(Live::Commit(durability, group));
    let (fsync, os) = (Durability::Fsync, Durability::Os);
    let options = StoreOptions {
        new_store_id: *b"a simulated one.",
        nonce: 0,
        segment_bytes: 2048,
        batch_rows_max: 100,
        seal_rows: 8,
        memory_rows_max: 16,
        memory_fan_in: 2,
        tidy_rows_max: 8,
        small_files_max: 2,
        run_rows_max: 100_000,
        key_ttl_s: u64::MAX,
        ..StoreOptions::default()
    };
    let plan =
        |start, actions| Plan { options: options.clone(), allocates_late: true, start, actions, last_cut: 0 };
    // No two files are merged, whatever their size: what is dead goes out of each by itself.
    let alone = |start, actions| {
        let options = StoreOptions { run_rows_max: 1, ..options.clone() };
        Plan { options, allocates_late: true, start, actions, last_cut: 0 }
    };
    let log = vec![
        commit(fsync, vec![batch(Op::Insert, 0..3), batch(Op::Insert, 3..9)]),
        commit(os, vec![batch(Op::Delete, 1..2)]),
        commit(os, vec![batch(Op::Insert, 9..16)]),
        commit(fsync, vec![batch(Op::Delete, 5..7), batch(Op::Insert, 1..2)]),
    ];
    let beside = vec![(3, Live::Commit(fsync, vec![batch(Op::Insert, 40..42)]))];
    let seals = vec![
        commit(fsync, vec![batch(Op::Insert, 0..9)]),
        Action::Step(beside.clone()),
        commit(os, vec![batch(Op::Delete, 2..4), batch(Op::Insert, 20..28)]),
        Action::Live(Live::Tidy),
        Action::Checkpoint(Vec::new()),
        Action::Live(Live::RemoveLog(0)),
        Action::Merge(Merging::Settling, beside.clone()),
        commit(fsync, vec![batch(Op::Insert, 2..3)]),
    ];
    let merges = vec![
        commit(fsync, vec![batch(Op::Delete, 0..4)]),
        Action::Merge(Merging::Needed, beside.clone()),
        Action::Live(Live::RemoveLog(0)),
        Action::Merge(Merging::Settling, Vec::new()),
        Action::Close(true),
        commit(os, vec![batch(Op::Insert, 0..2)]),
    ];
    let restarts = vec![
        commit(os, vec![batch(Op::Insert, 0..3)]),
        Action::End(End::Kill),
        commit(fsync, vec![batch(Op::Insert, 3..5)]),
        Action::End(End::Kill),
        Action::Close(false),
    ];
    // The deletes are not durable when the first files are rewritten, sealed when the others are.
    let compactions = vec![
        commit(fsync, vec![batch(Op::Delete, 0..2), batch(Op::Insert, 2..4)]),
        Action::Checkpoint(Vec::new()),
        Action::Live(Live::RemoveLog(0)),
        commit(os, vec![batch(Op::Delete, 2..4)]),
        Action::Merge(Merging::Everything, beside),
        Action::Merge(Merging::Everything, Vec::new()),
        Action::Checkpoint(Vec::new()),
        Action::Merge(Merging::Everything, Vec::new()),
        Action::Merge(Merging::Everything, Vec::new()),
        commit(os, vec![batch(Op::Insert, 0..2)]),
    ];
    // The first outcome is sealed and leaves the log, the second one is in both places, the third in the log
    // only; each comes again, one of them with other triples.
    let keyed = |low, key: &[u8]| batch(Op::Insert, low..low + 2).under(key);
    let none = Pattern { s: Some(cid(2, 50)), ..Pattern::ALL };
    let keys = vec![
        commit(fsync, vec![keyed(0, b"a"), Mutation::delete_matching(none, 1.0).under(b"b")]),
        Action::Checkpoint(vec![(2, Live::Commit(os, vec![keyed(50, b"c"), keyed(0, b"a")]))]),
        Action::Live(Live::RemoveLog(0)),
        commit(os, vec![batch(Op::Delete, 0..1), keyed(4, b"d")]),
        Action::Checkpoint(Vec::new()),
        commit(fsync, vec![keyed(0, b"a"), keyed(6, b"b"), Mutation::delete_matching(none, 2.0).under(b"b")]),
    ];
    vec![
        ("log", plan(Start::Template(0), log)),
        ("restarts", plan(Start::Template(0), restarts)),
        ("keys", plan(Start::Template(0), keys)),
        ("seals", plan(Start::Template(0), seals)),
        ("merges", plan(Start::Template(2), merges)),
        ("compactions", alone(Start::Template(2), compactions)),
    ]
}
