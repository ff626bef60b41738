//! What a triple is in the store and in Redis at one moment, and what follows from two such looks. Nothing
//! here knows connections or clocks.
//!
//! What is compared is the JSON of the record, which is the same whatever the form of the value.

use crate::failure::Failure;
use crate::form::{Form, ValueForm};
use crate::link::is_wrong_type;
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

/// What Redis should hold under a key: the JSON of a record, in whichever form. `None` is nothing.
pub(super) struct Expected(Option<String>);

impl Expected {
    /// What the store has.
    pub fn of(hash: &TripleHash, record: Option<&TripleRecord>) -> Self {
        Self(record.map(|record| record.to_json(hash).to_string()))
    }

    /// Of the JSON.
    pub fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, String::len)
    }
}

/// What of the settings decides what may stand in Redis.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub form: ValueForm,
    /// An older value of a triple may stay.
    keeps_older: bool,
    /// A triple may be gone, since its time was over.
    expires: bool,
}

impl From<&Form> for Terms {
    fn from(form: &Form) -> Self {
        Self { form: form.value, keeps_older: !form.overwrite, expires: form.ttl > 0 }
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

fn seen(form: ValueForm, hash: &TripleHash, reply: &Value) -> Result<Seen, Failure> {
    match reply {
        Value::ServerError(error) if is_wrong_type(error) => Ok(Seen::OtherType),
        Value::ServerError(error) => Err(Failure::from_server(error)),
        Value::Nil => Ok(Seen::Nothing),
        // A hash without any of the fields.
        Value::Array(fields) if fields.iter().all(|field| *field == Value::Nil) => Ok(Seen::Nothing),
        Value::BulkString(_) | Value::Array(_) => {
            let is_triple = form.triple(reply).is_some_and(|triple| triple.hash() == *hash);
            let text = form.decode(reply).map(|record| record.to_json(hash).to_string());
            let digest = digest(text.unwrap_or_else(|| format!("{reply:?}")).as_bytes());
            Ok(Seen::Value { digest, is_triple })
        }
        other => Err(Failure::unexpected_reply("the reading of a value", other)),
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
    pub fn of(terms: Terms, expected: &Expected, hash: &TripleHash, reply: &Value) -> Result<Self, Failure> {
        let seen = seen(terms.form, hash, reply)?;
        let mut expected = expected.0.as_ref().map(|json| digest(json.as_bytes()));
        match (&mut expected, seen) {
            (Some(expected), Seen::Value { digest, is_triple: true }) if terms.keeps_older => {
                *expected = digest;
            }
            (expected @ Some(_), Seen::Nothing) if terms.expires => *expected = None,
            _ => {}
        }
        Ok(Self { expected, seen })
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
pub(super) fn describe(form: ValueForm, kind: Kind, expected: &Expected, reply: &Value) -> String {
    let is_other_type = matches!(reply, Value::ServerError(_));
    match (kind, &expected.0) {
        (Kind::Missing, _) => "the key is not there".into(),
        (Kind::Foreign, _) if is_other_type => {
            format!("the key holds no {}, and the store has no such triple", form.as_str())
        }
        (Kind::Foreign, _) => "the value is no triple of that hash, or another store's".into(),
        (Kind::Stale, None) => "the store does not have this triple any more".into(),
        (Kind::Stale, Some(_)) if is_other_type => {
            format!("the key holds another type than redis_value = {}", form.as_str())
        }
        (Kind::Stale, Some(expected)) => {
            let found = match (form.decode(reply), reply) {
                (Some(record), _) => record.to_json(&record.triple.hash()).to_string().into_bytes(),
                (None, Value::BulkString(bytes)) => bytes.clone(),
                (None, other) => format!("{other:?}").into_bytes(),
            };
            let expected = expected.as_bytes();
            let at = expected.iter().zip(&found).take_while(|(a, b)| a == b).count();
            let (expected, found) = (excerpt(expected, at), excerpt(&found, at));
            format!("from byte {at} of the JSON on: expected {expected}, found {found}")
        }
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
        let terms = Terms::from(&Form::default());
        let look = |record: Option<&TripleRecord>, reply: Value| {
            let expected = Expected::of(&hash, record);
            let kind = Sight::of(terms, &expected, &hash, &reply).unwrap().difference();
            (kind, kind.map(|kind| describe(terms.form, kind, &expected, &reply)).unwrap_or_default())
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
            (Some(Kind::Stale), "the key holds another type than redis_value = json".into())
        );
        assert_eq!(look(None, value(&stored, &hash)).0, Some(Kind::Stale));
        assert_eq!(look(None, junk()).0, Some(Kind::Foreign));
        assert_eq!(look(None, wrong_type()).0, Some(Kind::Foreign));
        // What hides what is there is no difference.
        let loading = redis::parse_redis_value(b"-LOADING Redis is loading\r\n").unwrap();
        let nothing = Expected::of(&hash, None);
        assert!(Sight::of(terms, &nothing, &hash, &loading).is_err());
    }

    #[test]
    fn what_the_settings_allow_is_no_difference() {
        let (hash, stored) = record(1.5);
        let (_, older) = record(1.0);
        let differs = |form: &Form, reply: &Value| {
            let expected = Expected::of(&hash, Some(&stored));
            Sight::of(form.into(), &expected, &hash, reply).unwrap().difference()
        };
        let (old, junk) = (value(&older, &hash), Value::BulkString(b"{}".to_vec()));
        let nx = Form { overwrite: false, ..Form::default() };
        assert_eq!(differs(&nx, &old), None);
        assert_eq!(differs(&nx, &junk), Some(Kind::Stale));
        assert_eq!(differs(&nx, &Value::Nil), Some(Kind::Missing));
        let ttl = Form { ttl: 60, ..Form::default() };
        assert_eq!(differs(&ttl, &Value::Nil), None);
        assert_eq!(differs(&ttl, &old), Some(Kind::Stale));
        let fields = |nil| Value::Array(vec![if nil { Value::Nil } else { Value::BulkString(vec![1]) }; 8]);
        let hashes = Form { value: ValueForm::Hash, ..Form::default() };
        assert_eq!(differs(&hashes, &fields(true)), Some(Kind::Missing));
        assert_eq!(differs(&hashes, &fields(false)), Some(Kind::Stale));
    }

    #[test]
    fn only_what_stays_as_it_is_differs() {
        let (hash, stored) = record(1.5);
        let (_, newer) = record(2.5);
        let terms = Terms::from(&Form::default());
        let look = |record: Option<&TripleRecord>, reply: &Value| {
            Sight::of(terms, &Expected::of(&hash, record), &hash, reply).unwrap()
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
