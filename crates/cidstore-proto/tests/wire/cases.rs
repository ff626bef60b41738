//! The golden messages that this implementation makes: `proto/vectors/rust.json`.

use crate::meaning;
use cidstore_proto::{
    ChangeEntry, Command, CompactAction, Encoding, ErrorCode, Format, Limits, MirrorAction, MutateKind,
    Notification, Reply, ReplyKind, Request, RequestId, decode_notification, decode_reply, decode_request,
    encode_notification, encode_reply, encode_request,
};
use cidstore_types::{Batch, Cid, Metadata, Mutation, Op, Pattern, Triple, TripleRecord};
use serde_json::{Map, Value, json};

const ENCODINGS: [(Encoding, &str); 2] = [(Encoding::MsgPack, "msgpack"), (Encoding::Json, "json")];

fn cid(low: u64) -> Cid {
    Cid::from_lanes([u64::MAX, 1 << 40, 300, low])
}

fn triple(low: u64) -> Triple {
    Triple::new(cid(low), Cid::from_two_lanes([7, low]), Cid::from_lanes([low, 0, 0, u64::MAX - 1]))
}

fn metadata() -> Metadata {
    let Value::Object(provenance) =
        json!({"by": "näme", "n": [1, -2, 1.5, true, null, 18_446_744_073_709_551_615_u64], "of": {"x": {}}})
    else {
        unreachable!()
    };
    Metadata { provenance: Some(provenance), schema_version: Some("v2".into()), confidence: Some(0.75) }
}

fn commands() -> Vec<(&'static str, Command)> {
    let mutate = |kind, batch: Batch| Command::Mutate { mutation: Mutation::Batch(batch), kind };
    let mut with_columns = Batch::new(Op::Insert, 0.0, vec![triple(1), triple(2), triple(3)]);
    with_columns.created_at = vec![(0, 1_730_505_600.25), (2, 5.0)];
    with_columns.metadata = vec![(1, metadata().to_stored(1 << 16).expect("small"))];
    let mut one = Batch::new(Op::Insert, 0.0, vec![triple(1)]);
    one.created_at = vec![(0, 1_730_505_600.25)];
    one.metadata = vec![(0, metadata().to_stored(1 << 16).expect("small"))];
    let deletes = |pattern| Command::Mutate {
        mutation: Mutation::delete_matching(pattern, 0.0),
        kind: MutateKind::Delete,
    };
    let verify = |sample, repair| Command::Mirror { action: MirrorAction::Verify { sample, repair } };
    let (s, p, o) = (Some(triple(1).s()), Some(triple(1).p()), Some(triple(1).o()));
    let query = |pattern, limit, cursor, format, metadata| Command::Query {
        pattern,
        limit,
        cursor,
        format,
        metadata,
    };
    vec![
        ("ping", Command::Ping),
        ("insert", mutate(MutateKind::Insert, Batch::new(Op::Insert, 0.0, vec![triple(9)]))),
        ("insert with metadata", mutate(MutateKind::Insert, one)),
        (
            "batch_insert",
            mutate(MutateKind::BatchInsert, Batch::new(Op::Insert, 0.0, vec![triple(1), triple(2)])),
        ),
        ("batch_insert of nothing", mutate(MutateKind::BatchInsert, Batch::new(Op::Insert, 0.0, vec![]))),
        ("batch_insert with metadata", mutate(MutateKind::BatchInsert, with_columns)),
        (
            "batch_delete",
            mutate(MutateKind::BatchDelete, Batch::new(Op::Delete, 0.0, vec![triple(1), triple(2)])),
        ),
        ("delete of a subject", deletes(Pattern { s, ..Pattern::ALL })),
        ("delete of a triple", deletes(Pattern { s, p, o })),
        (
            "insert under a key",
            mutate(
                MutateKind::Insert,
                Batch::new(Op::Insert, 0.0, vec![triple(9)]).under("Schlüssel-1".as_bytes()),
            ),
        ),
        (
            "batch_delete under the longest key",
            mutate(MutateKind::BatchDelete, Batch::new(Op::Delete, 0.0, vec![triple(1)]).under(&[b'k'; 256])),
        ),
        (
            "delete under a key",
            Command::Mutate {
                mutation: Mutation::delete_matching(Pattern { s, ..Pattern::ALL }, 0.0).under(b"k"),
                kind: MutateKind::Delete,
            },
        ),
        ("query of everything", query(Pattern::ALL, 1000, None, Format::E, false)),
        ("query", query(Pattern { s: None, p, o }, 5, Some(vec![0, 1, 255]), Format::List, true)),
        ("query in hex", query(Pattern { s, p: None, o: None }, 100_000, None, Format::Hex, false)),
        ("count", Command::Count { pattern: Pattern { o, ..Pattern::ALL } }),
        ("lookup", Command::Lookup { key: cid(5), limit: 10, cursor: Some(vec![9]) }),
        ("get", Command::Get { hash: triple(1).hash() }),
        ("get of several", Command::GetMany { hashes: vec![triple(2).hash(), triple(1).hash()] }),
        ("get of none", Command::GetMany { hashes: vec![] }),
        ("changes", Command::Changes { since: u64::MAX, limit: 7, format: Format::E }),
        ("stats", Command::Stats),
        ("metrics", Command::Metrics),
        ("checkpoint", Command::Checkpoint),
        ("compact", Command::Compact { action: CompactAction::Start }),
        ("compact at a rate", Command::Compact { action: CompactAction::Rate(50 << 20) }),
        ("compact cancel", Command::Compact { action: CompactAction::Cancel }),
        ("mirror", Command::Mirror { action: MirrorAction::Status }),
        ("mirror rebuild", Command::Mirror { action: MirrorAction::Rebuild }),
        ("mirror verify", verify(None, false)),
        ("mirror verify some and repair", verify(Some(1000), true)),
        ("mirror cancel", Command::Mirror { action: MirrorAction::Cancel }),
    ]
}

/// Requests that are refused, in each encoding if they can be made in both.
fn bad() -> Vec<(&'static str, Vec<u8>)> {
    let mut all: Vec<(&str, Vec<u8>)> = Vec::new();
    for (name, text) in [
        ("no command", r#"{"request_id":1}"#),
        ("unknown command", r#"{"command":"fetch","request_id":"r"}"#),
        ("a field twice", r#"{"command":"count","s":"E(1,2)","s":"E(1,2)"}"#),
        ("a lane too large", r#"{"command":"count","s":"E(18446744073709551616,0)","request_id":"r"}"#),
        ("a lane too large, as an integer", r#"{"command":"count","s":[18446744073709551616,0]}"#),
        ("a float as a lane", r#"{"command":"count","s":[1.0,0]}"#),
        ("delete with a part that is null", r#"{"command":"delete","s":null,"p":"E(1,2)","request_id":"r"}"#),
        ("delete with a value that is null", r#"{"command":"delete","key":"E(1,2)","value":null}"#),
        ("delete beside the other form's null", r#"{"command":"delete","s":"E(1,2)","key":null}"#),
        ("insert with a part that is null", r#"{"command":"insert","s":"E(1,2)","p":"E(1,2)","o":null}"#),
        ("insert with a key that is null", r#"{"command":"insert","key":null,"value":"E(1,2)"}"#),
        ("a batch of other things", r#"{"command":"batch_insert","triples":{"s":1}}"#),
        ("compact with another action", r#"{"command":"compact","action":"stop","request_id":3}"#),
        ("compact at no rate", r#"{"command":"compact","action":"rate"}"#),
        ("compact at a negative rate", r#"{"command":"compact","action":"rate","bytes_per_second":-1}"#),
        ("get of one and of several", r#"{"command":"get","triple_hash":"00","triple_hashes":[]}"#),
        ("get of what is no hash", r#"{"command":"get","triple_hashes":["00"],"request_id":1}"#),
        ("mirror with another action", r#"{"command":"mirror","action":"repair","request_id":3}"#),
        ("mirror verify none", r#"{"command":"mirror","action":"verify","sample":0}"#),
        ("mirror verify half a triple", r#"{"command":"mirror","action":"verify","sample":0.5}"#),
        ("mirror verify and repair a number", r#"{"command":"mirror","action":"verify","repair":1}"#),
        ("bytes in JSON", r#"{"command":"query","format":"packed"}"#),
        ("truncated", r#"{"command":"ping","x":[1,2"#),
        ("something behind the end", r#"{"command":"ping"} x"#),
        ("an empty key", r#"{"command":"delete","s":"E(1,2)","idempotency_key":"","request_id":"r"}"#),
        ("a key that is a number", r#"{"command":"batch_insert","triples":[],"idempotency_key":5}"#),
        ("a key twice", r#"{"command":"ping","idempotency_key":"a","idempotency_key":"a"}"#),
        ("NaN", r#"{"command":"insert","s":"E(1,2)","p":"E(1,2)","o":"E(1,2)","created_at":NaN}"#),
    ] {
        all.push((name, text.into()));
    }
    let deep =
        format!("{{\"command\":\"ping\",\"x\":{}{},\"request_id\":5}}", "[".repeat(16), "]".repeat(16));
    all.push(("too deep", deep.into()));
    let deep = format!(r#"{{"command":"batch_insert","triples":[{}1{}]}}"#, "[".repeat(15), "]".repeat(15));
    all.push(("rows too deep", deep.into()));
    let mut deep = b"\x83\xa7command\xa4ping\xa1x".to_vec();
    deep.extend([0x91; 16]);
    deep.extend(b"\xc0\xaarequest_id\x05");
    all.push(("too deep", deep.clone()));
    deep.truncate(deep.len() - 1);
    all.push(("too deep and truncated", deep));
    for (name, bytes) in [
        ("empty", &b""[..]),
        ("garbage", b"\xc1\x00\xff"),
        ("no map", b"\x93\x01\x02\x03"),
        ("truncated", b"\x82\xa7command\xa4ping\xa1x\xc4\x20\x00"),
        ("a length that lies", b"\x82\xa7command\xa4ping\xa1x\xdd\xff\xff\xff\xff"),
        ("text that is not UTF-8", b"\x82\xa7command\xa4ping\xa1x\xa2\xff\xfe"),
        ("delete with a part that is null", b"\x83\xa7command\xa6delete\xa1s\xc0\xa1p\x92\x01\x02"),
        ("a CID of 31 bytes", b"\x82\xa7command\xa5count\xa1s\xc4\x1f0123456789012345678901234567890"),
        ("packed, not of 96 bytes", b"\x82\xa7command\xacbatch_insert\xa6packed\xc4\x03abc"),
        ("a negative lane", b"\x82\xa7command\xa5count\xa1s\x92\x01\xff"),
        ("NaN in provenance", b"\x85\xa7command\xa6insert\xa1s\x92\x00\x01\xa1p\x92\x00\x01\xa1o\x92\x00\x01\xaaprovenance\x81\xa1a\x92\x00\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00"),
        ("bytes in provenance", b"\x85\xa7command\xa6insert\xa1s\x92\x00\x01\xa1p\x92\x00\x01\xa1o\x92\x00\x01\xaaprovenance\x81\xa1a\xc4\x01\x00"),
    ] {
        all.push((name, bytes.to_vec()));
    }
    all
}

struct Case {
    what: &'static str,
    name: String,
    encoding: &'static str,
    bytes: Vec<u8>,
    /// Of a reply: which kind.
    answers: Option<ReplyKind>,
    meaning: Value,
}

fn requests(cases: &mut Vec<Case>) {
    let ids = [
        None,
        Some(RequestId::Str("ä-1".into())),
        Some(RequestId::Int(-7)),
        Some(RequestId::Bin(vec![0, 200])),
    ];
    for (encoding, encoding_name) in ENCODINGS {
        for (i, (name, command)) in commands().into_iter().enumerate() {
            for (form_name, form) in Format::ALL {
                let id = ids[i % ids.len()].clone();
                let id = id.filter(|id| encoding == Encoding::MsgPack || !matches!(id, RequestId::Bin(_)));
                let request = Request { encoding, request_id: id, command: command.clone() };
                let mut bytes = Vec::new();
                encode_request(&request.command, encoding, request.request_id.as_ref(), form, &mut bytes);
                if cases.iter().any(|case| case.bytes == bytes) {
                    // Without a CID, or in JSON, forms are alike.
                    continue;
                }
                cases.push(Case {
                    what: "request",
                    name: format!("{name}, CIDs as {form_name}"),
                    encoding: encoding_name,
                    bytes,
                    answers: None,
                    meaning: meaning::request(&request),
                });
            }
        }
    }
}

/// Requests in forms that this implementation's own encoder never writes.
fn written_by_hand(cases: &mut Vec<Case>) {
    for (encoding, name, bytes) in [
        (
            "json",
            "query, null is free",
            &br#"{"command":"query","s":null,"p":"E(1,2)","o":null,"limit":null}"#[..],
        ),
        ("json", "count, null is free", br#"{"command":"count","s":null,"p":null,"o":"E(1,2)"}"#),
        ("msgpack", "query, null is free", b"\x83\xa7command\xa5query\xa1s\xc0\xa1p\x92\x01\x02"),
        ("msgpack", "count, null is free", b"\x83\xa7command\xa5count\xa1s\xc0\xa1o\x92\x01\x02"),
    ] {
        let request = decode_request(bytes, &Limits::default(), 0.0).expect(name);
        let meaning = meaning::request(&request);
        let (what, name, bytes) = ("request", name.into(), bytes.to_vec());
        cases.push(Case { what, name, encoding, bytes, answers: None, meaning });
    }
}

fn refused(cases: &mut Vec<Case>) {
    for (name, bytes) in bad() {
        let rejection = decode_request(&bytes, &Limits::default(), 0.0).expect_err(name);
        let encoding = if rejection.encoding == Encoding::Json { "json" } else { "msgpack" };
        let meaning = meaning::rejection(&rejection);
        cases.push(Case { what: "refused", name: name.into(), encoding, bytes, answers: None, meaning });
    }
}

fn replies(cases: &mut Vec<Case>) {
    let rows = [triple(1), triple(2)];
    let records: Vec<TripleRecord> = vec![
        TripleRecord { triple: rows[0], created_at: 2.5, metadata: Metadata::default() },
        TripleRecord { triple: rows[1], created_at: 1_730_505_600.25, metadata: metadata() },
    ];
    let json = records[1].to_json(&rows[1].hash());
    let several = [None, Some(json.clone())];
    let stored = metadata().to_stored(1 << 16).expect("small");
    let changes = [
        ChangeEntry { seq: 41, op: Op::Insert, triple: rows[0], created_at: 1.5, metadata: Some(&stored) },
        ChangeEntry { seq: 42, op: Op::Delete, triple: rows[1], created_at: 2.5, metadata: None },
    ];
    let stats = Map::from_iter([("triples".into(), 5.into()), ("lag_seconds".into(), 0.5.into())]);
    let mut all = vec![
        ("pong", ReplyKind::Pong, Reply::Pong { time: 1_730_505_600.25 }),
        (
            "insert",
            ReplyKind::Inserted,
            Reply::Inserted { inserted: 1, seq: 41, triple_hash: Some(rows[0].hash()) },
        ),
        (
            "batch_insert",
            ReplyKind::Inserted,
            Reply::Inserted { inserted: 70_000, seq: 1 << 33, triple_hash: None },
        ),
        ("delete", ReplyKind::Deleted, Reply::Deleted { deleted: 0, seq: 300 }),
        ("count", ReplyKind::Count, Reply::Count { count: 1000, as_of: 42 }),
        ("lookup", ReplyKind::Values, Reply::Values { rows: &rows, cursor: None, as_of: 42 }),
        ("get", ReplyKind::Triple, Reply::Triple { triple: &json }),
        ("get of several", ReplyKind::Triples, Reply::Triples { triples: &several, as_of: 42 }),
        ("get of none", ReplyKind::Triples, Reply::Triples { triples: &[], as_of: 42 }),
        ("changes", ReplyKind::Changes, Reply::Changes { changes: &changes, next: 42, format: Format::E }),
        ("nothing new", ReplyKind::Changes, Reply::Changes { changes: &[], next: 42, format: Format::E }),
        ("stats", ReplyKind::Map, Reply::Map(&stats)),
        ("checkpoint", ReplyKind::Sealed, Reply::Sealed { seq: 42 }),
    ];
    for (name, format) in Format::ALL {
        let page = |records, cursor| Reply::Page { rows: &rows, records, cursor, as_of: 42, format };
        all.push((name, ReplyKind::Page, page(None, None)));
        all.push((name, ReplyKind::Page, page(Some(&records[..]), Some(&[0, 1, 255][..]))));
    }
    for code in ErrorCode::ALL {
        all.push(("refusal", ReplyKind::Pong, Reply::Error { code, message: "s: \"x\" is no CID" }));
    }
    let ids = [None, Some(RequestId::Int(300)), Some(RequestId::Str("r".into()))];
    for (encoding, encoding_name) in ENCODINGS {
        for (i, (name, kind, reply)) in all.iter().enumerate() {
            if let (Encoding::Json, Reply::Page { format, .. }) = (encoding, reply)
                && format.is_binary()
            {
                continue;
            }
            let mut bytes = Vec::new();
            encode_reply(reply, encoding, ids[i % ids.len()].as_ref(), &mut bytes);
            let meaning = meaning::reply(&decode_reply(&bytes, *kind).expect(name));
            cases.push(Case {
                what: "reply",
                name: (*name).to_owned(),
                encoding: encoding_name,
                bytes,
                answers: Some(*kind),
                meaning,
            });
        }
    }
}

fn notifications(cases: &mut Vec<Case>) {
    let rows = [triple(1), triple(2)];
    let (id, bin) = (RequestId::Int(5), RequestId::Bin(vec![1, 255]));
    let all = [
        Notification::Heartbeat { seq: 0, time: 1_730_505_600.25 },
        Notification::One { op: Op::Insert, triple: rows[0], seq: 1 },
        Notification::One { op: Op::Delete, triple: rows[0], seq: 2 },
        Notification::Many { op: Op::Insert, triples: &rows, first_seq: 3 },
        Notification::Many { op: Op::Delete, triples: &rows, first_seq: 1 << 33 },
        Notification::Rejected { request_id: Some(&id), code: ErrorCode::TooLarge, message: "too much" },
        Notification::Rejected { request_id: Some(&bin), code: ErrorCode::Malformed, message: "bad" },
        Notification::Rejected { request_id: None, code: ErrorCode::StorageFull, message: "full" },
        Notification::Mirror { state: "live", lag: Some(0) },
        Notification::Mirror { state: "connecting", lag: None },
    ];
    for (encoding, encoding_name) in ENCODINGS {
        for notification in &all {
            let bytes = encode_notification(notification, encoding);
            let meaning = meaning::notification(&decode_notification(&bytes).expect("own bytes"));
            let name = meaning["type"].as_str().unwrap_or_default().to_owned();
            cases.push(Case {
                what: "notification",
                name,
                encoding: encoding_name,
                bytes,
                answers: None,
                meaning,
            });
        }
    }
}

/// The text of the file.
pub fn file() -> String {
    let mut cases = Vec::new();
    requests(&mut cases);
    written_by_hand(&mut cases);
    refused(&mut cases);
    replies(&mut cases);
    notifications(&mut cases);
    let lines: Vec<String> = cases
        .into_iter()
        .map(|case| {
            let mut fields = json!({"what": case.what, "name": case.name, "encoding": case.encoding});
            if let Some(kind) = case.answers {
                fields["reply"] = meaning::kind_name(kind).into();
            }
            fields["hex"] = case.bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
            fields["meaning"] = case.meaning;
            format!(" {fields}")
        })
        .collect();
    format!("[\n{}\n]\n", lines.join(",\n"))
}
