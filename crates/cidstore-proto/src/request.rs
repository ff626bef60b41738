//! Requests: what a client can ask.

use crate::Encoding;
use cidstore_types::{Cid, Mutation, Pattern, Seq, TripleHash};
use std::fmt;

/// A client's own name for a request; it goes back with the reply as it came.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RequestId {
    /// A text.
    Str(String),
    /// An integer from -2^63 to 2^64-1.
    Int(i128),
    /// Bytes; only `MessagePack` has these. Where JSON must carry them (in a `rejected`
    /// notification), they are hex text.
    Bin(Vec<u8>),
}

/// For logs: the text or number itself, bytes in hex.
impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Str(text) => f.write_str(text),
            Self::Int(number) => write!(f, "{number}"),
            Self::Bin(bytes) => bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

/// A validated request.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What it was written in, and its reply will be.
    pub encoding: Encoding,
    /// The client's name for it.
    pub request_id: Option<RequestId>,
    /// What is asked.
    pub command: Command,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Are you there? [`crate::Reply::Pong`].
    Ping,
    /// Change the store. [`crate::Reply::Inserted`] or [`crate::Reply::Deleted`].
    Mutate {
        /// The change. An insert or delete of one named triple is a batch of one.
        mutation: Mutation,
        /// By which command, which decides the form of the reply.
        kind: MutateKind,
    },
    /// A page of the triples that match. [`crate::Reply::Page`].
    Query {
        /// What to match.
        pattern: Pattern,
        /// Most rows, from 1 to the limit that is configured.
        limit: usize,
        /// Where to go on; opaque here.
        cursor: Option<Vec<u8>>,
        /// How to write the rows.
        format: Format,
        /// Whether each row comes with its metadata.
        metadata: bool,
    },
    /// How many triples match. [`crate::Reply::Count`].
    Count {
        /// What to match.
        pattern: Pattern,
    },
    /// The values of a key of the key form. [`crate::Reply::Values`].
    Lookup {
        /// The key.
        key: Cid,
        /// Most values, from 1 to the limit that is configured, which is the default.
        limit: usize,
        /// Where to go on; opaque here.
        cursor: Option<Vec<u8>>,
    },
    /// The triple of a hash. [`crate::Reply::Triple`].
    Get {
        /// The hash.
        hash: TripleHash,
    },
    /// The triples of several hashes. [`crate::Reply::Triples`].
    GetMany {
        /// The hashes, at most [`crate::GET_HASHES_MAX`] of them.
        hashes: Vec<TripleHash>,
    },
    /// Mutations after one. [`crate::Reply::Changes`].
    Changes {
        /// The last one that the client has: what comes after it is wanted.
        since: Seq,
        /// Most entries, from 1 to the limit that is configured.
        limit: usize,
        /// How to write the CIDs; never [`Format::Packed`].
        format: Format,
    },
    /// Counters, sizes and lags. [`crate::Reply::Map`].
    Stats,
    /// As [`Command::Stats`], with the names of older servers. [`crate::Reply::Map`].
    Metrics,
    /// Seal everything so far. [`crate::Reply::Sealed`].
    Checkpoint,
    /// How the merging of run files is, and what it is to do. [`crate::Reply::Map`].
    Compact {
        /// What is wanted.
        action: CompactAction,
    },
    /// How the mirror is, and what it is to do. [`crate::Reply::Map`].
    Mirror {
        /// What is wanted.
        action: MirrorAction,
    },
}

/// What is wanted of the mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MirrorAction {
    /// To know how it is.
    #[default]
    Status,
    /// That it writes everything anew.
    Rebuild,
    /// That store and Redis are compared.
    Verify {
        /// About so many triples and keys, 1 or more; `None` for all.
        sample: Option<u64>,
        /// Whether what differs is written anew.
        repair: bool,
    },
    /// That the comparison under way does not go on.
    Cancel,
}

impl MirrorAction {
    /// The names of all of them on the wire.
    pub const NAMES: [&str; 4] = ["status", "rebuild", "verify", "cancel"];

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Rebuild => "rebuild",
            Self::Verify { .. } => "verify",
            Self::Cancel => "cancel",
        }
    }
}

/// What is wanted of the merging of run files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CompactAction {
    /// To know how it is.
    #[default]
    Status,
    /// A compaction.
    Start,
    /// That the one that was started does not go on.
    Cancel,
    /// That it waits.
    Pause,
    /// That it goes on.
    Resume,
    /// That it moves no more than so many bytes a second; 0 for as many as there are.
    Rate(u64),
}

impl CompactAction {
    /// The names of all of them on the wire.
    pub const NAMES: [&str; 6] = ["status", "start", "cancel", "pause", "resume", "rate"];

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Start => "start",
            Self::Cancel => "cancel",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Rate(_) => "rate",
        }
    }
}

/// By which command a mutation came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MutateKind {
    /// `insert`: the reply has `inserted` and `triple_hash`, that of the batch's one row.
    Insert,
    /// `batch_insert`: the reply has `inserted`.
    BatchInsert,
    /// `delete`: the reply has `deleted`.
    Delete,
    /// `batch_delete`: the reply has `deleted`.
    BatchDelete,
}

/// How the CIDs of a reply are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Format {
    /// Maps of `s`, `p`, `o` with canonical text.
    #[default]
    E,
    /// Rows of three arrays of four integers.
    List,
    /// Rows of three bins of 32 bytes; `MessagePack` only.
    Bin,
    /// One bin of 96 bytes a row; `MessagePack` only.
    Packed,
    /// Rows of three texts of 64 hex digits.
    Hex,
}

impl Format {
    /// All of them with their names on the wire.
    pub const ALL: [(&str, Self); 5] = [
        ("e", Self::E),
        ("list", Self::List),
        ("bin", Self::Bin),
        ("packed", Self::Packed),
        ("hex", Self::Hex),
    ];

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].0
    }

    /// Whether it needs bytes, which JSON does not have.
    pub fn is_binary(self) -> bool {
        matches!(self, Self::Bin | Self::Packed)
    }
}
