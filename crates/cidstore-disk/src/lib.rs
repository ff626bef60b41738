//! The one narrow door to the disk: the [`Disk`] and [`File`] traits under the log, the catalog and
//! the run files.
//!
//! **Owns** the real file system ([`RealDisk`]), the simulated medium for tests ([`sim::SimDisk`]),
//! the lock of a store, and the error that names operation and path.
//!
//! **Knows nothing of** logs, runs, HDF5 or triples.
//!
//! **Invariants**
//! - Nothing is durable before `sync_data`, `sync_all` (a file's bytes) or `sync_dir` (its name).
//! - A failed sync is never retried by this crate: the caller latches.

mod guard;
mod lock;
mod readable;
mod real;
pub mod sim;

pub use guard::any_page_was_unreadable;
pub use lock::{LockError, StoreLock};
pub use readable::{Unreadable, read_around};
pub use real::RealDisk;

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A failed operation: what was tried on which path.
#[derive(Debug, thiserror::Error)]
#[error("cannot {op} {}: {source}", path.display())]
pub struct DiskError {
    /// The operation, as a verb: `open`, `write`, `sync`, …
    pub op: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Result of a disk operation.
pub type Result<T> = std::result::Result<T, DiskError>;

/// How [`Disk::open`] opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    Write,
    /// A new file, for reading and writing; fails if it exists.
    Create,
}

/// A file system, real or simulated. Paths are used as they are given. Every method fails with a
/// [`DiskError`] that names operation and path.
#[allow(clippy::missing_errors_doc)]
pub trait Disk: Send + Sync + 'static {
    /// Opens or creates a file.
    fn open(&self, path: &Path, how: Open) -> Result<Arc<dyn File>>;
    /// Names (not paths) in a directory, sorted.
    fn list(&self, dir: &Path) -> Result<Vec<String>>;
    /// Whether the path exists.
    fn exists(&self, path: &Path) -> Result<bool>;
    /// Creates a directory and its missing parents; fine if it exists. Durable when it returns.
    fn create_dir_all(&self, dir: &Path) -> Result<()>;
    /// Renames, replacing what is at `to`. Durable after `sync_dir` of the directory.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;
    /// Removes a file. Durable after `sync_dir` of the directory.
    fn remove(&self, path: &Path) -> Result<()>;
    /// Makes names created, renamed and removed in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> Result<()>;
    /// Maps a whole file for reading. The file must not be changed while the map lives.
    fn map(&self, path: &Path) -> Result<Arc<dyn Map>>;
    /// Bytes that an unprivileged process may still write to the file system of `dir`.
    fn available_bytes(&self, dir: &Path) -> Result<u64>;
}

/// An open file. Closed when dropped. Every method fails with a [`DiskError`].
#[allow(clippy::missing_errors_doc)]
pub trait File: Send + Sync {
    /// Its path, for messages.
    fn path(&self) -> &Path;
    /// Length in bytes.
    fn len(&self) -> Result<u64>;
    /// Bytes that it has on the medium: fewer than it is long where nothing was written yet.
    fn allocated(&self) -> Result<u64> {
        self.len()
    }
    /// Whether it has no bytes.
    fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Reads until `buf` is full or the file ends; returns how many bytes it read.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize>;
    /// All of it. Where fewer bytes come than it is long, that is an error: where reading ends must not
    /// pass for where the file does.
    fn read_all(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.len()? as usize];
        let read = self.read_at(&mut bytes, 0)?;
        if read < bytes.len() {
            let what = format!("{read} of {} bytes came", bytes.len());
            let source = io::Error::new(io::ErrorKind::UnexpectedEof, what);
            return Err(DiskError { op: "read", path: self.path().to_owned(), source });
        }
        Ok(bytes)
    }
    /// Writes all of `bytes`, growing the file where needed.
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()>;
    /// Reserves space up to `len` and grows the file to it; the new bytes read as zero.
    fn allocate(&self, len: u64) -> Result<()>;
    /// Cuts or grows the file to `len` bytes.
    fn set_len(&self, len: u64) -> Result<()>;
    /// Makes its bytes durable, and its length as far as reading them back needs it (fdatasync).
    fn sync_data(&self) -> Result<()>;
    /// Begins to write the bytes of `begin` to the medium, and waits for those of `end`. Makes nothing
    /// durable: it keeps few bytes waiting in memory, since a sync of another file may have to wait for
    /// all of them. Does nothing where a system or a simulated disk has no such call.
    fn write_back(&self, begin: Range<u64>, end: Range<u64>) -> Result<()> {
        let _ = (begin, end);
        Ok(())
    }
    /// Makes its bytes and all its attributes durable (fsync).
    fn sync_all(&self) -> Result<()>;
    /// Whether another program holds a lock on it (`flock`), as HDF5 does on every file that it has
    /// open. Where that cannot be known, it says no.
    fn is_in_use(&self) -> bool;
    /// Shares the lock that [`File::is_in_use`] looks for, until the file is closed. Returns whether it
    /// has it: no where there are no locks, or another program has the file for itself.
    fn share_lock(&self) -> bool {
        false
    }
}

/// A file's bytes in memory, read-only.
///
/// # Safety
/// [`Map::bytes`] returns the same bytes at the same place for as long as the map lives, wherever it
/// is moved and whatever hints it is given: users keep pointers into them. Only when a page cannot be read
/// any more all of them turn into zeros, of which [`Map::unreadable_page`] tells.
pub unsafe trait Map: Send + Sync {
    /// All of them.
    fn bytes(&self) -> &[u8];
    /// Where a page was met that cannot be read any more (a bad sector, the end of a file that was cut
    /// short), in bytes from the beginning; `None` if there was none so far. All reads as zeros since then.
    fn unreadable_page(&self) -> Option<u64> {
        None
    }
    /// Tells that a range will be read once, front to back; a hint.
    fn will_scan(&self, _range: Range<usize>) {}
    /// Tells that a range will not be needed soon, so that it need not stay resident; a hint.
    fn release(&self, _range: Range<usize>) {}
}

impl DiskError {
    /// Whether the file or directory does not exist.
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// Whether the medium, or the user's share of it, is full (ENOSPC, EDQUOT).
    pub fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// Whether the system lacked something, descriptors or memory, or was interrupted: that says nothing
    /// of the file, and another attempt may succeed.
    pub fn is_transient(&self) -> bool {
        use io::ErrorKind::{Interrupted, OutOfMemory, ResourceBusy, TimedOut, WouldBlock};
        let kinds = [Interrupted, OutOfMemory, ResourceBusy, TimedOut, WouldBlock];
        let lacks = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS];
        kinds.contains(&self.source.kind())
            || self.source.raw_os_error().is_some_and(|errno| lacks.contains(&errno))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_the_systems_is_told_from_what_is_wrong_with_a_file() {
        let is_transient = |errno| {
            let source = io::Error::from_raw_os_error(errno);
            DiskError { op: "open", path: "/x".into(), source }.is_transient()
        };
        for errno in [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EINTR, libc::EAGAIN] {
            assert!(is_transient(errno), "{errno}");
        }
        for errno in [libc::EIO, libc::ENOENT, libc::EACCES, libc::EISDIR, libc::ENOSPC] {
            assert!(!is_transient(errno), "{errno}");
        }
    }
}
