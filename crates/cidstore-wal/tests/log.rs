//! Syncs and reads that fail, followers, the removal of old segments, power cuts on the way.

mod common;

use cidstore_disk::sim::{ReadFault, SimDisk};
use cidstore_disk::{Disk, RealDisk};
use cidstore_wal::{Options, Seq, Wal, WalError};
use common::{DIR, STORE, open, open_with, read, small_log};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

#[test]
fn failed_sync_latches_for_good() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk, 0);
    wal.append(1, b"one").unwrap();
    wal.sync().unwrap();
    wal.append(1, b"two").unwrap();
    disk.fail_nth(1, ErrorKind::Other);
    assert!(matches!(wal.sync(), Err(WalError::Latched { .. })));
    assert!(matches!(wal.append(1, b"three"), Err(WalError::Latched { .. })));
    assert!(matches!(wal.sync(), Err(WalError::Latched { .. })));
    assert_eq!(read(&wal.log(), 1), [(1, 1, b"one".to_vec())]);
}

/// What a read leaves out must not pass for a torn end, which would be cut off.
#[test]
fn reads_that_end_too_early_do_not_end_the_log() {
    for n in 0..8 {
        let disk = SimDisk::new();
        let (mut wal, _) = open(&disk, 0);
        wal.append(1, &[1; 1500]).unwrap();
        wal.sync().unwrap();
        disk.kill();
        disk.fail_nth_read(n, ReadFault::Short);
        match open_with(&disk, 1, 1) {
            Ok((wal, _)) => assert_eq!(wal.last_seq(), 1, "read {n}"),
            Err(error) => assert!(error.to_string().contains("bytes came"), "read {n}: {error}"),
        }
        disk.kill();
        assert_eq!(read(&open(&disk, 2).0.log(), 1).len(), 1, "read {n}");
    }
}

#[test]
fn a_tail_whose_read_failed_goes_on_where_it_was() {
    for fault in [ReadFault::Error, ReadFault::NoMemory] {
        let disk = SimDisk::new();
        let (mut wal, _) = open(&disk, 0);
        let mut tail = wal.log().tail(1).unwrap();
        // Each longer than the one before.
        for (seq, payload) in (1..).zip([[1; 100].to_vec(), [2; 300].to_vec(), [3; 700].to_vec()]) {
            wal.append(1, &payload).unwrap();
            wal.sync().unwrap();
            if seq > 1 {
                disk.fail_nth_read(0, fault);
                let error = tail.next().unwrap_err();
                assert_eq!(error.is_transient(), fault == ReadFault::NoMemory, "{error}");
            }
            let entry = tail.next().unwrap().unwrap();
            assert_eq!((entry.first_seq, entry.payload), (seq, &payload[..]));
        }
        assert_eq!(tail.next().unwrap(), None);
    }
}

/// What a sync could not write counts as clean afterwards: a later sync succeeds without it. A process
/// that starts meanwhile still reads it, and must not build on what a power cut takes away.
#[test]
fn what_a_failed_sync_left_unwritten_is_durable_after_the_next_start() {
    // What of the failed group reached the medium follows from the number of the operation.
    for operations in 0..8 {
        let disk = SimDisk::new();
        for _ in 0..operations {
            disk.create_dir_all(Path::new(DIR)).unwrap();
        }
        let (mut wal, _) = open(&disk, 0);
        wal.append(1, &[1; 100]).unwrap();
        wal.sync().unwrap();
        wal.append(2, &[2; 1200]).unwrap();
        disk.fail_nth(1, ErrorKind::Other);
        assert!(matches!(wal.sync(), Err(WalError::Latched { .. })));
        disk.kill();
        let (mut wal, recovery) = open(&disk, 1);
        assert_eq!((recovery.last_seq, wal.synced_seq()), (3, 3), "the system still has it");
        let first = wal.append(1, &[3; 100]).unwrap();
        wal.sync().unwrap();
        disk.crash_where(&mut |_| false);
        let (wal, _) = open(&disk, 2);
        let found: Vec<Seq> = read(&wal.log(), 1).iter().map(|record| record.0).collect();
        assert_eq!(found, [1, 2, first]);
    }
}

#[test]
fn log_behind_what_is_kept_elsewhere_begins_anew() {
    let (disk, _, _) = small_log();
    let (mut wal, recovery) = open_with(&disk, 1, 100).unwrap();
    assert_eq!((recovery.behind, recovery.last_seq), (Some(12), 99));
    assert_eq!(wal.append(1, b"x").unwrap(), 100);
    wal.sync().unwrap();
    assert!(matches!(wal.log().tail(99), Err(WalError::Gone { oldest: 100 })));
    assert!(matches!(wal.log().tail(102), Err(WalError::Ahead { last: 100 })));
    assert!(wal.log().tail(101).unwrap().next().unwrap().is_none());
    assert_eq!(read(&wal.log(), 100), [(100, 1, b"x".to_vec())]);
}

#[test]
fn tail_follows_across_segments_and_sees_nothing_unsynced() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk, 0);
    let mut tail = wal.log().tail(1).unwrap();
    for i in 0..30u64 {
        wal.append(1, &[i as u8; 300]).unwrap();
        assert!(tail.next().unwrap().is_none());
        wal.sync().unwrap();
        let entry = tail.next().unwrap().unwrap();
        assert_eq!((entry.first_seq, entry.payload), (i + 1, &[i as u8; 300][..]));
    }
    assert!(wal.log().segments() > 3);
    let mut slow = wal.log().tail(1).unwrap();
    wal.remove_before(31).unwrap();
    assert!(matches!(slow.next(), Ok(Some(_)) | Err(WalError::Gone { .. })));
    while !matches!(slow.next(), Err(WalError::Gone { .. })) {}
}

#[test]
fn power_cut_while_a_log_that_is_behind_is_removed() {
    for step in 0..40 {
        for seed in 0..16 {
            let disk = SimDisk::new();
            let (mut wal, _) = open(&disk, 0);
            for i in 0..20u8 {
                wal.append(1, &[i; 600]).unwrap();
                wal.sync().unwrap();
            }
            assert!(wal.log().segments() > 4);
            disk.kill();
            disk.stop_at(step);
            let _ = open_with(&disk, 1, 100);
            disk.crash(seed);
            let (wal, recovery) = open_with(&disk, 2, 100).unwrap_or_else(|e| panic!("{step} {seed}: {e}"));
            assert_eq!((recovery.last_seq, wal.log().first_seq()), (99, 100));
        }
    }
}

#[test]
fn removal_goes_on_after_its_directory_could_not_be_synced() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk, 0);
    for i in 0..20u8 {
        wal.append(1, &[i; 600]).unwrap();
        wal.sync().unwrap();
    }
    let (log, segments) = (wal.log(), wal.log().segments());
    let mut behind = log.tail(1).unwrap();
    disk.fail_nth(1, ErrorKind::Other);
    wal.remove_before(20).unwrap_err();
    // Its name may come back with a power cut, but nobody can read it.
    assert_eq!((log.first_stored_seq(), log.segments()), (1, segments));
    let first = log.first_seq();
    assert!(first > 1);
    for error in [behind.next().err(), log.tail(1).err()] {
        assert!(matches!(error, Some(WalError::Gone { oldest }) if oldest == first), "{error:?}");
    }
    assert_eq!(read(&log, first)[0].0, first);
    wal.remove_before(20).unwrap();
    assert_eq!(log.segments(), 1);
    assert_eq!(log.first_stored_seq(), log.first_seq());
}

/// Whoever lets a store run for years has thousands of them.
#[test]
fn only_the_segment_that_is_written_is_kept_open() {
    let folder = tempfile::tempdir().unwrap();
    // Other tests have files of their own open meanwhile.
    let open_files = || {
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
        let paths = descriptors.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
        paths.filter(|path| path.starts_with(folder.path())).count()
    };
    for nonce in 0..5 {
        let options = Options { segment_bytes: 2048, nonce, next_seq: 1 };
        let (mut wal, _) = Wal::open(Arc::new(RealDisk), folder.path(), STORE, options).unwrap();
        assert_eq!(open_files(), 1, "after {nonce} starts");
        for i in 0..10 {
            wal.append(1, &[i; 900]).unwrap();
            wal.sync().unwrap();
        }
        let log = wal.log();
        assert!(log.segments() > 4);
        assert_eq!(open_files(), 1);
        let mut tail = log.tail(1).unwrap();
        for i in 0..log.last_seq() {
            assert_eq!(tail.next().unwrap().unwrap().payload, [(i % 10) as u8; 900]);
            assert!(open_files() <= 2, "the one that is read beside it");
        }
    }
}

/// A name that could not be synced is there nevertheless, and may be after a power cut.
#[test]
fn segment_whose_name_could_not_be_synced_takes_no_number_from_the_next_one() {
    for (n, seed) in (0..8).flat_map(|n| (0..8).map(move |seed| (n, seed))) {
        let disk = SimDisk::new();
        let (mut wal, _) = open(&disk, 0);
        wal.append(1, &[1; 1000]).unwrap();
        wal.sync().unwrap();
        let mut kept = 1;
        disk.fail_nth(n, ErrorKind::StorageFull);
        // The first needs a new segment, the second would fit into the old one.
        for payload in [&[2; 1000][..], &[3; 8]] {
            if wal.append(1, payload).and_then(|_| wal.sync()).is_ok() {
                kept += 1;
            } else {
                wal.discard();
            }
        }
        if seed == 0 {
            disk.kill();
        } else {
            disk.crash(seed);
        }
        let (wal, _) = open_with(&disk, 1, 1).unwrap_or_else(|e| panic!("{n} {seed}: {e}"));
        let found = read(&wal.log(), 1).len();
        assert!((kept..=kept + 1).contains(&found), "{n} {seed}: {found} of {kept}");
    }
}
