//! Files that exist in memory only, for HDF5 to work in.
//!
//! A memfd is sparse: a file of gigabytes of which only the metadata was written takes a few pages.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, memfd_create};

use super::Hdf5Error;

/// An anonymous file in memory; gone when dropped.
pub(super) struct Image<'f> {
    /// How messages name it.
    name: &'f str,
    memory: File,
}

impl<'f> Image<'f> {
    /// An empty one.
    pub(super) fn new(name: &'f str) -> Result<Self, Hdf5Error> {
        let memory = memfd_create("cidstore-hdf5", MemfdFlags::CLOEXEC)
            .map_err(|e| io_error(name, "create a file in memory", e.into()))?;
        Ok(Self { name, memory: memory.into() })
    }

    /// One of `len` bytes that begins with `head` and is zero (and sparse) after it.
    pub(super) fn with_head(name: &'f str, head: &[u8], len: u64) -> Result<Self, Hdf5Error> {
        let image = Self::new(name)?;
        image.memory.set_len(len).map_err(|e| io_error(name, "size a file in memory", e))?;
        image.memory.write_all_at(head, 0).map_err(|e| io_error(name, "write a file in memory", e))?;
        Ok(image)
    }

    /// The path by which this process, and no other, opens it.
    pub(super) fn path(&self) -> CString {
        CString::new(format!("/proc/self/fd/{}", self.memory.as_raw_fd())).expect("digits have no NUL")
    }

    /// Its length in bytes.
    pub(super) fn len(&self) -> Result<u64, Hdf5Error> {
        let about = self.memory.metadata().map_err(|e| io_error(self.name, "size a file in memory", e))?;
        Ok(about.len())
    }

    /// The bytes from `offset`, `len` of them.
    pub(super) fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, Hdf5Error> {
        let mut bytes = vec![0; len];
        self.memory
            .read_exact_at(&mut bytes, offset)
            .map_err(|e| io_error(self.name, "read a file in memory", e))?;
        Ok(bytes)
    }
}

pub(super) fn io_error(file: &str, op: &'static str, source: std::io::Error) -> Hdf5Error {
    Hdf5Error::Io { file: file.to_owned(), op, source }
}
