//! Segments as they are, for those who look for damage: nothing here changes, makes or refuses one.

use crate::record::{self, RECORD_HEADER_BYTES};
use crate::segment::{self, SEGMENT_HEADER_BYTES};
use crate::{Entry, Seq, WalError};
use cidstore_disk::{Disk, DiskError, Open, Unreadable, read_around};
use std::path::{Path, PathBuf};

/// Bytes read at once.
const READ_BYTES: usize = 1 << 20;

/// The segments in a log's directory, by the first sequence number in their names, ascending; none
/// where there is no directory.
///
/// # Errors
/// What the disk says.
pub fn segments(disk: &dyn Disk, dir: &Path) -> Result<Vec<(Seq, PathBuf)>, DiskError> {
    if !disk.exists(dir)? {
        return Ok(Vec::new());
    }
    let names = disk.list(dir)?;
    let firsts = names.iter().filter_map(|name| segment::parse_name(name));
    Ok(firsts.map(|first| (first, dir.join(segment::name(first)))).collect())
}

/// The bytes of a segment, in memory.
pub struct Image {
    path: PathBuf,
    first_seq: Seq,
    bytes: Vec<u8>,
    lost: Vec<Unreadable>,
}

/// What stands in a segment, from front to back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A record that passes its checksums.
    Record {
        /// Where it begins.
        offset: u64,
        /// What it holds.
        entry: Entry<'a>,
    },
    /// Bytes where a record should begin, and none does; or, if there are none, a number that no
    /// record has.
    Hole {
        /// Where it begins.
        offset: u64,
        /// Up to the next record, or the last byte that is not zero.
        bytes: u64,
        /// The record that should be there.
        expected: Seq,
        /// First number of the record behind it, if one follows in this segment.
        next: Option<Seq>,
        /// A record behind it says that `expected` was durable when it was written.
        was_durable: bool,
    },
}

impl Image {
    /// Reads the segment at `path`, whose name says that it begins with `first_seq`. `told` hears of
    /// bytes read and says whether to go on; `None` where it does not. What the medium refuses reads
    /// as zeros, see [`Image::unreadable`].
    ///
    /// # Errors
    /// If it cannot be opened, or its length is not known.
    pub fn read(
        disk: &dyn Disk,
        path: &Path,
        first_seq: Seq,
        told: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Option<Self>, DiskError> {
        let file = disk.open(path, Open::Read)?;
        // The length first: one that is being appended to may be shortened, after its header says so. Where
        // it is made longer meanwhile, see `is_short`.
        let len = file.len()? as usize;
        let (mut bytes, mut lost) = (vec![0; len], Vec::new());
        for start in (0..len).step_by(READ_BYTES) {
            let end = (start + READ_BYTES).min(len);
            let read = read_around(&*file, &mut bytes[start..end], start as u64, &mut lost);
            if !told(read as u64) {
                return Ok(None);
            }
        }
        Ok(Some(Self { path: path.to_owned(), first_seq, bytes, lost }))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// First sequence number, as its name says.
    pub fn first_seq(&self) -> Seq {
        self.first_seq
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Parts that the medium did not give back.
    pub fn unreadable(&self) -> &[Unreadable] {
        &self.lost
    }

    /// Checks the header; returns the least length that the file has as long as it is the last.
    ///
    /// # Errors
    /// [`WalError::Header`].
    pub fn header(&self, store_id: &[u8; 16]) -> Result<u64, WalError> {
        segment::read_header(&self.path, &self.bytes, store_id, self.first_seq).map(|(_, length)| length)
    }

    /// Whether it is shorter than its header says: damage in the last segment, unless its owner made it
    /// longer between the reading of its length and that of its header.
    pub fn is_short(&self) -> bool {
        let length = self.store_id().and_then(|id| self.header(&id).ok());
        length.is_some_and(|length| self.len() < length)
    }

    /// The store that its header names, if the header passes its checksum.
    pub fn store_id(&self) -> Option<[u8; 16]> {
        let id = self.bytes.get(16..32)?.try_into().ok()?;
        self.header(&id).is_ok().then_some(id)
    }

    /// What stands in it. The signature is taken as the header has it, damaged or not: records that
    /// pass their checksums with it prove it.
    pub fn pieces(&self) -> Pieces<'_> {
        let signature = self
            .bytes
            .get(40..48)
            .map_or(0, |signature| u64::from_le_bytes(signature.try_into().expect("8 bytes")));
        Pieces {
            bytes: &self.bytes,
            signature,
            at: SEGMENT_HEADER_BYTES,
            expected: self.first_seq,
            synced: None,
        }
    }
}

/// See [`Image::pieces`].
pub struct Pieces<'a> {
    bytes: &'a [u8],
    signature: u64,
    at: usize,
    expected: Seq,
    /// The last number that any record from the first hole on says was durable.
    synced: Option<Seq>,
}

impl<'a> Pieces<'a> {
    /// Where the next piece begins.
    pub fn offset(&self) -> u64 {
        self.at as u64
    }

    /// The record at a place, and its end.
    fn record(&self, at: usize) -> Option<(Entry<'a>, Seq, usize)> {
        let rest = self.bytes.get(at..)?;
        let (header, payload) = record::decode(rest, self.signature)?;
        let end = (at + record::record_bytes(header.len)).min(self.bytes.len());
        let entry = Entry { first_seq: header.first_seq, count: header.count, payload };
        Some((entry, header.synced, end))
    }

    /// Offsets from `at` on at which a record begins that passes its checksums.
    fn records_from(&self, at: usize) -> impl Iterator<Item = usize> + '_ {
        let mut at = at.next_multiple_of(record::ALIGN);
        std::iter::from_fn(move || {
            while at + RECORD_HEADER_BYTES <= self.bytes.len() {
                let found = record::header(&self.bytes[at..], self.signature).and_then(|_| self.record(at));
                let here = at;
                at = found.map_or(at + record::ALIGN, |(_, _, end)| end.next_multiple_of(record::ALIGN));
                if found.is_some() {
                    return Some(here);
                }
            }
            None
        })
    }

    fn synced(&mut self) -> Seq {
        let from = self.at;
        let all = || self.records_from(from).filter_map(|at| self.record(at)).map(|(_, synced, _)| synced);
        let synced = self.synced.unwrap_or_else(|| all().max().unwrap_or(0));
        self.synced = Some(synced);
        synced
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        let offset = self.at;
        if let Some((entry, _, end)) = self.record(offset)
            && entry.first_seq == self.expected
        {
            (self.at, self.expected) = (end, entry.first_seq + u64::from(entry.count));
            return Some(Piece::Record { offset: offset as u64, entry });
        }
        let expected = self.expected;
        let rest = self.bytes.get(offset..).unwrap_or_default();
        let last = rest.iter().rposition(|byte| *byte != 0)?;
        let was_durable = self.synced() >= expected;
        let next = self.records_from(offset).filter_map(|at| Some((at, self.record(at)?.0.first_seq)));
        let next = next.into_iter().find(|(_, first)| *first >= expected);
        self.at = next.map_or(self.bytes.len(), |(at, _)| at);
        self.expected = next.map_or(expected, |(_, first)| first);
        let bytes = next.map_or(last + 1, |(at, _)| at - offset) as u64;
        Some(Piece::Hole {
            offset: offset as u64,
            bytes,
            expected,
            next: next.map(|(_, first)| first),
            was_durable,
        })
    }
}
