//! The rows of a batch: the path that has to be fast.

use super::fault::{Fallible, Fault, Within};
use super::source::{Open, Source, Token};
use super::values::{Extra, METADATA_FIELDS, cid};
use crate::Limits;
use cidstore_types::{Cid, Triple};

/// Rows with their columns, as in [`cidstore_types::Batch`].
#[derive(Default)]
pub(crate) struct Rows {
    pub triples: Vec<Triple>,
    pub created_at: Vec<(u32, f64)>,
    pub metadata: Vec<(u32, Box<str>)>,
    pub(super) metadata_bytes: usize,
}

/// How the rows are written.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Shape {
    /// Maps with `s`, `p`, `o`, or arrays of these.
    Triples,
    /// Maps with `key`, `value`.
    Entries,
}

/// Fewest bytes of a row in a message: an array of three CIDs of two small lanes.
const ROW_BYTES_MIN: usize = 10;

impl Rows {
    /// Appends a row. `limits` bound its metadata and, by the size of a message, that of all rows.
    pub fn push(&mut self, triple: Triple, extra: Extra, limits: &Limits) -> Fallible<()> {
        let row = self.triples.len() as u32;
        self.triples.push(triple);
        if let Some(created_at) = extra.created_at {
            self.created_at.push((row, created_at));
        }
        if let Some(text) = extra.stored(limits.metadata_bytes_max)? {
            self.metadata_bytes += text.len();
            if self.metadata_bytes > limits.message_bytes_max {
                let limit = limits.message_bytes_max;
                return Err(Fault::too_large(format!(
                    "the metadata of the request up to here is over {limit} bytes as JSON"
                )));
            }
            self.metadata.push((row, text));
        }
        Ok(())
    }
}

/// The rows of `triples` or `entries`; `None` for null.
pub(crate) fn rows<'a, S: Source<'a>>(src: &mut S, shape: Shape, limits: &Limits) -> Fallible<Option<Rows>> {
    let mut open = match src.token()? {
        Token::Null => return Ok(None),
        Token::Array(open) => open,
        other => return Err(other.unexpected("an array")),
    };
    let announced = open.left as usize;
    if announced > limits.batch_triples_max {
        return Err(too_many(announced, limits));
    }
    let mut rows = Rows::default();
    rows.triples.reserve(announced.min(src.remaining() / ROW_BYTES_MIN + 1));
    while src.more(&mut open)? {
        let i = rows.triples.len();
        if i == limits.batch_triples_max {
            return Err(too_many(i + 1, limits));
        }
        row(src, shape, limits, &mut rows).index(i)?;
    }
    Ok(Some(rows))
}

#[cold]
pub(crate) fn too_many(found: usize, limits: &Limits) -> Fault {
    let limit = limits.batch_triples_max;
    Fault::too_large(format!("a batch of {found} triples or more: the limit is {limit}"))
}

#[inline]
fn row<'a, S: Source<'a>>(src: &mut S, shape: Shape, limits: &Limits, rows: &mut Rows) -> Fallible<()> {
    match (src.token()?, shape) {
        (Token::Map(open), Shape::Triples) => {
            let (parts, extra) = row_of_map(src, open, ["s", "p", "o"], limits)?;
            let [s, p, o] = parts;
            rows.push(Triple::new(s, p, o), extra, limits)
        }
        (Token::Map(open), Shape::Entries) => {
            let ([key, value], extra) = row_of_map(src, open, ["key", "value"], limits)?;
            rows.push(Triple::new(key, Cid::ZERO, value), extra, limits)
        }
        (Token::Array(open), Shape::Triples) => {
            let triple = row_of_array(src, open)?;
            rows.push(triple, Extra::default(), limits)
        }
        (other, Shape::Triples) => Err(other.unexpected("a map with s, p, o or an array of these")),
        (other, Shape::Entries) => Err(other.unexpected("a map with key, value")),
    }
}

#[inline]
fn row_of_map<'a, S: Source<'a>, const N: usize>(
    src: &mut S,
    mut open: Open,
    names: [&'static str; N],
    limits: &Limits,
) -> Fallible<([Cid; N], Extra)> {
    let mut parts = [Cid::ZERO; N];
    let mut seen = 0;
    let mut extra = Extra::default();
    while src.more(&mut open)? {
        let key = src.key()?;
        let name = key.name().unwrap_or_default();
        if let Some(i) = names.iter().position(|known| *known == name) {
            if seen & (1 << i) != 0 {
                return Err(Fault::invalid("the field stands twice").field(name));
            }
            seen |= 1 << i;
            parts[i] = cid(src).field(name)?;
        } else if let Some(i) = METADATA_FIELDS.iter().position(|known| *known == name) {
            extra.read(i, src, limits.metadata_bytes_max).field(name)?;
        } else {
            src.skip().field(name)?;
        }
    }
    if let Some(missing) = (0..N).find(|i| seen & (1 << i) == 0) {
        return Err(Fault::invalid("missing").field(names[missing]));
    }
    Ok((parts, extra))
}

fn row_of_array<'a, S: Source<'a>>(src: &mut S, mut open: Open) -> Fallible<Triple> {
    let mut parts = [Cid::ZERO; 3];
    let mut found = 0;
    while src.more(&mut open)? {
        if let Some(slot) = parts.get_mut(found) {
            *slot = cid(src).index(found)?;
        } else {
            src.skip()?;
        }
        found += 1;
    }
    if found != parts.len() {
        return Err(Fault::invalid(format!("an array of {found}: expected the three CIDs s, p, o")));
    }
    let [s, p, o] = parts;
    Ok(Triple::new(s, p, o))
}
