//! Requests as clients send them, good and bad, in both encodings.

use crate::common::config;
use cidstore_proto::{Command, Encoding, ErrorCode, Limits, Rejection, Request, RequestId, decode_request};
use cidstore_types::{Batch, Cid, Metadata, Mutation, Op, Pattern, Triple};
use proptest::prelude::*;
use serde_json::{Value, json};

fn decode(bytes: &[u8]) -> Result<Request, Rejection> {
    decode_request(bytes, &Limits::default(), 1.5)
}

fn msgpack(value: &Value) -> Vec<u8> {
    rmp_serde::to_vec_named(value).unwrap()
}

/// Decodes a request in both encodings, which must agree, and returns its command.
fn command(value: &Value) -> Command {
    let a = decode(&msgpack(value)).unwrap_or_else(|e| panic!("{value}: {e}"));
    let b = decode(value.to_string().as_bytes()).unwrap_or_else(|e| panic!("{value}: {e}"));
    assert_eq!((a.encoding, b.encoding), (Encoding::MsgPack, Encoding::Json));
    assert_eq!(a.command, b.command);
    a.command
}

fn refused(value: &Value) -> (ErrorCode, String) {
    let a = decode(&msgpack(value)).unwrap_err();
    let b = decode(value.to_string().as_bytes()).unwrap_err();
    assert_eq!((a.code, &a.message), (b.code, &b.message));
    (a.code, a.message)
}

fn cid(lanes: [u64; 4]) -> Cid {
    Cid::from_lanes(lanes)
}

fn batch(command: Command) -> Batch {
    match command {
        Command::Mutate { mutation: Mutation::Batch(batch), .. } => batch,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_form_of_a_cid() {
    let expected = cid([1, 2, 3, 4]);
    let hex = expected.to_hex();
    for form in [
        json!("E(1,2,3,4)"),
        json!("E(1, 2, 3, 4)"),
        json!([1, 2, 3, 4]),
        json!({"high": 1, "high_mid": 2, "low_mid": 3, "low": 4}),
        json!(hex),
    ] {
        let request = json!({"command": "lookup", "key": form});
        assert!(matches!(command(&request), Command::Lookup { key, .. } if key == expected), "{request}");
    }
    let short = cid([0, 0, 123, u64::MAX]);
    for form in [json!("E(123,18446744073709551615)"), json!([123, u64::MAX])] {
        let request = json!({"command": "lookup", "key": form});
        assert!(matches!(command(&request), Command::Lookup { key, .. } if key == short), "{request}");
    }
    let map = json!({"command": "lookup", "key": {"high": 5, "low": 6}});
    assert!(matches!(command(&map), Command::Lookup { key, .. } if key == cid([5, 0, 0, 6])));
}

#[test]
fn batches_in_every_form_are_the_same() {
    let rows = [[1, 2, 3], [4, 5, 6]].map(|row| row.map(|low| cid([0, 0, 0, low])));
    let expected: Vec<Triple> = rows.iter().map(|[s, p, o]| Triple::new(*s, *p, *o)).collect();
    let text = rows.map(|row| row.map(|cid| cid.to_string()));
    let maps: Vec<Value> =
        text.iter().map(|[s, p, o]| json!({"s": s, "p": p, "o": o, "extra": [1]})).collect();
    for name in ["batch_insert", "BATCH_INSERT", "Batch_Insert"] {
        for (field, value) in [("triples", json!(maps)), ("triples", json!(text))] {
            let request = json!({field: value, "command": name});
            assert_eq!(batch(command(&request)), Batch::new(Op::Insert, 1.5, expected.clone()));
        }
    }
    let entries = json!({"op_code": "BATCH_DELETE", "entries": [{"key": [1, 2], "value": [3, 4]}]});
    let row = Triple::new(cid([0, 0, 1, 2]), Cid::ZERO, cid([0, 0, 3, 4]));
    assert_eq!(batch(command(&entries)), Batch::new(Op::Delete, 1.5, vec![row]));
}

#[test]
fn metadata_becomes_columns() {
    let request = json!({"command": "batch_insert", "triples": [
        {"s": [1, 1], "p": [1, 1], "o": [1, 1], "created_at": 7, "confidence": null},
        {"s": [1, 2], "p": [1, 1], "o": [1, 1], "provenance": {"a": [1, {"b": null}]}, "schema_version": "v9", "confidence": 1},
    ]});
    let batch = batch(command(&request));
    assert_eq!(batch.created_at, [(0, 7.0)]);
    let stored = Metadata::from_stored(&batch.metadata[0].1);
    assert_eq!((batch.metadata.len(), batch.metadata[0].0), (1, 1));
    assert_eq!(serde_json::to_value(stored.provenance).unwrap(), json!({"a": [1, {"b": null}]}));
    assert_eq!((stored.schema_version.as_deref(), stored.confidence), (Some("v9"), Some(1.0)));
}

#[test]
fn deletes_and_patterns() {
    let delete = |value: Value| match command(&value) {
        Command::Mutate { mutation: Mutation::DeleteMatching { pattern, .. }, .. } => pattern,
        other => panic!("{other:?}"),
    };
    let one = cid([0, 0, 0, 1]);
    assert_eq!(
        delete(json!({"op": "DELETE", "s": [0, 1], "provenance": null})),
        Pattern { s: Some(one), ..Pattern::ALL }
    );
    assert_eq!(delete(json!({"op": "delete", "key": [0, 1]})), Pattern::of_key(one, None));
    // Also where the triple is given in full: if it is absent, nothing is written.
    let whole = delete(json!({"op": "delete", "key": [0, 1], "value": [0, 1]}));
    assert_eq!(whole, Pattern::of_key(one, Some(one)));
}

/// A part that a client's mistake made null must not widen what is deleted.
#[test]
fn a_part_that_is_null_is_refused_by_insert_and_delete_and_free_in_a_query() {
    let full = json!({"s": [0, 1], "p": [0, 1], "o": [0, 1]});
    let pair = json!({"key": [0, 1], "value": [0, 1]});
    for (parts, whole) in [(["s", "p", "o"].as_slice(), full), (&["key", "value"], pair)] {
        for part in parts {
            for name in ["insert", "delete"] {
                let mut request = whole.clone();
                request["command"] = json!(name);
                request[*part] = Value::Null;
                let (code, message) = refused(&request);
                assert_eq!(code, ErrorCode::Malformed, "{request}");
                assert!(message.starts_with(&format!("{part}: ")) && message.contains("null"), "{message}");
            }
        }
    }
    // Also beside the other form, where it would have been of no use.
    let (_, message) = refused(&json!({"command": "delete", "s": [0, 1], "key": null}));
    assert!(message.starts_with("key: "), "{message}");
    for name in ["query", "count"] {
        let request = json!({"command": name, "s": [0, 1], "p": null, "o": null, "key": null});
        match command(&request) {
            Command::Query { pattern, .. } | Command::Count { pattern } => {
                assert_eq!(pattern, Pattern { s: Some(cid([0, 0, 0, 1])), ..Pattern::ALL });
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn refusals_say_where_and_why() {
    let triple = json!({"s": [0, 1], "p": [0, 1], "o": [0, 1]});
    let with = |key: &str, value: Value| {
        let mut bad = triple.clone();
        bad[key] = value;
        json!({"command": "batch_insert", "triples": [triple, bad]})
    };
    for (value, place, what) in [
        (with("o", json!("E(1,2,-3,4)")), "triples[1].o", "lane 2 of the CID is -3"),
        (with("o", json!([1, -2])), "triples[1].o", "lane 1"),
        (with("s", json!([1.5, 2])), "triples[1].s", "1.5"),
        (with("p", json!([1, 2, 3])), "triples[1].p", "3 lanes"),
        (with("confidence", json!(2)), "triples[1]", "0 to 1"),
        (json!({"command": "batch_insert", "triples": [triple, {"s": [0, 1]}]}), "triples[1].p", "missing"),
        (json!({"command": "insert", "s": [0, 1], "p": [0, 1]}), "o", "missing"),
        (json!({"command": "delete"}), "", "s"),
        (json!({"x": 1}), "", "command"),
        (json!({"command": 5}), "command", "text"),
        (json!({"command": "query", "limit": 0}), "limit", "1"),
    ] {
        let (code, message) = refused(&value);
        assert_eq!(code, ErrorCode::Malformed, "{value}");
        assert!(message.starts_with(place) && message.contains(what), "{value}: {message}");
    }
    assert_eq!(refused(&json!({"command": "nonsense"})).0, ErrorCode::UnknownCommand);
    assert_eq!(refused(&json!({"command": "query", "limit": 100_001})).0, ErrorCode::TooLarge);
}

#[test]
fn a_rejection_carries_the_id_wherever_it_stands() {
    for request in [
        r#"{"command":"insert","s":"bad","request_id":"me"}"#,
        r#"{"request_id":"me","command":"insert","s":"bad"}"#,
        r#"{"request_id":"me","command":"nonsense"}"#,
        r#"{"request_id":"me","command":"ping",}"#,
    ] {
        let rejection = decode(request.as_bytes()).unwrap_err();
        assert_eq!(rejection.request_id, Some(RequestId::Str("me".into())), "{request}");
    }
    let doubled = decode(br#"{"command":"ping","command":"ping"}"#).unwrap_err();
    assert!(doubled.message.starts_with("command: ") && doubled.message.contains("twice"), "{doubled}");
    let huge = decode(br#"{"command":"lookup","key":[18446744073709551616,1]}"#).unwrap_err();
    assert!(huge.message.contains("18446744073709551616"), "{huge}");
}

#[test]
fn deep_nesting_is_refused_without_recursion() {
    for depth in [17, 10_000, 1_000_000] {
        let text = format!("{{\"command\":\"ping\",\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        let mut bytes = vec![0x82];
        bytes.extend_from_slice(b"\xa7command\xa4ping\xa1x");
        bytes.extend(std::iter::repeat_n(0x91, depth));
        bytes.push(0xc0);
        for message in [text.as_bytes(), &bytes] {
            let rejection = decode(message).unwrap_err();
            assert_eq!(rejection.code, ErrorCode::TooLarge);
            assert!(rejection.message.starts_with("x: at byte "), "{rejection}");
            assert!(rejection.message.contains("the limit is 16"), "{rejection}");
            // Cut off, it is no message at all, however deep.
            assert_eq!(decode(&message[..message.len() - 1]).unwrap_err().code, ErrorCode::Malformed);
        }
    }
    let rows = format!(
        r#"{{"command":"batch_insert","request_id":7,"s":1,"s":1,"triples":[{}1{}]}}"#,
        "[".repeat(16),
        "]".repeat(16)
    );
    let rejection = decode(rows.as_bytes()).unwrap_err();
    assert_eq!((rejection.code, rejection.request_id), (ErrorCode::TooLarge, Some(RequestId::Int(7))));
    assert!(rejection.message.starts_with("triples"), "{}", rejection.message);
}

#[test]
fn every_truncation_of_a_message_is_refused() {
    let value = json!({"command": "batch_insert", "request_id": 7, "triples": [{"s": "E(1,2,3,4)", "p": [1, 2], "o": [1, 2], "provenance": {"a": 1.5}}]});
    for message in [msgpack(&value), value.to_string().into_bytes()] {
        for end in 0..message.len() {
            assert_eq!(decode(&message[..end]).unwrap_err().code, ErrorCode::Malformed, "{end} bytes");
        }
        let mut longer = message.clone();
        longer.push(b'1');
        assert_eq!(decode(&longer).unwrap_err().code, ErrorCode::Malformed);
    }
}

#[test]
fn lengths_that_lie_cost_nothing() {
    // A map, array, text, binary and extension that announce 4 GiB.
    for marker in [0xdf, 0xdd, 0xdb, 0xc6, 0xc9] {
        let mut message = b"\x82\xa7command\xacbatch_insert\xa7triples".to_vec();
        message.extend_from_slice(&[marker, 0xff, 0xff, 0xff, 0xff, 0x01]);
        assert_eq!(decode(&message).unwrap_err().code, ErrorCode::Malformed, "{marker:#x}");
    }
}

#[test]
fn limits_have_their_own_code() {
    let limits =
        Limits { message_bytes_max: 200, batch_triples_max: 2, metadata_bytes_max: 30, ..Limits::default() };
    let code = |value: Value| decode_request(&msgpack(&value), &limits, 0.0).map_err(|e| e.code).map(|_| ());
    let row = json!([[0, 1], [0, 1], [0, 1]]);
    assert_eq!(code(json!({"command": "batch_insert", "triples": [row, row]})), Ok(()));
    assert_eq!(
        code(json!({"command": "batch_insert", "triples": [row, row, row]})),
        Err(ErrorCode::TooLarge)
    );
    assert_eq!(code(json!({"command": "ping", "x": "y".repeat(200)})), Err(ErrorCode::TooLarge));
    let insert = json!({"command": "insert", "s": [0, 1], "p": [0, 1], "o": [0, 1], "provenance": {"a": "b".repeat(20)}});
    assert_eq!(code(insert), Err(ErrorCode::TooLarge));
}

proptest! {
    #![proptest_config(config(2000))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "[\\[\\]{}:,\"a-z0-9eE.+\\\\ -]{0,100}") {
        let _ = decode(&bytes);
        let _ = decode(format!("{{{text}").as_bytes());
    }

    #[test]
    fn damaged_messages_never_panic(at: prop::sample::Index, byte: u8, json: bool) {
        let value = json!({"command": "batch_insert", "request_id": "r", "triples": [{"s": "E(1,2,3,4)", "p": [1, 2], "o": {"high": 1, "low": 2}, "provenance": {"a": [1.5, null]}, "created_at": 3}]});
        let mut message = if json { value.to_string().into_bytes() } else { msgpack(&value) };
        let at = at.index(message.len());
        message[at] = byte;
        let _ = decode(&message);
    }
}
