//! The bytes of a record.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | CRC-32C of the segment's signature (8 bytes), then of all that follows up to the payload's end |
//! | 4 | 4 | payload length |
//! | 8 | 8 | first sequence number |
//! | 16 | 4 | how many sequence numbers it covers, at least 1 |
//! | 20 | 4 | CRC-32C of the signature, then of bytes 4 to 19 and 24 to 31 |
//! | 24 | 8 | last sequence number that was durable when this record was written |
//! | 32 | | payload, then zeros up to a multiple of 8 |
//!
//! Integers are little-endian.

use crate::{PAYLOAD_BYTES_MAX, Seq};

/// Bytes of a record before its payload.
pub const RECORD_HEADER_BYTES: usize = 32;

/// Records begin at multiples of this.
pub(crate) const ALIGN: usize = 8;

/// What a record's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    crc: u32,
    pub(crate) len: usize,
    pub(crate) first_seq: Seq,
    pub(crate) count: u32,
    pub(crate) synced: Seq,
}

/// Bytes that a record with this payload takes.
pub(crate) fn record_bytes(payload: usize) -> usize {
    (RECORD_HEADER_BYTES + payload).next_multiple_of(ALIGN)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

fn checksum(signature: u64, covered: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&signature.to_le_bytes()), covered)
}

/// The header's own checksum. What stands within a payload, and so comes from a client, who does not
/// know the signature, does not pass for a header: a length can be believed before all that it
/// covers was read.
fn header_checksum(signature: u64, header: &[u8]) -> u32 {
    crc32c::crc32c_append(checksum(signature, &header[4..20]), &header[24..RECORD_HEADER_BYTES])
}

/// Appends a record.
pub(crate) fn encode(
    out: &mut Vec<u8>,
    signature: u64,
    first_seq: Seq,
    count: u32,
    synced: Seq,
    payload: &[u8],
) {
    let start = out.len();
    out.reserve(record_bytes(payload.len()));
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&first_seq.to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&synced.to_le_bytes());
    let check = header_checksum(signature, &out[start..]);
    out[start + 20..start + 24].copy_from_slice(&check.to_le_bytes());
    out.extend_from_slice(payload);
    let crc = checksum(signature, &out[start + 4..]);
    out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    out.resize(start + record_bytes(payload.len()), 0);
}

/// Reads a header; `None` if no record of the segment begins like this.
pub(crate) fn header(bytes: &[u8], signature: u64) -> Option<Header> {
    let bytes = bytes.get(..RECORD_HEADER_BYTES)?;
    let header = Header {
        crc: u32_at(bytes, 0),
        len: u32_at(bytes, 4) as usize,
        first_seq: u64_at(bytes, 8),
        count: u32_at(bytes, 16),
        synced: u64_at(bytes, 24),
    };
    let plausible = header.count > 0
        && header.first_seq > 0
        && header.synced < header.first_seq
        && header.len <= PAYLOAD_BYTES_MAX
        && u32_at(bytes, 20) == header_checksum(signature, bytes);
    plausible.then_some(header)
}

/// The record at the beginning of `bytes`; `None` if there is none, or it is torn or damaged.
pub(crate) fn decode(bytes: &[u8], signature: u64) -> Option<(Header, &[u8])> {
    let header = header(bytes, signature)?;
    let covered = bytes.get(4..RECORD_HEADER_BYTES + header.len)?;
    (checksum(signature, covered) == header.crc).then(|| (header, &covered[RECORD_HEADER_BYTES - 4..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The scan behind a torn group asks each place in it for a header, and reads what the header
    /// covers only then: a client must not be able to make that quadratic.
    #[test]
    fn only_who_knows_the_signature_can_write_a_header() {
        let mut record = Vec::new();
        encode(&mut record, 7, 10, 1, 9, b"payload");
        let genuine = Header { crc: u32_at(&record, 0), len: 7, first_seq: 10, count: 1, synced: 9 };
        assert_eq!(header(&record, 7), Some(genuine));
        assert_eq!(header(&record, 8), None);
        for bit in 32..8 * RECORD_HEADER_BYTES {
            let mut forged = record.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(header(&forged, 7), None, "bit {bit}");
        }
    }
}
