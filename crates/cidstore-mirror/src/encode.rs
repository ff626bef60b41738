//! Turning rows into Redis commands: `SET <prefix><hash hex> <JSON>` and `UNLINK <prefix><hash hex>`.

use cidstore_types::{Cid, Op, Row, Triple, TripleHash, TripleRecord};
use redis::Cmd;

/// Bytes of a command beside key and value: verb, lengths, line ends.
const COMMAND_OVERHEAD_BYTES: usize = 40;

/// Makes commands of rows, with scratch space that is used again.
pub(crate) struct Encoder {
    key: Vec<u8>,
    prefix_bytes: usize,
    value: Vec<u8>,
}

impl Encoder {
    pub fn new(prefix: &str) -> Self {
        Self { key: prefix.into(), prefix_bytes: prefix.len(), value: Vec::with_capacity(1024) }
    }

    /// The command for one row of a batch, and about how many bytes it is on the wire.
    pub fn row(&mut self, op: Op, row: &Row<'_>) -> (Cmd, usize) {
        let hash = row.triple.hash();
        match (op, row.metadata) {
            (Op::Delete, _) => self.unlink(&hash),
            (Op::Insert, None) => {
                self.value.clear();
                write_bare(&mut self.value, &row.triple, row.created_at, &hash);
                self.set(&hash)
            }
            (Op::Insert, metadata @ Some(_)) => {
                self.record(&TripleRecord::new(row.triple, row.created_at, metadata), &hash)
            }
        }
    }

    /// The command for a stored triple.
    pub fn record(&mut self, record: &TripleRecord, hash: &TripleHash) -> (Cmd, usize) {
        self.value.clear();
        if record.metadata.is_empty() {
            write_bare(&mut self.value, &record.triple, record.created_at, hash);
        } else {
            serde_json::to_writer(&mut self.value, &record.to_json(hash)).expect("JSON goes into memory");
        }
        self.set(hash)
    }

    /// The key of the command that was made last.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The value of the command that was made last, if that was one for a stored triple.
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// The key of a triple.
    pub fn key_of(&mut self, hash: &TripleHash) -> &[u8] {
        self.key.truncate(self.prefix_bytes);
        write_hex(&mut self.key, &hash.0);
        &self.key
    }

    fn set(&mut self, hash: &TripleHash) -> (Cmd, usize) {
        self.key_of(hash);
        let data = 3 + self.key.len() + self.value.len();
        let mut command = Cmd::with_capacity(3, data);
        command.arg("SET").arg(self.key.as_slice()).arg(self.value.as_slice());
        (command, data + COMMAND_OVERHEAD_BYTES)
    }

    /// The command that removes a triple.
    pub fn unlink(&mut self, hash: &TripleHash) -> (Cmd, usize) {
        self.key_of(hash);
        let data = 6 + self.key.len();
        let mut command = Cmd::with_capacity(2, data);
        command.arg("UNLINK").arg(self.key.as_slice());
        (command, data + COMMAND_OVERHEAD_BYTES)
    }
}

fn write_hex(out: &mut Vec<u8>, bytes: &[u8; 32]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 64];
    for (pair, byte) in text.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
    }
    out.extend_from_slice(&text);
}

fn write_lanes(out: &mut Vec<u8>, name: &[u8], cid: Cid) {
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(name);
    for (name, lane) in
        [&b"{\"high\":"[..], b",\"high_mid\":", b",\"low_mid\":", b",\"low\":"].iter().zip(cid.lanes())
    {
        out.extend_from_slice(name);
        out.extend_from_slice(digits.format(lane).as_bytes());
    }
    out.push(b'}');
}

/// The JSON of a triple without metadata, byte for byte what [`TripleRecord::to_json`] gives, in
/// about a tenth of the time, since no map is built. A test holds the two together.
fn write_bare(out: &mut Vec<u8>, triple: &Triple, created_at: f64, hash: &TripleHash) {
    write_lanes(out, b"{\"subject\":", triple.s());
    write_lanes(out, b",\"predicate\":", triple.p());
    write_lanes(out, b",\"object\":", triple.o());
    out.extend_from_slice(b",\"provenance\":{\"triple_hash\":\"");
    write_hex(out, &hash.0);
    out.extend_from_slice(b"\"},\"schema_version\":\"v1\",\"created_at\":");
    serde_json::to_writer(&mut *out, &created_at).expect("JSON goes into memory");
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn args(command: &Cmd) -> Vec<Vec<u8>> {
        let simple = |arg| match arg {
            redis::Arg::Simple(bytes) => Vec::from(bytes),
            _ => panic!("not a simple argument"),
        };
        command.args_iter().map(simple).collect()
    }

    fn check(triple: Triple, created_at: f64, metadata: Option<&str>) {
        let hash = triple.hash();
        let expected = TripleRecord::new(triple, created_at, metadata).to_json(&hash).to_string();
        let mut encoder = Encoder::new("p:");
        // Twice, since the scratch space is used again.
        for _ in 0..2 {
            let (set, bytes) = encoder.row(Op::Insert, &Row { triple, created_at, metadata });
            let key = format!("p:{hash}");
            assert_eq!(args(&set), [b"SET", key.as_bytes(), expected.as_bytes()]);
            let packed = set.get_packed_command().len();
            assert!(packed <= bytes && bytes < packed + COMMAND_OVERHEAD_BYTES, "{packed} {bytes}");
            let (unlink, _) = encoder.row(Op::Delete, &Row { triple, created_at, metadata });
            assert_eq!(args(&unlink), [b"UNLINK", key.as_bytes()]);
        }
    }

    proptest! {
        #[test]
        fn bare_rows_equal_the_records_json(bytes in prop::array::uniform32(any::<[u8; 3]>()), created_at: f64) {
            check(Triple(bytes.concat().try_into().unwrap()), created_at, None);
        }

        #[test]
        fn rows_with_metadata_equal_the_records_json(low: [u64; 3], time in 0.0..2e9, text in ".{0,30}") {
            let [s, p, o] = low.map(|low| Cid::from_two_lanes([low, low]));
            let metadata = serde_json::json!({"provenance": {"by": text}, "confidence": 0.5}).to_string();
            check(Triple::new(s, p, o), time, Some(&metadata));
        }
    }

    #[test]
    fn odd_times_are_written_alike() {
        for created_at in [0.0, -0.0, 1.0, 1e300, 5e-324, f64::NAN, f64::INFINITY, 1_730_505_600.25] {
            check(Triple([0; 96]), created_at, None);
        }
    }
}
