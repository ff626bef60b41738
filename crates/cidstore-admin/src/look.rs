//! Looking at files: who is told of what was read and may have enough, and what was found.

use crate::finding::Finding;
use cidstore_disk::{Disk, File, Unreadable, read_around};
use std::path::Path;
use std::sync::Arc;

/// Bytes read at once: a whole number of elements of every kind.
pub(crate) const READ_BYTES: usize = 96 * 4096;

/// The caller has had enough. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// A step of a long piece of work.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    /// What is being looked at.
    pub path: &'a Path,
    /// Bytes read since the last step.
    pub bytes: u64,
}

/// Hears of progress, and says whether to go on.
pub type Told<'a> = dyn FnMut(Reading<'_>) -> bool + 'a;

/// What all who look at a store's files share.
pub(crate) struct Look<'a> {
    pub(crate) disk: &'a Arc<dyn Disk>,
    pub(crate) told: &'a mut Told<'a>,
    pub(crate) findings: Vec<Finding>,
}

impl<'a> Look<'a> {
    pub(crate) fn new(disk: &'a Arc<dyn Disk>, told: &'a mut Told<'a>) -> Self {
        Self { disk, told, findings: Vec::new() }
    }

    /// So much of a file was read.
    pub(crate) fn read(&mut self, path: &Path, bytes: u64) -> Result<(), Interrupted> {
        if (self.told)(Reading { path, bytes }) { Ok(()) } else { Err(Interrupted) }
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
    fn fill(&mut self, look: &mut Look<'_>) -> Result<bool, Interrupted> {
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
    pub(crate) fn next<const N: usize>(
        &mut self,
        look: &mut Look<'_>,
    ) -> Result<Option<[u8; N]>, Interrupted> {
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
    ) -> Result<(), Interrupted> {
        into.clear();
        while bytes > 0 && (self.at < self.buffer.len() || self.fill(look)?) {
            let part = bytes.min(self.buffer.len() - self.at);
            into.extend_from_slice(&self.buffer[self.at..self.at + part]);
            (self.at, bytes) = (self.at + part, bytes - part);
        }
        Ok(())
    }

    /// Reads what is left.
    pub(crate) fn end(mut self, look: &mut Look<'_>) -> Result<Ended, Interrupted> {
        while self.fill(look)? {}
        let lost = if self.lost.is_empty() { None } else { Some(self.lost.swap_remove(0)) };
        Ok(Ended { crc32c: self.crc32c, lost })
    }
}
