//! What happened to the store, one triple at a time.

use cidstore_types::{Op, Seq, Triple};

/// One mutation of one triple.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Its number, without gaps.
    pub seq: Seq,
    /// Inserted or deleted.
    pub op: Op,
    /// The triple.
    pub triple: Triple,
}

/// A part of the log, as `changes` answers it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// In order of `seq`, without gaps.
    pub changes: Vec<Change>,
    /// What to ask for next as `since`.
    pub next: Seq,
}
