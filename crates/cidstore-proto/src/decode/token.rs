//! One view of both encodings: a stream of tokens.

use super::fault::{Fault, Result};
use std::borrow::Cow;

/// The next thing in a message.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token<'a> {
    /// A map begins; its entries follow.
    Map(Entries),
    /// An array begins; its elements follow.
    Array(Entries),
    Str(Cow<'a, str>),
    /// MessagePack only.
    Bin(&'a [u8]),
    Uint(u64),
    /// Below zero.
    Int(i64),
    Float(f64),
    /// A JSON integer that 64 bits cannot hold, as it was written.
    Huge(&'a str),
    Bool(bool),
    Nil,
    /// A MessagePack extension of this type.
    Ext(i8),
}

impl Token<'_> {
    /// What it is, for messages.
    pub(crate) fn kind(&self) -> String {
        match self {
            Self::Map(_) => "a map".into(),
            Self::Array(_) => "an array".into(),
            Self::Str(text) => format!("text {:?}", excerpt(text)),
            Self::Bin(bytes) => format!("{} binary bytes", bytes.len()),
            Self::Uint(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Float(value) => format!("{value:?}"),
            Self::Huge(digits) => excerpt(digits),
            Self::Bool(value) => value.to_string(),
            Self::Nil => "null".into(),
            Self::Ext(kind) => format!("an extension of type {kind}"),
        }
    }
}

/// At most 80 characters of a text.
pub(crate) fn excerpt(text: &str) -> String {
    text.chars().take(80).collect()
}

/// What is left of a map or array that was begun.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Entries {
    /// MessagePack: so many to come. Announced, so never to be believed for allocation.
    Counted(usize),
    /// JSON: until the closing bracket.
    Delimited { first: bool, close: u8 },
}

/// A message being read.
pub(crate) trait Source<'a> {
    /// The next token.
    fn next(&mut self) -> Result<Token<'a>>;

    /// Whether another entry follows; the end of the map or array is consumed.
    fn more(&mut self, entries: &mut Entries) -> Result<bool>;

    /// The key of a map's entry, with what separates it from the value. `None` for a key that is
    /// neither text nor an integer; an integer reads as its decimal digits.
    fn key(&mut self) -> Result<Option<Cow<'a, str>>>;

    /// Where the next byte is.
    fn offset(&self) -> usize;

    /// Goes to where [`Source::offset`] once was, at the nesting depth of a request's fields.
    fn seek(&mut self, offset: usize);

    /// Goes back to where [`Source::offset`] was just before a value that is no map or array.
    fn rewind(&mut self, offset: usize);

    /// Bytes not read yet.
    fn remaining(&self) -> usize;

    /// Passes over the next value, whatever it is: without recursion, checking depth and lengths.
    fn skip(&mut self) -> Result<()> {
        // Containers that are open, with whether they are maps. As deep as the limit at most, since
        // `next` refuses to go deeper.
        let mut open: Vec<(Entries, bool)> = Vec::new();
        loop {
            match self.next()? {
                Token::Map(entries) => open.push((entries, true)),
                Token::Array(entries) => open.push((entries, false)),
                _ => {}
            }
            loop {
                let Some((entries, map)) = open.last_mut() else { return Ok(()) };
                if self.more(entries)? {
                    if *map {
                        self.key()?;
                    }
                    break;
                }
                open.pop();
            }
        }
    }
}

/// How many elements to make room for: what is announced, but no more than could have come.
pub(crate) fn capacity<'a>(source: &impl Source<'a>, entries: Entries, bytes_each_min: usize) -> usize {
    match entries {
        Entries::Counted(count) => count.min(source.remaining() / bytes_each_min),
        Entries::Delimited { .. } => 0,
    }
}

/// Reads a map, calling `field` for each key with the source at its value. Keys are unique: `field`
/// returns the number of a known field (below 32), or `None` after it left the value alone.
pub(crate) fn read_map<'a, S: Source<'a>>(
    source: &mut S,
    mut entries: Entries,
    mut field: impl FnMut(&mut S, &str) -> Result<Option<u32>>,
) -> Result<()> {
    let mut seen = 0u32;
    while source.more(&mut entries)? {
        let Some(key) = source.key()? else {
            source.skip()?;
            continue;
        };
        match field(source, &key).map_err(|fault| fault.within(&key))? {
            None => source.skip().map_err(|fault| fault.within(&excerpt(&key)))?,
            Some(number) if seen & 1 << number != 0 => {
                return Err(Fault::malformed("the field is there twice").within(&key));
            }
            Some(number) => seen |= 1 << number,
        }
    }
    Ok(())
}
