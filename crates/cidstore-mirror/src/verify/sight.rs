//! What a triple is in the store and in Redis at one moment, and what follows from two such looks. Nothing
//! here knows connections or clocks.
//!
//! What Redis should hold is whatever [`Encoder`] makes of a record, and is compared byte for byte. Another
//! form of values changes [`Expected::of`] and [`seen`], and nothing else of a verification.

use crate::encode::Encoder;
use crate::failure::Failure;
use crate::sweep::triple_of_json;
use cidstore_types::{TripleHash, TripleRecord};
use redis::Value;
use std::hash::{DefaultHasher, Hash, Hasher};

/// How store and Redis differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The store has the triple, Redis has no such key.
    Missing,
    /// Redis has another value than the store, or a triple that the store does not have.
    Stale,
    /// A key that looks like the mirror's own, and is not: the store has no triple of that hash, and the value
    /// is none. It is never touched.
    Foreign,
}

impl Kind {
    /// Its name in replies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Stale => "stale",
            Self::Foreign => "foreign",
        }
    }
}

/// What stands for some bytes, so that many of them can be kept.
fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// What Redis should hold under a key: `None` is nothing.
pub(super) struct Expected(Option<Vec<u8>>);

impl Expected {
    /// What the mirror makes of what the store has.
    pub fn of(encoder: &mut Encoder, hash: &TripleHash, record: Option<&TripleRecord>) -> Self {
        Self(record.map(|record| {
            encoder.record(record, hash);
            encoder.value().to_vec()
        }))
    }

    /// Of the value.
    pub fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, Vec::len)
    }
}

/// What Redis has under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Nothing,
    Value {
        digest: u64,
        /// It is a triple of that hash.
        is_triple: bool,
    },
    /// A list, a hash, …
    OtherType,
}

fn seen(hash: &TripleHash, reply: &Value) -> Result<Seen, Failure> {
    match reply {
        Value::Nil => Ok(Seen::Nothing),
        Value::BulkString(bytes) => {
            let is_triple = triple_of_json(bytes).is_some_and(|triple| triple.hash() == *hash);
            Ok(Seen::Value { digest: digest(bytes), is_triple })
        }
        Value::ServerError(error) if error.code() == "WRONGTYPE" => Ok(Seen::OtherType),
        Value::ServerError(error) => Err(Failure::from_server(error)),
        other => Err(Failure::unexpected_reply("GET", other)),
    }
}

/// Both sides at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sight {
    expected: Option<u64>,
    seen: Seen,
}

/// What a second look tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judged {
    Equal,
    Different(Kind),
    /// Something changes: to be looked at again.
    Unsure,
}

impl Sight {
    /// What is there, and what should be.
    ///
    /// # Errors
    /// The reply is one that tells nothing of what is there.
    pub fn of(expected: &Expected, hash: &TripleHash, reply: &Value) -> Result<Self, Failure> {
        Ok(Self { expected: expected.0.as_deref().map(digest), seen: seen(hash, reply)? })
    }

    /// How the two sides differ, if they do.
    pub fn difference(self) -> Option<Kind> {
        match (self.expected, self.seen) {
            (None, Seen::Nothing) => None,
            (Some(expected), Seen::Value { digest, .. }) if digest == expected => None,
            (Some(_), Seen::Nothing) => Some(Kind::Missing),
            (Some(_), _) | (None, Seen::Value { is_triple: true, .. }) => Some(Kind::Stale),
            (None, _) => Some(Kind::Foreign),
        }
    }

    /// The store does not have the triple.
    pub fn is_absent(self) -> bool {
        self.expected.is_none()
    }

    /// With a second look, before which the mirror has confirmed all that the log had at this one: what was
    /// on its way then has arrived, so where neither side has changed, they differ.
    pub fn judge(self, again: Self) -> Judged {
        match again.difference() {
            None => Judged::Equal,
            Some(kind) if self == again => Judged::Different(kind),
            Some(_) => Judged::Unsure,
        }
    }
}

/// Most bytes of a value that are shown of each side.
const SHOWN_BYTES: usize = 60;

/// What differs, for people.
pub(super) fn describe(kind: Kind, expected: &Expected, reply: &Value) -> String {
    let is_other_type = matches!(reply, Value::ServerError(_));
    match (kind, &expected.0, reply) {
        (Kind::Missing, ..) => "the key is not there".into(),
        (Kind::Foreign, ..) if is_other_type => {
            "the key is no plain string, and the store has no such triple".into()
        }
        (Kind::Foreign, ..) => "the value is no triple of that hash, or another store's".into(),
        (Kind::Stale, None, _) => "the store does not have this triple any more".into(),
        (Kind::Stale, Some(expected), Value::BulkString(found)) => {
            let at = expected.iter().zip(found).take_while(|(a, b)| a == b).count();
            let (expected, found) = (excerpt(expected, at), excerpt(found, at));
            format!("from byte {at} on: expected {expected}, found {found}")
        }
        (Kind::Stale, Some(_), _) => "the key is no plain string".into(),
    }
}

fn excerpt(bytes: &[u8], at: usize) -> String {
    let rest = &bytes[at.min(bytes.len())..];
    let more = if rest.len() > SHOWN_BYTES { "…" } else { "" };
    format!("{:?}{more}", String::from_utf8_lossy(&rest[..rest.len().min(SHOWN_BYTES)]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cidstore_types::{Cid, Triple};

    fn record(created_at: f64) -> (TripleHash, TripleRecord) {
        let cid = |low| Cid::from_two_lanes([1, low]);
        let triple = Triple::new(cid(1), cid(2), cid(3));
        (triple.hash(), TripleRecord::new(triple, created_at, None))
    }

    fn value(record: &TripleRecord, hash: &TripleHash) -> Value {
        Value::BulkString(record.to_json(hash).to_string().into_bytes())
    }

    fn wrong_type() -> Value {
        let refused = b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";
        redis::parse_redis_value(refused).unwrap()
    }

    #[test]
    fn differences_are_told_apart() {
        let (hash, stored) = record(1.5);
        let (_, older) = record(1.0);
        let mut encoder = Encoder::new("p:");
        let mut look = |record: Option<&TripleRecord>, reply: Value| {
            let expected = Expected::of(&mut encoder, &hash, record);
            let kind = Sight::of(&expected, &hash, &reply).unwrap().difference();
            (kind, kind.map(|kind| describe(kind, &expected, &reply)).unwrap_or_default())
        };
        let junk = || Value::BulkString(b"{}".to_vec());
        assert_eq!(look(Some(&stored), value(&stored, &hash)).0, None);
        assert_eq!(look(None, Value::Nil).0, None);
        assert_eq!(look(Some(&stored), Value::Nil).0, Some(Kind::Missing));
        let (kind, what) = look(Some(&stored), value(&older, &hash));
        assert_eq!(kind, Some(Kind::Stale));
        assert!(what.contains(r#"expected "5}", found "0}""#), "{what}");
        assert_eq!(look(Some(&stored), junk()).0, Some(Kind::Stale));
        assert_eq!(
            look(Some(&stored), wrong_type()),
            (Some(Kind::Stale), "the key is no plain string".into())
        );
        assert_eq!(look(None, value(&stored, &hash)).0, Some(Kind::Stale));
        assert_eq!(look(None, junk()).0, Some(Kind::Foreign));
        assert_eq!(look(None, wrong_type()).0, Some(Kind::Foreign));
        // What hides what is there is no difference.
        let loading = redis::parse_redis_value(b"-LOADING Redis is loading\r\n").unwrap();
        let nothing = Expected::of(&mut Encoder::new(""), &hash, None);
        assert!(Sight::of(&nothing, &hash, &loading).is_err());
    }

    #[test]
    fn only_what_stays_as_it_is_differs() {
        let (hash, stored) = record(1.5);
        let (_, newer) = record(2.5);
        let mut encoder = Encoder::new("");
        let mut look = |record: Option<&TripleRecord>, reply: &Value| {
            Sight::of(&Expected::of(&mut encoder, &hash, record), &hash, reply).unwrap()
        };
        let (old, new) = (value(&stored, &hash), value(&newer, &hash));
        let missing = look(Some(&stored), &Value::Nil);
        assert_eq!(missing.judge(missing), Judged::Different(Kind::Missing));
        // It arrived meanwhile, or was deleted on both sides.
        assert_eq!(missing.judge(look(Some(&stored), &old)), Judged::Equal);
        assert_eq!(missing.judge(look(None, &Value::Nil)), Judged::Equal);
        // The store has changed since, and Redis owes that.
        assert_eq!(missing.judge(look(Some(&newer), &Value::Nil)), Judged::Unsure);
        assert_eq!(missing.judge(look(None, &old)), Judged::Unsure);
        // Redis has.
        assert_eq!(look(Some(&newer), &old).judge(look(Some(&newer), &Value::Nil)), Judged::Unsure);
        assert_eq!(look(Some(&newer), &old).judge(look(Some(&newer), &new)), Judged::Equal);
    }
}
