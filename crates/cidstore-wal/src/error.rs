//! What can go wrong with the log.

use crate::Seq;
use cidstore_disk::DiskError;
use std::path::PathBuf;

/// Why the log refuses.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The disk refused to be read or set up.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// No room for the group. It was taken back; later groups may succeed.
    #[error("no room for {bytes} bytes of log: {source}. Free space; writes resume by themselves")]
    Full {
        /// Bytes of the group.
        bytes: usize,
        /// What the disk said.
        source: DiskError,
    },
    /// An earlier write or sync failed, and it is not known what reached the medium.
    #[error("the log stopped writing for good: {why}. Check the disk, then restart")]
    Latched {
        /// The first failure.
        why: String,
    },
    /// A record too large for the format.
    #[error("a record of {found} bytes: the limit is {limit}")]
    TooLarge {
        /// Its size in bytes.
        found: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// That part of the log was removed.
    #[error("the log before {oldest} is gone")]
    Gone {
        /// The first sequence number that is still there.
        oldest: Seq,
    },
    /// That part of the log does not exist yet.
    #[error(
        "the log ends at {last}: whoever has seen more saw mutations that a power cut took back, and \
         has to read the store anew"
    )]
    Ahead {
        /// The last sequence number that is there.
        last: Seq,
    },
    /// Bytes that were durable are not what was written.
    #[error(
        "{} is damaged at byte {offset}: {what}; expected the record of sequence number {expected}. \
         The log has durable records beyond, so this is no torn tail: put the segment back from a \
         backup, or run `cidctl repair`, which saves the records around it and tells what is lost", path.display()
    )]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        what: String,
        /// Which record should be there.
        expected: Seq,
    },
    /// The last segment is shorter than it ever was.
    #[error(
        "{} is {found} bytes long, and was at least {expected}: it was cut short from outside, and \
         mutations from {from} on may be missing. Put the segment back from a backup, or run \
         `cidctl repair`, which saves what is left of it", path.display()
    )]
    Short {
        /// The segment.
        path: PathBuf,
        /// Its length in bytes.
        found: u64,
        /// The least length that it had.
        expected: u64,
        /// First sequence number after the records that are there.
        from: Seq,
    },
    /// A segment that does not belong here.
    #[error(
        "{}: {what} is {found}, expected {expected}: put the segment back from a backup, or run \
         `cidctl repair`, which saves the records that can be proven", path.display()
    )]
    Header {
        /// The segment.
        path: PathBuf,
        /// Which property.
        what: &'static str,
        /// What stood there.
        found: String,
        /// What belongs there.
        expected: String,
    },
}

impl WalError {
    /// Whether the system lacked something for now: see [`DiskError::is_transient`].
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Disk(error) if error.is_transient())
    }
}
