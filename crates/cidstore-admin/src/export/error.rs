//! Why an export could not be written or read.

use crate::held::HeldError;
use crate::progress::Stopped;
use cidstore_disk::DiskError;
use cidstore_engine::StoreError;
use cidstore_engine::hdf5::Hdf5Error;
use std::path::PathBuf;

/// Why an export could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The disk refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The store's sealed state cannot be read.
    #[error(transparent)]
    Held(#[from] HeldError),
    /// A run file is damaged.
    #[error("{0}. Nothing was exported")]
    Store(#[from] StoreError),
    /// The file's head cannot be described, or is not what was written.
    #[error(transparent)]
    Hdf5(#[from] Hdf5Error),
    /// Whoever watches has stopped it.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// Another export writes to the same file.
    #[error("{} is being written by another export: wait for it to end, or choose another name", .0.display())]
    Busy(PathBuf),
    /// A file that is no export is in the way.
    #[error("{} is there already and is no export: it is not replaced. Choose another name", .0.display())]
    Occupied(PathBuf),
    /// A column is not what was written.
    #[error(
        "{}: {what} of the {bytes} bytes of {dataset} at {offset} is {found}, expected {expected}: the file is \
         damaged, and nothing of it is imported", path.display()
    )]
    Column {
        /// The export.
        path: PathBuf,
        /// The dataset.
        dataset: &'static str,
        /// Where it begins in the file.
        offset: u64,
        /// How long it is.
        bytes: u64,
        /// Which checksum.
        what: &'static str,
        /// That of what is there.
        found: String,
        /// That of what was written.
        expected: String,
    },
    /// Its columns contradict each other, though their checksums fit.
    #[error("{}: row {row} of {dataset}: {what}: this was not written by cidctl", path.display())]
    Contradiction {
        /// The export.
        path: PathBuf,
        /// The dataset.
        dataset: &'static str,
        /// Where.
        row: u64,
        /// What is wrong there.
        what: String,
    },
}
