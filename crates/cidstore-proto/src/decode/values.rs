//! Values of fields: CIDs, metadata, numbers, texts.

use super::fault::{Fallible, Fault, Within, excerpt};
use super::source::{Key, Open, Source, Token};
use cidstore_types::{Cid, CidError, Metadata, MetadataError};
use serde_json::{Map, Number, Value};

impl From<CidError> for Fault {
    fn from(error: CidError) -> Self {
        Self::invalid(match error {
            CidError::Text { found } => CidError::Text { found: excerpt(&found) }.to_string(),
            other => other.to_string(),
        })
    }
}

/// A CID in any form.
#[inline]
pub(crate) fn cid<'a, S: Source<'a>>(src: &mut S) -> Fallible<Cid> {
    match src.token()? {
        Token::Str(text) => Ok(Cid::parse(&text)?),
        Token::Bin(bytes) => Ok(Cid::from_slice(bytes)?),
        Token::Array(open) => cid_of_array(src, open),
        Token::Map(open) => cid_of_map(src, open),
        other => Err(other.unexpected("a CID: text, 32 bytes, or lanes as an array or map")),
    }
}

fn cid_of_array<'a, S: Source<'a>>(src: &mut S, mut open: Open) -> Fallible<Cid> {
    let mut lanes = [0; 4];
    let mut found = 0;
    while src.more(&mut open)? {
        if let Some(slot) = lanes.get_mut(found) {
            *slot = match src.token()? {
                Token::Uint(lane) => lane,
                other => return Err(CidError::Lane { lane: found, found: other.describe() }.into()),
            };
        } else {
            src.skip()?;
        }
        found += 1;
    }
    if found > lanes.len() {
        return Err(CidError::LaneCount { found }.into());
    }
    Ok(Cid::from_lane_slice(&lanes[..found])?)
}

fn cid_of_map<'a, S: Source<'a>>(src: &mut S, mut open: Open) -> Fallible<Cid> {
    const NAMES: [&str; 4] = ["high", "high_mid", "low_mid", "low"];
    let mut lanes = [None; 4];
    while src.more(&mut open)? {
        let key = src.key()?;
        let Some(lane) = key.name().and_then(|name| NAMES.iter().position(|known| *known == name)) else {
            src.skip()?;
            continue;
        };
        if lanes[lane].is_some() {
            return Err(Fault::invalid("the lane stands twice").field(NAMES[lane]));
        }
        lanes[lane] = match src.token()? {
            Token::Uint(value) => Some(value),
            other => return Err(CidError::Lane { lane, found: other.describe() }.into()),
        };
    }
    let [Some(high), high_mid, low_mid, Some(low)] = lanes else {
        let missing = if lanes[0].is_none() { NAMES[0] } else { NAMES[3] };
        return Err(Fault::invalid(format!("a CID without the lane {missing}")));
    };
    Ok(Cid::from_lanes([high, high_mid.unwrap_or(0), low_mid.unwrap_or(0), low]))
}

/// Fields beside a triple's three parts.
pub(crate) const METADATA_FIELDS: [&str; 4] = ["provenance", "schema_version", "confidence", "created_at"];

/// What was read of [`METADATA_FIELDS`].
#[derive(Default)]
pub(crate) struct Extra {
    pub metadata: Metadata,
    pub created_at: Option<f64>,
    /// Bit i: the i-th of [`METADATA_FIELDS`] was read.
    seen: u8,
}

impl Extra {
    /// Reads the value of the i-th of [`METADATA_FIELDS`]. `limit`: of the stored form, in bytes.
    pub fn read<'a, S: Source<'a>>(&mut self, i: usize, src: &mut S, limit: usize) -> Fallible<()> {
        if self.seen & (1 << i) != 0 {
            return Err(Fault::invalid("the field stands twice"));
        }
        self.seen |= 1 << i;
        match i {
            0 => self.metadata.provenance = provenance(src, limit)?,
            1 => self.metadata.schema_version = schema_version(src)?,
            2 => self.metadata.confidence = float(src, "a number from 0 to 1")?,
            _ => self.created_at = float(src, "a number of seconds since 1970")?,
        }
        Ok(())
    }

    /// The stored form of the metadata, if there is any.
    pub fn stored(self, limit: usize) -> Fallible<Option<Box<str>>> {
        if self.metadata.is_empty() {
            return Ok(None);
        }
        self.metadata.to_stored(limit).map(Some).map_err(|error| match error {
            MetadataError::TooLarge { .. } => Fault::too_large(error.to_string()),
            MetadataError::Confidence { .. } => Fault::invalid(error.to_string()),
        })
    }
}

fn schema_version<'a, S: Source<'a>>(src: &mut S) -> Fallible<Option<String>> {
    match src.token()? {
        Token::Null => Ok(None),
        Token::Str(text) => Ok(Some(text.into_owned())),
        other => Err(other.unexpected("a text")),
    }
}

/// A finite number, or null.
pub(crate) fn float<'a, S: Source<'a>>(src: &mut S, expected: &str) -> Fallible<Option<f64>> {
    match src.token()? {
        Token::Null => Ok(None),
        Token::Uint(value) => Ok(Some(value as f64)),
        Token::Nint(value) => Ok(Some(value as f64)),
        Token::Float(value) if value.is_finite() => Ok(Some(value)),
        other => Err(other.unexpected(expected)),
    }
}

fn provenance<'a, S: Source<'a>>(src: &mut S, limit: usize) -> Fallible<Option<Map<String, Value>>> {
    match src.token()? {
        Token::Null => Ok(None),
        Token::Map(open) => Ok(Some(Tree { limit, left: limit }.map(src, open)?)),
        other => Err(other.unexpected("a map")),
    }
}

/// Any JSON value, of a reply that this side asked for.
pub(crate) fn json<'a, S: Source<'a>>(src: &mut S) -> Fallible<Value> {
    Tree { limit: usize::MAX, left: usize::MAX }.value(src)
}

/// Builds a JSON value, giving up as soon as its text is sure to be over the limit: a value takes
/// many times the memory of its bytes in a message.
struct Tree {
    limit: usize,
    /// Bytes that the text may still have.
    left: usize,
}

impl Tree {
    /// Counts what a value's text has at least.
    fn spend(&mut self, bytes: usize) -> Fallible<()> {
        self.left = self
            .left
            .checked_sub(bytes)
            .ok_or_else(|| Fault::too_large(format!("more than {} bytes of metadata as JSON", self.limit)))?;
        Ok(())
    }

    /// Recursion ends at the limit of depth, in [`Source::token`].
    fn value<'a, S: Source<'a>>(&mut self, src: &mut S) -> Fallible<Value> {
        Ok(match src.token()? {
            Token::Null => {
                self.spend(4)?;
                Value::Null
            }
            Token::Bool(value) => {
                self.spend(4)?;
                value.into()
            }
            Token::Uint(value) => {
                self.spend(1)?;
                value.into()
            }
            Token::Nint(value) => {
                self.spend(2)?;
                value.into()
            }
            Token::Float(value) => {
                self.spend(3)?;
                let number = Number::from_f64(value);
                let expected = "a finite number (JSON has no other)";
                Value::Number(number.ok_or_else(|| Token::Float(value).unexpected(expected))?)
            }
            Token::Str(text) => {
                self.spend(text.len() + 2)?;
                Value::String(text.into_owned())
            }
            Token::Array(mut open) => {
                self.spend(2)?;
                let mut values = Vec::new();
                while src.more(&mut open)? {
                    self.spend(1)?;
                    values.push(self.value(src).index(values.len())?);
                }
                values.into()
            }
            Token::Map(open) => self.map(src, open)?.into(),
            other @ (Token::Huge(_) | Token::Bin(_) | Token::Ext) => {
                return Err(other.unexpected(
                    "what JSON has: text, a number of 64 bits, true, false, null, an array, a map",
                ));
            }
        })
    }

    fn map<'a, S: Source<'a>>(&mut self, src: &mut S, mut open: Open) -> Fallible<Map<String, Value>> {
        self.spend(2)?;
        let mut map = Map::new();
        while src.more(&mut open)? {
            let key = match src.key()? {
                Key::Name(name) => name.into_owned(),
                Key::Int(number) => number.to_string(),
                Key::Other(what) => {
                    return Err(Fault::invalid(format!("the key is {what}: expected a text or an integer")));
                }
            };
            if map.contains_key(&key) {
                return Err(Fault::invalid("the key stands twice").field(&key));
            }
            self.spend(key.len() + 4)?;
            let value = self.value(src).field(&key)?;
            map.insert(key, value);
        }
        Ok(map)
    }
}

/// The bytes of hex text of either case.
pub(crate) fn bytes_of_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}
