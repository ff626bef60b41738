//! What is wrong with a message, and where.

use crate::ErrorCode;
use std::fmt::{self, Write as _};

/// A result whose error fits a register: the paths that succeed are the ones that count.
pub(crate) type Fallible<T> = Result<T, Fault>;

/// What is wrong with a message. The path grows from the inside out while the error travels up.
#[derive(Debug)]
pub(crate) struct Fault(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    code: ErrorCode,
    /// Innermost first.
    path: Vec<Segment>,
    message: String,
}

#[derive(Debug)]
enum Segment {
    Name(String),
    Index(usize),
}

/// How far the message can still be read behind the fault; the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Not at all: the bytes make no sense from here on.
    Syntax,
    /// As bytes, but not within the limit of depth.
    Depth,
    /// In full: what it says cannot be.
    Meaning,
}

impl Fault {
    #[cold]
    fn new(kind: Kind, code: ErrorCode, message: String) -> Self {
        Self(Box::new(Inner { kind, code, path: Vec::new(), message }))
    }

    /// Bytes that are no message.
    #[cold]
    pub fn syntax(offset: usize, what: impl fmt::Display) -> Self {
        Self::new(Kind::Syntax, ErrorCode::Malformed, format!("at byte {offset}: {what}"))
    }

    /// Too many containers inside each other.
    #[cold]
    pub fn depth(offset: usize, limit: usize) -> Self {
        let message =
            format!("at byte {offset}: too many maps and arrays inside each other: the limit is {limit}");
        Self::new(Kind::Depth, ErrorCode::TooLarge, message)
    }

    /// A value that cannot be.
    #[cold]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Meaning, ErrorCode::Malformed, message.into())
    }

    /// A value over a limit.
    #[cold]
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(Kind::Meaning, ErrorCode::TooLarge, message.into())
    }

    /// A command that does not exist.
    #[cold]
    pub fn unknown_command(message: String) -> Self {
        Self::new(Kind::Meaning, ErrorCode::UnknownCommand, message)
    }

    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// For the refusal: the code, and path and message.
    pub fn into_parts(self) -> (ErrorCode, String) {
        (self.0.code, self.to_string())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, segment) in self.0.path.iter().rev().enumerate() {
            match segment {
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Name(name) if i == 0 => f.write_str(name)?,
                Segment::Name(name) => write!(f, ".{name}")?,
            }
        }
        if !self.0.path.is_empty() {
            f.write_str(": ")?;
        }
        f.write_str(&self.0.message)
    }
}

/// Adds to the path of an error.
pub(crate) trait Within: Sized {
    /// In the field of this name.
    fn field(self, name: &str) -> Self;
    /// In this element.
    fn index(self, index: usize) -> Self;
}

impl Within for Fault {
    #[cold]
    fn field(mut self, name: &str) -> Self {
        self.0.path.push(Segment::Name(excerpt(name)));
        self
    }

    #[cold]
    fn index(mut self, index: usize) -> Self {
        self.0.path.push(Segment::Index(index));
        self
    }
}

impl<T> Within for Fallible<T> {
    #[inline]
    fn field(self, name: &str) -> Self {
        match self {
            Ok(value) => Ok(value),
            Err(fault) => Err(fault.field(name)),
        }
    }

    #[inline]
    fn index(self, index: usize) -> Self {
        match self {
            Ok(value) => Ok(value),
            Err(fault) => Err(fault.index(index)),
        }
    }
}

/// The beginning of a text that a client sent, fit for a message: at most 80 characters, control
/// characters escaped.
pub(crate) fn excerpt(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    for c in chars.by_ref().take(80) {
        if c.is_control() {
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    if chars.next().is_some() {
        out.push('…');
    }
    out
}
