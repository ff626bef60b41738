//! A batch of mutations and its stored form, the payload of one log record.
//!
//! Stored form, integers little-endian:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | form, 1 |
//! | 1 | 1 | op: 1 insert, 2 delete |
//! | 2 | 2 | zero |
//! | 4 | 4 | n, number of rows |
//! | 8 | 8 | time of receipt, f64 seconds since the epoch |
//! | 16 | 4 | c, number of `created_at` entries |
//! | 20 | 4 | m, number of metadata entries |
//! | 24 | 8 | bytes of metadata text |
//! | 32 | 96 n | rows |
//! | … | 12 c | entries (row u32, f64), by ascending row |
//! | … | 8 m | entries (row u32, length u32), by ascending row |
//! | … | | metadata texts, one after the other, UTF-8 |
//!
//! A batch that came under an idempotency key has form 2: k, the length of the key, stands at offset 2
//! (u16), and behind all of the above
//!
//! | bytes | field |
//! |---|---|
//! | 8 | triples affected, as its client was told |
//! | 16 | fingerprint of the request |
//! | k | the key |

use crate::{Fingerprint, IDEMPOTENCY_KEY_BYTES_MAX, Key, Triple};
use sha2::{Digest, Sha256};

/// What a batch does with its triples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// Make present, replacing older metadata.
    Insert = 1,
    /// Make absent.
    Delete = 2,
}

/// Mutations that take effect together: one client request.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// What it does.
    pub op: Op,
    /// Seconds since the epoch at receipt: `created_at` of every row that has none of its own.
    pub received_at: f64,
    /// The triples, in the client's order. A triple may stand twice; the later one wins.
    pub rows: Vec<Triple>,
    /// `created_at` of single rows, by strictly ascending row number.
    pub created_at: Vec<(u32, f64)>,
    /// Stored metadata of single rows, by strictly ascending row number.
    pub metadata: Vec<(u32, Box<str>)>,
    /// The idempotency key that it came under.
    pub key: Option<Box<Key>>,
}

/// What the record of a mutation with a key keeps for its repeats. The number of triples and the sequence
/// numbers are the record's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptOutcome<'a> {
    /// The key, as the client gave it.
    pub key: &'a [u8],
    /// What the client asked for: another request under the same key has another one.
    pub fingerprint: Fingerprint,
    /// What the client was told: triples inserted, or those deleted that had been present.
    pub affected: u64,
}

/// One row of a batch with its columns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row<'a> {
    /// The triple.
    pub triple: Triple,
    /// Seconds since the epoch.
    pub created_at: f64,
    /// Stored metadata, if any.
    pub metadata: Option<&'a str>,
}

/// Why bytes are not a stored batch: damage, or a version that this program does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a stored batch: {what} at byte {offset}: found {found}, expected {expected}")]
pub struct BatchError {
    what: &'static str,
    offset: usize,
    found: u64,
    expected: u64,
}

const FORM: u8 = 1;
const FORM_WITH_KEY: u8 = 2;
const HEAD_BYTES: usize = 32;
const CREATED_BYTES: usize = 12;
const META_BYTES: usize = 8;
const AFFECTED_BYTES: usize = 8;
/// What form 2 has beside the key.
const KEPT_BYTES: usize = AFFECTED_BYTES + Fingerprint::BYTES;

impl Batch {
    /// A batch of bare triples.
    pub fn new(op: Op, received_at: f64, rows: Vec<Triple>) -> Self {
        Self { op, received_at, rows, created_at: Vec::new(), metadata: Vec::new(), key: None }
    }

    /// The same under a key.
    #[must_use]
    pub fn under(self, name: &[u8]) -> Self {
        let key = Some(Box::new(Key::new(name, self.fingerprint())));
        Self { key, ..self }
    }

    /// Of all that the client asked for: not of the time of receipt, nor of the key.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hasher = Sha256::new();
        self.write(FORM, 0, 0.0, |bytes| hasher.update(bytes));
        Fingerprint::of(hasher)
    }

    /// Bytes of the stored form.
    pub fn encoded_len(&self) -> usize {
        HEAD_BYTES
            + self.rows.len() * Triple::BYTES
            + self.created_at.len() * CREATED_BYTES
            + self.metadata.len() * META_BYTES
            + self.text_bytes()
            + self.key.as_ref().map_or(0, |key| KEPT_BYTES + key.name().len())
    }

    /// Appends the stored form to `out`. `affected` is what the client is told; it is stored where there is
    /// a key.
    pub fn encode_into(&self, affected: u64, out: &mut Vec<u8>) {
        out.reserve(self.encoded_len());
        let mut put = |bytes: &[u8]| out.extend_from_slice(bytes);
        let Some(key) = &self.key else { return self.write(FORM, 0, self.received_at, &mut put) };
        self.write(FORM_WITH_KEY, key.name().len() as u16, self.received_at, &mut put);
        put(&affected.to_le_bytes());
        put(&key.fingerprint().0);
        put(key.name());
    }

    fn text_bytes(&self) -> usize {
        self.metadata.iter().map(|(_, text)| text.len()).sum()
    }

    /// Everything but what belongs to the key, piece by piece.
    fn write(&self, form: u8, key_bytes: u16, received_at: f64, mut put: impl FnMut(&[u8])) {
        put(&[form, self.op as u8]);
        put(&key_bytes.to_le_bytes());
        put(&(self.rows.len() as u32).to_le_bytes());
        put(&received_at.to_le_bytes());
        put(&(self.created_at.len() as u32).to_le_bytes());
        put(&(self.metadata.len() as u32).to_le_bytes());
        put(&(self.text_bytes() as u64).to_le_bytes());
        for row in &self.rows {
            put(&row.0);
        }
        for (row, created_at) in &self.created_at {
            put(&row.to_le_bytes());
            put(&created_at.to_le_bytes());
        }
        for (row, text) in &self.metadata {
            put(&row.to_le_bytes());
            put(&(text.len() as u32).to_le_bytes());
        }
        for (_, text) in &self.metadata {
            put(text.as_bytes());
        }
    }
}

/// A stored batch, read in place.
#[derive(Debug, Clone, Copy)]
pub struct BatchRef<'a> {
    /// What it does.
    pub op: Op,
    /// Seconds since the epoch at receipt.
    pub received_at: f64,
    /// Where it came under an idempotency key: what repeats of it are answered by.
    pub kept: Option<KeptOutcome<'a>>,
    rows: &'a [[u8; Triple::BYTES]],
    created_at: &'a [[u8; CREATED_BYTES]],
    metadata: &'a [[u8; META_BYTES]],
    text: &'a str,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn f64_at(bytes: &[u8], at: usize) -> f64 {
    f64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

impl<'a> KeptOutcome<'a> {
    /// Reads what form 2 has behind the batch, which is long enough.
    fn read(bytes: &'a [u8]) -> Self {
        let (affected, rest) = bytes.split_at(AFFECTED_BYTES);
        let (fingerprint, key) = rest.split_at(Fingerprint::BYTES);
        Self {
            key,
            fingerprint: Fingerprint(fingerprint.try_into().expect("16 bytes")),
            affected: u64::from_le_bytes(affected.try_into().expect("8 bytes")),
        }
    }
}

impl<'a> BatchRef<'a> {
    /// Reads a stored batch without copying it. Every length and row number is checked.
    ///
    /// # Errors
    /// [`BatchError`] naming the field, where it stands, and what was expected.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, BatchError> {
        let err = |what, offset, found: u64, expected: u64| BatchError { what, offset, found, expected };
        if bytes.len() < HEAD_BYTES {
            return Err(err("length", 0, bytes.len() as u64, HEAD_BYTES as u64));
        }
        let k = usize::from(u16::from_le_bytes([bytes[2], bytes[3]]));
        let kept_bytes = match bytes[0] {
            FORM => 0,
            FORM_WITH_KEY if (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&k) => KEPT_BYTES + k,
            FORM_WITH_KEY => return Err(err("length of the key", 2, k as u64, 1)),
            other => return Err(err("form", 0, other.into(), FORM_WITH_KEY.into())),
        };
        let op = match bytes[1] {
            1 => Op::Insert,
            2 => Op::Delete,
            other => return Err(err("op", 1, other.into(), 1)),
        };
        let n = u32_at(bytes, 4) as usize;
        let c = u32_at(bytes, 16) as usize;
        let m = u32_at(bytes, 20) as usize;
        let text = u64::from_le_bytes(bytes[24..32].try_into().expect("8 bytes"));
        let fixed = HEAD_BYTES + n * Triple::BYTES + c * CREATED_BYTES + m * META_BYTES;
        let expected = ((fixed + kept_bytes) as u64).saturating_add(text);
        if bytes.len() as u64 != expected {
            return Err(err("length", 0, bytes.len() as u64, expected));
        }
        let (bytes, kept) = bytes.split_at(bytes.len() - kept_bytes);
        let (rows, rest) = bytes[HEAD_BYTES..].split_at(n * Triple::BYTES);
        let (created_at, rest) = rest.split_at(c * CREATED_BYTES);
        let (metadata, text) = rest.split_at(m * META_BYTES);
        let (created_at, metadata) = (created_at.as_chunks().0, metadata.as_chunks().0);
        let text = std::str::from_utf8(text).map_err(|e| err("UTF-8", fixed + e.valid_up_to(), 0, 1))?;
        let received_at = f64_at(bytes, 8);
        let kept = (kept_bytes > 0).then(|| KeptOutcome::read(kept));
        let batch = Self { op, received_at, kept, rows: rows.as_chunks().0, created_at, metadata, text };
        batch.check_columns(fixed)?;
        Ok(batch)
    }

    /// Row numbers ascend and exist; lengths of texts add up and fall on character borders.
    fn check_columns(&self, fixed: usize) -> Result<(), BatchError> {
        let created = HEAD_BYTES + self.rows.len() * Triple::BYTES;
        let meta = created + self.created_at.len() * CREATED_BYTES;
        let ascending = |what, start, size, rows: &mut dyn Iterator<Item = u32>| {
            let mut least = 0;
            for (i, row) in rows.enumerate() {
                if u64::from(row) < least || row as usize >= self.rows.len() {
                    let offset = start + i * size;
                    return Err(BatchError { what, offset, found: row.into(), expected: least });
                }
                least = u64::from(row) + 1;
            }
            Ok(())
        };
        ascending(
            "row of created_at",
            created,
            CREATED_BYTES,
            &mut self.created_at.iter().map(|e| u32_at(e, 0)),
        )?;
        ascending("row of metadata", meta, META_BYTES, &mut self.metadata.iter().map(|e| u32_at(e, 0)))?;
        let mut end = 0;
        for (i, entry) in self.metadata.iter().enumerate() {
            end += u32_at(entry, 4) as usize;
            if !self.text.is_char_boundary(end) {
                let expected = self.text.len() as u64;
                let offset = meta + i * META_BYTES + 4;
                return Err(BatchError {
                    what: "end of a metadata text",
                    offset,
                    found: end as u64,
                    expected,
                });
            }
        }
        if end != self.text.len() {
            let expected = self.text.len() as u64;
            return Err(BatchError {
                what: "bytes of metadata text",
                offset: fixed,
                found: end as u64,
                expected,
            });
        }
        Ok(())
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows as they are stored.
    pub fn raw_rows(&self) -> &'a [[u8; Triple::BYTES]] {
        self.rows
    }

    /// The rows in order, each with its columns.
    pub fn rows(&self) -> impl Iterator<Item = Row<'a>> + use<'a> {
        let Self { received_at, created_at, metadata, .. } = *self;
        let mut text = self.text;
        let mut created_at = created_at.iter().peekable();
        let mut metadata = metadata.iter().peekable();
        self.rows.iter().enumerate().map(move |(i, bytes)| {
            let own = created_at.next_if(|entry| u32_at(*entry, 0) as usize == i);
            let meta = metadata.next_if(|entry| u32_at(*entry, 0) as usize == i);
            Row {
                triple: Triple(*bytes),
                created_at: own.map_or(received_at, |entry| f64_at(entry, 4)),
                metadata: meta.map(|entry| {
                    let (head, rest) = text.split_at(u32_at(entry, 4) as usize);
                    text = rest;
                    head
                }),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cid;
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    fn batches() -> impl Strategy<Value = Batch> {
        let rows = vec([0u64..5, 0..5, 0..5], 0..20);
        (rows, any::<bool>(), 0.0..2e9).prop_flat_map(|(rows, insert, received_at)| {
            let rows: Vec<_> = rows
                .into_iter()
                .map(|lanes| {
                    let [s, p, o] = lanes.map(|low| Cid::from_two_lanes([low, low]));
                    Triple::new(s, p, o)
                })
                .collect();
            let n = rows.len() as u32;
            let columns = (btree_map(0..n.max(1), 0.0..2e9, 0..5), btree_map(0..n.max(1), ".{0,20}", 0..5));
            columns.prop_map(move |(created_at, metadata)| {
                let within = |row: &u32| *row < n;
                Batch {
                    op: if insert { Op::Insert } else { Op::Delete },
                    received_at,
                    rows: rows.clone(),
                    created_at: created_at.into_iter().filter(|(row, _)| within(row)).collect(),
                    metadata: metadata
                        .into_iter()
                        .filter(|(row, _)| within(row))
                        .map(|(row, text)| (row, text.into()))
                        .collect(),
                    key: None,
                }
            })
        })
    }

    /// Of 1 to 256 bytes, or none at all.
    fn keys() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![Just(Vec::new()), vec(any::<u8>(), 1..=IDEMPOTENCY_KEY_BYTES_MAX)]
    }

    fn under(batch: Batch, key: &[u8]) -> Batch {
        if key.is_empty() { batch } else { batch.under(key) }
    }

    #[test]
    fn a_fingerprint_is_of_what_was_asked_for() {
        let triple = |low| {
            let cid = Cid::from_two_lanes([0, low]);
            Triple::new(cid, cid, cid)
        };
        let batch = Batch::new(Op::Insert, 1.0, vec![triple(1), triple(2)]);
        let of = |change: &dyn Fn(&mut Batch)| {
            let mut changed = batch.clone();
            change(&mut changed);
            changed.fingerprint()
        };
        // When it came, and under which key, is not.
        assert_eq!(batch.fingerprint(), of(&|batch| batch.received_at = 2.0));
        assert_eq!(batch.fingerprint(), batch.clone().under(b"k").fingerprint());
        let others: [&dyn Fn(&mut Batch); 5] = [
            &|batch| batch.op = Op::Delete,
            &|batch| batch.rows.swap(0, 1),
            &|batch| batch.rows.truncate(1),
            &|batch| batch.created_at.push((1, 1.0)),
            &|batch| batch.metadata.push((0, "{}".into())),
        ];
        for other in others {
            assert_ne!(batch.fingerprint(), of(other));
        }
    }

    #[test]
    fn a_key_has_a_length() {
        let batch = Batch::new(Op::Insert, 1.0, Vec::new()).under(b"a key");
        let mut bytes = Vec::new();
        batch.encode_into(0, &mut bytes);
        for k in [0, 4, 6, 257] {
            let mut wrong = bytes.clone();
            wrong[2..4].copy_from_slice(&u16::to_le_bytes(k));
            assert!(BatchRef::decode(&wrong).is_err(), "{k}");
        }
        // To a program that does not know keys it is a form that it does not know.
        bytes[0] = 3;
        let unknown = BatchRef::decode(&bytes).unwrap_err();
        assert_eq!(unknown.to_string(), "not a stored batch: form at byte 0: found 3, expected 2");
    }

    proptest! {
        #[test]
        fn stored_form_round_trips(batch in batches(), key in keys(), affected: u64) {
            let batch = under(batch, &key);
            let mut bytes = Vec::new();
            batch.encode_into(affected, &mut bytes);
            prop_assert_eq!(bytes.len(), batch.encoded_len());
            let read = BatchRef::decode(&bytes).unwrap();
            prop_assert_eq!((read.op, read.received_at, read.len()), (batch.op, batch.received_at, batch.rows.len()));
            let kept = batch.key.as_ref().map(|key| {
                KeptOutcome { key: key.name(), fingerprint: batch.fingerprint(), affected }
            });
            prop_assert_eq!(read.kept, kept);
            for (i, row) in read.rows().enumerate() {
                let own = batch.created_at.iter().find(|(at, _)| *at as usize == i);
                let meta = batch.metadata.iter().find(|(at, _)| *at as usize == i);
                prop_assert_eq!(row.triple, batch.rows[i]);
                prop_assert_eq!(row.created_at, own.map_or(batch.received_at, |(_, t)| *t));
                prop_assert_eq!(row.metadata, meta.map(|(_, text)| &**text));
            }
        }

        #[test]
        fn damaged_bytes_never_panic(
            batch in batches(),
            key in keys(),
            at: prop::sample::Index,
            value: u8,
            cut: prop::sample::Index,
        ) {
            let mut bytes = Vec::new();
            under(batch, &key).encode_into(1, &mut bytes);
            let at = at.index(bytes.len());
            bytes[at] = value;
            for end in [bytes.len(), cut.index(bytes.len())] {
                if let Ok(read) = BatchRef::decode(&bytes[..end]) {
                    prop_assert_eq!(read.rows().count(), read.len());
                }
            }
        }
    }
}
