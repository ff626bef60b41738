//! Reading requests.

mod fault;
mod fields;
mod json;
mod msgpack;
mod name;
mod reply;
mod rows;
mod source;
mod values;

use crate::names::CommandName;
use crate::{
    Command, CompactAction, Encoding, Format, GET_HASHES_MAX, Limits, MirrorAction, MutateKind,
    QUERY_LIMIT_DEFAULT, REQUEST_ID_BYTES_MAX, Rejection, Request, RequestId,
};
use cidstore_types::{Batch, Cid, IDEMPOTENCY_KEY_BYTES_MAX, Mutation, Op, Pattern, Triple, TripleHash};
use fault::{Fallible, Fault, Within, excerpt};
use fields::{Field, Fields};
use json::Json;
use msgpack::MsgPack;
pub use name::{REQUEST_ID_SEARCH_MAX, find_request_id};
pub use reply::{decode_notification, decode_reply};
use rows::{Rows, too_many};
use source::{Source, Token};
use std::borrow::Cow;
use values::{Extra, METADATA_FIELDS, bytes_of_hex, cid};

/// Reads and validates a request. `received_at`: seconds since the epoch, for rows that bring no
/// `created_at`.
///
/// # Errors
/// [`Rejection`] with what is wrong where, and what its reply needs. Nothing in `bytes` leads to
/// anything else.
pub fn decode_request(bytes: &[u8], limits: &Limits, received_at: f64) -> Result<Request, Rejection> {
    let depth_max = limits.depth_max.min(crate::DEPTH_CEILING);
    match Encoding::of(bytes) {
        encoding @ Encoding::Json => {
            decode(Json::new(bytes, depth_max), encoding, bytes.len(), limits, received_at)
        }
        encoding @ Encoding::MsgPack => {
            decode(MsgPack::new(bytes, depth_max), encoding, bytes.len(), limits, received_at)
        }
    }
}

fn decode<'a, S: Source<'a>>(
    src: S,
    encoding: Encoding,
    len: usize,
    limits: &Limits,
    received_at: f64,
) -> Result<Request, Rejection> {
    let fits = len <= limits.message_bytes_max;
    let mut fields = Fields::find(src, limits, fits);
    let request_id = request_id(&fields);
    let over = (!fits).then(|| {
        Fault::too_large(format!("a message of {len} bytes: the limit is {}", limits.message_bytes_max))
    });
    let empty = (len == 0).then(|| Fault::syntax(0, "an empty message: expected a map of fields"));
    let (request_id, fault) = match request_id {
        Ok(request_id) => (request_id, None),
        Err(fault) => (None, Some(fault)),
    };
    let fault = over.or(empty).or_else(|| fields.take_fault()).or(fault);
    let reader = Reader { fields, encoding, limits, received_at };
    match fault.map_or_else(|| reader.command(), Err) {
        Ok(command) => Ok(Request { encoding, request_id, command }),
        Err(fault) => {
            let (code, message) = fault.into_parts();
            Err(Rejection { encoding, request_id, code, message })
        }
    }
}

fn request_id<'a, S: Source<'a>>(fields: &Fields<S>) -> Fallible<Option<RequestId>> {
    fields.token(Field::RequestId)?.map_or(Ok(None), request_id_of_token)
}

fn request_id_of_token(token: Token<'_>) -> Fallible<Option<RequestId>> {
    let bounded = |len: usize| {
        if len <= REQUEST_ID_BYTES_MAX {
            return Ok(());
        }
        let message = format!("{len} bytes: the limit is {REQUEST_ID_BYTES_MAX}");
        Err(Fault::too_large(message).field(Field::RequestId.name()))
    };
    Ok(Some(match token {
        Token::Null => return Ok(None),
        Token::Uint(number) => RequestId::Int(number.into()),
        Token::Nint(number) => RequestId::Int(number.into()),
        Token::Str(text) => {
            bounded(text.len())?;
            RequestId::Str(text.into_owned())
        }
        Token::Bin(bytes) => {
            bounded(bytes.len())?;
            RequestId::Bin(bytes.to_vec())
        }
        other => {
            let expected = "a text, an integer of 64 bits, or bytes";
            return Err(other.unexpected(expected).field(Field::RequestId.name()));
        }
    }))
}

/// The fields that say which triples are meant.
const SUBJECTS: [Field; 8] =
    [Field::S, Field::P, Field::O, Field::Key, Field::Value, Field::Triples, Field::Entries, Field::Packed];
const SPO: [Field; 3] = [Field::S, Field::P, Field::O];
const KEY_VALUE: [Field; 2] = [Field::Key, Field::Value];
/// What is wrong with a part of a triple that has to be given.
const NULL: &str = "found null: expected a CID";
const BATCH: [Field; 3] = [Field::Triples, Field::Entries, Field::Packed];

struct Reader<'l, S> {
    fields: Fields<S>,
    encoding: Encoding,
    limits: &'l Limits,
    received_at: f64,
}

impl<'a, S: Source<'a>> Reader<'_, S> {
    fn command(mut self) -> Fallible<Command> {
        match self.name()? {
            CommandName::Ping => Ok(Command::Ping),
            CommandName::Insert => self.once(Self::insert),
            CommandName::BatchInsert => self.once(|it| it.batch(Op::Insert, MutateKind::BatchInsert)),
            CommandName::Delete => self.once(Self::delete),
            CommandName::BatchDelete => self.once(|it| it.batch(Op::Delete, MutateKind::BatchDelete)),
            CommandName::Query => self.query(),
            CommandName::Count => Ok(Command::Count { pattern: self.pattern("count")? }),
            CommandName::Lookup => {
                self.only("lookup", &[Field::Key])?;
                let key = self.required_cid(Field::Key)?;
                let limit = self.limit(self.limits.query_limit_max)?;
                Ok(Command::Lookup { key, limit, cursor: self.cursor()? })
            }
            CommandName::Get => self.get(),
            CommandName::Changes => self.changes(),
            CommandName::Stats => Ok(Command::Stats),
            CommandName::Metrics => Ok(Command::Metrics),
            CommandName::Checkpoint => Ok(Command::Checkpoint),
            CommandName::Compact => Ok(Command::Compact { action: self.compact_action()? }),
            CommandName::Mirror => Ok(Command::Mirror { action: self.mirror_action()? }),
        }
    }

    fn name(&self) -> Fallible<CommandName> {
        for field in [Field::Command, Field::OpCode, Field::Op] {
            match self.fields.token(field)? {
                None => {}
                Some(Token::Str(name)) => {
                    return CommandName::parse(&name).ok_or_else(|| {
                        let message =
                            format!("no command \"{}\": there are {}", excerpt(&name), CommandName::list());
                        Fault::unknown_command(message).field(field.name())
                    });
                }
                Some(other) => return Err(other.unexpected("a text").field(field.name())),
            }
        }
        Err(Fault::invalid(format!("missing: expected one of {}", CommandName::list())).field("command"))
    }

    fn has(&self, field: Field) -> bool {
        self.fields.value(field).is_some()
    }

    /// Refuses fields that name triples in a way that the command does not know: to ignore them
    /// would be to do something else than what was asked.
    fn only(&self, command: &str, allowed: &[Field]) -> Fallible<()> {
        match SUBJECTS.into_iter().find(|field| self.has(*field) && !allowed.contains(field)) {
            None => Ok(()),
            Some(field) => {
                let allowed: Vec<_> = allowed.iter().map(|field| field.name()).collect();
                let message =
                    format!("not a field of this form of {command}, which takes {}", allowed.join(", "));
                Err(Fault::invalid(message).field(field.name()))
            }
        }
    }

    fn cid(&self, field: Field) -> Fallible<Option<Cid>> {
        self.fields.value(field).map(|mut src| cid(&mut src)).transpose().field(field.name())
    }

    fn required_cid(&self, field: Field) -> Fallible<Cid> {
        let missing = || Fault::invalid(if self.fields.is_null(field) { NULL } else { "missing" });
        self.cid(field)?.ok_or_else(|| missing().field(field.name()))
    }

    /// A mutation, under its idempotency key if it has one.
    fn once(
        &mut self,
        read: impl FnOnce(&mut Self) -> Fallible<(Mutation, MutateKind)>,
    ) -> Fallible<Command> {
        // The key first: what is read of it is little, and the rows may be many.
        let key = self.idempotency_key()?;
        let (mut mutation, kind) = read(self)?;
        if let Some(key) = key {
            mutation = mutation.under(&key);
        }
        Ok(Command::Mutate { mutation, kind })
    }

    fn idempotency_key(&self) -> Fallible<Option<Cow<'a, [u8]>>> {
        let field = Field::IdempotencyKey;
        let key = match self.fields.token(field)? {
            None => return Ok(None),
            Some(Token::Bin(bytes)) => Cow::Borrowed(bytes),
            Some(Token::Str(Cow::Borrowed(text))) => Cow::Borrowed(text.as_bytes()),
            Some(Token::Str(Cow::Owned(text))) => Cow::Owned(text.into_bytes()),
            Some(other) => return Err(other.unexpected("a text, or bytes").field(field.name())),
        };
        match key.len() {
            0 => Err(Fault::invalid("empty: expected from 1 to 256 bytes").field(field.name())),
            1..=IDEMPOTENCY_KEY_BYTES_MAX => Ok(Some(key)),
            found => {
                let message = format!("{found} bytes: the limit is {IDEMPOTENCY_KEY_BYTES_MAX}");
                Err(Fault::too_large(message).field(field.name()))
            }
        }
    }

    fn insert(&mut self) -> Fallible<(Mutation, MutateKind)> {
        let triple = if KEY_VALUE.into_iter().any(|field| self.has(field)) {
            self.only("insert", &KEY_VALUE)?;
            Triple::new(self.required_cid(Field::Key)?, Cid::ZERO, self.required_cid(Field::Value)?)
        } else {
            self.only("insert", &SPO)?;
            let [s, p, o] = SPO.map(|field| self.required_cid(field));
            Triple::new(s?, p?, o?)
        };
        let mut extra = Extra::default();
        let places = [Field::Provenance, Field::SchemaVersion, Field::Confidence, Field::CreatedAt];
        for (i, field) in places.into_iter().enumerate() {
            debug_assert_eq!(METADATA_FIELDS[i], field.name());
            if let Some(mut src) = self.fields.value(field) {
                extra.read(i, &mut src, self.limits.metadata_bytes_max).field(field.name())?;
            }
        }
        let mut rows = Rows::default();
        rows.push(triple, extra, self.limits)?;
        Ok((self.mutation(Op::Insert, rows), MutateKind::Insert))
    }

    fn delete(&mut self) -> Fallible<(Mutation, MutateKind)> {
        // A part that a client's mistake made null must not widen what is deleted.
        if let Some(field) = SPO.into_iter().chain(KEY_VALUE).find(|field| self.fields.is_null(*field)) {
            return Err(Fault::invalid(NULL).field(field.name()));
        }
        let pattern = if KEY_VALUE.into_iter().any(|field| self.has(field)) {
            self.only("delete", &KEY_VALUE)?;
            Pattern::of_key(self.required_cid(Field::Key)?, self.cid(Field::Value)?)
        } else {
            self.pattern("delete")?
        };
        if pattern == Pattern::ALL {
            return Err(Fault::invalid(
                "delete takes one or more of s, p, o, or key, or key and value: found none",
            ));
        }
        Ok((Mutation::delete_matching(pattern, self.received_at), MutateKind::Delete))
    }

    fn batch(&mut self, op: Op, kind: MutateKind) -> Fallible<(Mutation, MutateKind)> {
        let command = if op == Op::Insert { "batch_insert" } else { "batch_delete" };
        let Some(field) = BATCH.into_iter().find(|field| self.has(*field)) else {
            self.only(command, &BATCH)?;
            return Err(Fault::invalid(format!(
                "{command} takes one of triples, entries, packed: found none"
            )));
        };
        self.only(command, &[field])?;
        let rows = match field {
            Field::Packed => self.packed()?,
            _ => self.fields.take_rows(field)?,
        };
        Ok((self.mutation(op, rows), kind))
    }

    fn packed(&self) -> Fallible<Rows> {
        let bytes = match self.fields.token(Field::Packed)? {
            Some(Token::Bin(bytes)) => Cow::Borrowed(bytes),
            Some(Token::Str(text)) => bytes_of_hex(&text).map(Cow::Owned).ok_or_else(|| {
                Token::Str(text).unexpected("hex digits, or MessagePack bin").field(Field::Packed.name())
            })?,
            Some(other) => {
                let expected = "MessagePack bin of 96 bytes for each triple, or hex digits of these";
                return Err(other.unexpected(expected).field(Field::Packed.name()));
            }
            None => Cow::default(),
        };
        let (rows, rest) = bytes.as_chunks::<{ Triple::BYTES }>();
        if !rest.is_empty() {
            let message = format!("{} bytes: expected a multiple of {}", bytes.len(), Triple::BYTES);
            return Err(Fault::invalid(message).field(Field::Packed.name()));
        }
        if rows.len() > self.limits.batch_triples_max {
            return Err(too_many(rows.len(), self.limits).field(Field::Packed.name()));
        }
        Ok(Rows { triples: rows.iter().map(|row| Triple(*row)).collect(), ..Rows::default() })
    }

    fn mutation(&self, op: Op, rows: Rows) -> Mutation {
        let mut batch = Batch::new(op, self.received_at, rows.triples);
        // What is deleted needs no metadata; it was checked all the same.
        if op == Op::Insert {
            batch.created_at = rows.created_at;
            batch.metadata = rows.metadata;
        }
        Mutation::Batch(batch)
    }

    fn pattern(&self, command: &str) -> Fallible<Pattern> {
        self.only(command, &SPO)?;
        let [s, p, o] = SPO.map(|field| self.cid(field));
        Ok(Pattern { s: s?, p: p?, o: o? })
    }

    fn query(&self) -> Fallible<Command> {
        let metadata = self.flag(Field::Metadata)?;
        Ok(Command::Query {
            pattern: self.pattern("query")?,
            limit: self.limit(QUERY_LIMIT_DEFAULT)?,
            cursor: self.cursor()?,
            format: self.format()?,
            metadata,
        })
    }

    fn changes(&self) -> Fallible<Command> {
        let since = match self.fields.token(Field::Since)? {
            Some(Token::Uint(since)) => since,
            Some(other) => {
                let expected = "the seq of a mutation, or 0 for all of them";
                return Err(other.unexpected(expected).field(Field::Since.name()));
            }
            None => return Err(Fault::invalid("missing").field(Field::Since.name())),
        };
        let format = self.format()?;
        if format == Format::Packed {
            let message = "\"packed\" has no room for seq and op: expected e, list, bin or hex";
            return Err(Fault::invalid(message).field(Field::Format.name()));
        }
        Ok(Command::Changes { since, limit: self.limit(QUERY_LIMIT_DEFAULT)?, format })
    }

    /// The action, which is one of these; the first of them where it is absent.
    fn action<const N: usize>(&self, names: [&'static str; N]) -> Fallible<&'static str> {
        let name = match self.fields.token(Field::Action)? {
            None => return Ok(names[0]),
            Some(Token::Str(name)) => name,
            Some(other) => return Err(unknown_action(&other, &names)),
        };
        let known = names.into_iter().find(|known| known.eq_ignore_ascii_case(&name));
        known.ok_or_else(|| unknown_action(&Token::Str(name), &names))
    }

    fn compact_action(&self) -> Fallible<CompactAction> {
        Ok(match self.action(CompactAction::NAMES)? {
            "start" => CompactAction::Start,
            "cancel" => CompactAction::Cancel,
            "pause" => CompactAction::Pause,
            "resume" => CompactAction::Resume,
            "rate" => CompactAction::Rate(self.bytes_per_second()?),
            _ => CompactAction::Status,
        })
    }

    fn mirror_action(&self) -> Fallible<MirrorAction> {
        Ok(match self.action(MirrorAction::NAMES)? {
            "rebuild" => MirrorAction::Rebuild,
            "verify" => {
                let sample = match self.fields.token(Field::Sample)? {
                    None => None,
                    Some(Token::Uint(sample @ 1..)) => Some(sample),
                    Some(other) => {
                        let expected = "a number of triples, 1 or more";
                        return Err(other.unexpected(expected).field(Field::Sample.name()));
                    }
                };
                MirrorAction::Verify { sample, repair: self.flag(Field::Repair)? }
            }
            "cancel" => MirrorAction::Cancel,
            _ => MirrorAction::Status,
        })
    }

    /// False where it is absent.
    fn flag(&self, field: Field) -> Fallible<bool> {
        match self.fields.token(field)? {
            None => Ok(false),
            Some(Token::Bool(set)) => Ok(set),
            Some(other) => Err(other.unexpected("true or false").field(field.name())),
        }
    }

    fn bytes_per_second(&self) -> Fallible<u64> {
        let field = Field::BytesPerSecond.name();
        match self.fields.token(Field::BytesPerSecond)? {
            Some(Token::Uint(rate)) => Ok(rate),
            Some(other) => Err(other.unexpected("a number of bytes, 0 for no limit").field(field)),
            None => Err(Fault::invalid("missing").field(field)),
        }
    }

    fn limit(&self, default: usize) -> Fallible<usize> {
        let max = self.limits.query_limit_max;
        match self.fields.token(Field::Limit)? {
            None => Ok(default.min(max)),
            Some(Token::Uint(limit)) if limit > max as u64 => {
                Err(Fault::too_large(format!("{limit}: the limit is {max}")).field(Field::Limit.name()))
            }
            Some(Token::Uint(limit)) if limit > 0 => Ok(limit as usize),
            Some(other) => {
                let expected = format!("an integer from 1 to {max}");
                Err(other.unexpected(&expected).field(Field::Limit.name()))
            }
        }
    }

    fn cursor(&self) -> Fallible<Option<Vec<u8>>> {
        Ok(match self.fields.token(Field::Cursor)? {
            None => None,
            Some(Token::Bin(bytes)) => Some(bytes.to_vec()),
            Some(Token::Str(text)) => Some(bytes_of_hex(&text).ok_or_else(|| {
                Token::Str(text).unexpected("the cursor of an earlier reply").field(Field::Cursor.name())
            })?),
            Some(other) => {
                return Err(other.unexpected("the cursor of an earlier reply").field(Field::Cursor.name()));
            }
        })
    }

    fn format(&self) -> Fallible<Format> {
        let unknown = |token: Token<'_>| {
            let names = Format::ALL.map(|(name, _)| name).join(", ");
            token.unexpected(&format!("one of {names}")).field(Field::Format.name())
        };
        let format = match self.fields.token(Field::Format)? {
            None => return Ok(Format::default()),
            Some(Token::Str(name)) => {
                let known = Format::ALL.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(&name));
                known.ok_or_else(|| unknown(Token::Str(name)))?.1
            }
            Some(other) => return Err(unknown(other)),
        };
        if format.is_binary() && self.encoding == Encoding::Json {
            let message =
                format!("\"{}\" has bytes, which JSON has not: expected e, list or hex", format.name());
            return Err(Fault::invalid(message).field(Field::Format.name()));
        }
        Ok(format)
    }

    fn get(&self) -> Fallible<Command> {
        let (one, many) = (self.fields.token(Field::TripleHash)?, self.fields.value(Field::TripleHashes));
        match (one, many) {
            (Some(one), None) => Ok(Command::Get { hash: hash(&one).field(Field::TripleHash.name())? }),
            (None, Some(mut many)) => {
                Ok(Command::GetMany { hashes: hashes(&mut many).field(Field::TripleHashes.name())? })
            }
            (None, None) => Err(Fault::invalid("missing").field(Field::TripleHash.name())),
            (Some(_), Some(_)) => Err(Fault::invalid("set beside triple_hash: expected one of them")
                .field(Field::TripleHashes.name())),
        }
    }
}

fn hash(token: &Token<'_>) -> Fallible<TripleHash> {
    let hash = match token {
        Token::Str(text) => TripleHash::parse(text),
        Token::Bin(bytes) => <[u8; 32]>::try_from(*bytes).ok().map(TripleHash),
        _ => None,
    };
    hash.ok_or_else(|| token.unexpected("the SHA-256 of a triple: 64 hex digits or 32 bytes"))
}

fn hashes<'a, S: Source<'a>>(src: &mut S) -> Fallible<Vec<TripleHash>> {
    let mut open = match src.token()? {
        Token::Array(open) => open,
        other => return Err(other.unexpected("an array of triple hashes")),
    };
    let mut hashes = Vec::new();
    while src.more(&mut open)? {
        if hashes.len() == GET_HASHES_MAX {
            return Err(Fault::too_large(format!(
                "more than {GET_HASHES_MAX}, the limit: ask several times"
            )));
        }
        hashes.push(src.token().and_then(|token| hash(&token)).index(hashes.len())?);
    }
    Ok(hashes)
}

fn unknown_action(found: &Token<'_>, names: &[&str]) -> Fault {
    found.unexpected(&format!("one of {}", names.join(", "))).field(Field::Action.name())
}
