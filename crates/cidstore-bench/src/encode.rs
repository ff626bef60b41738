//! Requests as bytes, encoded as cheaply as an ordinary client could: the machine is shared with
//! the daemon that is measured. The forms are those of the protocol; the tests below read
//! them with an independent decoder.

use cidstore_types::{Cid, Triple};

/// How a batch is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `triples: [{s, p, o}, …]` with canonical text CIDs.
    Text,
    /// `packed`: one bin of 96 bytes per triple.
    Packed,
}

fn short_str(out: &mut Vec<u8>, text: &str) {
    debug_assert!(text.len() < 32);
    out.push(0xa0 | text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

fn cid_text(out: &mut Vec<u8>, cid: Cid) {
    // str8, the length filled in afterwards: canonical text has 11 to 87 bytes.
    out.extend_from_slice(&[0xd9, 0]);
    let start = out.len();
    out.extend_from_slice(b"E(");
    for (i, lane) in cid.lanes().into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        decimal(out, lane);
    }
    out.push(b')');
    out[start - 1] = (out.len() - start) as u8;
}

/// Two digits a step: 12 lanes a triple make this the load generator's inner loop.
fn decimal(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    while value >= 100 {
        let pair = (value % 100) as u8;
        value /= 100;
        at -= 2;
        digits[at] = b'0' + pair / 10;
        digits[at + 1] = b'0' + pair % 10;
    }
    if value >= 10 {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
    }
    at -= 1;
    digits[at] = b'0' + value as u8;
    out.extend_from_slice(&digits[at..]);
}

/// Writes a `batch_insert` of `triples` into `out`, replacing what was there.
pub fn batch_insert(out: &mut Vec<u8>, form: Form, triples: impl ExactSizeIterator<Item = Triple>) {
    let n = triples.len() as u32;
    out.clear();
    out.push(0x82);
    short_str(out, "command");
    short_str(out, "batch_insert");
    match form {
        Form::Packed => {
            short_str(out, "packed");
            out.push(0xc6);
            out.extend_from_slice(&(n * Triple::BYTES as u32).to_be_bytes());
            for triple in triples {
                out.extend_from_slice(&triple.0);
            }
        }
        Form::Text => {
            short_str(out, "triples");
            out.push(0xdd);
            out.extend_from_slice(&n.to_be_bytes());
            for triple in triples {
                out.push(0x83);
                for (name, cid) in [("s", triple.s()), ("p", triple.p()), ("o", triple.o())] {
                    short_str(out, name);
                    cid_text(out, cid);
                }
            }
        }
    }
}

fn bin(out: &mut Vec<u8>, name: &str, cid: Cid) {
    short_str(out, name);
    out.extend_from_slice(&[0xc4, 32]);
    out.extend_from_slice(&cid.0);
}

/// Writes an `insert` of one triple with binary CIDs.
pub fn insert(out: &mut Vec<u8>, triple: Triple) {
    out.clear();
    out.push(0x84);
    short_str(out, "command");
    short_str(out, "insert");
    bin(out, "s", triple.s());
    bin(out, "p", triple.p());
    bin(out, "o", triple.o());
}

/// Writes a `query` for the parts of `triple` that `parts` names (letters of `spo`), at most
/// `limit` rows (below 65 536) in packed form.
pub fn query(out: &mut Vec<u8>, triple: Triple, parts: &str, limit: u16) {
    out.clear();
    out.push(0x83 + parts.len() as u8);
    short_str(out, "command");
    short_str(out, "query");
    for (name, cid) in [("s", triple.s()), ("p", triple.p()), ("o", triple.o())] {
        if parts.contains(name) {
            bin(out, name, cid);
        }
    }
    short_str(out, "limit");
    out.push(0xcd);
    out.extend_from_slice(&limit.to_be_bytes());
    short_str(out, "format");
    short_str(out, "packed");
}

/// Writes a `query` of everything after `cursor` (empty: from the start), at most `limit` rows in
/// packed form.
pub fn scan(out: &mut Vec<u8>, limit: u32, cursor: &[u8]) {
    debug_assert!(cursor.len() < 256);
    out.clear();
    out.push(if cursor.is_empty() { 0x83 } else { 0x84 });
    short_str(out, "command");
    short_str(out, "query");
    if !cursor.is_empty() {
        short_str(out, "cursor");
        out.extend_from_slice(&[0xc4, cursor.len() as u8]);
        out.extend_from_slice(cursor);
    }
    short_str(out, "limit");
    out.push(0xce);
    out.extend_from_slice(&limit.to_be_bytes());
    short_str(out, "format");
    short_str(out, "packed");
}

#[cfg(test)]
mod tests {
    use super::*;
    use cidstore_bench::data::{Data, Shape};
    use serde::Deserialize;
    use std::collections::BTreeMap;

    fn triples(shape: Shape) -> Vec<Triple> {
        (0..300).map(|n| Data { shape, seed: 3 }.triple(n)).collect()
    }

    #[test]
    fn decimals() {
        for value in [0, 9, 10, 99, 100, 101, 12_345, u64::MAX] {
            let mut out = Vec::new();
            decimal(&mut out, value);
            assert_eq!(String::from_utf8(out).unwrap(), value.to_string());
        }
    }

    #[derive(Deserialize)]
    struct Batch {
        command: String,
        triples: Vec<BTreeMap<String, String>>,
    }

    #[test]
    fn batches_of_text_are_what_an_independent_decoder_reads() {
        for shape in [Shape::Uniform, Shape::Tiny] {
            let (sent, mut out) = (triples(shape), Vec::new());
            batch_insert(&mut out, Form::Text, sent.iter().copied());
            let batch: Batch = rmp_serde::from_slice(&out).unwrap();
            assert_eq!(batch.command, "batch_insert");
            let read: Vec<_> = batch
                .triples
                .iter()
                .map(|map| {
                    let cid = |name| Cid::parse(&map[name]).unwrap();
                    Triple::new(cid("s"), cid("p"), cid("o"))
                })
                .collect();
            assert_eq!(read, sent);
        }
    }

    #[test]
    fn packed_batches_inserts_and_queries_byte_by_byte() {
        let (sent, mut out) = (triples(Shape::Graph), Vec::new());
        batch_insert(&mut out, Form::Packed, sent.iter().copied());
        let head = b"\x82\xa7command\xacbatch_insert\xa6packed\xc6\x00\x00\x70\x80";
        assert_eq!(&out[..head.len()], head);
        assert_eq!(out.len() - head.len(), 300 * 96);
        assert_eq!(out[head.len() + 96..][..96], sent[1].0);

        insert(&mut out, sent[0]);
        let mut expected = b"\x84\xa7command\xa6insert".to_vec();
        for (name, cid) in [(b's', sent[0].s()), (b'p', sent[0].p()), (b'o', sent[0].o())] {
            expected.extend_from_slice(&[0xa1, name, 0xc4, 32]);
            expected.extend_from_slice(&cid.0);
        }
        assert_eq!(out, expected);

        query(&mut out, sent[0], "p", 300);
        let mut expected = b"\x84\xa7command\xa5query\xa1p\xc4\x20".to_vec();
        expected.extend_from_slice(&sent[0].p().0);
        expected.extend_from_slice(b"\xa5limit\xcd\x01\x2c\xa6format\xa6packed");
        assert_eq!(out, expected);

        scan(&mut out, 300, &[]);
        let first = b"\x83\xa7command\xa5query\xa5limit\xce\x00\x00\x01\x2c\xa6format\xa6packed";
        assert_eq!(out, first);
        scan(&mut out, 300, &[1, 0]);
        let next = b"\x84\xa7command\xa5query\xa6cursor\xc4\x02\x01\x00\xa5limit\xce\x00\x00\x01\x2c\xa6format\xa6packed";
        assert_eq!(out, next);
    }
}
