//! What a message says, as JSON that does not depend on how it says it: rows as hex digits of their
//! 96 bytes, other bytes as hex digits. `proto/verify.py` makes the same of the same bytes.

use cidstore_proto::{
    Announced, Answer, Answered, Command, CompactAction, ErrorCode, Facts, MirrorAction, MutateKind,
    Rejection, ReplyKind, Request, RequestId,
};
use cidstore_types::{Batch, Cid, Metadata, Mutation, Op, Pattern, Triple, TripleHash};
use serde_json::{Map, Value, json};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hex_or_null(bytes: Option<&[u8]>) -> Value {
    bytes.map_or(Value::Null, |bytes| hex(bytes).into())
}

fn rows(triples: &[Triple]) -> Value {
    triples.iter().map(|triple| hex(&triple.0)).collect()
}

fn part(cid: Option<Cid>) -> Value {
    hex_or_null(cid.as_ref().map(|cid| &cid.0[..]))
}

fn request_id(id: Option<&RequestId>) -> Value {
    match id {
        None => Value::Null,
        Some(RequestId::Str(text)) => json!(text),
        Some(RequestId::Int(number)) => {
            u64::try_from(*number).map_or_else(|_| json!(*number as i64), |number| json!(number))
        }
        Some(RequestId::Bin(bytes)) => json!({ "bin": hex(bytes) }),
    }
}

fn op(op: Op) -> &'static str {
    match op {
        Op::Insert => "insert",
        Op::Delete => "delete",
    }
}

fn facts(facts: &Facts) -> Value {
    let mut map = json!({ "created_at": facts.created_at });
    merge(&mut map, serde_json::to_value(&facts.metadata).expect("metadata is JSON"));
    map
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

fn pattern(pattern: &Pattern) -> Value {
    json!({"s": part(pattern.s), "p": part(pattern.p), "o": part(pattern.o)})
}

fn batch(batch: &Batch) -> Value {
    let created_at = batch.created_at.iter().map(|(row, at)| (row.to_string(), json!(at)));
    let metadata = batch.metadata.iter().map(|(row, text)| {
        let metadata = serde_json::to_value(Metadata::from_stored(text)).expect("metadata is JSON");
        (row.to_string(), metadata)
    });
    json!({
        "rows": rows(&batch.rows),
        "created_at": created_at.collect::<Map<_, _>>(),
        "metadata": metadata.collect::<Map<_, _>>(),
    })
}

/// Of a request.
pub fn request(request: &Request) -> Value {
    let (name, mut fields) = match &request.command {
        Command::Ping => ("ping", json!({})),
        Command::Mutate { mutation: Mutation::DeleteMatching { pattern: p, .. }, .. } => {
            ("delete", pattern(p))
        }
        Command::Mutate { mutation: Mutation::Batch(b), kind } => (
            match kind {
                MutateKind::Insert => "insert",
                MutateKind::BatchInsert => "batch_insert",
                MutateKind::Delete => "delete",
                MutateKind::BatchDelete => "batch_delete",
            },
            batch(b),
        ),
        Command::Query { pattern: p, limit, cursor, format, metadata } => {
            let mut fields = pattern(p);
            let cursor = hex_or_null(cursor.as_deref());
            let more =
                json!({"limit": limit, "cursor": cursor, "format": format.name(), "metadata": metadata});
            merge(&mut fields, more);
            ("query", fields)
        }
        Command::Count { pattern: p } => ("count", pattern(p)),
        Command::Lookup { key, limit, cursor } => {
            let cursor = hex_or_null(cursor.as_deref());
            ("lookup", json!({"key": part(Some(*key)), "limit": limit, "cursor": cursor}))
        }
        Command::Get { hash } => ("get", json!({ "triple_hash": hash.to_hex() })),
        Command::GetMany { hashes } => {
            ("get", json!({ "triple_hashes": hashes.iter().map(TripleHash::to_hex).collect::<Vec<_>>() }))
        }
        Command::Changes { since, limit, format } => {
            ("changes", json!({"since": since, "limit": limit, "format": format.name()}))
        }
        Command::Stats => ("stats", json!({})),
        Command::Metrics => ("metrics", json!({})),
        Command::Checkpoint => ("checkpoint", json!({})),
        Command::Compact { action: CompactAction::Rate(bytes) } => {
            ("compact", json!({"action": "rate", "bytes_per_second": bytes}))
        }
        Command::Compact { action } => ("compact", json!({ "action": action.name() })),
        Command::Mirror { action: MirrorAction::Verify { sample, repair } } => {
            ("mirror", json!({"action": "verify", "sample": sample, "repair": repair}))
        }
        Command::Mirror { action } => ("mirror", json!({ "action": action.name() })),
    };
    merge(&mut fields, json!({"command": name, "request_id": request_id(request.request_id.as_ref())}));
    if let Command::Mutate { mutation, .. } = &request.command
        && let Some(key) = mutation.key()
    {
        merge(&mut fields, json!({"idempotency_key": hex_or_null(Some(key.name()))}));
    }
    fields
}

/// Of a refused request: the code, and, unless its bytes make no sense, the path of the field that
/// it is about and the request's name.
pub fn rejection(rejection: &Rejection) -> Value {
    let code = rejection.code.number();
    // A message begins with the path of the field, if it is about one.
    let mut path = match rejection.message.split_once(": ") {
        Some((path, _)) if !path.contains(' ') => path,
        _ => "",
    };
    if rejection.message.contains("at byte ") {
        if rejection.code == ErrorCode::Malformed {
            return json!({"error_code": code, "syntax": true});
        }
        // Too deep: which field of the request it is in counts, not how far the way in is told.
        path = path.split(['.', '[']).next().unwrap_or_default();
    }
    json!({"error_code": code, "path": path, "request_id": request_id(rejection.request_id.as_ref())})
}

/// The name in vectors of the replies that this kind of reply is.
pub fn kind_name(kind: ReplyKind) -> &'static str {
    KINDS.iter().find(|(_, known)| *known == kind).expect("all are listed").0
}

/// The kind of reply of a name.
pub fn kind_of(name: &str) -> ReplyKind {
    KINDS.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("{name}")).1
}

const KINDS: [(&str, ReplyKind); 11] = [
    ("pong", ReplyKind::Pong),
    ("inserted", ReplyKind::Inserted),
    ("deleted", ReplyKind::Deleted),
    ("page", ReplyKind::Page),
    ("count", ReplyKind::Count),
    ("values", ReplyKind::Values),
    ("triple", ReplyKind::Triple),
    ("triples", ReplyKind::Triples),
    ("changes", ReplyKind::Changes),
    ("map", ReplyKind::Map),
    ("sealed", ReplyKind::Sealed),
];

/// Of a reply.
pub fn reply(reply: &Answered) -> Value {
    let mut fields = match &reply.result {
        Err(refusal) => json!({"error_code": refusal.code, "error_msg": refusal.message}),
        Ok(answer) => self::answer(answer),
    };
    merge(&mut fields, json!({ "request_id": request_id(reply.request_id.as_ref()) }));
    fields
}

fn answer(answer: &Answer) -> Value {
    match answer {
        Answer::Pong { time } => json!({ "time": time }),
        Answer::Inserted { inserted, seq, triple_hash } => {
            json!({"inserted": inserted, "seq": seq, "triple_hash": triple_hash.map(|hash| hash.to_hex())})
        }
        Answer::Deleted { deleted, seq } => json!({"deleted": deleted, "seq": seq}),
        Answer::Page { rows: triples, facts: all, cursor, as_of } => json!({
            "rows": rows(triples),
            "facts": all.as_ref().map(|all| all.iter().map(facts).collect::<Vec<_>>()),
            "cursor": hex_or_null(cursor.as_deref()),
            "as_of": as_of,
        }),
        Answer::Count { count, as_of } => json!({"count": count, "as_of": as_of}),
        Answer::Values { values, cursor, as_of } => json!({
            "values": values.iter().map(Cid::to_hex).collect::<Vec<_>>(),
            "cursor": hex_or_null(cursor.as_deref()),
            "as_of": as_of,
        }),
        Answer::Triple { triple } => json!({ "triple": triple }),
        Answer::Triples { triples, as_of } => json!({"triples": triples, "as_of": as_of}),
        Answer::Changes { changes, next } => {
            let changes = changes.iter().map(|change| {
                let mut fields = facts(&change.facts);
                let row = hex(&change.triple.0);
                merge(&mut fields, json!({"seq": change.seq, "op": op(change.op), "row": row}));
                fields
            });
            json!({"changes": changes.collect::<Vec<_>>(), "next": next})
        }
        Answer::Map(map) => json!({ "map": map }),
        Answer::Sealed { seq } => json!({ "seq": seq }),
    }
}

/// Of a notification.
pub fn notification(notification: &Announced) -> Value {
    match notification {
        Announced::Heartbeat { seq, time } => json!({"type": "heartbeat", "seq": seq, "time": time}),
        Announced::One { op: o, triple, seq } => {
            json!({"type": op(*o), "rows": rows(&[*triple]), "seq": seq})
        }
        Announced::Many { op: o, triples, first_seq } => json!({
            "type": format!("batch_{}", op(*o)),
            "rows": rows(triples),
            "first_seq": first_seq,
            "seq": first_seq + triples.len() as u64 - 1,
        }),
        Announced::Rejected { request_id: id, refusal } => json!({
            "type": "rejected",
            "request_id": request_id(id.as_ref()),
            "error_code": refusal.code,
            "error_msg": refusal.message,
        }),
        Announced::Mirror { state, lag } => json!({"type": "mirror", "state": state, "lag": lag}),
        Announced::Other { kind } => json!({ "type": kind }),
    }
}
