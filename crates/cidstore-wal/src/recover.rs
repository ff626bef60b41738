//! Opening a log: reading every segment, cutting a torn tail, refusing damage.

use crate::segment::{self, End, Segment};
use crate::{Options, Seq, WalError};
use cidstore_disk::{Disk, Open};
use std::path::Path;

/// What opening a log found and did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovery {
    /// First sequence number that the log still has; `last_seq + 1` if it has none.
    pub first_seq: Seq,
    /// Last sequence number.
    pub last_seq: Seq,
    /// Segments found.
    pub segments: usize,
    /// Bytes of unacknowledged records that were cut off the end.
    pub torn_bytes: u64,
    /// Set when the log ended before `Options::next_seq`: its last sequence number. All of it was
    /// given up, since everything in it is kept elsewhere.
    pub behind: Option<Seq>,
}

/// Reads the log in `dir`. The segments that it returns end with whole records, which are durable, and
/// follow each other without a gap. Only the last may be without records.
pub(crate) fn read(
    disk: &dyn Disk,
    dir: &Path,
    store_id: &[u8; 16],
    options: &Options,
) -> Result<(Vec<Segment>, Recovery), WalError> {
    disk.create_dir_all(dir)?;
    let names = disk.list(dir)?;
    for name in names.iter().filter(|name| name.ends_with(".wal.new")) {
        // A segment that was being made: it never had a record.
        disk.remove(&dir.join(name))?;
    }
    let firsts: Vec<Seq> = names.iter().filter_map(|name| segment::parse_name(name)).collect();
    let mut segments: Vec<Segment> = Vec::new();
    let mut recovery = Recovery { segments: firsts.len(), ..Recovery::default() };
    // The last segment with records; those that no later one says were durable, and their offset.
    let mut unproven = None;
    for (i, first_seq) in firsts.iter().enumerate() {
        let path = dir.join(segment::name(*first_seq));
        if let Some(before) = segments.last()
            && before.last_seq + 1 != *first_seq
        {
            return Err(WalError::Damaged {
                path: before.path.clone(),
                offset: before.end,
                what: format!("the next segment begins at {first_seq}"),
                expected: before.last_seq + 1,
            });
        }
        let file = disk.open(&path, Open::Write)?;
        let bytes = file.read_all()?;
        let (signature, length) = segment::read_header(&path, &bytes, store_id, *first_seq)?;
        let mut segment = Segment::new(path, *first_seq, signature, length);
        let (end, from) = segment::scan(&mut segment, &bytes);
        let is_last = i + 1 == firsts.len();
        match end {
            // For an earlier one, the next one's number tells whether all is there.
            End::Clean | End::Torn { .. } if is_last && (bytes.len() as u64) < length => {
                return Err(WalError::Short {
                    path: segment.path,
                    found: bytes.len() as u64,
                    expected: length,
                    from: segment.last_seq + 1,
                });
            }
            End::Torn { bytes } if is_last => recovery.torn_bytes = bytes,
            // Bytes behind the last record of an earlier segment: it is followed by the next
            // segment, or the check above refuses.
            End::Clean | End::Torn { .. } => {}
            End::Damaged => {
                return Err(WalError::Damaged {
                    path: segment.path,
                    offset: segment.end,
                    what: "the checksum, length or number of the record does not fit".into(),
                    expected: segment.last_seq + 1,
                });
            }
        }
        if !segment.is_empty() {
            unproven = Some((file, from as u64, bytes[from..segment.end as usize].to_vec()));
        }
        segments.push(segment);
    }
    recovery.last_seq = segments.last().map_or(0, |segment| segment.last_seq);
    if recovery.last_seq + 1 < options.next_seq {
        recovery.behind = (!firsts.is_empty()).then_some(recovery.last_seq);
        for segment in segments.drain(..) {
            // From the oldest on, and each durably before the next, so that no gap can appear.
            disk.remove(&segment.path)?;
            disk.sync_dir(dir)?;
        }
        recovery.last_seq = options.next_seq - 1;
        unproven = None;
    }
    if let Some((file, offset, bytes)) = unproven {
        // After a kill, what was read may not be durable yet. A sync alone would not do: if one has
        // failed, the pages that it could not write count as clean, and the next one succeeds without
        // them. So they are written once more.
        file.write_at(&bytes, offset)?;
        file.sync_all()?;
    }
    disk.sync_dir(dir)?;
    recovery.first_seq = segments.first().map_or(recovery.last_seq + 1, |segment| segment.first_seq);
    Ok((segments, recovery))
}
