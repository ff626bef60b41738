//! The log as followers see it.

use crate::record::{self, RECORD_HEADER_BYTES};
use crate::segment::Segment;
use crate::{Seq, WalError};
use cidstore_disk::{Disk, File, Open};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes read at once, unless a record is larger.
const READ_BYTES: usize = 256 << 10;

/// A view of the visible part of the log; cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Log {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) segments: Arc<Mutex<Vec<Segment>>>,
}

/// A record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// First sequence number that it covers.
    pub first_seq: Seq,
    /// How many it covers.
    pub count: u32,
    /// What was appended.
    pub payload: &'a [u8],
}

/// Those that a follower may begin to read.
fn readable(segments: &[Segment]) -> &[Segment] {
    &segments[segments.partition_point(|segment| segment.is_going)..]
}

impl Log {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Vec<Segment>> {
        // Segments are valid after every single change, so a panic elsewhere breaks nothing.
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The oldest sequence number that can be read; `last_seq() + 1` if there is none.
    pub fn first_seq(&self) -> Seq {
        readable(&self.lock()).first().map_or(1, |segment| segment.first_seq)
    }

    /// The oldest sequence number that may still be on the disk: before [`Log::first_seq`] where the
    /// removal of a segment is under way, or failed.
    pub fn first_stored_seq(&self) -> Seq {
        self.lock().first().map_or(1, |segment| segment.first_seq)
    }

    /// The last visible sequence number.
    pub fn last_seq(&self) -> Seq {
        self.lock().last().map_or(0, |segment| segment.last_seq)
    }

    /// Bytes of visible records and headers.
    pub fn bytes(&self) -> u64 {
        self.lock().iter().map(|segment| segment.end).sum()
    }

    /// Number of segments.
    pub fn segments(&self) -> usize {
        self.lock().len()
    }

    /// Reads records from the one that covers `from`, or is the first after it, onward.
    ///
    /// # Errors
    /// [`WalError::Gone`] if `from` was removed, [`WalError::Ahead`] if it is not the next number and
    /// beyond it; [`WalError::Damaged`].
    pub fn tail(&self, from: Seq) -> Result<Tail, WalError> {
        let from = from.max(1);
        let all = self.lock();
        let segments = readable(&all);
        let last = segments.last().map_or(0, |segment| segment.last_seq);
        if from > last + 1 {
            return Err(WalError::Ahead { last });
        }
        let oldest = segments.first().map_or(1, |segment| segment.first_seq);
        if from < oldest {
            return Err(WalError::Gone { oldest });
        }
        let at = segments.partition_point(|segment| segment.first_seq <= from) - 1;
        let (next_seq, offset) = segments[at].seek(from);
        let segment = Reading::of(&segments[at]);
        drop(all);
        let mut tail =
            Tail { log: self.clone(), segment, offset, next_seq, window: Vec::new(), window_start: 0 };
        tail.skip_to(from)?;
        Ok(tail)
    }
}

/// What a tail keeps of the segment that it reads.
struct Reading {
    path: PathBuf,
    /// Open from the first read on; then it can be read to its end, removed or not.
    file: Option<Arc<dyn File>>,
    first_seq: Seq,
    signature: u64,
    end: u64,
}

impl Reading {
    fn of(segment: &Segment) -> Self {
        Self {
            path: segment.path.clone(),
            file: None,
            first_seq: segment.first_seq,
            signature: segment.signature,
            end: segment.end,
        }
    }
}

/// A follower's place in the log.
pub struct Tail {
    log: Log,
    segment: Reading,
    offset: u64,
    next_seq: Seq,
    window: Vec<u8>,
    /// Offset of the window's first byte in the segment.
    window_start: u64,
}

impl Tail {
    /// The sequence number that comes next.
    pub fn next_seq(&self) -> Seq {
        self.next_seq
    }

    /// The next record; `None` when there is none yet. Call again when there is more.
    ///
    /// # Errors
    /// [`WalError::Gone`] if the tail fell behind what was removed; [`WalError::Damaged`]; what the
    /// disk says.
    #[allow(clippy::should_implement_trait)] // A record borrows from the tail.
    pub fn next(&mut self) -> Result<Option<Entry<'_>>, WalError> {
        if self.offset >= self.segment.end && !self.find_more()? {
            return Ok(None);
        }
        self.fill(RECORD_HEADER_BYTES)?;
        let len = record::header(self.bytes(), self.segment.signature).map_or(0, |header| header.len);
        self.fill(record::record_bytes(len))?;
        let expected = self.next_seq;
        let valid = record::decode(self.bytes(), self.segment.signature)
            .filter(|(header, _)| header.first_seq == expected);
        let Some((header, _)) = valid else {
            return Err(WalError::Damaged {
                path: self.segment.path.clone(),
                offset: self.offset,
                what: "the checksum, length or number of the record does not fit".into(),
                expected,
            });
        };
        let start = (self.offset - self.window_start) as usize + RECORD_HEADER_BYTES;
        self.offset += record::record_bytes(header.len) as u64;
        self.next_seq += u64::from(header.count);
        let payload = &self.window[start..start + header.len];
        Ok(Some(Entry { first_seq: header.first_seq, count: header.count, payload }))
    }

    /// Learns how far the log goes now; whether there is a record to read.
    fn find_more(&mut self) -> Result<bool, WalError> {
        let all = self.log.lock();
        let segments = readable(&all);
        let at = segments.partition_point(|segment| segment.first_seq <= self.next_seq);
        let Some(segment) = at.checked_sub(1).map(|at| &segments[at]) else {
            let oldest = segments.first().map_or(1, |segment| segment.first_seq);
            return Err(WalError::Gone { oldest });
        };
        if segment.first_seq != self.segment.first_seq {
            // All of the old segment was read, since the next number is the first of this one.
            debug_assert_eq!(segment.first_seq, self.next_seq);
            self.offset = crate::SEGMENT_HEADER_BYTES as u64;
            self.window.clear();
            self.segment = Reading::of(segment);
        }
        self.segment.end = segment.end;
        Ok(self.offset < self.segment.end)
    }

    /// The file of the segment.
    fn file(&mut self) -> Result<Arc<dyn File>, WalError> {
        if let Some(file) = &self.segment.file {
            return Ok(Arc::clone(file));
        }
        let file = self.log.disk.open(&self.segment.path, Open::Read).map_err(|error| {
            let oldest = self.log.first_seq();
            let gone = error.is_not_found() && self.segment.first_seq < oldest;
            if gone { WalError::Gone { oldest } } else { error.into() }
        })?;
        self.segment.file = Some(Arc::clone(&file));
        Ok(file)
    }

    fn bytes(&self) -> &[u8] {
        &self.window[(self.offset - self.window_start) as usize..]
    }

    /// Makes the window hold `bytes` bytes from the current offset, as far as the segment has them.
    fn fill(&mut self, bytes: usize) -> Result<(), WalError> {
        let window_end = self.window_start + self.window.len() as u64;
        let within = !self.window.is_empty() && (self.window_start..=window_end).contains(&self.offset);
        let have = if within { (window_end - self.offset) as usize } else { 0 };
        let left = (self.segment.end - self.offset) as usize;
        if have >= bytes.min(left) && within {
            return Ok(());
        }
        let file = self.file()?;
        self.window.resize(bytes.max(READ_BYTES).min(left), 0);
        let read = file.read_at(&mut self.window, self.offset);
        // After a read that failed there is nothing in it: another may succeed.
        self.window.truncate(*read.as_ref().unwrap_or(&0));
        self.window_start = self.offset;
        read?;
        Ok(())
    }

    /// Skips the records that end before `from`.
    fn skip_to(&mut self, from: Seq) -> Result<(), WalError> {
        loop {
            let before = (self.offset, self.next_seq);
            if before.1 >= from || self.next()?.is_none() {
                return Ok(());
            }
            if self.next_seq > from {
                // That one covers `from`: go back to it.
                (self.offset, self.next_seq) = before;
                return Ok(());
            }
        }
    }
}
