//! Requests to `MessagePack`, replies and notifications from it. The one module that knows the names
//! of the protocol's fields.

use crate::client::{CompactAction, MirrorAction, Page, Stored};
use crate::{Change, Changes, Notification, Record, Refusal};
use cidstore_types::{Cid, Metadata, Op, Pattern, Seq, Triple, TripleHash};
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};
use std::fmt;

/// A request.
pub(crate) enum Ask<'a> {
    Ping,
    Insert {
        triple: &'a Triple,
        metadata: &'a Metadata,
        created_at: Option<f64>,
    },
    Batch {
        op: Op,
        triples: &'a [Triple],
    },
    /// An insert of triples with all that is known of them.
    Records(&'a [Record]),
    Delete(&'a Pattern),
    Query {
        pattern: &'a Pattern,
        limit: u64,
        cursor: Option<&'a [u8]>,
    },
    Count(&'a Pattern),
    Get(&'a TripleHash),
    Changes {
        since: Seq,
        limit: u64,
    },
    Stats,
    Metrics,
    Checkpoint,
    Compact(CompactAction),
    Mirror(MirrorAction),
}

/// A reply that is no refusal.
#[derive(Debug)]
pub(crate) enum Answer {
    Time(f64),
    Stored(Stored),
    Page(Page),
    Count { count: u64, as_of: Seq },
    Map(Value),
    Changes(Changes),
    Sealed(Seq),
}

/// Bytes that stay bytes: serde would make an array of numbers of them.
struct Bin<'a>(&'a [u8]);

impl Serialize for Bin<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(self.0)
    }
}

/// Triples as one bin of 96 bytes each.
struct Packed<'a>(&'a [Triple]);

impl Serialize for Packed<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = self.0.iter().flat_map(|triple| triple.0).collect();
        to.serialize_bytes(&bytes)
    }
}

/// Triples with their metadata, as an array of maps.
struct Records<'a>(&'a [Record]);

#[derive(Serialize)]
struct Entry<'a> {
    s: Bin<'a>,
    p: Bin<'a>,
    o: Bin<'a>,
    created_at: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    provenance: Option<&'a Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schema_version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    confidence: Option<f64>,
}

impl Serialize for Records<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.iter().map(|record| Entry {
            s: Bin(&record.triple.0[..32]),
            p: Bin(&record.triple.0[32..64]),
            o: Bin(&record.triple.0[64..]),
            created_at: record.created_at,
            provenance: record.metadata.provenance.as_ref(),
            schema_version: record.metadata.schema_version.as_deref(),
            confidence: record.metadata.confidence,
        }))
    }
}

// `request_id` is the protocol's name for it.
#[allow(clippy::struct_field_names)]
#[derive(Serialize, Default)]
struct Request<'a> {
    command: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    s: Option<Bin<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p: Option<Bin<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    o: Option<Bin<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    packed: Option<Packed<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    triples: Option<Records<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    triple_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Seq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<Bin<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provenance: Option<&'a Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schema_version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    confidence: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_per_second: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sample: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repair: Option<bool>,
}

impl<'a> Request<'a> {
    fn bound(mut self, pattern: &'a Pattern) -> Self {
        let bin = |cid: &'a Option<Cid>| cid.as_ref().map(|cid| Bin(&cid.0));
        (self.s, self.p, self.o) = (bin(&pattern.s), bin(&pattern.p), bin(&pattern.o));
        self
    }
}

/// Writes the request into `out`, replacing what was there.
pub(crate) fn encode(ask: &Ask<'_>, request_id: Option<u64>, out: &mut Vec<u8>) {
    let new = |command| Request { command, request_id, ..Request::default() };
    let request = match ask {
        Ask::Ping => new("ping"),
        Ask::Insert { triple, metadata, created_at } => Request {
            s: Some(Bin(&triple.0[..32])),
            p: Some(Bin(&triple.0[32..64])),
            o: Some(Bin(&triple.0[64..])),
            provenance: metadata.provenance.as_ref(),
            schema_version: metadata.schema_version.as_deref(),
            confidence: metadata.confidence,
            created_at: *created_at,
            ..new("insert")
        },
        Ask::Batch { op: Op::Insert, triples } => {
            Request { packed: Some(Packed(triples)), ..new("batch_insert") }
        }
        Ask::Batch { op: Op::Delete, triples } => {
            Request { packed: Some(Packed(triples)), ..new("batch_delete") }
        }
        // One alone may have metadata as deep as the daemon allows; in an array it is two levels deeper.
        Ask::Records([one]) => {
            let Record { triple, created_at, metadata } = one;
            return encode(&Ask::Insert { triple, metadata, created_at: Some(*created_at) }, request_id, out);
        }
        Ask::Records(records) => Request { triples: Some(Records(records)), ..new("batch_insert") },
        Ask::Delete(pattern) => new("delete").bound(pattern),
        Ask::Query { pattern, limit, cursor } => {
            let request = new("query").bound(pattern);
            Request { limit: Some(*limit), cursor: cursor.map(Bin), format: Some("packed"), ..request }
        }
        Ask::Count(pattern) => new("count").bound(pattern),
        Ask::Get(hash) => Request { triple_hash: Some(hash.to_hex()), ..new("get") },
        Ask::Changes { since, limit } => {
            Request { since: Some(*since), limit: Some(*limit), ..new("changes") }
        }
        Ask::Stats => new("stats"),
        Ask::Metrics => new("metrics"),
        Ask::Checkpoint => new("checkpoint"),
        Ask::Compact(action) => Request {
            action: Some(match action {
                CompactAction::Status => "status",
                CompactAction::Start => "start",
                CompactAction::Cancel => "cancel",
                CompactAction::Pause => "pause",
                CompactAction::Resume => "resume",
                CompactAction::Rate(_) => "rate",
            }),
            bytes_per_second: if let CompactAction::Rate(bytes) = action { Some(*bytes) } else { None },
            ..new("compact")
        },
        Ask::Mirror(action) => {
            let new = |action| Request { action: Some(action), ..new("mirror") };
            match action {
                MirrorAction::Status => new("status"),
                MirrorAction::Rebuild => new("rebuild"),
                MirrorAction::Verify { sample, repair } => {
                    Request { sample: *sample, repair: Some(*repair), ..new("verify") }
                }
                MirrorAction::Cancel => new("cancel"),
            }
        }
    };
    out.clear();
    rmp_serde::encode::write_named(out, &request).expect("a request serializes into memory");
}

/// Bytes as they come.
#[derive(Debug, Default)]
struct Bytes(Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Bytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }
        }
        from.deserialize_bytes(Read)
    }
}

/// A CID in any form that the daemon uses.
struct AnyCid(Cid);

impl<'de> Deserialize<'de> for AnyCid {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = AnyCid;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a CID: text, 32 bytes or four lanes")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<AnyCid, E> {
                Cid::parse(text).map(AnyCid).map_err(E::custom)
            }
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<AnyCid, E> {
                Cid::from_slice(bytes).map(AnyCid).map_err(E::custom)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut lanes: A) -> Result<AnyCid, A::Error> {
                let mut found = Vec::new();
                while let Some(lane) = lanes.next_element::<u64>()? {
                    found.push(lane);
                }
                Cid::from_lane_slice(&found).map(AnyCid).map_err(A::Error::custom)
            }
        }
        from.deserialize_any(Read)
    }
}

#[derive(Deserialize)]
struct ChangeEntry {
    seq: Seq,
    op: OpName,
    s: AnyCid,
    p: AnyCid,
    o: AnyCid,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum OpName {
    Insert,
    Delete,
}

impl From<OpName> for Op {
    fn from(name: OpName) -> Self {
        match name {
            OpName::Insert => Self::Insert,
            OpName::Delete => Self::Delete,
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Reply {
    request_id: Option<Value>,
    error_code: Option<u16>,
    error_msg: Option<String>,
    time: Option<f64>,
    inserted: Option<u64>,
    deleted: Option<u64>,
    seq: Option<Seq>,
    results: Option<Bytes>,
    cursor: Option<Bytes>,
    as_of: Option<Seq>,
    count: Option<u64>,
    triple: Option<Value>,
    changes: Option<Vec<ChangeEntry>>,
    next: Option<Seq>,
}

/// The head of a reply alone: the rest of `stats` may hold any field.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Head {
    request_id: Option<Value>,
    error_code: Option<u16>,
    error_msg: Option<String>,
}

/// What a reply says: the number of the request it answers, and the answer to `ask` or the refusal.
/// An error is a text that says what is wrong with the reply.
type Decoded = (Option<u64>, Result<Answer, Refusal>);

/// Reads a reply to `ask`.
pub(crate) fn decode(reply: &[u8], ask: &Ask<'_>) -> Result<Decoded, String> {
    let head: Head = read(reply)?;
    let tag = head.request_id.as_ref().and_then(Value::as_u64);
    if let Some(code) = head.error_code {
        return Ok((tag, Err(Refusal { code, message: head.error_msg.unwrap_or_default() })));
    }
    if let Ask::Stats | Ask::Metrics | Ask::Compact(_) | Ask::Mirror(_) = ask {
        let mut map: Value = read(reply)?;
        if let Some(map) = map.as_object_mut() {
            map.remove("request_id");
        }
        return Ok((tag, Ok(Answer::Map(map))));
    }
    let reply: Reply = read(reply)?;
    Ok((tag, Ok(answer(reply, ask)?)))
}

fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    rmp_serde::from_slice(bytes).map_err(|error| {
        let shown: String = String::from_utf8_lossy(bytes).chars().take(80).collect();
        format!("{shown:?}…: {error}")
    })
}

fn need<T>(field: Option<T>, name: &str) -> Result<T, String> {
    field.ok_or_else(|| format!("a reply without {name}"))
}

fn answer(reply: Reply, ask: &Ask<'_>) -> Result<Answer, String> {
    Ok(match ask {
        Ask::Ping => Answer::Time(need(reply.time, "time")?),
        Ask::Insert { .. } | Ask::Batch { .. } | Ask::Records(_) | Ask::Delete(_) => Answer::Stored(Stored {
            count: need(reply.inserted.or(reply.deleted), "inserted or deleted")?,
            seq: need(reply.seq, "seq")?,
        }),
        Ask::Query { .. } => Answer::Page(Page {
            rows: rows(&need(reply.results, "results")?.0)?,
            cursor: reply.cursor.map(|cursor| cursor.0),
            as_of: need(reply.as_of, "as_of")?,
        }),
        Ask::Count(_) => {
            Answer::Count { count: need(reply.count, "count")?, as_of: need(reply.as_of, "as_of")? }
        }
        Ask::Get(_) => Answer::Map(need(reply.triple, "triple")?),
        Ask::Changes { .. } => {
            let entries = need(reply.changes, "changes")?.into_iter();
            let changes = entries.map(|entry| Change {
                seq: entry.seq,
                op: entry.op.into(),
                triple: Triple::new(entry.s.0, entry.p.0, entry.o.0),
            });
            Answer::Changes(Changes { changes: changes.collect(), next: need(reply.next, "next")? })
        }
        Ask::Checkpoint => Answer::Sealed(need(reply.seq, "seq")?),
        Ask::Stats | Ask::Metrics | Ask::Compact(_) | Ask::Mirror(_) => Answer::Map(Value::Null),
    })
}

fn rows(packed: &[u8]) -> Result<Vec<Triple>, String> {
    let (rows, rest) = packed.as_chunks::<{ Triple::BYTES }>();
    if rest.is_empty() {
        Ok(rows.iter().copied().map(Triple).collect())
    } else {
        Err(format!("results of {} bytes, not a multiple of {}", packed.len(), Triple::BYTES))
    }
}

#[derive(Deserialize)]
struct Announcement {
    r#type: String,
    seq: Option<Seq>,
    first_seq: Option<Seq>,
    time: Option<f64>,
    request_id: Option<Value>,
    error_code: Option<u16>,
    error_msg: Option<String>,
    state: Option<String>,
    lag: Option<u64>,
}

#[derive(Deserialize)]
struct One {
    args: [AnyCid; 3],
}

#[derive(Deserialize)]
struct Many {
    args: Vec<[AnyCid; 3]>,
}

/// Reads a notification in either encoding; `None` for a type that this client does not know.
pub(crate) fn decode_notification(bytes: &[u8]) -> Result<Option<Notification>, String> {
    let head: Announcement = read_either(bytes)?;
    let op = if head.r#type.ends_with("delete") { Op::Delete } else { Op::Insert };
    let triple = |args: [AnyCid; 3]| {
        let [s, p, o] = args.map(|cid| cid.0);
        Triple::new(s, p, o)
    };
    Ok(Some(match &*head.r#type {
        "heartbeat" => {
            Notification::Heartbeat { seq: need(head.seq, "seq")?, time: head.time.unwrap_or_default() }
        }
        "insert" | "delete" => {
            let seq = need(head.seq, "seq")?;
            let One { args } = read_either(bytes)?;
            Notification::Changes(vec![Change { seq, op, triple: triple(args) }])
        }
        "batch_insert" | "batch_delete" => {
            let (first, last) = (need(head.first_seq, "first_seq")?, need(head.seq, "seq")?);
            let Many { args } = read_either(bytes)?;
            if last.checked_sub(first).and_then(|n| n.checked_add(1)) != Some(args.len() as u64) {
                return Err(format!("{} triples for seq {first} to {last}", args.len()));
            }
            let changes = args.into_iter().zip(first..);
            Notification::Changes(
                changes.map(|(args, seq)| Change { seq, op, triple: triple(args) }).collect(),
            )
        }
        "rejected" => Notification::Rejected {
            request_id: head.request_id.map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned)),
            code: need(head.error_code, "error_code")?,
            message: head.error_msg.unwrap_or_default(),
        },
        "mirror" => Notification::Mirror { state: need(head.state, "state")?, lag: head.lag },
        _ => return Ok(None),
    }))
}

fn read_either<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    if bytes.first() == Some(&b'{') {
        return serde_json::from_slice(bytes).map_err(|error| error.to_string());
    }
    read(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn msgpack(value: &Value) -> Vec<u8> {
        rmp_serde::to_vec_named(value).unwrap()
    }

    fn triple(n: u64) -> Triple {
        let cid = |low| Cid::from_two_lanes([0, low]);
        Triple::new(cid(n), cid(n + 1), cid(n + 2))
    }

    #[test]
    fn requests_have_the_protocols_names_and_binary_cids() {
        let mut out = Vec::new();
        let pattern = Pattern { p: Some(triple(1).p()), ..Pattern::ALL };
        encode(&Ask::Query { pattern: &pattern, limit: 5, cursor: Some(b"c") }, Some(7), &mut out);
        // {command: "query", request_id: 7, p: bin(32), limit: 5, cursor: bin("c"), format: "packed"}
        let mut expected = b"\x86\xa7command\xa5query\xaarequest_id\x07\xa1p\xc4\x20".to_vec();
        expected.extend_from_slice(&triple(1).p().0);
        expected.extend_from_slice(b"\xa5limit\x05\xa6cursor\xc4\x01c\xa6format\xa6packed");
        assert_eq!(out, expected);
        encode(&Ask::Batch { op: Op::Delete, triples: &[triple(1), triple(4)] }, None, &mut out);
        let mut expected = b"\x82\xa7command\xacbatch_delete\xa6packed\xc4\xc0".to_vec();
        expected.extend_from_slice(&triple(1).0);
        expected.extend_from_slice(&triple(4).0);
        assert_eq!(out, expected);
    }

    #[test]
    fn refusals_come_before_everything_else() {
        let reply = msgpack(&json!({"error_code": 413, "error_msg": "too much", "version": "1.0"}));
        let (tag, answer) = decode(&reply, &Ask::Ping).unwrap();
        assert_eq!((tag, answer.unwrap_err()), (None, Refusal { code: 413, message: "too much".into() }));
    }

    #[test]
    fn replies_that_lack_something_or_lie_are_errors() {
        let ask = Ask::Batch { op: Op::Insert, triples: &[] };
        let reply = |value: Value| decode(&msgpack(&value), &ask);
        let (tag, stored) = reply(json!({"request_id": 3, "inserted": 2, "seq": 9, "new": [1]})).unwrap();
        assert_eq!(tag, Some(3));
        assert!(matches!(stored, Ok(Answer::Stored(Stored { count: 2, seq: 9 }))));
        assert!(reply(json!({"inserted": 2})).unwrap_err().contains("seq"));
        assert!(reply(json!({"inserted": "2", "seq": 9})).is_err());
        assert!(decode(b"\xc1 garbage", &ask).is_err());
        assert!(decode(b"", &ask).is_err());
        assert!(rows(&[0; 95]).is_err());
    }

    #[test]
    fn notifications_in_both_encodings() {
        let text = |n: u64| {
            let triple = triple(n);
            json!([triple.s().to_string(), triple.p().to_string(), triple.o().to_string()])
        };
        let change = |seq, op, n| Change { seq, op, triple: triple(n) };
        let cases = [
            (
                json!({"type": "insert", "args": text(5), "seq": 8, "triple_hash": "x"}),
                Some(Notification::Changes(vec![change(8, Op::Insert, 5)])),
            ),
            (
                json!({"type": "batch_delete", "args": [text(1), text(2)], "first_seq": 3, "seq": 4}),
                Some(Notification::Changes(vec![change(3, Op::Delete, 1), change(4, Op::Delete, 2)])),
            ),
            (
                json!({"type": "heartbeat", "seq": 1, "time": 2.5}),
                Some(Notification::Heartbeat { seq: 1, time: 2.5 }),
            ),
            (
                json!({"type": "rejected", "request_id": 5, "error_code": 400, "error_msg": "no"}),
                Some(Notification::Rejected {
                    request_id: Some("5".into()),
                    code: 400,
                    message: "no".into(),
                }),
            ),
            (
                json!({"type": "mirror", "state": "live", "lag": 0}),
                Some(Notification::Mirror { state: "live".into(), lag: Some(0) }),
            ),
            (json!({"type": "of a later version"}), None),
        ];
        for (value, expected) in cases {
            assert_eq!(decode_notification(&msgpack(&value)).as_ref(), Ok(&expected), "{value}");
            assert_eq!(decode_notification(value.to_string().as_bytes()).as_ref(), Ok(&expected), "{value}");
        }
        let lie = json!({"type": "batch_insert", "args": [text(1)], "first_seq": 3, "seq": 4});
        assert!(decode_notification(&msgpack(&lie)).is_err());
    }
}
