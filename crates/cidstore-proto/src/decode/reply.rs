//! Reading replies and notifications, for clients. As strict as reading requests: bytes that are
//! damaged on the way lead to an error.

use super::fault::{Fallible, Fault, Within};
use super::json::Json;
use super::msgpack::MsgPack;
use super::source::{Open, Source, Token};
use super::values::{Extra, METADATA_FIELDS, bytes_of_hex, cid, float, json};
use crate::{
    Announced, Answer, Answered, Changed, DEPTH_CEILING, DecodeError, Encoding, Facts, Refusal, ReplyKind,
    RequestId,
};
use cidstore_types::{Cid, Op, Seq, Triple, TripleHash};
use serde_json::{Map, Value};

/// Deeper than the deepest request, since replies wrap metadata.
const DEPTH_MAX: usize = DEPTH_CEILING + 8;

/// Reads a reply to a request that is answered by this kind of reply ([`crate::Command::reply_kind`]).
///
/// # Errors
/// [`DecodeError`] when the bytes are neither such a reply nor a refusal.
pub fn decode_reply(bytes: &[u8], kind: ReplyKind) -> Result<Answered, DecodeError> {
    let encoding = Encoding::of(bytes);
    let read = match encoding {
        Encoding::Json => Body::read(Json::new(bytes, DEPTH_MAX), Some(kind)),
        Encoding::MsgPack => Body::read(MsgPack::new(bytes, DEPTH_MAX), Some(kind)),
    };
    let mut body = read.map_err(wrong)?;
    let request_id = body.request_id.take();
    let result = match body.error_code.take() {
        Some(code) => Err(body.refusal(code).map_err(wrong)?),
        None => Ok(body.answer(kind).map_err(wrong)?),
    };
    Ok(Answered { encoding, request_id, result })
}

/// Reads a notification.
///
/// # Errors
/// [`DecodeError`] when the bytes are none.
pub fn decode_notification(bytes: &[u8]) -> Result<Announced, DecodeError> {
    let read = match Encoding::of(bytes) {
        Encoding::Json => Body::read(Json::new(bytes, DEPTH_MAX), None),
        Encoding::MsgPack => Body::read(MsgPack::new(bytes, DEPTH_MAX), None),
    };
    read.and_then(Body::announced).map_err(wrong)
}

fn wrong(fault: Fault) -> DecodeError {
    DecodeError(fault.into_parts().1)
}

/// The fields of a reply or notification.
#[derive(Default)]
struct Body {
    kind: Option<String>,
    request_id: Option<RequestId>,
    error_code: Option<u64>,
    error_msg: Option<String>,
    state: Option<String>,
    triple_hash: Option<String>,
    time: Option<f64>,
    /// In the order of [`NUMBERS`].
    numbers: [Option<u64>; NUMBERS.len()],
    cursor: Option<Vec<u8>>,
    rows: Option<Vec<Triple>>,
    values: Option<Vec<Cid>>,
    facts: Option<Vec<Facts>>,
    triple: Option<Value>,
    triples: Option<Vec<Option<Value>>>,
    changes: Option<Vec<Changed>>,
    map: Map<String, Value>,
}

const NUMBERS: [&str; 8] = ["seq", "first_seq", "as_of", "count", "inserted", "deleted", "next", "lag"];

impl Body {
    fn read<'a, S: Source<'a>>(mut src: S, kind: Option<ReplyKind>) -> Fallible<Self> {
        let mut body = Self::default();
        let mut open = match src.token()? {
            Token::Map(open) => open,
            other => return Err(other.unexpected("a map")),
        };
        while src.more(&mut open)? {
            let key = src.key()?;
            let name = key.name().unwrap_or_default();
            body.field(&mut src, name, kind).field(name)?;
        }
        src.end()?;
        Ok(body)
    }

    fn field<'a, S: Source<'a>>(&mut self, src: &mut S, name: &str, kind: Option<ReplyKind>) -> Fallible<()> {
        match name {
            "version" => src.skip()?,
            "request_id" => self.request_id = request_id(src)?,
            "error_code" => self.error_code = uint(src)?,
            "error_msg" => self.error_msg = text(src)?,
            _ if kind == Some(ReplyKind::Map) => {
                let value = json(src)?;
                if name != "status" {
                    self.map.insert(name.to_owned(), value);
                }
            }
            "type" => self.kind = text(src)?,
            "state" => self.state = text(src)?,
            "triple_hash" => self.triple_hash = text(src)?,
            "time" => self.time = float(src, "a number of seconds since 1970")?,
            "cursor" => self.cursor = bytes(src)?,
            "results" if kind == Some(ReplyKind::Values) => self.values = Some(list(src, cid)?),
            "results" if kind == Some(ReplyKind::Triples) => self.triples = Some(list(src, nullable_json)?),
            "results" => self.results(src)?,
            "metadata" => self.facts = Some(list(src, facts)?),
            "triple" => self.triple = Some(json(src)?),
            "changes" => self.changes = Some(list(src, changed)?),
            "args" => {
                // Of a batch an array of triples; else one triple. `type` stands before it.
                let batch = self.kind.as_deref().is_some_and(|kind| kind.starts_with("batch_"));
                self.rows = Some(if batch { list(src, triple)? } else { vec![triple(src)?] });
            }
            _ => match NUMBERS.iter().position(|known| *known == name) {
                Some(i) => self.numbers[i] = uint(src)?,
                None => src.skip()?,
            },
        }
        Ok(())
    }

    fn results<'a, S: Source<'a>>(&mut self, src: &mut S) -> Fallible<()> {
        let mut open = match src.token()? {
            Token::Array(open) => open,
            Token::Bin(bytes) => {
                let (rows, []) = bytes.as_chunks::<{ Triple::BYTES }>() else {
                    let expected = format!("a multiple of {}", Triple::BYTES);
                    return Err(Token::Bin(bytes).unexpected(&expected));
                };
                self.rows = Some(rows.iter().copied().map(Triple).collect());
                return Ok(());
            }
            other => return Err(other.unexpected("rows")),
        };
        let (mut rows, mut all_facts) = (Vec::new(), Vec::new());
        while src.more(&mut open)? {
            let (triple, facts) = row(src).index(rows.len())?;
            rows.push(triple);
            all_facts.extend(facts);
        }
        if !all_facts.is_empty() {
            if all_facts.len() != rows.len() {
                return Err(Fault::invalid("some rows with created_at, and some without"));
            }
            self.facts = Some(all_facts);
        }
        self.rows = Some(rows);
        Ok(())
    }

    fn number(&self, name: &str) -> Fallible<u64> {
        let i = NUMBERS.iter().position(|known| *known == name);
        need(i.and_then(|i| self.numbers[i]), name)
    }

    fn refusal(&mut self, code: u64) -> Fallible<Refusal> {
        let code = u16::try_from(code)
            .map_err(|_| Fault::invalid(format!("{code} is no error code")).field("error_code"))?;
        Ok(Refusal { code, message: self.error_msg.take().unwrap_or_default() })
    }

    fn answer(mut self, kind: ReplyKind) -> Fallible<Answer> {
        Ok(match kind {
            ReplyKind::Pong => Answer::Pong { time: need(self.time, "time")? },
            ReplyKind::Inserted => {
                let hash = self.triple_hash.take();
                let triple_hash = hash
                    .map(|text| {
                        TripleHash::parse(&text).ok_or_else(|| Fault::invalid("no hash").field("triple_hash"))
                    })
                    .transpose()?;
                Answer::Inserted { inserted: self.number("inserted")?, seq: self.number("seq")?, triple_hash }
            }
            ReplyKind::Deleted => {
                Answer::Deleted { deleted: self.number("deleted")?, seq: self.number("seq")? }
            }
            ReplyKind::Page => {
                let as_of = self.number("as_of")?;
                let rows = need(self.rows, "results")?;
                if self.facts.as_ref().is_some_and(|facts| facts.len() != rows.len()) {
                    return Err(Fault::invalid("not one entry for each row").field("metadata"));
                }
                Answer::Page { rows, facts: self.facts, cursor: self.cursor, as_of }
            }
            ReplyKind::Count => Answer::Count { count: self.number("count")?, as_of: self.number("as_of")? },
            ReplyKind::Values => {
                let as_of = self.number("as_of")?;
                Answer::Values { values: need(self.values, "results")?, cursor: self.cursor, as_of }
            }
            ReplyKind::Triple => Answer::Triple { triple: need(self.triple, "triple")? },
            ReplyKind::Triples => {
                let as_of = self.number("as_of")?;
                Answer::Triples { triples: need(self.triples, "results")?, as_of }
            }
            ReplyKind::Changes => {
                let next = self.number("next")?;
                Answer::Changes { changes: need(self.changes, "changes")?, next }
            }
            ReplyKind::Map => Answer::Map(self.map),
            ReplyKind::Sealed => Answer::Sealed { seq: self.number("seq")? },
        })
    }

    fn announced(mut self) -> Fallible<Announced> {
        let kind = need(self.kind.take(), "type")?;
        let op = if kind.ends_with("delete") { Op::Delete } else { Op::Insert };
        Ok(match kind.as_str() {
            "heartbeat" => Announced::Heartbeat { seq: self.number("seq")?, time: need(self.time, "time")? },
            "insert" | "delete" => {
                let seq = self.number("seq")?;
                let [triple] = need(self.rows, "args")?[..] else {
                    return Err(Fault::invalid("not one triple").field("args"));
                };
                Announced::One { op, triple, seq }
            }
            "batch_insert" | "batch_delete" => {
                let (first_seq, seq): (Seq, Seq) = (self.number("first_seq")?, self.number("seq")?);
                let triples = need(self.rows, "args")?;
                if seq.checked_sub(first_seq).and_then(|n| n.checked_add(1)) != Some(triples.len() as u64) {
                    let message = format!("{} triples for seq {first_seq} to {seq}", triples.len());
                    return Err(Fault::invalid(message).field("args"));
                }
                Announced::Many { op, triples, first_seq }
            }
            "rejected" => {
                let code = need(self.error_code, "error_code")?;
                Announced::Rejected { refusal: self.refusal(code)?, request_id: self.request_id }
            }
            "mirror" => {
                let lag = self.number("lag").ok();
                Announced::Mirror { state: need(self.state, "state")?, lag }
            }
            _ => Announced::Other { kind },
        })
    }
}

fn need<T>(value: Option<T>, name: &str) -> Fallible<T> {
    value.ok_or_else(|| Fault::invalid("missing").field(name))
}

fn uint<'a, S: Source<'a>>(src: &mut S) -> Fallible<Option<u64>> {
    match src.token()? {
        Token::Null => Ok(None),
        Token::Uint(value) => Ok(Some(value)),
        other => Err(other.unexpected("an integer from 0 to 2^64-1")),
    }
}

fn text<'a, S: Source<'a>>(src: &mut S) -> Fallible<Option<String>> {
    match src.token()? {
        Token::Null => Ok(None),
        Token::Str(text) => Ok(Some(text.into_owned())),
        other => Err(other.unexpected("a text")),
    }
}

fn bytes<'a, S: Source<'a>>(src: &mut S) -> Fallible<Option<Vec<u8>>> {
    match src.token()? {
        Token::Null => Ok(None),
        Token::Bin(bytes) => Ok(Some(bytes.to_vec())),
        Token::Str(text) => {
            let bytes = bytes_of_hex(&text);
            Ok(Some(bytes.ok_or_else(|| Token::Str(text).unexpected("bytes, or hex digits of these"))?))
        }
        other => Err(other.unexpected("bytes, or hex digits of these")),
    }
}

fn request_id<'a, S: Source<'a>>(src: &mut S) -> Fallible<Option<RequestId>> {
    Ok(Some(match src.token()? {
        Token::Null => return Ok(None),
        Token::Str(text) => RequestId::Str(text.into_owned()),
        Token::Bin(bytes) => RequestId::Bin(bytes.to_vec()),
        Token::Uint(number) => RequestId::Int(number.into()),
        Token::Nint(number) => RequestId::Int(number.into()),
        other => return Err(other.unexpected("a text, an integer, or bytes")),
    }))
}

fn nullable_json<'a, S: Source<'a>>(src: &mut S) -> Fallible<Option<Value>> {
    Ok(Some(json(src)?).filter(|value| !value.is_null()))
}

/// The elements of an array.
fn list<'a, S: Source<'a>, T>(src: &mut S, element: impl Fn(&mut S) -> Fallible<T>) -> Fallible<Vec<T>> {
    let mut open = match src.token()? {
        Token::Array(open) => open,
        other => return Err(other.unexpected("an array")),
    };
    let mut all = Vec::new();
    while src.more(&mut open)? {
        all.push(element(src).index(all.len())?);
    }
    Ok(all)
}

fn triple<'a, S: Source<'a>>(src: &mut S) -> Fallible<Triple> {
    match list(src, cid)?[..] {
        [s, p, o] => Ok(Triple::new(s, p, o)),
        ref other => Err(Fault::invalid(format!("an array of {}: expected s, p, o", other.len()))),
    }
}

/// What is read of a map that describes a triple.
#[derive(Default)]
struct Described {
    parts: [Option<Cid>; 3],
    seq: Option<Seq>,
    op: Option<Op>,
    extra: Extra,
}

impl Described {
    fn read<'a, S: Source<'a>>(src: &mut S, mut open: Open) -> Fallible<Self> {
        let mut found = Self::default();
        while src.more(&mut open)? {
            let key = src.key()?;
            let name = key.name().unwrap_or_default();
            if let Some(i) = ["s", "p", "o"].iter().position(|known| *known == name) {
                found.parts[i] = Some(cid(src).field(name)?);
            } else if let Some(i) = METADATA_FIELDS.iter().position(|known| *known == name) {
                found.extra.read(i, src, usize::MAX).field(name)?;
            } else if name == "seq" {
                found.seq = uint(src).field(name)?;
            } else if name == "op" {
                found.op = match src.token()? {
                    Token::Str(op) if op == "insert" => Some(Op::Insert),
                    Token::Str(op) if op == "delete" => Some(Op::Delete),
                    other => return Err(other.unexpected("insert or delete").field(name)),
                };
            } else {
                src.skip().field(name)?;
            }
        }
        Ok(found)
    }

    fn triple(&self) -> Fallible<Triple> {
        let [s, p, o] = self.parts;
        Ok(Triple::new(need(s, "s")?, need(p, "p")?, need(o, "o")?))
    }

    /// `None` where there is no `created_at`, which all that is stored has.
    fn facts(self) -> Option<Facts> {
        let created_at = self.extra.created_at?;
        Some(Facts { created_at, metadata: self.extra.metadata })
    }
}

fn map<'a, S: Source<'a>>(src: &mut S) -> Fallible<Described> {
    match src.token()? {
        Token::Map(open) => Described::read(src, open),
        other => Err(other.unexpected("a map")),
    }
}

fn facts<'a, S: Source<'a>>(src: &mut S) -> Fallible<Facts> {
    need(map(src)?.facts(), "created_at")
}

fn changed<'a, S: Source<'a>>(src: &mut S) -> Fallible<Changed> {
    let found = map(src)?;
    let (seq, op, triple) = (need(found.seq, "seq")?, need(found.op, "op")?, found.triple()?);
    Ok(Changed { seq, op, triple, facts: need(found.facts(), "created_at")? })
}

/// A row of a page: a map of the parts, with what is known of the triple where that was asked for;
/// or an array of the parts.
fn row<'a, S: Source<'a>>(src: &mut S) -> Fallible<(Triple, Option<Facts>)> {
    let mut ahead = *src;
    if let Token::Map(open) = ahead.token()? {
        *src = ahead;
        let found = Described::read(src, open)?;
        return Ok((found.triple()?, found.facts()));
    }
    Ok((triple(src)?, None))
}
