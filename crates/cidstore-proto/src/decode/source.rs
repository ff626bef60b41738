//! What both encodings have in common: a message is read from front to back, one token at a time,
//! out of the slice it came in.

use super::fault::{Fallible, Fault, excerpt};
use std::borrow::Cow;

/// One value, or the beginning of a container.
#[derive(Debug)]
pub(crate) enum Token<'a> {
    Null,
    Bool(bool),
    Uint(u64),
    /// Below zero.
    Nint(i64),
    Float(f64),
    /// An integer of JSON beyond 64 bits, as it is written.
    Huge(&'a str),
    Str(Cow<'a, str>),
    Bin(&'a [u8]),
    Ext,
    Array(Open),
    Map(Open),
}

impl Token<'_> {
    /// What it is, for messages.
    pub fn describe(&self) -> String {
        match self {
            Self::Null => "null".into(),
            Self::Bool(value) => value.to_string(),
            Self::Uint(value) => value.to_string(),
            Self::Nint(value) => value.to_string(),
            Self::Float(value) => format!("the float {value:?}"),
            Self::Huge(text) => excerpt(text),
            Self::Str(text) => format!("the text \"{}\"", excerpt(text)),
            Self::Bin(bytes) => format!("{} bytes", bytes.len()),
            Self::Ext => "a MessagePack extension".into(),
            Self::Array(_) => "an array".into(),
            Self::Map(_) => "a map".into(),
        }
    }

    /// The fault of standing where something else belongs.
    #[cold]
    pub fn unexpected(&self, expected: &str) -> Fault {
        Fault::invalid(format!("found {}: expected {expected}", self.describe()))
    }
}

/// A container that is being read.
#[derive(Debug)]
pub(crate) struct Open {
    /// `MessagePack`: elements (of a map: pairs) that are left. JSON: 1 before the first, then 0.
    pub left: u32,
    /// Whether it is a map.
    pub map: bool,
}

/// The key of an entry of a map.
pub(crate) enum Key<'a> {
    Name(Cow<'a, str>),
    Int(i128),
    /// Something else, already passed over; what it was, for messages.
    Other(String),
}

impl Key<'_> {
    /// The text of it; no known field has any other key.
    #[inline]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            _ => None,
        }
    }
}

/// A place in a message. Copied where one wants to come back.
pub(crate) trait Source<'a>: Copy {
    /// The next byte's offset in the message.
    fn position(&self) -> usize;

    /// Bytes that are left.
    fn remaining(&self) -> usize;

    /// The same message at the value of a field of the request's map, which starts at this offset.
    fn at_field(&self, offset: usize) -> Self;

    /// Reads a value; of a container only its beginning, which the caller then reads with
    /// [`Self::more`] to its end.
    fn token(&mut self) -> Fallible<Token<'a>>;

    /// Whether the container has one more element, which the caller then reads ([`Self::key`]
    /// first in a map).
    fn more(&mut self, open: &mut Open) -> Fallible<bool>;

    /// Reads the key of an entry of a map.
    fn key(&mut self) -> Fallible<Key<'a>>;

    /// Passes over one value however deep it is, in constant memory. It is checked only as far as
    /// its end has to be found.
    fn skip_flat(&mut self) -> Fallible<()>;

    /// That nothing follows the message.
    fn end(&mut self) -> Fallible<()>;

    /// Passes over one value, checking it. Recursion ends at the limit of depth.
    fn skip(&mut self) -> Fallible<()> {
        match self.token()? {
            Token::Array(open) | Token::Map(open) => self.skip_rest(open),
            _ => Ok(()),
        }
    }

    /// Passes over what is left of a container.
    fn skip_rest(&mut self, mut open: Open) -> Fallible<()> {
        while self.more(&mut open)? {
            if open.map {
                self.key()?;
            }
            self.skip()?;
        }
        Ok(())
    }
}
