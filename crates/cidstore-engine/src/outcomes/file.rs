//! The bytes of the file that holds outcomes of what is sealed.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic, `CIDSTOUT` |
//! | 8 | 4 | format version, 1 |
//! | 12 | 4 | CRC-32C of bytes 0 to 63, with this field as zero |
//! | 16 | 16 | store id |
//! | 32 | 8 | it holds the outcomes of all mutations up to this one |
//! | 40 | 8 | n, how many |
//! | 48 | 4 | CRC-32C of what follows the head |
//! | 52 | 12 | zero |
//! | 64 | 56 n | outcomes, by ascending sequence number |
//!
//! An outcome: the key's fingerprint (16), the request's (16), last sequence number (u64), time of receipt
//! (f64), how many sequence numbers (u32), triples affected (u32). Integers are little-endian.

use super::table::Entry;
use crate::error::StoreError;
use cidstore_types::{Fingerprint, Seq};
use std::path::{Path, PathBuf};

pub(super) const HEAD_BYTES: usize = 64;
pub(super) const ENTRY_BYTES: usize = 56;
const MAGIC: [u8; 8] = *b"CIDSTOUT";
const VERSION: u32 = 1;

/// Where it is.
pub(crate) fn beside(catalog: &Path) -> PathBuf {
    crate::catalog::beside(catalog, ".outcomes")
}

/// The head of a file of `count` outcomes whose bytes have this checksum.
pub(super) fn head(store_id: &[u8; 16], through: Seq, count: u64, crc32c: u32) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(&MAGIC);
    head[8..12].copy_from_slice(&VERSION.to_le_bytes());
    head[16..32].copy_from_slice(store_id);
    head[32..40].copy_from_slice(&through.to_le_bytes());
    head[40..48].copy_from_slice(&count.to_le_bytes());
    head[48..52].copy_from_slice(&crc32c.to_le_bytes());
    let own = crc32c::crc32c(&head);
    head[12..16].copy_from_slice(&own.to_le_bytes());
    head
}

impl Entry {
    pub(super) fn encode_into(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.key.0);
        out.extend_from_slice(&self.request.0);
        out.extend_from_slice(&self.seq.to_le_bytes());
        out.extend_from_slice(&self.received_at.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.affected.to_le_bytes());
    }

    fn decode(bytes: &[u8; ENTRY_BYTES]) -> Self {
        Self {
            key: Fingerprint(part(bytes, 0)),
            request: Fingerprint(part(bytes, 16)),
            seq: u64::from_le_bytes(part(bytes, 32)),
            received_at: f64::from_le_bytes(part(bytes, 40)),
            count: u32::from_le_bytes(part(bytes, 48)),
            affected: u32::from_le_bytes(part(bytes, 52)),
        }
    }
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("as long as said")
}

/// The outcomes in the file at `path`, whose bytes these are.
///
/// # Errors
/// [`StoreError::Outcomes`] says what is wrong.
pub(crate) fn decode(path: &Path, bytes: &[u8], store_id: &[u8; 16]) -> Result<Vec<Entry>, StoreError> {
    let wrong = |what, found: String, expected: String| {
        Err(StoreError::Outcomes { path: path.to_owned(), what, found, expected })
    };
    let Some(head) = bytes.first_chunk::<HEAD_BYTES>() else {
        return wrong("its length", bytes.len().to_string(), format!("at least {HEAD_BYTES}"));
    };
    let mut zeroed = *head;
    zeroed[12..16].fill(0);
    let (found, expected) = (u32::from_le_bytes(part(head, 12)), crc32c::crc32c(&zeroed));
    if head[..8] != MAGIC || found != expected {
        return wrong("the checksum of its head", format!("{found:#010x}"), format!("{expected:#010x}"));
    }
    let version = u32::from_le_bytes(part(head, 8));
    if version != VERSION {
        return wrong("its format version", version.to_string(), VERSION.to_string());
    }
    let found: [u8; 16] = part(head, 16);
    if found != *store_id {
        return wrong("its store id", format!("{found:02x?}"), format!("{store_id:02x?}"));
    }
    let body = &bytes[HEAD_BYTES..];
    let count = u64::from_le_bytes(part(head, 40));
    if count.checked_mul(ENTRY_BYTES as u64) != Some(body.len() as u64) {
        let expected = format!("{HEAD_BYTES} and {ENTRY_BYTES} for each of {count} outcomes");
        return wrong("its length", bytes.len().to_string(), expected);
    }
    let (found, expected) = (crc32c::crc32c(body), u32::from_le_bytes(part(head, 48)));
    if found != expected {
        return wrong("the checksum of its outcomes", format!("{found:#010x}"), format!("{expected:#010x}"));
    }
    Ok(body.as_chunks().0.iter().map(Entry::decode).collect())
}

/// The bytes of a file of these outcomes.
pub(crate) fn encode(entries: &[Entry], store_id: &[u8; 16], through: Seq) -> Vec<u8> {
    let mut body = Vec::with_capacity(entries.len() * ENTRY_BYTES);
    for entry in entries {
        entry.encode_into(&mut body);
    }
    let mut bytes = head(store_id, through, entries.len() as u64, crc32c::crc32c(&body)).to_vec();
    bytes.append(&mut body);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: Seq) -> Entry {
        Entry {
            key: Fingerprint([0xaa; 16]),
            request: Fingerprint([0xbb; 16]),
            seq,
            received_at: 1.5,
            count: 3,
            affected: 2,
        }
    }

    #[test]
    fn bytes_are_as_documented() {
        let format =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/FORMAT.md")).unwrap();
        let section = format.split("\n## ").find(|section| section.starts_with("Outcomes under")).unwrap();
        for row in [
            "| 0 | 8 | magic, `CIDSTOUT` |",
            "| 8 | 4 | format version, 1 |",
            "| 12 | 4 | CRC-32C of bytes 0 to 63",
            "| 16 | 16 | store id",
            "| 32 | 8 | it holds",
            "| 40 | 8 | n,",
            "| 48 | 4 | CRC-32C of what follows",
            "| 52 | 12 | zero |",
            "| 64 | 56 n |",
            "| 0 | 16 | of the key's",
            "| 16 | 16 | fingerprint of the request",
            "| 32 | 8 | its last sequence number",
            "| 40 | 8 | time of receipt",
            "| 48 | 4 | how many sequence numbers",
            "| 52 | 4 | triples affected",
        ] {
            assert!(section.contains(row), "docs/FORMAT.md does not have {row:?}");
        }
        let bytes = encode(&[entry(7)], b"sixteen bytes id", 8);
        let mut expected =
            b"CIDSTOUT\x01\0\0\0\0\0\0\0sixteen bytes id\x08\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0".to_vec();
        let mut body = [[0xaa; 16], [0xbb; 16]].concat();
        body.extend_from_slice(&[7, 0, 0, 0, 0, 0, 0, 0]);
        body.extend_from_slice(&1.5f64.to_le_bytes());
        body.extend_from_slice(&[3, 0, 0, 0, 2, 0, 0, 0]);
        expected.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        expected.extend_from_slice(&[0; 12]);
        let own = crc32c::crc32c(&expected);
        expected[12..16].copy_from_slice(&own.to_le_bytes());
        expected.append(&mut body);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn any_damage_is_refused_by_name() {
        let path = Path::new("/x/cidstore.h5.outcomes");
        let id = b"sixteen bytes id";
        let bytes = encode(&[entry(7), entry(9)], id, 9);
        assert_eq!(decode(path, &bytes, id).unwrap(), [entry(7), entry(9)]);
        for bit in 0..bytes.len() * 8 {
            let mut wrong = bytes.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            let refused = decode(path, &wrong, id).unwrap_err().to_string();
            assert!(refused.contains("/x/cidstore.h5.outcomes"), "{refused}");
        }
        for len in 0..bytes.len() {
            assert!(decode(path, &bytes[..len], id).is_err(), "{len}");
        }
        let other = decode(path, &bytes, b"of another store").unwrap_err();
        assert!(other.to_string().contains("store id"), "{other}");
    }
}
