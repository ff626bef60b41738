//! The bytes of a request, for clients.

use super::reply::{cid, metadata_fields, metadata_len};
use super::writer::Writer;
use crate::{Command, CompactAction, Encoding, Format, MirrorAction, MutateKind, RequestId};
use cidstore_types::{Batch, Cid, Key, Metadata, Mutation, Pattern, Triple};

/// Appends a request to `out`. `form` is how CIDs are written: [`Format::E`] as text,
/// [`Format::List`] as four lanes, [`Format::Bin`] as 32 bytes, [`Format::Hex`] as hex digits;
/// [`Format::Packed`] as [`Format::Bin`], and a batch of bare triples as one value. Bytes are hex
/// digits in JSON: an idempotency key that is no text is another one there. `received_at` of a mutation is not sent: the daemon has its own.
pub fn encode_request(
    command: &Command,
    encoding: Encoding,
    request_id: Option<&RequestId>,
    form: Format,
    out: &mut Vec<u8>,
) {
    let mut to = Writing { to: Writer::new(out, encoding), request_id, mutation_key: None, form };
    match command {
        Command::Ping => to.head("ping", 0),
        Command::Stats => to.head("stats", 0),
        Command::Metrics => to.head("metrics", 0),
        Command::Checkpoint => to.head("checkpoint", 0),
        Command::Compact { action } => {
            to.head("compact", 1 + usize::from(matches!(action, CompactAction::Rate(_))));
            to.to.key("action");
            to.to.str(action.name());
            if let CompactAction::Rate(bytes) = action {
                to.number("bytes_per_second", *bytes);
            }
        }
        Command::Mirror { action } => {
            let (sample, repair) = match action {
                MirrorAction::Verify { sample, repair } => (*sample, *repair),
                _ => (None, false),
            };
            to.head("mirror", 1 + usize::from(sample.is_some()) + usize::from(repair));
            to.to.key("action");
            to.to.str(action.name());
            if let Some(sample) = sample {
                to.number("sample", sample);
            }
            if repair {
                to.to.key("repair");
                to.to.bool(true);
            }
        }
        Command::Mutate { mutation, kind } => {
            to.mutation_key = mutation.key().map(Key::name);
            to.mutate(mutation, *kind);
        }
        Command::Query { pattern, limit, cursor, format, metadata } => {
            let more = usize::from(cursor.is_some()) + usize::from(*metadata);
            to.head("query", bound(pattern) + 2 + more);
            to.pattern(pattern);
            to.number("limit", *limit as u64);
            to.cursor(cursor.as_deref());
            to.to.key("format");
            to.to.str(format.name());
            if *metadata {
                to.to.key("metadata");
                to.to.bool(true);
            }
        }
        Command::Count { pattern } => {
            to.head("count", bound(pattern));
            to.pattern(pattern);
        }
        Command::Lookup { key, limit, cursor } => {
            to.head("lookup", 2 + usize::from(cursor.is_some()));
            to.cid("key", *key);
            to.number("limit", *limit as u64);
            to.cursor(cursor.as_deref());
        }
        Command::Get { hash } => {
            to.head("get", 1);
            to.to.key("triple_hash");
            to.to.hex(&hash.0);
        }
        Command::GetMany { hashes } => {
            to.head("get", 1);
            to.to.key("triple_hashes");
            to.to.array(hashes.len());
            for hash in hashes {
                match form {
                    Format::Bin | Format::Packed => to.to.bin(&hash.0),
                    _ => to.to.hex(&hash.0),
                }
            }
            to.to.end_array();
        }
        Command::Changes { since, limit, format } => {
            to.head("changes", 3);
            to.number("since", *since);
            to.number("limit", *limit as u64);
            to.to.key("format");
            to.to.str(format.name());
        }
    }
    to.to.end_map();
}

fn bound(pattern: &Pattern) -> usize {
    [pattern.s, pattern.p, pattern.o].iter().flatten().count()
}

/// A request being written.
struct Writing<'o, 'r> {
    to: Writer<'o>,
    request_id: Option<&'r RequestId>,
    mutation_key: Option<&'r [u8]>,
    form: Format,
}

impl Writing<'_, '_> {
    /// Begins the map, of this many fields beside these.
    fn head(&mut self, command: &str, fields: usize) {
        let own = 1 + usize::from(self.request_id.is_some()) + usize::from(self.mutation_key.is_some());
        self.to.map(own + fields);
        self.to.key("command");
        self.to.str(command);
        if let Some(id) = self.request_id {
            self.to.key("request_id");
            self.to.request_id(id);
        }
        if let Some(key) = self.mutation_key {
            self.to.key("idempotency_key");
            // The same key as text and as bytes: text wherever it is some, since JSON has no bytes.
            match std::str::from_utf8(key) {
                Ok(text) => self.to.str(text),
                Err(_) => self.to.bin(key),
            }
        }
    }

    fn number(&mut self, name: &str, value: u64) {
        self.to.key(name);
        self.to.uint(value);
    }

    fn cid(&mut self, name: &str, value: Cid) {
        self.to.key(name);
        cid(&mut self.to, value, self.form);
    }

    fn cursor(&mut self, cursor: Option<&[u8]>) {
        if let Some(cursor) = cursor {
            self.to.key("cursor");
            self.to.bin(cursor);
        }
    }

    fn pattern(&mut self, pattern: &Pattern) {
        for (name, part) in [("s", pattern.s), ("p", pattern.p), ("o", pattern.o)] {
            if let Some(part) = part {
                self.cid(name, part);
            }
        }
    }

    fn mutate(&mut self, mutation: &Mutation, kind: MutateKind) {
        match (mutation, kind) {
            (Mutation::DeleteMatching { pattern, .. }, _) => {
                self.head("delete", bound(pattern));
                self.pattern(pattern);
            }
            (Mutation::Batch(batch), MutateKind::Insert) if batch.rows.len() == 1 => {
                let row = Columns::of(batch).row(0);
                self.head("insert", 3 + row.len());
                self.triple(&batch.rows[0]);
                row.write(&mut self.to);
            }
            (Mutation::Batch(batch), MutateKind::Delete) if batch.rows.len() == 1 => {
                self.head("delete", 3);
                self.triple(&batch.rows[0]);
            }
            (Mutation::Batch(batch), MutateKind::Insert | MutateKind::BatchInsert) => {
                self.batch("batch_insert", batch);
            }
            (Mutation::Batch(batch), MutateKind::Delete | MutateKind::BatchDelete) => {
                self.batch("batch_delete", batch);
            }
        }
    }

    fn triple(&mut self, triple: &Triple) {
        for (name, part) in [("s", triple.s()), ("p", triple.p()), ("o", triple.o())] {
            self.cid(name, part);
        }
    }

    fn batch(&mut self, command: &str, batch: &Batch) {
        self.head(command, 1);
        if self.form == Format::Packed && batch.created_at.is_empty() && batch.metadata.is_empty() {
            self.to.key("packed");
            self.to.packed(&batch.rows);
            return;
        }
        self.to.key("triples");
        self.to.array(batch.rows.len());
        let mut columns = Columns::of(batch);
        for (i, triple) in batch.rows.iter().enumerate() {
            let row = columns.row(i);
            self.to.map(3 + row.len());
            self.triple(triple);
            row.write(&mut self.to);
            self.to.end_map();
        }
        self.to.end_array();
    }
}

/// The columns of a batch, row by row.
struct Columns<'b> {
    created_at: &'b [(u32, f64)],
    metadata: &'b [(u32, Box<str>)],
}

/// What one row has beside its triple.
struct Row {
    created_at: Option<f64>,
    metadata: Metadata,
}

impl<'b> Columns<'b> {
    fn of(batch: &'b Batch) -> Self {
        Self { created_at: &batch.created_at, metadata: &batch.metadata }
    }

    /// Of the row of this number; they are asked for in ascending order.
    fn row(&mut self, number: usize) -> Row {
        let mut row = Row { created_at: None, metadata: Metadata::default() };
        if let [(at, created_at), rest @ ..] = self.created_at
            && *at as usize == number
        {
            row.created_at = Some(*created_at);
            self.created_at = rest;
        }
        if let [(at, text), rest @ ..] = self.metadata
            && *at as usize == number
        {
            row.metadata = Metadata::from_stored(text);
            self.metadata = rest;
        }
        row
    }
}

impl Row {
    fn len(&self) -> usize {
        usize::from(self.created_at.is_some()) + metadata_len(&self.metadata)
    }

    fn write(&self, to: &mut Writer<'_>) {
        if let Some(created_at) = self.created_at {
            to.key("created_at");
            to.float(created_at);
        }
        metadata_fields(to, &self.metadata);
    }
}
