//! The sizes and offsets that docs/FORMAT.md states, against bytes that the log wrote.

use cidstore_disk::sim::SimDisk;
use cidstore_wal::{Options, PAYLOAD_BYTES_MAX, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, Wal};
use std::path::Path;
use std::sync::Arc;

#[test]
fn bytes_on_disk_are_as_documented() {
    let format =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/FORMAT.md")).unwrap();
    let section = format.split("\n## ").find(|section| section.starts_with("The log")).unwrap();
    for stated in [
        format!("| {SEGMENT_HEADER_BYTES} | | records, one after the other |"),
        format!("| {RECORD_HEADER_BYTES} | | payload |"),
        "at most 2^30".to_owned(),
    ] {
        assert!(section.contains(&stated), "docs/FORMAT.md does not say {stated:?}");
    }
    assert_eq!(PAYLOAD_BYTES_MAX, 1 << 30);

    let disk = SimDisk::new();
    let store = *b"documented store";
    let options = Options { segment_bytes: 4096, nonce: 5, next_seq: 1 };
    let (mut wal, _) = Wal::open(Arc::new(disk.clone()), Path::new("/log"), store, options).unwrap();
    wal.append(3, b"abc").unwrap();
    wal.sync().unwrap();
    wal.append(1, b"defghijk").unwrap();
    wal.sync().unwrap();

    let files = disk.files();
    let bytes = &files[Path::new("/log/00000000000000000001.wal")];
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!(&bytes[..8], b"CIDSTWAL");
    assert_eq!(u32_at(8), 1);
    let mut covered = bytes[..64].to_vec();
    covered[12..16].fill(0);
    assert_eq!(u32_at(12), crc32c::crc32c(&covered));
    assert_eq!((&bytes[16..32], u64_at(32)), (&store[..], 1));
    assert_eq!((u64_at(48), bytes.len()), (4096, 4096));
    assert!(bytes[56..512].iter().all(|byte| *byte == 0));
    for (at, first, count, synced, payload) in [(512, 1, 3, 0, &b"abc"[..]), (552, 4, 1, 3, b"defghijk")] {
        assert_eq!(u32_at(at + 4) as usize, payload.len());
        assert_eq!((u64_at(at + 8), u32_at(at + 16), u64_at(at + 24)), (first, count, synced));
        let check = crc32c::crc32c_append(crc32c::crc32c(&bytes[40..48]), &bytes[at + 4..at + 20]);
        assert_eq!(u32_at(at + 20), crc32c::crc32c_append(check, &bytes[at + 24..at + 32]));
        let end = at + 32 + payload.len();
        assert_eq!(&bytes[at + 32..end], payload);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[40..48]), &bytes[at + 4..end]);
        assert_eq!(u32_at(at), crc);
        assert!(bytes[end..end.next_multiple_of(8)].iter().all(|byte| *byte == 0));
    }
}
