//! Why a backup or a restore did not come about.

use crate::held::HeldError;
use crate::progress::Stopped;
use crate::sum::Sum;
use cidstore_disk::{DiskError, LockError};
use cidstore_engine::StoreError;
use cidstore_engine::hdf5::Hdf5Error;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Why a backup or a restore did not come about. What was there before is as it was.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The disk refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Another process holds the store.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Another process works in the backup directory.
    #[error("{} is in use by another backup or restore: wait for it to end, then start again", .0.display())]
    Busy(PathBuf),
    /// Whoever watches has stopped it.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The store's sealed state cannot be read.
    #[error(transparent)]
    Store(#[from] HeldError),
    /// A catalog that passed its checksum cannot be read, or one cannot be made.
    #[error("the catalog cannot be used: {0}")]
    Catalog(#[source] Hdf5Error),
    /// A run file's head is not what the catalog says.
    #[error(
        "a run file is damaged and is not backed up: {0}. `cidctl verify` tells more, and earlier backups \
         may hold the file"
    )]
    Head(#[source] Hdf5Error),
    /// A column of a run file is not what was written.
    #[error(
        "{}: the {bytes} bytes of {dataset} at {offset} have CRC-32C {found:#010x}, expected \
         {expected:#010x}: the file is damaged and is not backed up. `cidctl verify` tells more, and \
         earlier backups may hold the file", path.display()
    )]
    Column {
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
    },
    /// A file of a backup is missing, or not as long as its manifest says.
    #[error(
        "{}: {found}, the manifest says {expected} bytes: this generation of the backup is damaged; \
         choose another one (`cidctl backup DIR --list --verify` tells which are whole)", path.display()
    )]
    Length {
        /// The file.
        path: PathBuf,
        /// What was found in its place.
        found: String,
        /// Bytes that it should have.
        expected: u64,
    },
    /// A file of a backup is not what was backed up.
    #[error(
        "{}: SHA-256 is {found}, expected {expected}: this generation of the backup is damaged; choose \
         another one (`cidctl backup DIR --list --verify` tells which are whole)", path.display()
    )]
    Sum {
        /// The file.
        path: PathBuf,
        /// That of its bytes.
        found: Sum,
        /// As it was recorded.
        expected: Sum,
    },
    /// The outcomes of mutations that came under keys cannot be used.
    #[error(transparent)]
    Outcomes(#[from] StoreError),
    /// A manifest cannot be used.
    #[error("{}: {what}: choose another generation of the backup", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// There is no such backup.
    #[error(
        "{} holds no {}: {}", dir.display(),
        wanted.map_or_else(|| "complete backup".to_owned(), |number| format!("generation {number}")),
        if there.is_empty() { "it has none".to_owned() } else { format!("it has {}", list(there)) }
    )]
    NoGeneration {
        /// The backup directory.
        dir: PathBuf,
        /// Which one was asked for, if one was.
        wanted: Option<u64>,
        /// Those that there are.
        there: Vec<u64>,
    },
    /// The generations are of more than one store.
    #[error(
        "{} holds backups of several stores: say which generation. {}", dir.display(),
        stores.iter().map(|(id, of)| format!("Of store {id}: {}", list(of))).collect::<Vec<_>>().join("; ")
    )]
    Several {
        /// The backup directory.
        dir: PathBuf,
        /// The generations of each store, by its id in hex.
        stores: BTreeMap<String, Vec<u64>>,
    },
    /// Something is where the store is to be restored.
    #[error("{} is there already: {what}. Restore to another path, or move it away", path.display())]
    Occupied {
        /// What is in the way.
        path: PathBuf,
        /// What that is.
        what: &'static str,
    },
}

fn list(numbers: &[u64]) -> String {
    numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

impl BackupError {
    /// Whether bytes of the backup itself are missing or wrong.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Length { .. } | Self::Sum { .. } | Self::Manifest { .. } => true,
            Self::Disk(error) => error.is_not_found() || error.op == "read",
            _ => false,
        }
    }
}
