//! Looking at files: what was read, and what was found.

use crate::finding::Finding;
use crate::progress::{Progress, Stopped, Watch};
use cidstore_disk::{Disk, File, Unreadable, read_around};
use std::path::Path;
use std::sync::Arc;

/// Bytes read at once: a whole number of elements of every kind.
pub(crate) const READ_BYTES: usize = 96 * 4096;

/// What all who look at a store's files share.
pub(crate) struct Look<'a> {
    pub(crate) disk: &'a Arc<dyn Disk>,
    progress: Progress<'a, 'a>,
    pub(crate) findings: Vec<Finding>,
}

impl<'a> Look<'a> {
    pub(crate) fn new(disk: &'a Arc<dyn Disk>, watch: &'a mut Watch<'a>) -> Self {
        Self { disk, progress: Progress::new(watch), findings: Vec::new() }
    }

    /// So many bytes more are to be read.
    pub(crate) fn expect(&mut self, bytes: u64) {
        self.progress.expect(bytes);
    }

    /// So much of a file was read.
    pub(crate) fn read(&mut self, path: &Path, bytes: u64) -> Result<(), Stopped> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.progress.now(format!("reading {name}"));
        self.progress.add(bytes)
    }

    pub(crate) fn found(&mut self, finding: Finding) {
        self.findings.push(finding);
    }
}

/// A range of a file, read front to back, with the checksum of its bytes.
pub(crate) struct Stream<'f> {
    file: &'f dyn File,
    next: u64,
    end: u64,
    buffer: Vec<u8>,
    at: usize,
    crc32c: u32,
    lost: Vec<Unreadable>,
}

/// How a range is, all of it having been read.
pub(crate) struct Ended {
    pub(crate) crc32c: u32,
    /// The first part that could not be read.
    pub(crate) lost: Option<Unreadable>,
}

impl<'f> Stream<'f> {
    pub(crate) fn new(file: &'f dyn File, offset: u64, bytes: u64) -> Self {
        let end = offset + bytes;
        Self { file, next: offset, end, buffer: Vec::new(), at: 0, crc32c: 0, lost: Vec::new() }
    }

    /// Where the next element begins in the file.
    pub(crate) fn offset(&self) -> u64 {
        self.next - (self.buffer.len() - self.at) as u64
    }

    /// The next bytes as they come; none at the end, be it that of the file.
    fn fill(&mut self, look: &mut Look<'_>) -> Result<bool, Stopped> {
        let bytes = (self.end - self.next).min(READ_BYTES as u64) as usize;
        self.buffer.resize(bytes, 0);
        let read = read_around(self.file, &mut self.buffer, self.next, &mut self.lost);
        self.buffer.truncate(read);
        (self.at, self.next) = (0, self.next + read as u64);
        self.crc32c = crc32c::crc32c_append(self.crc32c, &self.buffer);
        look.read(self.file.path(), read as u64)?;
        Ok(read > 0)
    }

    /// The next element of `N` bytes; `None` at the end.
    pub(crate) fn next<const N: usize>(&mut self, look: &mut Look<'_>) -> Result<Option<[u8; N]>, Stopped> {
        if self.at == self.buffer.len() && !self.fill(look)? {
            return Ok(None);
        }
        let element = self.buffer.get(self.at..self.at + N).and_then(|bytes| bytes.try_into().ok());
        // Less than an element is left of a file that was cut off.
        self.at = if element.is_some() { self.at + N } else { self.buffer.len() };
        Ok(element)
    }

    /// The next `bytes` bytes, or as many as there are.
    pub(crate) fn take(
        &mut self,
        mut bytes: usize,
        into: &mut Vec<u8>,
        look: &mut Look<'_>,
    ) -> Result<(), Stopped> {
        into.clear();
        while bytes > 0 && (self.at < self.buffer.len() || self.fill(look)?) {
            let part = bytes.min(self.buffer.len() - self.at);
            into.extend_from_slice(&self.buffer[self.at..self.at + part]);
            (self.at, bytes) = (self.at + part, bytes - part);
        }
        Ok(())
    }

    /// Reads what is left.
    pub(crate) fn end(mut self, look: &mut Look<'_>) -> Result<Ended, Stopped> {
        while self.fill(look)? {}
        let lost = if self.lost.is_empty() { None } else { Some(self.lost.swap_remove(0)) };
        Ok(Ended { crc32c: self.crc32c, lost })
    }
}
