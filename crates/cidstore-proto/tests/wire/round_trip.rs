//! What one side writes the other reads, in both encodings; and no damage leads to a panic.

use crate::common::{RECEIVED_AT, commands, config, metadata, request_ids, triples};
use cidstore_proto::{
    Announced, Answer, ChangeEntry, Command, Encoding, ErrorCode, Facts, Format, Limits, Notification, Reply,
    ReplyKind, Request, RequestId, announcements, decode_notification, decode_reply, decode_request,
    encode_notification, encode_reply, encode_request,
};
use cidstore_types::{Op, Triple, TripleRecord};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn encodings() -> impl Strategy<Value = Encoding> {
    prop::sample::select(vec![Encoding::MsgPack, Encoding::Json])
}

fn forms() -> impl Strategy<Value = Format> {
    prop::sample::select(Format::ALL.map(|(_, format)| format).to_vec())
}

fn requests() -> impl Strategy<Value = (Request, Format)> {
    encodings().prop_flat_map(|encoding| {
        let command = commands(encoding == Encoding::Json);
        (command, option::of(request_ids()), forms())
            .prop_map(move |(command, request_id, form)| (Request { encoding, request_id, command }, form))
    })
}

fn bytes_of(request: &Request, form: Format) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_request(&request.command, request.encoding, request.request_id.as_ref(), form, &mut bytes);
    bytes
}

fn reply(reply: &Reply<'_>, encoding: Encoding, id: Option<&RequestId>, kind: ReplyKind) -> Answer {
    let mut bytes = Vec::new();
    encode_reply(reply, encoding, id, &mut bytes);
    let found =
        decode_reply(&bytes, kind).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&bytes)));
    assert_eq!((found.encoding, found.request_id.as_ref()), (encoding, id));
    found.result.unwrap()
}

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn requests_round_trip((request, form) in requests()) {
        let bytes = bytes_of(&request, form);
        let found = decode_request(&bytes, &Limits::default(), RECEIVED_AT);
        prop_assert_eq!(found.as_ref(), Ok(&request), "{}", String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn what_is_cut_off_is_refused((request, form) in requests(), at: prop::sample::Index) {
        let bytes = bytes_of(&request, form);
        let cut = &bytes[..at.index(bytes.len())];
        let rejection = decode_request(cut, &Limits::default(), RECEIVED_AT).unwrap_err();
        prop_assert_eq!(rejection.code, ErrorCode::Malformed);
    }

    #[test]
    fn damaged_messages_never_panic(
        (request, form) in requests(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = bytes_of(&request, form);
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Err(rejection) = decode_request(&bytes, &Limits::default(), RECEIVED_AT) {
            prop_assert!(!rejection.message.is_empty());
        }
        let _ = decode_reply(&bytes, request.command.reply_kind());
        let _ = decode_notification(&bytes);
    }

    #[test]
    fn pages_round_trip(
        rows in vec((triples(), 0.0..2e9, metadata()), 0..8),
        with_records: bool,
        cursor in option::of(vec(any::<u8>(), 0..40)),
        as_of: u64,
        encoding in encodings(),
        format in forms(),
        id in option::of(request_ids()),
    ) {
        prop_assume!(!(encoding == Encoding::Json && format.is_binary()));
        let triples: Vec<Triple> = rows.iter().map(|(triple, ..)| *triple).collect();
        let records: Vec<TripleRecord> = rows
            .iter()
            .map(|(triple, created_at, metadata)| TripleRecord {
                triple: *triple,
                created_at: *created_at,
                metadata: metadata.clone(),
            })
            .collect();
        let written = Reply::Page {
            rows: &triples,
            records: with_records.then_some(&records[..]),
            cursor: cursor.as_deref(),
            as_of,
            format,
        };
        let facts = records.iter().map(|r| Facts { created_at: r.created_at, metadata: r.metadata.clone() });
        // An empty page of maps does not show whether metadata was asked for.
        let facts = (with_records && !(triples.is_empty() && format == Format::E)).then(|| facts.collect());
        let expected = Answer::Page { rows: triples.clone(), facts, cursor: cursor.clone(), as_of };
        prop_assert_eq!(reply(&written, encoding, id.as_ref(), ReplyKind::Page), expected);

        let written = Reply::Values { rows: &triples, cursor: cursor.as_deref(), as_of };
        let values = triples.iter().map(Triple::o).collect();
        let expected = Answer::Values { values, cursor: cursor.clone(), as_of };
        prop_assert_eq!(reply(&written, encoding, id.as_ref(), ReplyKind::Values), expected);
    }

    #[test]
    fn changes_round_trip(
        rows in vec((any::<u64>(), any::<bool>(), triples(), 0.0..2e9, metadata()), 0..8),
        next: u64,
        encoding in encodings(),
        format in forms(),
    ) {
        prop_assume!(!(encoding == Encoding::Json && format.is_binary()));
        let texts: Vec<_> = rows.iter().map(|(.., metadata)| metadata.to_stored(1 << 20).unwrap()).collect();
        let op = |insert: bool| if insert { Op::Insert } else { Op::Delete };
        let entries: Vec<_> = rows
            .iter()
            .zip(&texts)
            .map(|((seq, insert, triple, created_at, _), text)| ChangeEntry {
                seq: *seq,
                op: op(*insert),
                triple: *triple,
                created_at: *created_at,
                metadata: Some(text),
            })
            .collect();
        let written = Reply::Changes { changes: &entries, next, format };
        let found = reply(&written, encoding, None, ReplyKind::Changes);
        let Answer::Changes { changes, next: found_next } = found else { panic!("{found:?}") };
        prop_assert_eq!((changes.len(), found_next), (rows.len(), next));
        for (found, (seq, insert, triple, created_at, metadata)) in changes.into_iter().zip(rows) {
            prop_assert_eq!((found.seq, found.op, found.triple), (seq, op(insert), triple));
            prop_assert_eq!(found.facts, Facts { created_at, metadata });
        }
    }

    #[test]
    fn notifications_round_trip(
        all in vec(triples(), 0..2500),
        first_seq in 1..u64::MAX / 2,
        insert: bool,
        encoding in encodings(),
    ) {
        let op = if insert { Op::Insert } else { Op::Delete };
        let (mut seq, mut found) = (first_seq, Vec::new());
        for notification in announcements(op, &all, first_seq) {
            let bytes = encode_notification(&notification, encoding);
            match decode_notification(&bytes).unwrap() {
                Announced::One { op: o, triple, seq: s } => {
                    prop_assert_eq!((o, s), (op, seq));
                    found.push(triple);
                }
                Announced::Many { op: o, triples, first_seq } => {
                    prop_assert_eq!((o, first_seq), (op, seq));
                    prop_assert!(triples.len() <= 1000);
                    found.extend(triples);
                }
                other => panic!("{other:?}"),
            }
            seq = first_seq + found.len() as u64;
        }
        prop_assert_eq!(found, all);
    }
}

#[test]
fn small_replies_round_trip() {
    let id = RequestId::Int(-5);
    let bin = RequestId::Bin(vec![0, 255]);
    let value = json!({"a": [1, -1, 1.5, u64::MAX, null, "é\n"], "b": {}});
    let Value::Object(map) = &value else { unreachable!() };
    let hash = Triple([7; 96]).hash();
    for encoding in [Encoding::MsgPack, Encoding::Json] {
        let ids = match encoding {
            Encoding::MsgPack => vec![None, Some(&id), Some(&bin)],
            Encoding::Json => vec![None, Some(&id)],
        };
        for id in ids {
            let check = |written: &Reply<'_>, kind, expected: Answer| {
                assert_eq!(reply(written, encoding, id, kind), expected);
            };
            check(&Reply::Pong { time: 1.25 }, ReplyKind::Pong, Answer::Pong { time: 1.25 });
            for triple_hash in [None, Some(hash)] {
                let written = Reply::Inserted { inserted: 3, seq: u64::MAX, triple_hash };
                let expected = Answer::Inserted { inserted: 3, seq: u64::MAX, triple_hash };
                check(&written, ReplyKind::Inserted, expected);
            }
            let (deleted, seq) = (70_000, 9);
            check(&Reply::Deleted { deleted, seq }, ReplyKind::Deleted, Answer::Deleted { deleted, seq });
            let (count, as_of) = (1 << 40, 0);
            check(&Reply::Count { count, as_of }, ReplyKind::Count, Answer::Count { count, as_of });
            let expected = Answer::Triple { triple: value.clone() };
            check(&Reply::Triple { triple: &value }, ReplyKind::Triple, expected);
            let triples = [Some(value.clone()), None];
            let expected = Answer::Triples { triples: triples.to_vec(), as_of };
            check(&Reply::Triples { triples: &triples, as_of }, ReplyKind::Triples, expected);
            check(&Reply::Map(map), ReplyKind::Map, Answer::Map(map.clone()));
            check(&Reply::Map(&Map::new()), ReplyKind::Map, Answer::Map(Map::new()));
            check(&Reply::Sealed { seq }, ReplyKind::Sealed, Answer::Sealed { seq });
            for code in ErrorCode::ALL {
                let mut bytes = Vec::new();
                encode_reply(&Reply::Error { code, message: "why \"so\"" }, encoding, id, &mut bytes);
                let found = decode_reply(&bytes, ReplyKind::Map).unwrap();
                let refusal = found.result.unwrap_err();
                assert_eq!((refusal.code, &*refusal.message), (code.number(), "why \"so\""));
                assert_eq!(found.request_id.as_ref(), id);
            }
        }
    }
}

#[test]
fn small_notifications_round_trip_and_begin_with_their_type() {
    let id = RequestId::Str("me".into());
    for (notification, kind) in [
        (Notification::Heartbeat { seq: 5, time: 2.5 }, "heartbeat"),
        (Notification::One { op: Op::Insert, triple: Triple([1; 96]), seq: 5 }, "insert"),
        (Notification::One { op: Op::Delete, triple: Triple([1; 96]), seq: 5 }, "delete"),
        (Notification::Many { op: Op::Insert, triples: &[Triple([1; 96]); 2], first_seq: 5 }, "batch_insert"),
        (Notification::Many { op: Op::Delete, triples: &[Triple([1; 96]); 2], first_seq: 5 }, "batch_delete"),
        (
            Notification::Rejected { request_id: Some(&id), code: ErrorCode::TooLarge, message: "m" },
            "rejected",
        ),
        (Notification::Rejected { request_id: None, code: ErrorCode::Malformed, message: "" }, "rejected"),
        (Notification::Mirror { state: "live", lag: Some(0) }, "mirror"),
        (Notification::Mirror { state: "connecting", lag: None }, "mirror"),
    ] {
        let json = encode_notification(&notification, Encoding::Json);
        assert!(json.starts_with(format!("{{\"type\":\"{kind}\",").as_bytes()));
        let msgpack = encode_notification(&notification, Encoding::MsgPack);
        let fields: Map<String, Value> = serde_json::from_slice(&json).unwrap();
        let mut prefix = vec![0x80 | fields.len() as u8, 0xa4];
        prefix.extend_from_slice(b"type");
        prefix.push(0xa0 | kind.len() as u8);
        prefix.extend_from_slice(kind.as_bytes());
        assert!(msgpack.starts_with(&prefix));
        assert_eq!(fields["version"], "1.0");
        assert_eq!(decode_notification(&json), decode_notification(&msgpack));
        match (decode_notification(&json).unwrap(), notification) {
            (Announced::Heartbeat { seq, time }, Notification::Heartbeat { seq: s, time: t }) => {
                assert_eq!((seq, time), (s, t));
            }
            (Announced::One { op, triple, seq }, Notification::One { op: o, triple: t, seq: s }) => {
                assert_eq!((op, triple, seq), (o, t, s));
            }
            (
                Announced::Many { op, triples, first_seq },
                Notification::Many { op: o, triples: t, first_seq: f },
            ) => {
                assert_eq!((op, &triples[..], first_seq), (o, t, f));
            }
            (
                Announced::Rejected { request_id, refusal },
                Notification::Rejected { request_id: i, code, message },
            ) => {
                assert_eq!(request_id.as_ref(), i);
                assert_eq!((refusal.code, &*refusal.message), (code.number(), message));
            }
            (Announced::Mirror { state, lag }, Notification::Mirror { state: s, lag: l }) => {
                assert_eq!((&*state, lag), (s, l));
            }
            (found, written) => panic!("{found:?} {written:?}"),
        }
    }
    let later = decode_notification(br#"{"type":"later","x":[1]}"#).unwrap();
    assert_eq!(later, Announced::Other { kind: "later".into() });
}

#[test]
fn commands_know_their_replies() {
    assert_eq!(Command::Ping.reply_kind(), ReplyKind::Pong);
    assert_eq!(Command::Metrics.reply_kind(), ReplyKind::Map);
}
