//! Arbitrary requests, replies and notifications.

use cidstore_proto::{Command, CompactAction, Format, MirrorAction, MutateKind, RequestId};
use cidstore_types::{Batch, Cid, Metadata, Mutation, Op, Pattern, Triple, TripleHash};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use serde_json::{Map, Value};

/// When the requests below were received.
pub const RECEIVED_AT: f64 = 1_730_505_600.5;

/// This many cases a property; inputs that failed are kept beside the test and tried first.
pub fn config(cases: u32) -> ProptestConfig {
    let persistence = FileFailurePersistence::WithSource("regressions");
    ProptestConfig { cases, failure_persistence: Some(Box::new(persistence)), ..ProptestConfig::default() }
}

pub fn cids() -> impl Strategy<Value = Cid> {
    prop_oneof![
        any::<[u64; 4]>().prop_map(Cid::from_lanes),
        any::<[u64; 2]>().prop_map(Cid::from_two_lanes),
        (0u64..4).prop_map(|low| Cid::from_lanes([0, 0, 0, low])),
    ]
}

pub fn triples() -> impl Strategy<Value = Triple> {
    (cids(), cids(), cids()).prop_map(|(s, p, o)| Triple::new(s, p, o))
}

pub fn request_ids() -> impl Strategy<Value = RequestId> {
    prop_oneof![
        ".{0,20}".prop_map(RequestId::Str),
        any::<u64>().prop_map(|id| RequestId::Int(id.into())),
        any::<i64>().prop_map(|id| RequestId::Int(id.into())),
    ]
}

fn values() -> impl Strategy<Value = Value> {
    let leaves = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e300..1e300).prop_map(Value::from),
        ".{0,10}".prop_map(Value::from),
    ];
    leaves.prop_recursive(4, 20, 4, |inner| {
        prop_oneof![vec(inner.clone(), 0..4).prop_map(Value::from), maps(inner).prop_map(Value::from)]
    })
}

fn maps(of: impl Strategy<Value = Value>) -> impl Strategy<Value = Map<String, Value>> {
    vec((".{0,6}", of), 0..4).prop_map(Map::from_iter)
}

pub fn metadata() -> impl Strategy<Value = Metadata> {
    (option::of(maps(values())), option::of(".{0,6}"), option::of(0.0..=1.0)).prop_map(
        |(provenance, schema_version, confidence)| Metadata { provenance, schema_version, confidence },
    )
}

type Row = (Triple, Option<f64>, Metadata);

fn rows() -> impl Strategy<Value = Row> {
    let bare = triples().prop_map(|triple| (triple, None, Metadata::default()));
    prop_oneof![bare, (triples(), option::of(0.0..2e9), metadata())]
}

fn batch(op: Op, rows: Vec<Row>) -> Mutation {
    let mut batch = Batch::new(op, RECEIVED_AT, Vec::new());
    for (i, (triple, created_at, metadata)) in rows.into_iter().enumerate() {
        batch.rows.push(triple);
        if op == Op::Insert {
            batch.created_at.extend(created_at.map(|at| (i as u32, at)));
            if !metadata.is_empty() {
                batch.metadata.push((i as u32, metadata.to_stored(1 << 20).unwrap()));
            }
        }
    }
    Mutation::Batch(batch)
}

fn patterns() -> impl Strategy<Value = Pattern> {
    let part = || option::of(cids());
    (part(), part(), part()).prop_map(|(s, p, o)| Pattern { s, p, o })
}

fn compact_actions() -> impl Strategy<Value = CompactAction> {
    let named = [
        CompactAction::Status,
        CompactAction::Start,
        CompactAction::Cancel,
        CompactAction::Pause,
        CompactAction::Resume,
    ];
    prop_oneof![prop::sample::select(named.to_vec()), any::<u64>().prop_map(CompactAction::Rate)]
}

fn mirror_actions() -> impl Strategy<Value = MirrorAction> {
    let named = [MirrorAction::Status, MirrorAction::Rebuild, MirrorAction::Cancel];
    prop_oneof![
        prop::sample::select(named.to_vec()),
        (option::of(1..=u64::MAX), any::<bool>())
            .prop_map(|(sample, repair)| MirrorAction::Verify { sample, repair })
    ]
}

/// Any command, with a form that it can be written in by the encoding.
pub fn commands(json: bool) -> impl Strategy<Value = Command> {
    let formats = Format::ALL.map(|(_, format)| format).into_iter();
    let formats: Vec<_> = formats.filter(|format| !(json && format.is_binary())).collect();
    let plain: Vec<_> = formats.iter().copied().filter(|format| *format != Format::Packed).collect();
    let cursor = || option::of(vec(any::<u8>(), 0..20));
    prop_oneof![
        Just(Command::Ping),
        Just(Command::Stats),
        Just(Command::Metrics),
        Just(Command::Checkpoint),
        compact_actions().prop_map(|action| Command::Compact { action }),
        mirror_actions().prop_map(|action| Command::Mirror { action }),
        rows().prop_map(|row| Command::Mutate {
            mutation: batch(Op::Insert, vec![row]),
            kind: MutateKind::Insert
        }),
        vec(rows(), 0..6).prop_map(|rows| Command::Mutate {
            mutation: batch(Op::Insert, rows),
            kind: MutateKind::BatchInsert
        }),
        vec(rows(), 0..6).prop_map(|rows| Command::Mutate {
            mutation: batch(Op::Delete, rows),
            kind: MutateKind::BatchDelete
        }),
        patterns().prop_filter("a delete of everything is refused", |p| *p != Pattern::ALL).prop_map(
            |pattern| Command::Mutate {
                mutation: Mutation::delete_matching(pattern, RECEIVED_AT),
                kind: MutateKind::Delete
            }
        ),
        (patterns(), 1usize..100_000, cursor(), prop::sample::select(formats), any::<bool>()).prop_map(
            |(pattern, limit, cursor, format, metadata)| Command::Query {
                pattern,
                limit,
                cursor,
                format,
                metadata
            }
        ),
        patterns().prop_map(|pattern| Command::Count { pattern }),
        (cids(), 1usize..100_000, cursor()).prop_map(|(key, limit, cursor)| Command::Lookup {
            key,
            limit,
            cursor
        }),
        any::<[u8; 32]>().prop_map(|hash| Command::Get { hash: TripleHash(hash) }),
        vec(any::<[u8; 32]>(), 0..6)
            .prop_map(|hashes| Command::GetMany { hashes: hashes.into_iter().map(TripleHash).collect() }),
        (any::<u64>(), 1usize..100_000, prop::sample::select(plain))
            .prop_map(|(since, limit, format)| Command::Changes { since, limit, format }),
    ]
}
