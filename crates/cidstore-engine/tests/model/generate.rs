//! Random histories.

use cidstore_types::{Batch, Cid, Mutation, Op, Pattern, Triple};
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Debug, Clone)]
pub enum Action {
    Live(Live),
    /// A step of the maintainer, and what happens between its operations: before the n-th of them.
    Step(Vec<(u64, Live)>),
    Checkpoint(Vec<(u64, Live)>),
    /// Run files are merged; beside that, memory may be sealed.
    Merge(Vec<(u64, Live)>),
    /// The process ends, the machine does not.
    Kill,
    /// The power is cut.
    Crash(u64),
    /// The next operations run until the n-th I/O, where the process or the power ends.
    CutAt(u64, Option<u64>),
    /// Killed, and the power is cut at the n-th I/O of the next start.
    CutStart(u64, u64),
    /// The n-th I/O from now fails.
    Fail(u64, bool),
}

/// What may happen while the maintainer works.
#[derive(Debug, Clone)]
pub enum Live {
    Commit(Vec<Mutation>),
    /// The same, without waiting for the medium.
    CommitOs(Vec<Mutation>),
    Tidy,
    Seal,
    /// A reader keeps a snapshot; one that was kept is compared.
    Hold,
    Compare,
    /// Another program opens the catalog; one that did closes it.
    Look,
    LookAway,
    /// The log loses what is sealed.
    RemoveLog,
    /// A follower reads on, so many records at most.
    Follow(usize),
    /// The feed of changes after a part of what there is.
    Changes(prop::sample::Index, usize),
}

/// CIDs of every skew: uniform, 2-lane, tiny. Few of each, so that triples meet again.
fn cids() -> impl Strategy<Value = Cid> {
    let uniform = |i: u64| Cid::from_lanes([i.wrapping_mul(0x9e37_79b9_7f4a_7c15), i, !i, i << 7]);
    prop_oneof![
        (0u64..4).prop_map(uniform),
        (0u64..4).prop_map(|i| Cid::from_two_lanes([u64::MAX - i, i])),
        (0u64..4).prop_map(|i| Cid::from_two_lanes([0, i])),
    ]
}

fn triples() -> impl Strategy<Value = Triple> {
    [cids(), cids(), cids()].prop_map(|[s, p, o]| Triple::new(s, p, o))
}

pub fn patterns() -> impl Strategy<Value = Pattern> {
    let part = || proptest::option::of(cids());
    (part(), part(), part()).prop_map(|(s, p, o)| Pattern { s, p, o })
}

fn batches() -> impl Strategy<Value = Batch> {
    let metadata = proptest::option::of("[a-z]{0,8}");
    (any::<bool>(), vec((triples(), metadata), 1..25), 0u32..1_000_000).prop_map(|(delete, rows, at)| {
        let op = if delete { Op::Delete } else { Op::Insert };
        let mut batch = Batch::new(op, f64::from(at), rows.iter().map(|(triple, _)| *triple).collect());
        let texts = rows.iter().enumerate().filter(|_| !delete);
        batch.metadata = texts
            .filter_map(|(i, (_, text))| {
                Some((i as u32, format!(r#"{{"schema_version":"{}"}}"#, text.as_ref()?).into()))
            })
            .collect();
        batch
    })
}

pub fn mutations() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        4 => batches().prop_map(Mutation::Batch),
        1 => patterns().prop_map(|pattern| Mutation::DeleteMatching { pattern, received_at: 1.0 }),
    ]
}

fn live() -> impl Strategy<Value = Live> {
    prop_oneof![
        8 => vec(mutations(), 1..4).prop_map(Live::Commit),
        4 => vec(mutations(), 1..4).prop_map(Live::CommitOs),
        3 => Just(Live::Tidy),
        2 => Just(Live::Hold),
        2 => Just(Live::Compare),
        1 => Just(Live::Look),
        1 => Just(Live::LookAway),
        2 => Just(Live::RemoveLog),
        2 => (1usize..8).prop_map(Live::Follow),
        2 => (any::<prop::sample::Index>(), 1usize..40).prop_map(|(since, limit)| Live::Changes(since, limit)),
    ]
}

pub fn actions() -> impl Strategy<Value = Action> {
    let between = || vec((0u64..40, live()), 0..5);
    let beside_a_merge = || vec((0u64..40, prop_oneof![3 => live(), 1 => Just(Live::Seal)]), 0..8);
    prop_oneof![
        20 => live().prop_map(Action::Live),
        5 => between().prop_map(Action::Step),
        1 => between().prop_map(Action::Checkpoint),
        3 => beside_a_merge().prop_map(Action::Merge),
        1 => Just(Action::Kill),
        1 => any::<u64>().prop_map(Action::Crash),
        3 => (0u64..60, proptest::option::of(any::<u64>())).prop_map(|(n, seed)| Action::CutAt(n, seed)),
        1 => (0u64..30, any::<u64>()).prop_map(|(n, seed)| Action::CutStart(n, seed)),
        1 => (0u64..20, any::<bool>()).prop_map(|(n, full)| Action::Fail(n, full)),
    ]
}
