//! The command of a request, with its fields.

use super::cid;
use super::fault::{Fault, Result};
use super::fields::{Field, Fields, read_bytes};
use super::mutation;
use super::token::{Source, Token, excerpt};
use crate::{Command, Encoding, ErrorCode, Format, Limits, MutateKind, QUERY_LIMIT_DEFAULT};
use cidstore_types::{Op, TripleHash};

#[derive(Clone, Copy)]
enum Name {
    Ping,
    Insert,
    BatchInsert,
    Delete,
    BatchDelete,
    Query,
    Count,
    Lookup,
    Get,
    Changes,
    Stats,
    Metrics,
    Checkpoint,
}

const NAMES: [(&str, Name); 13] = [
    ("ping", Name::Ping),
    ("insert", Name::Insert),
    ("batch_insert", Name::BatchInsert),
    ("delete", Name::Delete),
    ("batch_delete", Name::BatchDelete),
    ("query", Name::Query),
    ("count", Name::Count),
    ("lookup", Name::Lookup),
    ("get", Name::Get),
    ("changes", Name::Changes),
    ("stats", Name::Stats),
    ("metrics", Name::Metrics),
    ("checkpoint", Name::Checkpoint),
];

fn name<'a, S: Source<'a>>(fields: &mut Fields<'_, S>) -> Result<Name> {
    for field in [Field::Command, Field::OpCode, Field::Op] {
        let Some(text) = fields.text(field)? else { continue };
        let known = NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(&text));
        return known.map(|(_, name)| *name).ok_or_else(|| {
            let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
            let what = format!("{:?} is no command: expected one of {}", excerpt(&text), names.join(", "));
            Fault::new(ErrorCode::UnknownCommand, what).within(field.name())
        });
    }
    Err(Fault::malformed("no command: expected the field `command` (or `op_code`, or `op`)"))
}

fn limit<'a, S: Source<'a>>(fields: &mut Fields<'_, S>, limits: &Limits, default: usize) -> Result<usize> {
    let limit = fields.number(Field::Limit)?.unwrap_or(default.min(limits.query_limit_max) as u64);
    if limit == 0 {
        return Err(Fault::malformed("0: expected at least 1").within(Field::Limit.name()));
    }
    if limit > limits.query_limit_max as u64 {
        let what = format!("{limit}: the most is {}; go on with the cursor", limits.query_limit_max);
        return Err(Fault::new(ErrorCode::TooLarge, what).within(Field::Limit.name()));
    }
    Ok(limit as usize)
}

fn format<'a, S: Source<'a>>(fields: &mut Fields<'_, S>, encoding: Encoding) -> Result<Format> {
    let Some(text) = fields.text(Field::Format)? else { return Ok(Format::default()) };
    let known = Format::ALL.iter().find(|(name, _)| name.eq_ignore_ascii_case(&text));
    let fault = |what| Fault::malformed(what).within(Field::Format.name());
    match known {
        None => Err(fault(format!("{:?}: expected one of e, list, bin, packed, hex", excerpt(&text)))),
        Some((name, format)) if format.is_binary() && encoding == Encoding::Json => {
            Err(fault(format!("{name:?} is binary, which JSON has not: ask for hex, or in MessagePack")))
        }
        Some((_, format)) => Ok(*format),
    }
}

fn cursor<'a, S: Source<'a>>(fields: &mut Fields<'_, S>) -> Result<Option<Vec<u8>>> {
    fields.read(Field::Cursor, |source| Ok(read_bytes(source)?.into_owned()))
}

fn query<'a, S: Source<'a>>(
    fields: &mut Fields<'_, S>,
    encoding: Encoding,
    limits: &Limits,
) -> Result<Command> {
    let metadata = fields.read(Field::Metadata, |source| match source.next()? {
        Token::Bool(value) => Ok(value),
        other => Err(Fault::malformed(format!("{}: expected true or false", other.kind()))),
    })?;
    Ok(Command::Query {
        pattern: mutation::pattern(fields)?,
        limit: limit(fields, limits, QUERY_LIMIT_DEFAULT)?,
        cursor: cursor(fields)?,
        format: format(fields, encoding)?,
        metadata: metadata.unwrap_or(false),
    })
}

/// Reads the command with its fields.
pub(crate) fn read<'a, S: Source<'a>>(
    fields: &mut Fields<'_, S>,
    encoding: Encoding,
    limits: &Limits,
    received_at: f64,
) -> Result<Command> {
    let mutate = |mutation, kind| Command::Mutate { mutation, kind };
    Ok(match name(fields)? {
        Name::Ping => Command::Ping,
        Name::Insert => mutate(mutation::insert(fields, limits, received_at)?, MutateKind::Insert),
        Name::BatchInsert => {
            mutate(mutation::batch(fields, Op::Insert, limits, received_at)?, MutateKind::BatchInsert)
        }
        Name::Delete => mutate(mutation::delete(fields, received_at)?, MutateKind::Delete),
        Name::BatchDelete => {
            mutate(mutation::batch(fields, Op::Delete, limits, received_at)?, MutateKind::BatchDelete)
        }
        Name::Query => query(fields, encoding, limits)?,
        Name::Count => Command::Count { pattern: mutation::pattern(fields)? },
        Name::Lookup => Command::Lookup {
            key: fields.require(Field::Key, cid::read)?,
            limit: limit(fields, limits, limits.query_limit_max)?,
            cursor: cursor(fields)?,
        },
        Name::Get => Command::Get { hash: fields.require(Field::TripleHash, read_hash)? },
        Name::Changes => Command::Changes {
            since: fields.number(Field::Since)?.unwrap_or(0),
            limit: limit(fields, limits, QUERY_LIMIT_DEFAULT)?,
            format: match format(fields, encoding)? {
                Format::Packed => Format::Bin,
                format => format,
            },
        },
        Name::Stats => Command::Stats,
        Name::Metrics => Command::Metrics,
        Name::Checkpoint => Command::Checkpoint,
    })
}

fn read_hash<'a>(source: &mut impl Source<'a>) -> Result<TripleHash> {
    let bytes = read_bytes(source)?;
    let hash = bytes.as_ref().try_into().map(TripleHash);
    hash.map_err(|_| Fault::malformed(format!("{} bytes: expected the 32 bytes of SHA-256", bytes.len())))
}
