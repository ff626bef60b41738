//! The log against a vector of what was appended, whatever becomes of the disk.

mod common;

use cidstore_disk::sim::SimDisk;
use cidstore_wal::{Wal, WalError};
use common::{Record, open, read};
use proptest::collection::vec;
use proptest::prelude::*;
use std::io::ErrorKind;

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
