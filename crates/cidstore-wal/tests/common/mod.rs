//! A log of small segments on a simulated disk.

#![allow(dead_code, reason = "each test program uses a part of it")]

use cidstore_disk::sim::SimDisk;
use cidstore_wal::{Log, Options, RECORD_HEADER_BYTES, Recovery, Seq, Wal, WalError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub const DIR: &str = "/log";

pub const STORE: [u8; 16] = *b"0123456789abcdef";

pub fn open_with(disk: &SimDisk, nonce: u64, next_seq: Seq) -> Result<(Wal, Recovery), WalError> {
    let options = Options { segment_bytes: 2048, nonce, next_seq };
    Wal::open(Arc::new(disk.clone()), Path::new(DIR), STORE, options)
}

pub fn open(disk: &SimDisk, nonce: u64) -> (Wal, Recovery) {
    open_with(disk, nonce, 1).unwrap_or_else(|error| panic!("{error}"))
}

/// First sequence number, count, payload.
pub type Record = (Seq, u32, Vec<u8>);

/// The records from `from` on.
pub fn read(log: &Log, from: Seq) -> Vec<Record> {
    let mut tail = log.tail(from).unwrap();
    let mut records = Vec::new();
    while let Some(entry) = tail.next().unwrap() {
        records.push((entry.first_seq, entry.count, entry.payload.to_vec()));
    }
    records
}

/// A log of one segment with six records of 40 bytes, each synced by itself.
pub fn small_log() -> (SimDisk, PathBuf, Vec<Record>) {
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

pub fn record_bytes() -> u64 {
    (RECORD_HEADER_BYTES + 40) as u64
}
