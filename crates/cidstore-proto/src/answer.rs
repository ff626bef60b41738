//! Replies and notifications as a client has them: owned, and with whatever the daemon said.

use crate::{Command, Encoding, RequestId};
use cidstore_types::{Cid, Metadata, Op, Seq, Triple, TripleHash};
use serde_json::{Map, Value};

/// The kinds of replies; see [`crate::Reply`] for what each answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReplyKind {
    /// To `ping`.
    Pong,
    /// To `insert` and `batch_insert`.
    Inserted,
    /// To `delete` and `batch_delete`.
    Deleted,
    /// To `query`.
    Page,
    /// To `count`.
    Count,
    /// To `lookup`.
    Values,
    /// To `get`.
    Triple,
    /// To `get` with `triple_hashes`.
    Triples,
    /// To `changes`.
    Changes,
    /// To `stats`, `metrics`, `compact` and `mirror`.
    Map,
    /// To `checkpoint`.
    Sealed,
}

impl Command {
    /// The kind of reply that answers it, unless it is refused.
    pub fn reply_kind(&self) -> ReplyKind {
        use crate::MutateKind::{BatchDelete, BatchInsert, Delete, Insert};
        match self {
            Self::Ping => ReplyKind::Pong,
            Self::Mutate { kind: Insert | BatchInsert, .. } => ReplyKind::Inserted,
            Self::Mutate { kind: Delete | BatchDelete, .. } => ReplyKind::Deleted,
            Self::Query { .. } => ReplyKind::Page,
            Self::Count { .. } => ReplyKind::Count,
            Self::Lookup { .. } => ReplyKind::Values,
            Self::Get { .. } => ReplyKind::Triple,
            Self::GetMany { .. } => ReplyKind::Triples,
            Self::Changes { .. } => ReplyKind::Changes,
            Self::Stats | Self::Metrics | Self::Compact { .. } | Self::Mirror { .. } => ReplyKind::Map,
            Self::Checkpoint => ReplyKind::Sealed,
        }
    }
}

/// A decoded reply.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    /// What it is written in.
    pub encoding: Encoding,
    /// The request that it answers, by the name the client gave it.
    pub request_id: Option<RequestId>,
    /// The answer, or why there is none.
    pub result: Result<Answer, Refusal>,
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (error {code})")]
pub struct Refusal {
    /// One of [`crate::ErrorCode`], or one that a later daemon knows.
    pub code: u16,
    /// For people.
    pub message: String,
}

/// What the daemon answers; the variants and fields are those of [`crate::Reply`].
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Answer {
    Pong { time: f64 },
    Inserted { inserted: u64, seq: Seq, triple_hash: Option<TripleHash> },
    Deleted { deleted: u64, seq: Seq },
    Page { rows: Vec<Triple>, facts: Option<Vec<Facts>>, cursor: Option<Vec<u8>>, as_of: Seq },
    Count { count: u64, as_of: Seq },
    Values { values: Vec<Cid>, cursor: Option<Vec<u8>>, as_of: Seq },
    Triple { triple: Value },
    Triples { triples: Vec<Option<Value>>, as_of: Seq },
    Changes { changes: Vec<Changed>, next: Seq },
    Map(Map<String, Value>),
    Sealed { seq: Seq },
}

/// What is known of a triple beside its parts.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// Seconds since the epoch.
    pub created_at: f64,
    /// The client's metadata.
    pub metadata: Metadata,
}

/// One entry of the reply to `changes`.
#[derive(Debug, Clone, PartialEq)]
pub struct Changed {
    /// Number of the mutation.
    pub seq: Seq,
    /// What was done.
    pub op: Op,
    /// To which triple.
    pub triple: Triple,
    /// What is known of it.
    pub facts: Facts,
}

/// A decoded notification; the variants and fields are those of [`crate::Notification`].
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Announced {
    Heartbeat {
        seq: Seq,
        time: f64,
    },
    One {
        op: Op,
        triple: Triple,
        seq: Seq,
    },
    Many {
        op: Op,
        triples: Vec<Triple>,
        first_seq: Seq,
    },
    Rejected {
        request_id: Option<RequestId>,
        refusal: Refusal,
    },
    Mirror {
        state: String,
        lag: Option<u64>,
    },
    /// Of a type that this version does not know.
    Other {
        kind: String,
    },
}

/// Bytes that are not what the daemon sends: the field's path, what was found, what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a message of cidstored: {0}")]
pub struct DecodeError(pub(crate) String);
