//! What can go wrong with a store.

use crate::hdf5::Hdf5Error;
use cidstore_disk::DiskError;
use cidstore_types::{BatchError, Seq};
use cidstore_wal::WalError;
use std::path::PathBuf;

/// Why a store cannot be opened, or an operation on it failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The log refused.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// An HDF5 file is not what it should be, or could not be made.
    #[error(transparent)]
    Hdf5(#[from] Hdf5Error),
    /// A log record holds no batch.
    #[error(
        "log record {seq} passes its checksum but is not readable ({source}): written by a newer version? \
         Start that version, or restore from a backup"
    )]
    Record {
        /// First sequence number of the record.
        seq: Seq,
        /// What is wrong with it.
        source: BatchError,
    },
    /// Run files or a log exist, but no catalog.
    #[error(
        "{} does not exist, but {} does: the catalog is missing. Put it back from a backup, run \
         `cidctl repair`, or move both away to begin an empty store", catalog.display(), other.display()
    )]
    CatalogMissing {
        /// The catalog's path.
        catalog: PathBuf,
        /// What was found beside it.
        other: PathBuf,
    },
    /// A repair was interrupted while its files were being put in place.
    #[error("{} exists: a repair was interrupted. Run `cidctl repair` again, which finishes it", path.display())]
    RepairUnfinished {
        /// What the repair decided.
        path: PathBuf,
    },
    /// The log does not reach back to what is sealed.
    #[error(
        "mutations {} to {} are missing: run files end at {sealed}, the log {} begins at {log}. Put the \
         missing segments back, restore from a backup, or run `cidctl repair`, which gives them up",
        sealed + 1, log - 1, path.display()
    )]
    LogGap {
        /// Directory of the log.
        path: PathBuf,
        /// Last sequence number in run files.
        sealed: Seq,
        /// First sequence number in the log.
        log: Seq,
    },
    /// A merge was asked to stop. Nothing has changed.
    #[error("stopped before it was complete; nothing has changed")]
    Stopped,
    /// A merge was given up, since what it was for is not wanted any more. Nothing has changed.
    #[error("given up before it was complete, since nobody wants it any more; nothing has changed")]
    GivenUp,
    /// A merge may not begin, or go on: it would take the disk's last room.
    #[error(
        "no room in {} to merge run files: {available} bytes are available and {needed} needed, for the result \
         and beside it for the log and for rows from memory. Free {} bytes; merging resumes by itself",
        dir.display(), needed - available
    )]
    NoRoomToMerge {
        /// Directory of the run files.
        dir: PathBuf,
        /// Bytes that the disk has left.
        available: u64,
        /// Bytes that there must be, which are more.
        needed: u64,
    },
    /// A run file's bytes are not what was written.
    #[error(
        "{}: the {bytes} bytes of {dataset} at {offset} have CRC-32C {found:#010x}, expected \
         {expected:#010x}: the file is damaged, what it holds (mutations {first_seq} to {last_seq}) is not \
         merged any more and may be read wrongly. Stop the daemon, then run `cidctl repair` or put the \
         file back from a backup", path.display()
    )]
    ColumnDamaged {
        /// The run file.
        path: PathBuf,
        /// The dataset.
        dataset: &'static str,
        /// Where it begins in the file.
        offset: u64,
        /// How long it is.
        bytes: u64,
        /// Checksum of what is there.
        found: u32,
        /// Checksum of what was written.
        expected: u32,
        /// First mutation whose effects the file holds.
        first_seq: Seq,
        /// Last mutation whose effects the file holds.
        last_seq: Seq,
    },
    /// A page of a run file could not be read when it was needed.
    #[error(transparent)]
    UnreadablePage(#[from] UnreadablePage),
    /// The disk does not give back a run file.
    #[error(
        "{source}: the file cannot be read, and what it holds (mutations {first_seq} to {last_seq}) is not \
         merged any more. Stop the daemon, then run `cidctl repair` or put the file back from a backup"
    )]
    RunUnreadable {
        /// What the disk said, and of which file.
        source: DiskError,
        /// First mutation whose effects the file holds.
        first_seq: Seq,
        /// Last mutation whose effects the file holds.
        last_seq: Seq,
    },
    /// The catalog cannot be used.
    #[error(
        "the catalog cannot be used: {0}. Restore it from a backup, together with the run files and the \
         log of the same moment, or run `cidctl repair`"
    )]
    Catalog(#[source] Hdf5Error),
    /// The file with the outcomes of mutations that came under a key cannot be used.
    #[error(
        "{}: {what} is {found}, expected {expected}: outcomes of mutations that came under an idempotency key \
         cannot be told, and a repeat of one would be done once more. Put this very file \
         back if there is a copy of it (an older one lacks what came since), or run `cidctl repair`, which gives \
         them up", path.display()
    )]
    Outcomes {
        /// The file.
        path: PathBuf,
        /// Which property.
        what: &'static str,
        /// What was found.
        found: String,
        /// What belongs there.
        expected: String,
    },
    /// A run file that the catalog names is missing, or is not what it was.
    #[error(
        "a run file cannot be used: {source}. It holds {rows} rows of mutations {first_seq} to \
         {last_seq}, and without it nobody knows what is true: put it back from a backup, or run \
         `cidctl repair`, which saves what can be proven and tells what cannot"
    )]
    Run {
        /// Triples and tombstones in it, as the catalog says.
        rows: u64,
        /// See [`crate::hdf5::RunEntry::first_seq`].
        first_seq: Seq,
        /// See [`crate::hdf5::RunEntry::last_seq`].
        last_seq: Seq,
        /// What is wrong, and with which file.
        source: Box<StoreError>,
    },
    /// A run file is not the one that the catalog names.
    #[error("{}: {what} is {found}, the catalog says {expected}", path.display())]
    RunMismatch {
        /// The run file.
        path: PathBuf,
        /// Which property.
        what: &'static str,
        /// What the file says.
        found: String,
        /// What the catalog says.
        expected: String,
    },
}

/// A page of a run file could not be read: what was asked cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{}: the page at {offset} cannot be read: what the file holds (mutations {first_seq} to {last_seq}) \
     cannot be told until the daemon, which reads the file anew from time to time, finds it sound. Where it does \
     not (`cidctl verify` tells why), stop it, and run `cidctl repair` or put the file back from a backup",
    path.display()
)]
pub struct UnreadablePage {
    /// The run file.
    pub path: PathBuf,
    /// Where the first such page begins in it.
    pub offset: u64,
    /// First mutation whose effects the file holds.
    pub first_seq: Seq,
    /// Last mutation whose effects the file holds.
    pub last_seq: Seq,
}

impl StoreError {
    /// Whether the medium is full: the operation may be tried again when there is room.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Disk(error) | Self::Wal(WalError::Disk(error)) => error.is_full(),
            Self::Run { source, .. } => source.is_full(),
            Self::Wal(WalError::Full { .. }) | Self::NoRoomToMerge { .. } => true,
            _ => false,
        }
    }
}
