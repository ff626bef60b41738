//! Segments that are torn, cut short, changed, moved away, or of another store.

mod common;

use cidstore_disk::sim::SimDisk;
use cidstore_disk::{Disk, Open};
use cidstore_wal::inspect::Image;
use cidstore_wal::{Options, SEGMENT_HEADER_BYTES, Seq, Wal, WalError};
use common::{DIR, open, open_with, read, record_bytes, small_log};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a power cut leaves of groups that were not synced: zeros from somewhere on.
#[test]
fn every_tear_leaves_a_prefix() {
    let end = SEGMENT_HEADER_BYTES as u64 + 6 * record_bytes();
    for from in SEGMENT_HEADER_BYTES as u64..=end {
        let (disk, path, records) = small_log();
        let zeros = vec![0; (end - from) as usize];
        disk.open(&path, Open::Write).unwrap().write_at(&zeros, from).unwrap();
        let (wal, recovery) = open(&disk, 1);
        let whole = ((from - SEGMENT_HEADER_BYTES as u64) / record_bytes()) as usize;
        assert_eq!(read(&wal.log(), 1), records[..whole], "zeros from {from} on");
        assert_eq!(recovery.last_seq, 2 * whole as u64);
    }
}

/// No power cut makes a segment shorter than it was made: that was done by someone.
#[test]
fn segment_cut_short_from_outside_is_refused() {
    for len in SEGMENT_HEADER_BYTES as u64..2048 {
        let (disk, path, records) = small_log();
        disk.open(&path, Open::Write).unwrap().set_len(len).unwrap();
        let error = open_with(&disk, 1, 1).err().unwrap_or_else(|| panic!("{len} bytes are taken as whole"));
        let whole = ((len - SEGMENT_HEADER_BYTES as u64) / record_bytes()).min(6);
        let WalError::Short { found, expected, from, .. } = error else { panic!("{error}") };
        assert_eq!((found, expected, from), (len, 2048, 2 * whole + 1));
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        let is_short = || Image::read(&disk, &path, 1, &mut |_| true).unwrap().unwrap().is_short();
        assert!(is_short());
        disk.open(&path, Open::Write).unwrap().set_len(2048).unwrap();
        assert!(!is_short());
        // The remedy that the message names.
        disk.remove(&path).unwrap();
        let (wal, _) = open(&disk, 2);
        assert!(read(&wal.log(), 1).is_empty() && !records.is_empty());
    }
}

/// Nor does a full disk, at the start or later, or a group longer than a segment, leave acknowledged
/// records where a cut would pass for a torn end.
#[test]
fn segment_cut_short_from_outside_is_refused_after_a_full_disk() {
    let mut cuts = 0;
    for (capacity, late) in (600..6000).step_by(192).flat_map(|bytes| [(bytes, false), (bytes, true)]) {
        let (disk, _, mut records) = small_log();
        if late {
            disk.allocate_late();
        }
        disk.set_capacity(Some(capacity));
        let Ok((mut wal, _)) = open_with(&disk, 1, 1) else { continue };
        let last = disk.files().into_keys().next_back().unwrap();
        let payloads: [&[u8]; 6] = [&[1; 300], &[2; 1200], &[3; 40], &[4; 2500], &[5; 40], &[6; 10]];
        for (i, payload) in payloads.iter().enumerate() {
            if i == 4 {
                disk.set_capacity(None);
            }
            let Ok(first) = wal.append(1, payload) else { continue };
            if wal.sync().is_ok() {
                records.push((first, 1, payload.to_vec()));
            }
            for len in (SEGMENT_HEADER_BYTES..disk.bytes(&last).unwrap().len()).step_by(8) {
                let twin = disk.fork();
                twin.crash(len as u64);
                twin.set_capacity(None);
                twin.cut(&last, len as u64);
                if let Ok((wal, _)) = open_with(&twin, 2, 1) {
                    assert_eq!(
                        read(&wal.log(), 1),
                        records,
                        "{capacity} bytes, cut at {len} after write {i}"
                    );
                }
                cuts += 1;
            }
        }
    }
    assert!(cuts > 10_000, "{cuts}");
}

/// What the message about damage says to do gives up what it says, and no more.
#[test]
fn moving_a_damaged_segment_and_all_later_ones_away_keeps_the_earlier_ones() {
    let disk = SimDisk::new();
    let mut records = Vec::new();
    for start in 0..3 {
        let (mut wal, _) = open(&disk, start);
        for i in 0..8 {
            let first = wal.append(1, &[i; 500]).unwrap();
            wal.sync().unwrap();
            records.push((first, 1, vec![i; 500]));
        }
        disk.kill();
    }
    let segments: Vec<PathBuf> = disk.files().into_keys().collect();
    assert!(segments.len() > 6);
    for damaged in (1..segments.len()).rev() {
        disk.flip_bit(&segments[damaged - 1], 8 * (SEGMENT_HEADER_BYTES as u64 + 40));
        let Some(WalError::Damaged { path, .. }) = open_with(&disk, 9, 1).err() else {
            panic!("a damaged segment before others is taken")
        };
        assert_eq!(path, segments[damaged - 1]);
        disk.flip_bit(&path, 8 * (SEGMENT_HEADER_BYTES as u64 + 40));
        // The one after it is moved away, as it would be if it were that one.
        for path in disk.files().into_keys().filter(|path| *path >= segments[damaged]) {
            disk.remove(&path).unwrap();
        }
        let (wal, _) = open(&disk, 10 + damaged as u64);
        let found = read(&wal.log(), 1);
        let last: Seq = segments[damaged].file_stem().unwrap().to_str().unwrap().parse().unwrap();
        assert_eq!(found, records[..last as usize - 1]);
        disk.kill();
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let end = SEGMENT_HEADER_BYTES as u64 + 6 * record_bytes();
    let last = end - record_bytes();
    let mut refused = 0;
    for bit in 0..end * 8 {
        let (disk, path, records) = small_log();
        disk.flip_bit(&path, bit);
        let byte = bit / 8;
        match open_with(&disk, 1, 1) {
            // In the last record nothing tells damage from a tear: it was not known to be durable
            // by any record after it. In the zeros behind the header nothing is said.
            Ok((wal, _)) => {
                let found = read(&wal.log(), 1);
                let unused = (64..SEGMENT_HEADER_BYTES as u64).contains(&byte);
                assert!(byte >= last || unused, "byte {byte} was not checked");
                assert_eq!(found, records[..if unused { 6 } else { 5 }]);
            }
            Err(WalError::Damaged { offset, expected, .. }) => {
                let record = (byte - SEGMENT_HEADER_BYTES as u64) / record_bytes();
                assert_eq!(offset, SEGMENT_HEADER_BYTES as u64 + record * record_bytes());
                assert_eq!(expected, record * 2 + 1);
                refused += 1;
            }
            Err(WalError::Header { .. }) => assert!(byte < 64),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(refused, 5 * record_bytes() * 8);
}

#[test]
fn segment_of_another_store_is_refused() {
    let (disk, _, _) = small_log();
    let options = Options { nonce: 9, ..Options::default() };
    let other = Wal::open(Arc::new(disk), Path::new(DIR), [9; 16], options);
    assert!(matches!(other, Err(WalError::Header { what: "the store id", .. })));
}
