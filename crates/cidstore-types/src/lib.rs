//! The vocabulary of the project: [`Cid`], [`Triple`], [`TripleHash`], [`Metadata`], [`Batch`]
//! and the JSON form of a stored triple.
//!
//! **Owns** the 32-byte form of a CID and its text forms, the 96-byte form of a triple, the triple
//! hash, the stored form of a batch (the payload of a log record) and the JSON of a triple record.
//!
//! **Knows nothing of** sockets, files, threads, clocks or indexes.
//!
//! **Invariants**
//! - Byte order of a [`Cid`] and of a [`Triple`] is numeric order of their lanes.
//! - Nothing assumes that the leading bytes of a CID are uniform: 2-lane CIDs share 16 zero bytes.
//! - [`Batch::encode_into`] and [`BatchRef::decode`] are inverses; decoding never panics.

mod batch;
mod cid;
mod key;
mod metadata;
mod mutation;
mod pattern;
mod record;
mod triple;

pub use batch::{Batch, BatchError, BatchRef, KeptOutcome, Op, Row};
pub use cid::{Cid, CidError};
pub use key::{Fingerprint, IDEMPOTENCY_KEY_BYTES_MAX, Key};
pub use metadata::{METADATA_BYTES_MAX, Metadata, MetadataError};
pub use mutation::Mutation;
pub use pattern::Pattern;
pub use record::TripleRecord;
pub use triple::{Triple, TripleHash};

/// Number of one mutation of one triple: 1, 2, 3, … without gaps, in the order in which they took
/// effect. 0 means "before the first".
pub type Seq = u64;
