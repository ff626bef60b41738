//! A store's sealed state, held: the catalog as other programs hold it, and every run file open.
//!
//! The lock on the catalog is the one that HDF5 takes; while it is there the daemon removes no run
//! file that this catalog names (but for want of room). Files that are open can be read to their end
//! even then, and after a restart of the daemon, too.

use crate::sum::hex;
use cidstore_disk::DiskError;
use cidstore_engine::files::Places;
use cidstore_engine::hdf5::{Catalog, Hdf5Error, RunEntry, read_catalog};
use cidstore_types::Seq;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How often a catalog may be replaced between being opened and being locked before this is taken
/// for something else.
const TRIES: usize = 1000;

/// Why the sealed state of a store cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum HeldError {
    /// The disk refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The catalog is not what was written.
    #[error("the catalog cannot be used: {0}. `cidctl verify` tells more")]
    Catalog(#[source] Hdf5Error),
    /// It ends before what was asked for.
    #[error(
        "{}: sealed up to seq {found}, but the daemon that was asked says {expected}: it has another store open. \
         Name the store with --data and its daemon with --endpoint", path.display()
    )]
    Other {
        /// The catalog.
        path: PathBuf,
        /// Last mutation that its runs hold.
        found: u64,
        /// Last mutation that they should hold.
        expected: u64,
    },
    /// A run file is missing, or not as long as the catalog says.
    #[error(
        "{}: {found}, the catalog says {expected} bytes: the store is damaged. `cidctl verify` tells more, \
         and backups may hold the file", path.display()
    )]
    Run {
        /// The run file.
        path: PathBuf,
        /// What was found in its place.
        found: String,
        /// Bytes that it should have.
        expected: u64,
    },
}

/// The catalog and run files of one moment.
pub(crate) struct Held {
    /// Locked as long as it lives.
    _lock: File,
    /// The catalog's bytes.
    pub(crate) bytes: Vec<u8>,
    /// What they say.
    pub(crate) catalog: Catalog,
    /// In the catalog's order.
    pub(crate) runs: Vec<HeldRun>,
}

/// A run file of it.
pub(crate) struct HeldRun {
    pub(crate) entry: RunEntry,
    pub(crate) path: PathBuf,
    pub(crate) file: File,
}

pub(crate) fn io_error(op: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> DiskError {
    let path = path.to_owned();
    move |source| DiskError { op, path, source }
}

/// Which store it is whose catalog is at `path`, as `stats` of a daemon tells it, and up to which mutation it
/// is sealed now.
///
/// # Errors
/// [`HeldError`]: what the disk says, and what is wrong with the catalog.
pub fn identity(path: &Path) -> Result<(String, Seq), HeldError> {
    let file = File::open(path).map_err(io_error("open", path))?;
    let (_, catalog) = read(path, &file)?;
    Ok((hex(&catalog.store_id), catalog.sealed_seq))
}

impl Held {
    /// Holds the state of the catalog at `path`, which has all mutations up to `at_least`.
    ///
    /// # Errors
    /// [`HeldError`]: what the disk says, and what is not as the catalog says.
    pub(crate) fn open(path: &Path, at_least: u64) -> Result<Self, HeldError> {
        let mut tried = 0;
        loop {
            tried += 1;
            match Self::open_once(path) {
                // A run file was merged away before the lock was there: another catalog is there now.
                Err((error, true)) if tried == TRIES => return Err(error),
                Err((_, true)) => {}
                Ok(held) if held.catalog.sealed_seq < at_least => {
                    let (found, expected) = (held.catalog.sealed_seq, at_least);
                    return Err(HeldError::Other { path: path.to_owned(), found, expected });
                }
                other => return other.map_err(|(error, _)| error),
            }
        }
    }

    /// The error, and whether the catalog was replaced meanwhile.
    fn open_once(path: &Path) -> Result<Self, (HeldError, bool)> {
        let for_good = |error| (error, false);
        let lock =
            File::open(path).map_err(io_error("open", path)).map_err(|error| for_good(error.into()))?;
        // Where there are no locks the open files alone have to do.
        let _ = lock.lock_shared();
        let (bytes, catalog) = read(path, &lock).map_err(for_good)?;
        let dir = Places::of(path).runs;
        let mut runs = Vec::with_capacity(catalog.runs.len());
        for entry in &catalog.runs {
            let run = open_run(&dir, entry).map_err(|error| (error, was_replaced(&lock, path)))?;
            runs.push(run);
        }
        Ok(Self { _lock: lock, bytes, catalog, runs })
    }
}

fn open_run(dir: &Path, entry: &RunEntry) -> Result<HeldRun, HeldError> {
    let path = dir.join(format!("{:06}.h5", entry.id));
    let wrong = |path, found| HeldError::Run { path, found, expected: entry.file_bytes };
    let file = match File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(wrong(path, "there is no such file".into()));
        }
        file => file.map_err(io_error("open", &path))?,
    };
    let found = file.metadata().map_err(io_error("size", &path))?.len();
    if found != entry.file_bytes {
        return Err(wrong(path, format!("a file of {found} bytes")));
    }
    Ok(HeldRun { entry: entry.clone(), path, file })
}

fn was_replaced(held: &File, path: &Path) -> bool {
    let identity = |about: std::fs::Metadata| (about.dev(), about.ino());
    let now = std::fs::metadata(path).map(identity).ok();
    now.is_some() && now != held.metadata().map(identity).ok()
}

/// The bytes of a catalog, and what they say.
fn read(path: &Path, mut file: &File) -> Result<(Vec<u8>, Catalog), HeldError> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(io_error("read", path))?;
    let catalog = read_catalog(&path.display().to_string(), &bytes).map_err(HeldError::Catalog)?;
    Ok((bytes, catalog))
}
