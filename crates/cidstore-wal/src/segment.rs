//! A segment: one file of records.
//!
//! Named by its first sequence number, 20 digits and `.wal`. It begins with a header:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic, `CIDSTWAL` |
//! | 8 | 4 | format version, 1 |
//! | 12 | 4 | CRC-32C of the 64 bytes with this field as zero |
//! | 16 | 16 | store id |
//! | 32 | 8 | first sequence number |
//! | 40 | 8 | signature, mixed into the checksum of every record |
//! | 48 | 8 | the file is at least this long, as long as it is the last |
//! | 56 | 8 | zero |
//! | 64 | 448 | zero |
//!
//! Integers are little-endian. Records follow from byte 512, a sector's border, so that no write of
//! a record touches the header.

use crate::record;
use crate::{Seq, WalError};
use cidstore_disk::{Disk, DiskError, File, Open};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a segment's records begin.
pub const SEGMENT_HEADER_BYTES: usize = 512;

const MAGIC: [u8; 8] = *b"CIDSTWAL";
const VERSION: u32 = 1;
const COVERED_BYTES: usize = 64;

/// Every so many bytes of a segment, the index knows where a record begins.
const INDEX_BYTES: u64 = 1 << 20;

/// A segment and the part of it that followers may read. There may be many thousands, so that only those
/// that are being written or read are open.
#[derive(Clone)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) first_seq: Seq,
    /// Last sequence number of a visible record; `first_seq - 1` if there is none.
    pub(crate) last_seq: Seq,
    pub(crate) signature: u64,
    /// End of the visible records.
    pub(crate) end: u64,
    /// The file is at least this long, says its header.
    pub(crate) length: u64,
    /// Now and then, a record's first sequence number and offset; ascending.
    pub(crate) index: Vec<(Seq, u64)>,
    /// Its file is being removed: nobody begins to read it any more.
    pub(crate) is_going: bool,
}

impl Segment {
    /// One without records.
    pub(crate) fn new(path: PathBuf, first_seq: Seq, signature: u64, length: u64) -> Self {
        Self {
            path,
            first_seq,
            last_seq: first_seq - 1,
            signature,
            end: SEGMENT_HEADER_BYTES as u64,
            length,
            index: Vec::new(),
            is_going: false,
        }
    }

    /// A visible record was added at `offset`.
    pub(crate) fn note(&mut self, first_seq: Seq, count: u32, offset: u64, end: u64) {
        if self.index.last().is_none_or(|(_, at)| offset - at >= INDEX_BYTES) {
            self.index.push((first_seq, offset));
        }
        self.last_seq = first_seq + u64::from(count) - 1;
        self.end = end;
    }

    /// Whether it has no records.
    pub(crate) fn is_empty(&self) -> bool {
        self.last_seq < self.first_seq
    }

    /// Cuts its file, durably. First its header says so, since a last segment that is shorter than its
    /// header says was cut by someone else.
    pub(crate) fn cut(&mut self, file: &dyn File, store_id: &[u8; 16], length: u64) -> Result<(), DiskError> {
        if length < self.length {
            self.promise(file, store_id, length)?;
            file.sync_data()?;
        }
        file.set_len(length)?;
        file.sync_all()
    }

    /// Says in its header that its file is `length` long, which is durable already. The next sync makes
    /// the header durable, with what is written behind the length that it said before.
    pub(crate) fn promise(
        &mut self,
        file: &dyn File,
        store_id: &[u8; 16],
        length: u64,
    ) -> Result<(), DiskError> {
        file.write_at(&header(store_id, self.first_seq, self.signature, length), 0)?;
        self.length = length;
        Ok(())
    }

    /// Where to begin to read for the record that covers `seq`.
    pub(crate) fn seek(&self, seq: Seq) -> (Seq, u64) {
        let after = self.index.partition_point(|(first, _)| *first <= seq);
        let start = (self.first_seq, SEGMENT_HEADER_BYTES as u64);
        after.checked_sub(1).map_or(start, |at| self.index[at])
    }
}

/// Name of the segment that begins with `first_seq`.
pub(crate) fn name(first_seq: Seq) -> String {
    format!("{first_seq:020}.wal")
}

/// First sequence number of a segment's name; `None` if it is not one.
pub(crate) fn parse_name(name: &str) -> Option<Seq> {
    let digits = name.strip_suffix(".wal")?;
    (digits.len() == 20).then(|| digits.parse().ok())?
}

/// Signature of a segment: different for each store, start and first record (the finalizer of
/// `SplitMix64`, a bijection that spreads all bits).
fn signature(store_id: &[u8; 16], nonce: u64, first_seq: Seq) -> u64 {
    let (halves, _) = store_id.as_chunks::<8>();
    [u64::from_le_bytes(halves[0]), u64::from_le_bytes(halves[1]), nonce, first_seq].iter().fold(
        0,
        |hash, part| {
            let mut z = (hash ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        },
    )
}

/// The bytes of a header.
fn header(store_id: &[u8; 16], first_seq: Seq, signature: u64, length: u64) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut header = [0; SEGMENT_HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[16..32].copy_from_slice(store_id);
    header[32..40].copy_from_slice(&first_seq.to_le_bytes());
    header[40..48].copy_from_slice(&signature.to_le_bytes());
    header[48..56].copy_from_slice(&length.to_le_bytes());
    let crc = crc32c::crc32c(&header[..COVERED_BYTES]);
    header[12..16].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Makes a segment, in the place of an empty one of the same name if there is one. It has its name
/// only when its header is durable; the caller makes the name durable by syncing the directory. If the
/// disk was full there is no new name.
pub(crate) fn create(
    disk: &dyn Disk,
    dir: &Path,
    store_id: &[u8; 16],
    nonce: u64,
    first_seq: Seq,
    length: u64,
) -> Result<(Segment, Arc<dyn File>), DiskError> {
    let signature = signature(store_id, nonce, first_seq);
    let path = dir.join(name(first_seq));
    let new = dir.join(format!("{}.new", name(first_seq)));
    if disk.exists(&new)? {
        disk.remove(&new)?;
    }
    let made = (|| {
        let file = disk.open(&new, Open::Create)?;
        file.allocate(length)?;
        file.write_at(&header(store_id, first_seq, signature, length), 0)?;
        file.sync_all()?;
        disk.rename(&new, &path)?;
        // By its name, for messages.
        disk.open(&path, Open::Write)
    })();
    let file = match made {
        Ok(file) => file,
        Err(error) => {
            // Above all after ENOSPC: do not keep the space. The next attempt removes what is left.
            let _ = disk.remove(&new);
            return Err(error);
        }
    };
    Ok((Segment::new(path, first_seq, signature, length), file))
}

/// Reads a segment's header; returns its signature and the least length of the file.
pub(crate) fn read_header(
    path: &Path,
    bytes: &[u8],
    store_id: &[u8; 16],
    first_seq: Seq,
) -> Result<(u64, u64), WalError> {
    let mismatch = |what, found: String, expected: String| {
        Err(WalError::Header { path: path.to_owned(), what, found, expected })
    };
    if bytes.len() < SEGMENT_HEADER_BYTES {
        return mismatch("the length", bytes.len().to_string(), format!("at least {SEGMENT_HEADER_BYTES}"));
    }
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    if bytes[..8] != MAGIC {
        return mismatch("the magic", format!("{:02x?}", &bytes[..8]), format!("{MAGIC:02x?}"));
    }
    let mut covered: [u8; COVERED_BYTES] = bytes[..COVERED_BYTES].try_into().expect("64 bytes");
    covered[12..16].fill(0);
    let crc = crc32c::crc32c(&covered);
    if u32_at(12) != crc {
        return mismatch("the header's CRC-32C", format!("{:#010x}", u32_at(12)), format!("{crc:#010x}"));
    }
    if u32_at(8) != VERSION {
        return mismatch("the format version", u32_at(8).to_string(), VERSION.to_string());
    }
    if bytes[16..32] != *store_id {
        return mismatch("the store id", format!("{:02x?}", &bytes[16..32]), format!("{store_id:02x?}"));
    }
    if u64_at(32) != first_seq {
        return mismatch("the first sequence number", u64_at(32).to_string(), first_seq.to_string());
    }
    Ok((u64_at(40), u64_at(48)))
}

/// What follows the last good record of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Nothing but zeros.
    Clean,
    /// Bytes that are not, or not all, of a synced group: they were never acknowledged.
    Torn {
        /// How many, up to the last that is not zero.
        bytes: u64,
    },
    /// Bytes that were durable are not what was written.
    Damaged,
}

/// Reads the records of a segment in `bytes` into `segment`. Also tells from which offset on none says
/// that what was before it is durable.
pub(crate) fn scan(segment: &mut Segment, bytes: &[u8]) -> (End, usize) {
    let mut at = SEGMENT_HEADER_BYTES;
    let mut unproven = at;
    let mut expected = segment.first_seq;
    while let Some((header, _)) = bytes.get(at..).and_then(|rest| record::decode(rest, segment.signature)) {
        if header.first_seq != expected {
            break;
        }
        if header.synced + 1 == expected {
            unproven = at;
        }
        let end = (at + record::record_bytes(header.len)).min(bytes.len());
        segment.note(header.first_seq, header.count, at as u64, end as u64);
        expected += u64::from(header.count);
        at = end;
    }
    let rest = bytes.get(at..).unwrap_or_default();
    let Some(last) = rest.iter().rposition(|byte| *byte != 0) else { return (End::Clean, unproven) };
    let torn = last as u64 + 1;
    // A group is written at once, so that after a power cut any part of the last one may be there,
    // later records without earlier ones included. But what a later record says was durable when it
    // was written, was: if that includes the record expected here, this is no torn tail.
    let damaged = (0..=last).step_by(record::ALIGN).any(|skip| {
        let rest = &rest[skip..];
        record::header(rest, segment.signature).is_some_and(|header| header.synced >= expected)
            && record::decode(rest, segment.signature).is_some()
    });
    (if damaged { End::Damaged } else { End::Torn { bytes: torn } }, unproven)
}
