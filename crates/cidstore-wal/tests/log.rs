//! The log against a vector of what was appended, on a simulated disk: crashes, full disks, failed
//! syncs, damage.

use cidstore_disk::sim::{ReadFault, SimDisk};
use cidstore_disk::{Disk, Open, RealDisk};
use cidstore_wal::{Log, Options, RECORD_HEADER_BYTES, Recovery, SEGMENT_HEADER_BYTES, Seq, Wal, WalError};
use proptest::collection::vec;
use proptest::prelude::*;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const DIR: &str = "/log";
const STORE: [u8; 16] = *b"0123456789abcdef";

fn open_with(disk: &SimDisk, nonce: u64, next_seq: Seq) -> Result<(Wal, Recovery), WalError> {
    let options = Options { segment_bytes: 2048, nonce, next_seq };
    Wal::open(Arc::new(disk.clone()), Path::new(DIR), STORE, options)
}

fn open(disk: &SimDisk, nonce: u64) -> (Wal, Recovery) {
    open_with(disk, nonce, 1).unwrap_or_else(|error| panic!("{error}"))
}

/// First sequence number, count, payload.
type Record = (Seq, u32, Vec<u8>);

/// The records from `from` on.
fn read(log: &Log, from: Seq) -> Vec<Record> {
    let mut tail = log.tail(from).unwrap();
    let mut records = Vec::new();
    while let Some(entry) = tail.next().unwrap() {
        records.push((entry.first_seq, entry.count, entry.payload.to_vec()));
    }
    records
}

#[derive(Debug, Clone)]
enum Action {
    Group(Vec<(u32, Vec<u8>)>),
    Flush(Vec<(u32, Vec<u8>)>),
    Remove(u64),
    Crash(u64),
    Kill,
    CutAt(u64, u64),
    Full(u64),
}

fn actions() -> impl Strategy<Value = Action> {
    let group = || vec((1u32..5, vec(any::<u8>(), 0..700)), 1..5);
    prop_oneof![
        8 => group().prop_map(Action::Group),
        2 => group().prop_map(Action::Flush),
        2 => (0u64..100).prop_map(Action::Remove),
        1 => any::<u64>().prop_map(Action::Crash),
        1 => Just(Action::Kill),
        2 => (0u64..8, any::<u64>()).prop_map(|(n, seed)| Action::CutAt(n, seed)),
        2 => (0u64..4).prop_map(Action::Full),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn log_equals_model(actions in vec(actions(), 1..40)) {
        let disk = SimDisk::new();
        let (mut wal, _) = open(&disk, 0);
        // All records in order; how many are durable; how many are acknowledged in any way.
        let mut model: Vec<Record> = Vec::new();
        let mut durable = 0;
        for (nonce, action) in (1..).zip(&actions) {
            let append = |wal: &mut Wal, group: &[(u32, Vec<u8>)]| -> Result<Vec<_>, WalError> {
                group.iter().map(|(count, payload)| {
                    Ok((wal.append(*count, payload)?, *count, payload.clone()))
                }).collect()
            };
            // Reopens after a crash: `cut` is what may be gone.
            let reopen = |wal: &mut Wal, model: &mut Vec<Record>, durable: &mut usize, in_flight: Vec<Record>| {
                let first = wal.log().first_seq();
                *wal = open(&disk, nonce).0;
                let expected: Vec<_> = model.iter().chain(&in_flight).filter(|record| record.0 >= first).cloned().collect();
                let found = read(&wal.log(), wal.log().first_seq());
                let sure = model[..*durable].iter().filter(|record| record.0 >= first).count();
                assert!(found.len() >= sure, "a durable record is gone");
                assert_eq!(&found[..], &expected[..found.len()]);
                let before = model.iter().filter(|record| record.0 < first).count();
                model.truncate(before);
                model.extend(found);
                *durable = model.len();
            };
            match action {
                Action::Group(group) => match append(&mut wal, group).and_then(|records| wal.sync().map(|_| records)) {
                    Ok(records) => {
                        model.extend(records);
                        durable = model.len();
                    }
                    Err(error) => panic!("{error}"),
                },
                Action::Flush(group) => {
                    let records = append(&mut wal, group).unwrap();
                    if wal.flush().is_ok() {
                        model.extend(records);
                    }
                }
                Action::Remove(seq) => {
                    wal.sync().unwrap();
                    durable = model.len();
                    wal.remove_before(*seq).unwrap();
                    let first = wal.log().first_seq();
                    if first > 1 {
                        let gone = matches!(wal.log().tail(first - 1), Err(WalError::Gone { oldest }) if oldest == first);
                        prop_assert!(gone);
                    }
                }
                Action::Crash(seed) => {
                    disk.crash(*seed);
                    reopen(&mut wal, &mut model, &mut durable, Vec::new());
                }
                Action::Kill => {
                    disk.kill();
                    durable = model.len();
                    reopen(&mut wal, &mut model, &mut durable, Vec::new());
                }
                Action::CutAt(n, seed) => {
                    disk.stop_at(*n);
                    let group = vec![(2, vec![7; 300]), (1, vec![8; 900]), (3, vec![9; 20])];
                    let start = wal.last_seq() + 1;
                    let in_flight = vec![(start, 2, vec![7; 300]), (start + 2, 1, vec![8; 900]), (start + 3, 3, vec![9; 20])];
                    let done = append(&mut wal, &group).and_then(|_| wal.sync());
                    disk.crash(*seed);
                    if done.is_ok() {
                        model.extend(in_flight);
                        durable = model.len();
                        reopen(&mut wal, &mut model, &mut durable, Vec::new());
                    } else {
                        reopen(&mut wal, &mut model, &mut durable, in_flight);
                    }
                }
                Action::Full(n) => {
                    disk.fail_nth(*n, ErrorKind::StorageFull);
                    let group = [(1, vec![5; 600]), (1, vec![6; 600])];
                    match append(&mut wal, &group).and_then(|records| wal.sync().map(|_| records)) {
                        Ok(records) => model.extend(records),
                        Err(WalError::Full { .. }) => wal.discard(),
                        // A sync that fails is final, whatever it says.
                        Err(WalError::Latched { .. }) => {
                            let start = model.last().map_or(0, |r| r.0 + u64::from(r.1) - 1) + 1;
                            disk.crash(u64::from(*n as u32) + 3);
                            let in_flight = vec![(start, 1, vec![5; 600]), (start + 1, 1, vec![6; 600])];
                            reopen(&mut wal, &mut model, &mut durable, in_flight);
                        }
                        Err(error) => panic!("{error}"),
                    }
                    let first = wal.log().first_seq();
                    let seen = read(&wal.log(), first);
                    prop_assert_eq!(&seen, &model.iter().filter(|r| r.0 >= first).cloned().collect::<Vec<_>>());
                    disk.kill();
                    durable = model.len();
                    reopen(&mut wal, &mut model, &mut durable, Vec::new());
                }
            }
            let first = wal.log().first_seq();
            let expected: Vec<_> = model.iter().filter(|record| record.0 >= first).cloned().collect();
            prop_assert_eq!(read(&wal.log(), first), expected.clone());
            if let Some(middle) = expected.get(expected.len() / 2) {
                let from = middle.0 + u64::from(middle.1) - 1;
                prop_assert_eq!(read(&wal.log(), from), expected[expected.len() / 2..].to_vec());
            }
            prop_assert_eq!(wal.log().last_seq(), model.last().map_or(0, |r| r.0 + u64::from(r.1) - 1));
        }
    }
}

/// A log of one segment with six records of 40 bytes, each synced by itself.
fn small_log() -> (SimDisk, PathBuf, Vec<Record>) {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk, 0);
    for i in 0..6u8 {
        wal.append(2, &[i + 1; 40]).unwrap();
        wal.sync().unwrap();
    }
    let records = read(&wal.log(), 1);
    disk.kill();
    (disk, Path::new(DIR).join("00000000000000000001.wal"), records)
}

fn record_bytes() -> u64 {
    (RECORD_HEADER_BYTES + 40) as u64
}

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
        // The remedy that the message names.
        disk.remove(&path).unwrap();
        let (wal, _) = open(&disk, 2);
        assert!(read(&wal.log(), 1).is_empty() && !records.is_empty());
    }
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

/// The log's own cuts are no damage, wherever the process or the machine ends.
#[test]
fn full_disk_at_any_moment_and_then_the_end() {
    for capacity in (600..6000).step_by(128) {
        for (step, seed) in (0..14).flat_map(|step| (0..6).map(move |seed| (step, seed))) {
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
fn segment_of_another_store_is_refused() {
    let (disk, _, _) = small_log();
    let options = Options { nonce: 9, ..Options::default() };
    let other = Wal::open(Arc::new(disk), Path::new(DIR), [9; 16], options);
    assert!(matches!(other, Err(WalError::Header { what: "the store id", .. })));
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
