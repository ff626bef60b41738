//! Turning rows into Redis commands. In the default form that is `SET <prefix><hash hex> <JSON>` for an
//! insert, and `UNLINK <prefix><hash hex>` for a delete.

use crate::form::{Form, ValueForm};
use crate::value::{FIELDS, Writer, write_hex};
use cidstore_types::{Op, Triple, TripleHash, TripleRecord};
use redis::Cmd;

/// Bytes of a command beside verb, key and further arguments: lengths, line ends.
pub(crate) const COMMAND_OVERHEAD_BYTES: usize = 30;
/// Of each further argument.
pub(crate) const ARGUMENT_OVERHEAD_BYTES: usize = 10;

/// Takes commands, each with its key and about how many bytes it is on the wire.
pub(crate) trait Sink: FnMut(&[u8], Cmd, usize) {}
impl<F: FnMut(&[u8], Cmd, usize)> Sink for F {}

/// Makes commands of rows, with scratch space that is used again.
pub(crate) struct Encoder {
    form: Form,
    /// What is there may have another form, or a time to live that does not hold any more: it goes.
    replace: bool,
    key: Vec<u8>,
    prefix_bytes: usize,
    writer: Writer,
}

impl Encoder {
    pub fn new(prefix: &str, form: Form, replace: bool) -> Self {
        let writer = Writer::new(form.compress_above);
        Self { form, replace, key: prefix.into(), prefix_bytes: prefix.len(), writer }
    }

    /// The commands for one mutation of a triple of that hash.
    pub fn row(&mut self, op: Op, record: &TripleRecord, hash: &TripleHash, to: &mut impl Sink) {
        match op {
            Op::Insert => {
                self.key_of(hash);
                self.value(record, hash, to);
                self.add_to_sets(&record.triple, hash, to);
            }
            // Who finds it in a set is to find it by its key as well.
            Op::Delete => {
                self.remove_from_sets(&record.triple, hash, to);
                self.unlink(hash, to);
            }
        }
    }

    /// The command that removes a triple's own key.
    pub fn unlink(&mut self, hash: &TripleHash, to: &mut impl Sink) {
        self.key_of(hash);
        emit(&self.key, b"UNLINK", &[], to);
    }

    fn key_of(&mut self, hash: &TripleHash) {
        self.key.truncate(self.prefix_bytes);
        write_hex(&mut self.key, &hash.0);
    }

    fn value(&mut self, record: &TripleRecord, hash: &TripleHash, to: &mut impl Sink) {
        let Self { form, replace, key, writer, .. } = self;
        let overwrite = form.overwrite || *replace;
        match form.value {
            ValueForm::Json => set(form, *replace, key, writer.json(record, hash), to),
            ValueForm::MessagePack => set(form, *replace, key, writer.message_pack(record, hash), to),
            ValueForm::RedisJson => {
                if *replace {
                    emit(key, b"UNLINK", &[], to);
                }
                let value = writer.json(record, hash);
                let more: &[&[u8]] = if overwrite { &[b"$", value] } else { &[b"$", value, b"NX"] };
                emit(key, b"JSON.SET", more, to);
                expire(form, key, to);
            }
            ValueForm::Hash => {
                if *replace {
                    emit(key, b"UNLINK", &[], to);
                }
                let values = Writer::fields(record, hash);
                let mut more = [&b""[..]; 2 * FIELDS.len()];
                for (pair, (name, value)) in
                    more.as_chunks_mut::<2>().0.iter_mut().zip(FIELDS.iter().zip(&values))
                {
                    *pair = [name.as_bytes(), value.as_bytes()];
                }
                emit(key, b"HSET", &more, to);
                expire(form, key, to);
            }
        }
    }

    fn add_to_sets(&mut self, triple: &Triple, hash: &TripleHash, to: &mut impl Sink) {
        for kind in self.form.sets.kinds() {
            self.key.truncate(self.prefix_bytes);
            kind.write_key(&mut self.key, triple);
            emit(&self.key, b"SADD", &[hash.to_hex().as_bytes()], to);
            // Begun anew with each member, so that a set outlives what is in it.
            expire(&self.form, &self.key, to);
            if self.replace && self.form.ttl == 0 {
                emit(&self.key, b"PERSIST", &[], to);
            }
        }
    }

    fn remove_from_sets(&mut self, triple: &Triple, hash: &TripleHash, to: &mut impl Sink) {
        for kind in self.form.sets.kinds() {
            self.key.truncate(self.prefix_bytes);
            kind.write_key(&mut self.key, triple);
            emit(&self.key, b"SREM", &[hash.to_hex().as_bytes()], to);
        }
    }
}

/// A string, whatever was there.
fn set(form: &Form, replace: bool, key: &[u8], value: &[u8], to: &mut impl Sink) {
    if form.ttl == 0 {
        let nx: &[&[u8]] = if form.overwrite || replace { &[value] } else { &[value, b"NX"] };
        return emit(key, b"SET", nx, to);
    }
    let mut digits = itoa::Buffer::new();
    let seconds = digits.format(form.ttl).as_bytes();
    match (form.overwrite || replace, form.keep_ttl && !replace) {
        (true, false) => emit(key, b"SET", &[value, b"EX", seconds], to),
        // KEEPTTL alone would give no time to live to what is new. Should the key expire between the two, it
        // is as if it had done so after them.
        (true, true) => {
            emit(key, b"SET", &[value, b"EX", seconds, b"NX"], to);
            emit(key, b"SET", &[value, b"KEEPTTL", b"XX"], to);
        }
        (false, is_kept) => {
            emit(key, b"SET", &[value, b"EX", seconds, b"NX"], to);
            if !is_kept {
                expire(form, key, to);
            }
        }
    }
}

fn expire(form: &Form, key: &[u8], to: &mut impl Sink) {
    if form.ttl > 0 {
        emit(key, b"EXPIRE", &[itoa::Buffer::new().format(form.ttl).as_bytes()], to);
    }
}

fn emit(key: &[u8], verb: &[u8], more: &[&[u8]], to: &mut impl Sink) {
    let data = verb.len() + key.len() + more.iter().map(|argument| argument.len()).sum::<usize>();
    let mut command = Cmd::with_capacity(2 + more.len(), data);
    command.arg(verb).arg(key);
    for argument in more {
        command.arg(*argument);
    }
    to(key, command, data + COMMAND_OVERHEAD_BYTES + more.len() * ARGUMENT_OVERHEAD_BYTES);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::form::Sets;
    use cidstore_types::Cid;
    use proptest::prelude::*;

    fn text(command: &Cmd) -> Vec<String> {
        let simple = |arg| match arg {
            redis::Arg::Simple(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            _ => panic!("not a simple argument"),
        };
        command.args_iter().map(simple).collect()
    }

    /// What the commands are, each with its key checked and its size.
    fn commands(encoder: &mut Encoder, op: Op, record: &TripleRecord) -> Vec<Vec<String>> {
        let mut made = Vec::new();
        encoder.row(op, record, &record.triple.hash(), &mut |key: &[u8], command: Cmd, bytes| {
            let words = text(&command);
            assert_eq!(words[1].as_bytes(), key);
            let packed = command.get_packed_command().len();
            assert!(packed <= bytes && bytes < packed + 200, "{packed} {bytes} {words:?}");
            made.push(words);
        });
        made
    }

    fn check_default(triple: Triple, created_at: f64, metadata: Option<&str>) {
        let hash = triple.hash();
        let record = TripleRecord::new(triple, created_at, metadata);
        let (key, json) = (format!("p:{hash}"), record.to_json(&hash).to_string());
        let mut encoder = Encoder::new("p:", Form::default(), false);
        // Twice, since the scratch space is used again.
        for _ in 0..2 {
            assert_eq!(commands(&mut encoder, Op::Insert, &record), [["SET", &key, &json]]);
            assert_eq!(commands(&mut encoder, Op::Delete, &record), [["UNLINK", &key]]);
        }
    }

    proptest! {
        #[test]
        fn the_default_is_the_records_json(
            bytes in prop::array::uniform32(any::<[u8; 3]>()),
            created_at: f64,
            text in ".{0,30}",
        ) {
            let triple = Triple(bytes.concat().try_into().unwrap());
            check_default(triple, created_at, None);
            let metadata = serde_json::json!({"provenance": {"by": text}, "confidence": 0.5}).to_string();
            check_default(triple, created_at, Some(&metadata));
        }
    }

    #[test]
    fn times_to_live_and_nx_are_single_commands_where_redis_has_them() {
        let triple = Triple::new(Cid::default(), Cid::default(), Cid::default());
        let record = TripleRecord::new(triple, 1.0, None);
        let made = |replace, change: fn(&mut Form)| {
            let mut form = Form::default();
            change(&mut form);
            form.check().unwrap();
            let mut encoder = Encoder::new("", form, replace);
            let brief = |words: Vec<String>| {
                let is_brief = |word: &&String| word.len() < 30 && *word != "$";
                words.iter().filter(is_brief).cloned().collect::<Vec<_>>().join(" ")
            };
            commands(&mut encoder, Op::Insert, &record).into_iter().map(brief).collect::<Vec<_>>()
        };
        assert_eq!(made(false, |f| f.ttl = 60), ["SET EX 60"]);
        assert_eq!(made(false, |f| (f.ttl, f.keep_ttl) = (60, true)), ["SET EX 60 NX", "SET KEEPTTL XX"]);
        assert_eq!(made(true, |f| (f.ttl, f.keep_ttl) = (60, true)), ["SET EX 60"]);
        assert_eq!(made(false, |f| f.overwrite = false), ["SET NX"]);
        assert_eq!(made(true, |f| f.overwrite = false), ["SET"]);
        assert_eq!(made(false, |f| (f.ttl, f.overwrite) = (60, false)), ["SET EX 60 NX", "EXPIRE 60"]);
        assert_eq!(made(false, |f| (f.ttl, f.overwrite, f.keep_ttl) = (60, false, true)), ["SET EX 60 NX"]);
        assert_eq!(
            made(false, |f| (f.value, f.ttl, f.overwrite) = (ValueForm::RedisJson, 60, false)),
            ["JSON.SET NX", "EXPIRE 60"]
        );
        assert_eq!(made(true, |f| f.value = ValueForm::RedisJson), ["UNLINK", "JSON.SET"]);
        assert_eq!(
            made(false, |f| (f.ttl, f.sets) = (60, Sets::Both)),
            ["SET EX 60", "SADD", "EXPIRE 60", "SADD", "EXPIRE 60"]
        );
        assert_eq!(made(true, |f| f.sets = Sets::Po), ["SET", "SADD", "PERSIST"]);
        let hash = made(true, |f| f.value = ValueForm::Hash);
        assert_eq!(hash[0], "UNLINK");
        assert!(FIELDS.iter().all(|field| hash[1].contains(field)), "{hash:?}");
        let form = Form { sets: Sets::Both, ..Form::default() };
        let deleted = commands(&mut Encoder::new("", form, false), Op::Delete, &record);
        let verbs: Vec<_> = deleted.iter().map(|words| words[0].as_str()).collect();
        assert_eq!(verbs, ["SREM", "SREM", "UNLINK"]);
    }
}
