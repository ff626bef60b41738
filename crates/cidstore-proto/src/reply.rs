//! Replies: what the daemon answers.

use crate::{ErrorCode, Format};
use cidstore_types::{Op, Seq, Triple, TripleHash, TripleRecord};
use serde_json::{Map, Value};

/// What is answered. Borrowed, since it lives only until it is encoded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reply<'a> {
    /// To `ping`.
    Pong {
        /// Seconds since the epoch.
        time: f64,
    },
    /// To `insert` and `batch_insert`.
    Inserted {
        /// Triples of the request that are durably present now.
        inserted: u64,
        /// Number of the last mutation of the request.
        seq: Seq,
        /// To `insert` alone: the hash of its triple.
        triple_hash: Option<TripleHash>,
    },
    /// To `delete` and `batch_delete`.
    Deleted {
        /// Triples that were present and are gone.
        deleted: u64,
        /// Number of the last mutation of the request, or of the last one before it where it took
        /// no number.
        seq: Seq,
    },
    /// To `query`.
    Page {
        /// The rows.
        rows: &'a [Triple],
        /// One for each row, where metadata was asked for. Their `triple` is not looked at.
        records: Option<&'a [TripleRecord]>,
        /// Where the next page begins, if there is more.
        cursor: Option<&'a [u8]>,
        /// The state that the page reflects.
        as_of: Seq,
        /// As asked for.
        format: Format,
    },
    /// To `count`.
    Count {
        /// How many match.
        count: u64,
        /// The state that it was counted in.
        as_of: Seq,
    },
    /// To `lookup`.
    Values {
        /// Rows of the key form; their objects are the values.
        rows: &'a [Triple],
        /// Where the next page begins, if there is more.
        cursor: Option<&'a [u8]>,
        /// The state that the page reflects.
        as_of: Seq,
    },
    /// To `get`: [`TripleRecord::to_json`].
    Triple {
        /// The JSON of the triple.
        triple: &'a Value,
    },
    /// To `get` with `triple_hashes`: [`TripleRecord::to_json`] of each, in the order of the hashes.
    Triples {
        /// One for each hash; `None` where there is no such triple.
        triples: &'a [Option<Value>],
        /// The state that all of it reflects.
        as_of: Seq,
    },
    /// To `changes`.
    Changes {
        /// The mutations in their order, of consecutive `seq`.
        changes: &'a [ChangeEntry<'a>],
        /// What to ask for next as `since`: the last `seq` above, or the request's own `since`
        /// where there is nothing new.
        next: Seq,
        /// How to write the CIDs. [`Format::Packed`] is written as [`Format::Bin`].
        format: Format,
    },
    /// To `stats`, `metrics`, `compact` and `mirror`: the fields of the reply beside `version` and `request_id`.
    Map(&'a Map<String, Value>),
    /// To `checkpoint`.
    Sealed {
        /// Everything up to here is sealed.
        seq: Seq,
    },
    /// To anything.
    Error {
        /// For programs.
        code: ErrorCode,
        /// For people.
        message: &'a str,
    },
}

/// One entry of the reply to `changes`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChangeEntry<'a> {
    /// Number of the mutation.
    pub seq: Seq,
    /// What was done.
    pub op: Op,
    /// To which triple.
    pub triple: Triple,
    /// Seconds since the epoch.
    pub created_at: f64,
    /// Stored metadata ([`cidstore_types::Metadata::to_stored`]), if any.
    pub metadata: Option<&'a str>,
}
