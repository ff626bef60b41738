//! The fields of a request: found in a first pass, read in a second when the command is known.

use super::fault::{Fault, Result};
use super::token::{Entries, Source, Token, excerpt, read_map};
use std::borrow::Cow;

/// Every field that some command knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Field {
    Command,
    OpCode,
    Op,
    RequestId,
    S,
    P,
    O,
    Key,
    Value,
    Triples,
    Entries,
    Packed,
    Provenance,
    SchemaVersion,
    CreatedAt,
    Confidence,
    Limit,
    Cursor,
    Format,
    Metadata,
    TripleHash,
    Since,
}

impl Field {
    const ALL: [(Self, &'static str); 22] = [
        (Self::Command, "command"),
        (Self::OpCode, "op_code"),
        (Self::Op, "op"),
        (Self::RequestId, "request_id"),
        (Self::S, "s"),
        (Self::P, "p"),
        (Self::O, "o"),
        (Self::Key, "key"),
        (Self::Value, "value"),
        (Self::Triples, "triples"),
        (Self::Entries, "entries"),
        (Self::Packed, "packed"),
        (Self::Provenance, "provenance"),
        (Self::SchemaVersion, "schema_version"),
        (Self::CreatedAt, "created_at"),
        (Self::Confidence, "confidence"),
        (Self::Limit, "limit"),
        (Self::Cursor, "cursor"),
        (Self::Format, "format"),
        (Self::Metadata, "metadata"),
        (Self::TripleHash, "triple_hash"),
        (Self::Since, "since"),
    ];

    pub(crate) fn of(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(field, _)| *field)
    }

    pub(crate) fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// A request's map, with the places of its fields.
pub(crate) struct Fields<'s, S> {
    source: &'s mut S,
    places: [Option<usize>; Field::ALL.len()],
}

impl<'a, 's, S: Source<'a>> Fields<'s, S> {
    /// Passes over the whole request: after this its syntax is known to be good. What was found
    /// until a fault is there even then, so that a rejection can carry the request's id.
    pub(crate) fn scan(source: &'s mut S) -> (Self, Result<()>) {
        let mut places = [None; Field::ALL.len()];
        let scanned = (|| match source.next()? {
            Token::Map(entries) => scan_map(source, entries, &mut places),
            other => Err(Fault::malformed(format!("a request is a map, this is {}", other.kind()))),
        })();
        (Self { source, places }, scanned)
    }

    /// What must hold after the request's map.
    pub(crate) fn end(&mut self, end: impl FnOnce(&mut S) -> Result<()>) -> Result<()> {
        end(self.source)
    }

    /// Goes to a field's value; `None` if it is absent or null.
    pub(crate) fn find(&mut self, field: Field) -> Result<Option<&mut S>> {
        let Some(place) = self.places[field as usize] else { return Ok(None) };
        self.source.seek(place);
        if self.source.next().map_err(|fault| fault.within(field.name()))? == Token::Nil {
            return Ok(None);
        }
        self.source.seek(place);
        Ok(Some(self.source))
    }

    /// Whether a field is there and not null.
    pub(crate) fn has(&mut self, field: Field) -> Result<bool> {
        Ok(self.find(field)?.is_some())
    }

    /// Reads an optional field; a fault gets the field's name.
    pub(crate) fn read<T>(
        &mut self,
        field: Field,
        read: impl FnOnce(&mut S) -> Result<T>,
    ) -> Result<Option<T>> {
        let Some(source) = self.find(field)? else { return Ok(None) };
        read(source).map(Some).map_err(|fault| fault.within(field.name()))
    }

    /// Reads a field that must be there.
    pub(crate) fn require<T>(&mut self, field: Field, read: impl FnOnce(&mut S) -> Result<T>) -> Result<T> {
        self.read(field, read)?.ok_or_else(|| Fault::malformed("the field is missing").within(field.name()))
    }

    /// Reads an optional text.
    pub(crate) fn text(&mut self, field: Field) -> Result<Option<Cow<'a, str>>> {
        self.read(field, read_text)
    }

    /// Reads an optional whole number.
    pub(crate) fn number(&mut self, field: Field) -> Result<Option<u64>> {
        self.read(field, |source| match source.next()? {
            Token::Uint(value) => Ok(value),
            other => Err(Fault::malformed(format!("{}: expected an integer from 0 to 2^64-1", other.kind()))),
        })
    }
}

fn scan_map<'a, S: Source<'a>>(
    source: &mut S,
    entries: Entries,
    places: &mut [Option<usize>; Field::ALL.len()],
) -> Result<()> {
    read_map(source, entries, |source, key| {
        let Some(field) = Field::of(key) else { return Ok(None) };
        let place = &mut places[field as usize];
        if place.is_none() {
            *place = Some(source.offset());
        }
        source.skip()?;
        Ok(Some(field as u32))
    })
}

pub(crate) fn read_text<'a>(source: &mut impl Source<'a>) -> Result<Cow<'a, str>> {
    match source.next()? {
        Token::Str(text) => Ok(text),
        other => Err(Fault::malformed(format!("{}: expected text", other.kind()))),
    }
}

/// A number of any kind, but finite.
pub(crate) fn read_float<'a>(source: &mut impl Source<'a>) -> Result<f64> {
    let value = match source.next()? {
        Token::Uint(value) => value as f64,
        Token::Int(value) => value as f64,
        Token::Float(value) => value,
        Token::Huge(digits) => digits.parse().unwrap_or(f64::INFINITY),
        other => return Err(Fault::malformed(format!("{}: expected a number", other.kind()))),
    };
    if value.is_finite() { Ok(value) } else { Err(Fault::malformed("expected a finite number")) }
}

/// Binary bytes, or their hex digits as text (the only form that JSON has).
pub(crate) fn read_bytes<'a>(source: &mut impl Source<'a>) -> Result<Cow<'a, [u8]>> {
    match source.next()? {
        Token::Bin(bytes) => Ok(Cow::Borrowed(bytes)),
        Token::Str(text) => unhex(&text).map(Cow::Owned).ok_or_else(|| {
            Fault::malformed(format!("{:?}: expected an even number of hex digits", excerpt(&text)))
        }),
        other => Err(Fault::malformed(format!("{}: expected binary bytes or hex digits", other.kind()))),
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    pairs.iter().map(|[high, low]| Some((digit(*high)? << 4 | digit(*low)?) as u8)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stand_at_their_own_place() {
        for (i, (field, name)) in Field::ALL.iter().enumerate() {
            assert_eq!((*field as usize, Field::of(name)), (i, Some(*field)));
        }
    }
}
