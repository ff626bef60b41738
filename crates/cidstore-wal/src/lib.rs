//! The write-ahead log: numbered records, made durable in groups, read by followers.
//!
//! **Owns** segments and records on disk, group sync, tailing, retention, what a torn tail is.
//!
//! **Knows nothing of** what a payload means, of threads, clocks and sockets. Randomness (the nonce
//! that tells segments apart) comes from the caller.
//!
//! **Invariants**
//! - A record is atomic, and its checksum covers every byte of its header and payload and the
//!   signature of its segment: a record of another segment, or of an earlier life of the same
//!   blocks, is not a record.
//! - Followers see no byte before [`Wal::sync`] (or [`Wal::flush`], where the operator chose so).
//! - Only the last segment can be torn: the log is synced before it goes on in a new segment, and
//!   every start begins a new one.
//! - After a failed sync or write the log is latched: it never pretends that a retry succeeded. A
//!   full disk is the exception: what was written of the group is taken back, nothing is latched.

pub mod inspect;

mod error;
mod log;
mod record;
mod recover;
mod segment;
mod wal;

pub use error::WalError;
pub use log::{Entry, Log, Tail};
pub use record::RECORD_HEADER_BYTES;
pub use recover::Recovery;
pub use segment::SEGMENT_HEADER_BYTES;
pub use wal::Wal;

/// Number of one mutation: 1, 2, 3, …; 0 means "before the first". A record covers one or more.
pub type Seq = u64;

/// Largest payload of a record, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 30;

/// How a log is laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Bytes of a segment. A group that begins in a segment ends in it, so that the last group may
    /// go beyond.
    pub segment_bytes: u64,
    /// Any number that differs at each start: signatures of segments derive from it.
    pub nonce: u64,
    /// The log goes on at this number at least: everything before it is kept elsewhere.
    pub next_seq: Seq,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, nonce: 0, next_seq: 1 }
    }
}
