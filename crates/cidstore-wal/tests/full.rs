//! A disk without room: while the log is written, and while it is opened.

mod common;

use cidstore_disk::sim::SimDisk;
use cidstore_wal::{SEGMENT_HEADER_BYTES, WalError};
use common::{open, open_with, read, record_bytes, small_log};

/// The log's own cuts are no damage, wherever the process or the machine ends.
#[test]
fn full_disk_at_any_moment_and_then_the_end() {
    for capacity in (600..6000).step_by(128) {
        for (step, seed) in (0..24).flat_map(|step| (0..6).map(move |seed| (step, seed))) {
            let (disk, _, records) = small_log();
            disk.set_capacity(Some(capacity));
            let Ok((mut wal, _)) = open_with(&disk, 1, 1) else { continue };
            disk.stop_at(step);
            let mut kept = records.clone();
            for payload in [&[1; 300][..], &[2; 1200], &[3; 40], &[4; 900]] {
                let Ok(first) = wal.append(1, payload) else { continue };
                match wal.sync() {
                    Ok(_) => kept.push((first, 1, payload.to_vec())),
                    Err(_) => wal.discard(),
                }
            }
            if seed == 0 {
                disk.kill();
            } else {
                disk.crash(seed);
            }
            disk.set_capacity(None);
            let opened = open_with(&disk, 2, 1);
            let (wal, _) = opened.unwrap_or_else(|e| panic!("{capacity} {step} {seed}: {e}"));
            let found = read(&wal.log(), 1);
            // Of the group in flight all or nothing may be there.
            assert!(found.len() >= kept.len() && found.len() <= kept.len() + 1);
            assert_eq!(found[..kept.len()], kept);
        }
    }
}

#[test]
fn full_disk_takes_the_group_back_and_later_groups_succeed() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk, 0);
    wal.append(1, b"kept").unwrap();
    wal.sync().unwrap();
    // Far beyond the segment, so that the write has to grow the file.
    disk.set_capacity(Some(3000));
    wal.append(5, &[1; 1200]).unwrap();
    wal.append(5, &[1; 1200]).unwrap();
    assert!(matches!(wal.sync(), Err(WalError::Full { .. })));
    assert_eq!(wal.last_seq(), 1);
    disk.set_capacity(None);
    assert_eq!(wal.append(1, b"again").unwrap(), 2);
    wal.sync().unwrap();
    let expected = [(1, 1, b"kept".to_vec()), (2, 1, b"again".to_vec())];
    assert_eq!(read(&wal.log(), 1), expected);
    disk.crash(3);
    assert_eq!(read(&open(&disk, 1).0.log(), 1), expected);
}

#[test]
fn full_disk_does_not_keep_the_log_from_opening() {
    let (disk, _, records) = small_log();
    // Room for the header of a segment, not for what is reserved with it.
    let used = SEGMENT_HEADER_BYTES as u64 + 6 * record_bytes();
    disk.set_capacity(Some(used + 1000));
    let (mut wal, _) = open(&disk, 1);
    assert_eq!(read(&wal.log(), 1), records);
    wal.append(1, &[3; 4000]).unwrap();
    assert!(matches!(wal.sync(), Err(WalError::Full { .. })));
    disk.set_capacity(None);
    assert_eq!(wal.append(1, b"room").unwrap(), 13);
    wal.sync().unwrap();
    disk.crash(1);
    assert_eq!(read(&open(&disk, 2).0.log(), 13), [(13, 1, b"room".to_vec())]);
}

/// Not a byte is left, the last segment has no record yet, and there may be more than one start like this.
#[test]
fn full_disk_does_not_keep_a_log_with_an_empty_segment_from_opening() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk, 0);
    wal.append(1, &[1; 100]).unwrap();
    wal.sync().unwrap();
    disk.kill();
    drop(open(&disk, 1));
    disk.set_capacity(Some(disk.used()));
    for nonce in 2..5 {
        disk.kill();
        let (wal, recovery) = open(&disk, nonce);
        assert_eq!((recovery.last_seq, wal.last_seq()), (1, 1));
    }
    disk.kill();
    let (mut wal, _) = open(&disk, 5);
    // What it had reserved is room.
    assert_eq!(wal.append(1, &[2; 100]).unwrap(), 2);
    wal.sync().unwrap();
    disk.crash(0);
    assert_eq!(read(&open(&disk, 6).0.log(), 1).len(), 2);
}
