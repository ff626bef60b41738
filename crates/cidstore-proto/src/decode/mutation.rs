//! Inserts and deletes.

use super::cid;
use super::fault::{Fault, Result};
use super::fields::{Field, Fields, read_bytes, read_float, read_text};
use super::provenance;
use super::token::{Source, Token, capacity, read_map};
use crate::ErrorCode;
use crate::Limits;
use cidstore_types::{Batch, Cid, Metadata, MetadataError, Mutation, Op, Pattern, Triple};

/// One element of a batch, or the whole of an `insert`, while its fields arrive.
#[derive(Default)]
struct Element {
    s: Option<Cid>,
    p: Option<Cid>,
    o: Option<Cid>,
    metadata: Metadata,
    created_at: Option<f64>,
}

impl Element {
    /// Reads the value of a field of this name; `false` if the name is none of metadata's.
    fn metadata_field<'a>(&mut self, source: &mut impl Source<'a>, field: Field) -> Result<bool> {
        match field {
            Field::Provenance => self.metadata.provenance = Some(provenance::read(source)?),
            Field::SchemaVersion => self.metadata.schema_version = Some(read_text(source)?.into_owned()),
            Field::CreatedAt => self.created_at = Some(read_float(source)?),
            Field::Confidence => self.metadata.confidence = Some(read_float(source)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn triple(&self) -> Result<Triple> {
        let part = |part: Option<Cid>, name| {
            part.ok_or_else(|| Fault::malformed("the field is missing").within(name))
        };
        Ok(Triple::new(part(self.s, "s")?, part(self.p, "p")?, part(self.o, "o")?))
    }
}

const METADATA: [Field; 4] = [Field::Provenance, Field::SchemaVersion, Field::CreatedAt, Field::Confidence];

/// A batch being collected.
struct Collector<'l> {
    batch: Batch,
    limits: &'l Limits,
}

impl<'l> Collector<'l> {
    fn new(op: Op, received_at: f64, limits: &'l Limits) -> Self {
        Self { batch: Batch::new(op, received_at, Vec::new()), limits }
    }

    fn check_len(&self, len: usize) -> Result<()> {
        let max = self.limits.batch_triples_max;
        if len > max {
            let what = format!("{len} triples or more: the limit of a batch is {max}");
            return Err(Fault::new(ErrorCode::TooLarge, what));
        }
        Ok(())
    }

    fn push(&mut self, triple: Triple, element: &Element) -> Result<()> {
        let row = self.batch.rows.len() as u32;
        self.check_len(self.batch.rows.len() + 1)?;
        if let Some(created_at) = element.created_at {
            self.batch.created_at.push((row, created_at));
        }
        if !element.metadata.is_empty() {
            let stored = element.metadata.to_stored(self.limits.metadata_bytes_max).map_err(|e| match e {
                MetadataError::TooLarge { .. } => Fault::new(ErrorCode::TooLarge, e.to_string()),
                MetadataError::Confidence { .. } => Fault::malformed(e.to_string()),
            })?;
            self.batch.metadata.push((row, stored));
        }
        self.batch.rows.push(triple);
        Ok(())
    }

    /// An array of triples, each a map or an array of three CIDs; or, with `entries`, of pairs of
    /// key and value.
    fn array<'a>(&mut self, source: &mut impl Source<'a>, entries_form: bool) -> Result<()> {
        let mut entries = match source.next()? {
            Token::Array(entries) => entries,
            other => return Err(Fault::malformed(format!("{}: expected an array", other.kind()))),
        };
        // The smallest triple on the wire: an array of three empty things.
        let expected = capacity(source, entries, 4);
        self.check_len(expected)?;
        self.batch.rows.reserve(expected);
        let mut index = 0;
        while source.more(&mut entries)? {
            self.element(source, entries_form).map_err(|fault| fault.at(index))?;
            index += 1;
        }
        Ok(())
    }

    fn element<'a, S: Source<'a>>(&mut self, source: &mut S, entries_form: bool) -> Result<()> {
        let mut element = Element::default();
        match source.next()? {
            Token::Map(entries) => {
                let known = if entries_form { ["key", "", "value"] } else { ["s", "p", "o"] };
                read_map(source, entries, |source, name| {
                    if let Some(at) = known.iter().position(|known| *known == name) {
                        let part = [&mut element.s, &mut element.p, &mut element.o];
                        *part[at] = Some(cid::read(source)?);
                        return Ok(Some(at as u32));
                    }
                    let field = METADATA.into_iter().find(|field| field.name() == name);
                    let Some(field) = field else { return Ok(None) };
                    let place = source.offset();
                    if source.next()? == Token::Nil {
                        return Ok(Some(field as u32));
                    }
                    source.rewind(place);
                    element.metadata_field(source, field)?;
                    Ok(Some(field as u32))
                })?;
                if entries_form {
                    element.p = Some(Cid::ZERO);
                    if element.s.is_none() || element.o.is_none() {
                        let name = if element.s.is_none() { "key" } else { "value" };
                        return Err(Fault::malformed("the field is missing").within(name));
                    }
                }
            }
            Token::Array(mut entries) if !entries_form => {
                let mut count = 0;
                while source.more(&mut entries)? {
                    let parts = [&mut element.s, &mut element.p, &mut element.o];
                    match parts.into_iter().nth(count) {
                        Some(part) => *part = Some(cid::read(source).map_err(|fault| fault.at(count))?),
                        None => source.skip()?,
                    }
                    count += 1;
                }
                if count != 3 {
                    return Err(Fault::malformed(format!("an array of {count}: expected [s, p, o]")));
                }
            }
            other => {
                let expected = if entries_form { "{key, value}" } else { "{s, p, o} or [s, p, o]" };
                return Err(Fault::malformed(format!("{}: expected {expected}", other.kind())));
            }
        }
        let triple = element.triple()?;
        self.push(triple, &element)
    }

    fn packed<'a>(&mut self, source: &mut impl Source<'a>) -> Result<()> {
        let bytes = read_bytes(source)?;
        let (rows, rest) = bytes.as_chunks::<{ Triple::BYTES }>();
        if !rest.is_empty() {
            return Err(Fault::malformed(format!("{} bytes: expected a multiple of 96", bytes.len())));
        }
        self.check_len(rows.len())?;
        self.batch.rows.extend(rows.iter().map(|row| Triple(*row)));
        Ok(())
    }
}

/// `insert`: one triple, or a key and a value.
pub(crate) fn insert<'a, S: Source<'a>>(
    fields: &mut Fields<'_, S>,
    limits: &Limits,
    received_at: f64,
) -> Result<Mutation> {
    let mut element = Element::default();
    if fields.has(Field::Key)? {
        refuse_both(fields)?;
        element.s = Some(fields.require(Field::Key, cid::read)?);
        element.p = Some(Cid::ZERO);
        element.o = Some(fields.require(Field::Value, cid::read)?);
    } else {
        element.s = Some(fields.require(Field::S, cid::read)?);
        element.p = Some(fields.require(Field::P, cid::read)?);
        element.o = Some(fields.require(Field::O, cid::read)?);
    }
    for field in METADATA {
        fields.read(field, |source| element.metadata_field(source, field))?;
    }
    let mut collector = Collector::new(Op::Insert, received_at, limits);
    let triple = element.triple()?;
    collector.push(triple, &element)?;
    Ok(Mutation::Batch(collector.batch))
}

/// `batch_insert` and `batch_delete`.
pub(crate) fn batch<'a, S: Source<'a>>(
    fields: &mut Fields<'_, S>,
    op: Op,
    limits: &Limits,
    received_at: f64,
) -> Result<Mutation> {
    let mut collector = Collector::new(op, received_at, limits);
    let mut forms = 0;
    for field in [Field::Triples, Field::Entries, Field::Packed] {
        let read = fields.read(field, |source| match field {
            Field::Packed => collector.packed(source),
            _ => collector.array(source, field == Field::Entries),
        })?;
        forms += usize::from(read.is_some());
    }
    if forms != 1 {
        return Err(Fault::malformed("a batch has exactly one of `triples`, `entries` and `packed`"));
    }
    if op == Op::Delete {
        collector.batch.created_at.clear();
        collector.batch.metadata.clear();
    }
    Ok(Mutation::Batch(collector.batch))
}

/// `delete`: what matches the bound parts, or a key and perhaps a value.
pub(crate) fn delete<'a, S: Source<'a>>(fields: &mut Fields<'_, S>, received_at: f64) -> Result<Mutation> {
    let pattern = if fields.has(Field::Key)? {
        refuse_both(fields)?;
        let key = fields.require(Field::Key, cid::read)?;
        Pattern::of_key(key, fields.read(Field::Value, cid::read)?)
    } else {
        pattern(fields)?
    };
    if pattern == Pattern::ALL {
        return Err(Fault::malformed("a delete needs at least one of `s`, `p`, `o` and `key`"));
    }
    Ok(Mutation::DeleteMatching { pattern, received_at })
}

/// Any subset of `s`, `p`, `o`.
pub(crate) fn pattern<'a, S: Source<'a>>(fields: &mut Fields<'_, S>) -> Result<Pattern> {
    let mut part = |field| Ok(fields.read(field, cid::read_optional)?.flatten());
    Ok(Pattern { s: part(Field::S)?, p: part(Field::P)?, o: part(Field::O)? })
}

fn refuse_both<'a, S: Source<'a>>(fields: &mut Fields<'_, S>) -> Result<()> {
    for field in [Field::S, Field::P, Field::O] {
        if fields.has(field)? {
            return Err(Fault::malformed("`key` and a part of a triple in one request").within(field.name()));
        }
    }
    Ok(())
}
