//! Values of triples: written, and read again, whichever form they have.
//!
//! A value tells the same in every form: the members of [`TripleRecord::to_json`].

use crate::form::ValueForm;
use cidstore_types::{Cid, Metadata, Triple, TripleHash, TripleRecord};
use redis::{Cmd, Value};
use serde_json::Value as Json;

/// How a zstd frame begins (RFC 8878); no JSON map and no MessagePack map begins so.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];
const ZSTD_LEVEL: i32 = 3;
/// No value of a triple has as many bytes: metadata has at most 64 KiB.
const VALUE_BYTES_MAX: usize = 1024 * 1024;
/// The fields of a hash, always all of them, so that none is left of an older value.
pub(crate) const FIELDS: [&str; 8] = [
    "subject",
    "predicate",
    "object",
    "triple_hash",
    "created_at",
    "schema_version",
    "confidence",
    "provenance",
];

impl ValueForm {
    /// The command that reads the value of a key in this form; [`Self::decode`] takes its reply.
    pub fn read(self, key: &[u8]) -> Cmd {
        match self {
            Self::Json | Self::MessagePack => redis::cmd("GET").arg(key).take(),
            Self::RedisJson => redis::cmd("JSON.GET").arg(key).take(),
            Self::Hash => redis::cmd("HMGET").arg(key).arg(&FIELDS).take(),
        }
    }

    /// The record that a reply to [`Self::read`] tells of. `None`: there is nothing, or no value of this form.
    ///
    /// What [`TripleRecord::to_json`] adds is in its metadata, so that its JSON is what was written.
    pub fn decode(self, reply: &Value) -> Option<TripleRecord> {
        match (self, reply) {
            (Self::Hash, Value::Array(values)) => record_of_hash(values),
            (_, Value::BulkString(bytes)) => record_of(self.json(bytes)?),
            _ => None,
        }
    }

    /// The triple that a reply to [`Self::read`] names, whatever else it tells, or does not.
    pub fn triple(self, reply: &Value) -> Option<Triple> {
        match (self, reply) {
            (Self::Hash, Value::Array(values)) => triple_of_hash(values),
            (_, Value::BulkString(bytes)) => triple_of(self.json(bytes)?.as_object()?),
            _ => None,
        }
    }

    fn json(self, bytes: &[u8]) -> Option<Json> {
        match self {
            Self::Json => serde_json::from_slice(&unpacked(bytes)?).ok(),
            Self::MessagePack => rmp_serde::from_slice(&unpacked(bytes)?).ok(),
            Self::RedisJson => serde_json::from_slice(bytes).ok(),
            Self::Hash => None,
        }
    }

    /// Whether a reply to [`Self::read`] tells of this very record.
    pub fn matches(self, reply: &Value, record: &TripleRecord) -> bool {
        let hash = record.triple.hash();
        self.decode(reply).is_some_and(|found| found.to_json(&hash) == record.to_json(&hash))
    }
}

fn unpacked(bytes: &[u8]) -> Option<std::borrow::Cow<'_, [u8]>> {
    if bytes.starts_with(&ZSTD_MAGIC) {
        zstd::bulk::decompress(bytes, VALUE_BYTES_MAX).ok().map(Into::into)
    } else {
        Some(bytes.into())
    }
}

fn triple_of(map: &serde_json::Map<String, Json>) -> Option<Triple> {
    let cid = |part: &str| {
        let lane = |name: &str| map.get(part)?.get(name)?.as_u64();
        Some(Cid::from_lanes([lane("high")?, lane("high_mid")?, lane("low_mid")?, lane("low")?]))
    };
    Some(Triple::new(cid("subject")?, cid("predicate")?, cid("object")?))
}

fn record_of(json: Json) -> Option<TripleRecord> {
    let Json::Object(mut map) = json else { return None };
    let triple = triple_of(&map)?;
    let created_at = number(map.get("created_at")?)?;
    let confidence = match map.get("confidence") {
        None => None,
        Some(found) => Some(number(found)?),
    };
    let provenance = match map.remove("provenance")? {
        Json::Object(provenance) => Some(provenance),
        _ => return None,
    };
    let schema_version = Some(map.get("schema_version")?.as_str()?.to_owned());
    Some(TripleRecord { triple, created_at, metadata: Metadata { provenance, schema_version, confidence } })
}

/// A number as JSON has it: what is none there is null.
fn number(json: &Json) -> Option<f64> {
    if json.is_null() { Some(f64::NAN) } else { json.as_f64() }
}

/// The text of a field of [`FIELDS`].
fn field(values: &[Value], n: usize) -> Option<&str> {
    match values.get(n) {
        Some(Value::BulkString(bytes)) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}

fn triple_of_hash(values: &[Value]) -> Option<Triple> {
    let cid = |n| Cid::parse(field(values, n)?).ok();
    Some(Triple::new(cid(0)?, cid(1)?, cid(2)?))
}

fn record_of_hash(values: &[Value]) -> Option<TripleRecord> {
    let field = |n| field(values, n);
    let json = |text: &str| serde_json::from_str::<Json>(text).ok();
    let confidence = match field(6)? {
        "" => None,
        text => Some(number(&json(text)?)?),
    };
    let Json::Object(provenance) = json(field(7)?)? else { return None };
    let schema_version = Some(field(5)?.to_owned());
    let metadata = Metadata { provenance: Some(provenance), schema_version, confidence };
    let triple = triple_of_hash(values)?;
    Some(TripleRecord { triple, created_at: number(&json(field(4)?)?)?, metadata })
}

/// Writes values, with scratch space that is used again.
pub(crate) struct Writer {
    value: Vec<u8>,
    /// Above so many bytes values are packed.
    packer: Option<(usize, zstd::bulk::Compressor<'static>)>,
    packed: Vec<u8>,
}

impl Writer {
    pub fn new(compress_above: usize) -> Self {
        let packer = || {
            let compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL).expect("zstd knows its default level");
            (compress_above, compressor)
        };
        let packer = (compress_above > 0).then(packer);
        Self { value: Vec::with_capacity(1024), packer, packed: Vec::new() }
    }

    /// The record as JSON.
    pub fn json(&mut self, record: &TripleRecord, hash: &TripleHash) -> &[u8] {
        self.value.clear();
        if record.metadata.is_empty() {
            write_bare(&mut self.value, &record.triple, record.created_at, hash);
        } else {
            serde_json::to_writer(&mut self.value, &record.to_json(hash)).expect("JSON goes into memory");
        }
        self.finish()
    }

    /// The map of the JSON as MessagePack.
    pub fn message_pack(&mut self, record: &TripleRecord, hash: &TripleHash) -> &[u8] {
        self.value.clear();
        rmp_serde::encode::write(&mut self.value, &record.to_json(hash)).expect("it goes into memory");
        self.finish()
    }

    fn finish(&mut self) -> &[u8] {
        let Some((above, compressor)) = &mut self.packer else { return &self.value };
        if self.value.len() <= *above {
            return &self.value;
        }
        self.packed.clear();
        self.packed.reserve(zstd::zstd_safe::compress_bound(self.value.len()));
        compressor.compress_to_buffer(&self.value, &mut self.packed).expect("there is room for it");
        &self.packed
    }

    /// The values of [`FIELDS`].
    pub fn fields(record: &TripleRecord, hash: &TripleHash) -> [String; FIELDS.len()] {
        let mut json = record.to_json(hash);
        let mut text = |name: &str| json.get_mut(name).map(Json::take);
        let schema_version = match text("schema_version") {
            Some(Json::String(version)) => version,
            _ => String::new(),
        };
        let number = |found: Option<Json>| found.map(|json| json.to_string()).unwrap_or_default();
        let (created_at, confidence) = (number(text("created_at")), number(text("confidence")));
        let provenance = number(text("provenance"));
        let triple = &record.triple;
        let [s, p, o] = [triple.s(), triple.p(), triple.o()].map(|cid| cid.to_string());
        [s, p, o, hash.to_hex(), created_at, schema_version, confidence, provenance]
    }
}

pub(crate) fn write_hex(out: &mut Vec<u8>, bytes: &[u8; 32]) {
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

    /// The reply of Redis to reading what was written.
    fn reply(form: ValueForm, writer: &mut Writer, record: &TripleRecord) -> Value {
        let hash = record.triple.hash();
        let bulk = |bytes: &[u8]| Value::BulkString(bytes.into());
        match form {
            ValueForm::Json | ValueForm::RedisJson => bulk(writer.json(record, &hash)),
            ValueForm::MessagePack => bulk(writer.message_pack(record, &hash)),
            ValueForm::Hash => {
                Value::Array(Writer::fields(record, &hash).iter().map(|text| bulk(text.as_bytes())).collect())
            }
        }
    }

    fn check(record: &TripleRecord) {
        let hash = record.triple.hash();
        for above in [0, 1, 300, 100_000] {
            let mut writer = Writer::new(above);
            for form in ValueForm::ALL {
                if above > 0 && !form.is_string() {
                    continue;
                }
                // Twice, since the scratch space is used again.
                for _ in 0..2 {
                    let reply = reply(form, &mut writer, record);
                    let found = form.decode(&reply).unwrap_or_else(|| panic!("{form:?} {above} {reply:?}"));
                    assert_eq!(found.to_json(&hash), record.to_json(&hash), "{form:?}");
                    assert!(form.matches(&reply, record));
                    let other = TripleRecord { triple: Triple([0xee; 96]), ..record.clone() };
                    assert!(!form.matches(&reply, &other));
                    let others = ValueForm::ALL.iter().filter(|other| other.decode(&reply).is_some());
                    assert!(
                        others.clone().count()
                            == 1 + usize::from(
                                matches!(form, ValueForm::Json | ValueForm::RedisJson) && above == 0
                            )
                            || above > 0,
                        "{form:?}: {:?}",
                        others.collect::<Vec<_>>()
                    );
                    if let (true, Value::BulkString(bytes)) = (form.is_string(), &reply) {
                        let is_packed = bytes.starts_with(&ZSTD_MAGIC);
                        assert_eq!(is_packed, above > 0 && unpacked(bytes).unwrap().len() > above);
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn every_form_gives_back_what_was_written(
            bytes in prop::array::uniform32(any::<[u8; 3]>()),
            time in 0.0..2e9,
            text in ".{0,30}",
            confidence in prop::option::of(0.0..1.0f64),
            with_metadata: bool,
        ) {
            let triple = Triple(bytes.concat().try_into().unwrap());
            let mut metadata = serde_json::json!({"provenance": {"by": text, "n": [1, 2.5, null]}, "schema_version": text});
            if let Some(confidence) = confidence {
                metadata["confidence"] = confidence.into();
            }
            let metadata = metadata.to_string();
            check(&TripleRecord::new(triple, time, with_metadata.then_some(metadata.as_str())));
        }
    }

    #[test]
    fn bare_triples_are_written_as_the_records_json() {
        let mut writer = Writer::new(0);
        for created_at in [0.0, -0.0, 1.0, 1e300, 5e-324, f64::NAN, f64::INFINITY, 1_730_505_600.25] {
            let record = TripleRecord::new(Triple([0xa5; 96]), created_at, None);
            let hash = record.triple.hash();
            assert_eq!(writer.json(&record, &hash), record.to_json(&hash).to_string().as_bytes());
            check(&record);
        }
    }

    #[test]
    fn what_is_no_value_is_told_apart() {
        let bulk = |bytes: &[u8]| Value::BulkString(bytes.into());
        let mut broken = ZSTD_MAGIC.to_vec();
        broken.extend([0; 20]);
        for reply in [
            Value::Nil,
            Value::Int(1),
            bulk(b""),
            bulk(b"{}"),
            bulk(b"[1]"),
            bulk(br#"{"subject":{"high":1}}"#),
            bulk(&broken),
            Value::Array(vec![Value::Nil; FIELDS.len()]),
            Value::Array(Vec::new()),
        ] {
            for form in ValueForm::ALL {
                assert_eq!(form.decode(&reply), None, "{form:?} {reply:?}");
            }
        }
    }
}
