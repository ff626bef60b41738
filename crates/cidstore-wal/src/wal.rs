//! The appender.

use crate::log::Log;
use crate::record;
use crate::recover::{self, Recovery};
use crate::segment::{self, Segment};
use crate::{Options, PAYLOAD_BYTES_MAX, SEGMENT_HEADER_BYTES, Seq, WalError};
use cidstore_disk::{Disk, DiskError, File, Open};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// A group smaller than this is not worth a change of the file's extents at every sync: the blocks
/// ahead of it are written with zeros, many at a time.
const SMALL_GROUP_BYTES: u64 = 64 << 10;
/// How far ahead.
const ZERO_AHEAD_BYTES: u64 = 1 << 20;

/// The log's only appender.
pub struct Wal {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    store_id: [u8; 16],
    options: Options,
    log: Log,
    /// The active segment, which is the last of `log`'s: a copy, ahead of what is visible.
    active: Segment,
    /// Its file.
    file: Arc<dyn File>,
    /// Records appended since the last flush.
    buffer: Vec<u8>,
    /// For each of them: first sequence number, count, offset, end.
    appended: Vec<(Seq, u32, u64, u64)>,
    next_seq: Seq,
    synced_seq: Seq,
    /// The active segment was written with something, if only zeros, up to here.
    written_end: u64,
    latched: Option<String>,
}

impl Wal {
    /// Opens the log in `dir`, or begins one there: reads all of it, cuts a torn tail, and goes on
    /// in a new segment.
    ///
    /// # Errors
    /// [`WalError::Damaged`] if bytes that were durable changed, [`WalError::Header`] if a segment
    /// is not of this store. Nothing was changed then.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        store_id: [u8; 16],
        options: Options,
    ) -> Result<(Self, Recovery), WalError> {
        let (mut segments, recovery) = recover::read(&*disk, dir, &store_id, &options)?;
        let next_seq = recovery.last_seq + 1;
        let create = |bytes| segment::create(&*disk, dir, &store_id, options.nonce, next_seq, bytes);
        let least = SEGMENT_HEADER_BYTES as u64;
        // A full disk is no reason not to start: reads go on, and writes will say `Full`.
        let mut made = create(options.segment_bytes);
        if made.as_ref().is_err_and(DiskError::is_full) {
            made = create(least);
        }
        if made.as_ref().is_err_and(DiskError::is_full) {
            // Not even room for a header.
            made = if let Some(mut last) = segments.pop_if(|last| last.is_empty()) {
                // No record was ever written to this one, so that its signature serves once more.
                let file = disk.open(&last.path, Open::Write)?;
                if recovery.torn_bytes > 0 {
                    last.cut(&*file, &store_id, last.end)?;
                }
                Ok((last, file))
            } else {
                // What is reserved beyond the last record is room.
                if let Some(last) = segments.last_mut() {
                    last.cut(&*disk.open(&last.path, Open::Write)?, &store_id, last.end)?;
                }
                create(least)
            };
        }
        let (active, file) = made?;
        disk.sync_dir(dir)?;
        // One without records had the same number: the new one was renamed over it.
        segments.pop_if(|last| last.is_empty());
        if let Some(last) = segments.last_mut() {
            // What is behind its records can go: zeros that were reserved, or what a torn group left.
            // If that fails, both mean nothing there. It can be the last again, when someone moves
            // later ones away.
            let _ = disk.open(&last.path, Open::Write).and_then(|file| last.cut(&*file, &store_id, last.end));
        }
        segments.push(active.clone());
        let log = Log { disk: Arc::clone(&disk), segments: Arc::new(Mutex::new(segments)) };
        let wal = Self {
            disk,
            dir: dir.to_owned(),
            store_id,
            options,
            log,
            active,
            file,
            buffer: Vec::new(),
            appended: Vec::new(),
            next_seq,
            synced_seq: next_seq - 1,
            written_end: SEGMENT_HEADER_BYTES as u64,
            latched: None,
        };
        Ok((wal, recovery))
    }

    /// The log for followers.
    pub fn log(&self) -> Log {
        self.log.clone()
    }

    /// The last sequence number that was given, durable or not.
    pub fn last_seq(&self) -> Seq {
        self.next_seq - 1
    }

    /// The last sequence number that is durable.
    pub fn synced_seq(&self) -> Seq {
        self.synced_seq
    }

    /// Why the log stopped writing for good, if it did.
    pub fn latched(&self) -> Option<&str> {
        self.latched.as_deref()
    }

    /// Adds a record that covers `count` (at least 1) sequence numbers to the group, and returns
    /// the first. Nobody sees it, and it is not durable, before [`Wal::sync`].
    ///
    /// # Errors
    /// [`WalError::TooLarge`], [`WalError::Latched`]; [`WalError::Full`] if a new segment was due
    /// and there is no room. The group stays as it was.
    ///
    /// # Panics
    /// If `count` is 0.
    pub fn append(&mut self, count: u32, payload: &[u8]) -> Result<Seq, WalError> {
        assert!(count > 0, "a record covers at least one sequence number");
        self.refuse_if_latched()?;
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(WalError::TooLarge { found: payload.len(), limit: PAYLOAD_BYTES_MAX });
        }
        let bytes = record::record_bytes(payload.len()) as u64;
        let fits = self.active.end + bytes <= self.options.segment_bytes;
        if self.buffer.is_empty() && !fits && !self.active.is_empty() {
            self.rotate(bytes as usize)?;
        }
        let first_seq = self.next_seq;
        let offset = self.active.end + self.buffer.len() as u64;
        record::encode(&mut self.buffer, self.active.signature, first_seq, count, self.synced_seq, payload);
        self.appended.push((first_seq, count, offset, self.active.end + self.buffer.len() as u64));
        self.next_seq += u64::from(count);
        Ok(first_seq)
    }

    /// Drops what was appended since the last flush or sync; its sequence numbers are given again.
    pub fn discard(&mut self) {
        if let Some((first_seq, ..)) = self.appended.first() {
            self.next_seq = *first_seq;
        }
        self.appended.clear();
        self.buffer.clear();
    }

    /// Hands the group to the operating system and makes it visible to followers, durable or not.
    /// Returns the last visible sequence number.
    ///
    /// # Errors
    /// [`WalError::Full`]: the group is discarded, nothing else happened. Else the log is latched.
    pub fn flush(&mut self) -> Result<Seq, WalError> {
        self.write()?;
        Ok(self.publish())
    }

    /// Makes the group, and all before it, durable, then visible to followers. Returns the last
    /// sequence number.
    ///
    /// # Errors
    /// As [`Wal::flush`].
    pub fn sync(&mut self) -> Result<Seq, WalError> {
        self.write()?;
        let visible = self.log.last_seq().max(self.next_seq - 1);
        if self.synced_seq < visible {
            if let Err(error) = self.file.sync_data() {
                return Err(self.latch(&error));
            }
            self.synced_seq = visible;
        }
        Ok(self.publish())
    }

    /// Removes the segments whose records all come before `seq`, but never the active one. Returns
    /// how many.
    ///
    /// # Errors
    /// What the disk says; what was removed until then stays removed.
    pub fn remove_before(&mut self, seq: Seq) -> Result<usize, WalError> {
        let mut removed = 0;
        loop {
            let path = match &mut self.log.lock()[..] {
                [oldest, _, ..] if oldest.last_seq < seq => {
                    // First of all, so that who does not find the file is told that it is gone.
                    oldest.is_going = true;
                    oldest.path.clone()
                }
                _ => break,
            };
            // From the oldest on, and each durably before the next, so that no gap can appear.
            match self.disk.remove(&path) {
                // Removed by an earlier call, which could not sync the directory.
                Err(error) if error.is_not_found() => {}
                removed => removed?,
            }
            self.disk.sync_dir(&self.dir)?;
            self.log.lock().remove(0);
            removed += 1;
        }
        Ok(removed)
    }

    fn refuse_if_latched(&self) -> Result<(), WalError> {
        self.latched.clone().map_or(Ok(()), |why| Err(WalError::Latched { why }))
    }

    fn latch(&mut self, error: &dyn std::fmt::Display) -> WalError {
        let why = self.latched.get_or_insert_with(|| error.to_string()).clone();
        self.discard();
        WalError::Latched { why }
    }

    fn write(&mut self) -> Result<(), WalError> {
        self.refuse_if_latched()?;
        if self.buffer.is_empty() {
            return Ok(());
        }
        let (start, bytes) = (self.active.end, self.buffer.len());
        let end = start + bytes as u64;
        self.lengthen(end)?;
        if (bytes as u64) < SMALL_GROUP_BYTES && end > self.written_end {
            // Zeros ahead, in the same write: the file's extents change once for many groups.
            let ahead = (end + ZERO_AHEAD_BYTES).min(self.active.length) - start;
            self.buffer.resize(ahead as usize, 0);
        }
        let written_end = start + self.buffer.len() as u64;
        let written = self.file.write_at(&self.buffer, start);
        self.buffer.truncate(bytes);
        match written {
            Ok(()) => {
                self.written_end = self.written_end.max(written_end);
                Ok(())
            }
            Err(error) if error.is_full() => self.take_back(start, bytes, error),
            Err(error) => Err(self.latch(&error)),
        }
    }

    /// Makes the active segment's file reach `end`, and its header say so, before records go there: as
    /// short as the header allows, the file would pass for one with a torn end. It is shorter where a full
    /// disk cut it or left only room for a header, and where a group is longer than a segment.
    fn lengthen(&mut self, end: u64) -> Result<(), WalError> {
        let (whole, former) = (end.max(self.options.segment_bytes), self.active.length);
        if end <= former {
            return Ok(());
        }
        let mut length = whole;
        let mut made = self.file.allocate(whole);
        if end < whole && made.as_ref().is_err_and(DiskError::is_full) {
            // What was reserved until there was no more room may be just what this group needs.
            length = end;
            made = self.file.set_len(former).and_then(|()| self.file.allocate(end));
        }
        let bytes = (end - self.active.end) as usize;
        match made {
            Ok(()) => {}
            Err(error) if error.is_full() => return self.take_back(former, bytes, error),
            Err(error) => return Err(self.latch(&error)),
        }
        // Before the header promises it.
        if let Err(error) = self.file.sync_all() {
            return Err(self.latch(&error));
        }
        match self.active.promise(&*self.file, &self.store_id, length) {
            Ok(()) => Ok(()),
            // The file may be longer than its header says.
            Err(source) if source.is_full() => {
                self.discard();
                Err(WalError::Full { bytes, source })
            }
            Err(error) => Err(self.latch(&error)),
        }
    }

    /// After ENOSPC: what was written of the group must not be found at a later start, be it that a
    /// later group ends just where one of its records begins. Cuts the file at `length`.
    fn take_back(&mut self, length: u64, bytes: usize, source: DiskError) -> Result<(), WalError> {
        self.discard();
        let cut = self.active.cut(&*self.file, &self.store_id, length);
        self.written_end = self.written_end.min(length);
        match cut {
            Ok(()) => Err(WalError::Full { bytes, source }),
            Err(error) => Err(self.latch(&error)),
        }
    }

    fn publish(&mut self) -> Seq {
        self.buffer.clear();
        for (first_seq, count, offset, end) in self.appended.drain(..) {
            self.active.note(first_seq, count, offset, end);
        }
        let mut segments = self.log.lock();
        let visible = segments.last_mut().expect("the active segment is always there");
        if visible.end < self.active.end {
            // The index only grows.
            let known = visible.index.len();
            visible.index.extend_from_slice(&self.active.index[known..]);
            (visible.last_seq, visible.end) = (self.active.last_seq, self.active.end);
        }
        visible.last_seq
    }

    /// Goes on in a new segment. The old one is durable then.
    fn rotate(&mut self, bytes: usize) -> Result<(), WalError> {
        self.sync()?;
        let Options { nonce, segment_bytes, .. } = self.options;
        match segment::create(&*self.disk, &self.dir, &self.store_id, nonce, self.next_seq, segment_bytes) {
            Ok((active, file)) => {
                // The new name is there, and may be after a power cut: nothing more may go into the
                // old segment, whatever this failure says.
                if let Err(error) = self.disk.sync_dir(&self.dir) {
                    return Err(self.latch(&error));
                }
                self.log.lock().push(active.clone());
                // What is reserved beyond the last record is less than a group, and stays.
                (self.active, self.file) = (active, file);
                self.written_end = SEGMENT_HEADER_BYTES as u64;
                Ok(())
            }
            Err(source) if source.is_full() => Err(WalError::Full { bytes, source }),
            Err(error) => Err(self.latch(&error)),
        }
    }
}
