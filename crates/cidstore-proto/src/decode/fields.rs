//! The request's map: where the value of each known field stands.
//!
//! One pass from front to back finds the values, so that the command, the name of the request and
//! every fault are known wherever they stand. The rows of a batch are decoded in that pass, since
//! they are most of a large message; everything else is decoded when the command is known.

use super::fault::{Fallible, Fault, Kind, Within};
use super::rows::{Rows, Shape, rows};
use super::source::{Source, Token};
use crate::Limits;

macro_rules! fields {
    ($($field:ident = $name:literal),* $(,)?) => {
        /// A known field of a request.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Field { $($field),* }

        impl Field {
            pub const NAMES: &[&str] = &[$($name),*];

            #[inline]
            fn of(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$field),)*
                    _ => None,
                }
            }
        }
    };
}

fields! {
    Command = "command",
    OpCode = "op_code",
    Op = "op",
    RequestId = "request_id",
    S = "s",
    P = "p",
    O = "o",
    Key = "key",
    Value = "value",
    Triples = "triples",
    Entries = "entries",
    Packed = "packed",
    Provenance = "provenance",
    SchemaVersion = "schema_version",
    Confidence = "confidence",
    CreatedAt = "created_at",
    Limit = "limit",
    Cursor = "cursor",
    Format = "format",
    Metadata = "metadata",
    TripleHash = "triple_hash",
    TripleHashes = "triple_hashes",
    Since = "since",
    Action = "action",
    BytesPerSecond = "bytes_per_second",
    Sample = "sample",
    Repair = "repair",
    IdempotencyKey = "idempotency_key",
}

impl Field {
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// The values of a request's known fields.
pub(crate) struct Fields<S> {
    src: S,
    /// Where the value starts; 0, where the map itself starts, stands for "absent".
    at: [usize; Field::NAMES.len()],
    rows: Option<(Field, Fallible<Option<Rows>>)>,
    /// The first of the worst kind that was found.
    fault: Option<Fault>,
}

impl<'a, S: Source<'a>> Fields<S> {
    /// Finds them. With `decode_rows` unset, the rows of a batch are only passed over.
    pub fn find(src: S, limits: &Limits, decode_rows: bool) -> Self {
        let mut fields = Self { src, at: [0; Field::NAMES.len()], rows: None, fault: None };
        if let Err(fault) = fields.walk(limits, decode_rows) {
            fields.note(fault);
        }
        fields
    }

    /// Keeps the first of the worst kind: bytes that make no sense are that, however deep they are.
    fn note(&mut self, fault: Fault) {
        if self.fault.as_ref().is_none_or(|known| fault.kind() < known.kind()) {
            self.fault = Some(fault);
        }
    }

    fn walk(&mut self, limits: &Limits, decode_rows: bool) -> Fallible<()> {
        let mut src = self.src;
        let mut open = match src.token()? {
            Token::Map(open) => open,
            other => return Err(other.unexpected("a map of fields")),
        };
        while src.more(&mut open)? {
            let start = src.position();
            let key = match src.key() {
                // A container as a key that is too deep: passed over like any such value.
                Err(fault) if fault.kind() == Kind::Depth => {
                    self.note(fault);
                    src = src.at_field(start);
                    src.skip_flat()?;
                    None
                }
                key => Some(key?),
            };
            let name = key.as_ref().and_then(|key| key.name()).unwrap_or_default();
            let start = src.position();
            if let Some(field) = Field::of(name) {
                if self.at[field as usize] != 0 {
                    self.note(Fault::invalid("the field stands twice").field(name));
                } else {
                    self.at[field as usize] = start;
                    if decode_rows && self.rows(&mut src, field, limits)? {
                        continue;
                    }
                }
            }
            match src.skip() {
                Err(fault) if fault.kind() == Kind::Depth => {
                    self.note(fault.field(name));
                    src = src.at_field(start);
                    src.skip_flat().field(name)?;
                }
                other => other.field(name)?,
            }
        }
        src.end()
    }

    /// Decodes the rows of a batch where the field has such. Returns whether `src` stands behind
    /// them; else it is as it was.
    fn rows(&mut self, src: &mut S, field: Field, limits: &Limits) -> Fallible<bool> {
        let shape = match field {
            Field::Triples => Shape::Triples,
            Field::Entries => Shape::Entries,
            _ => return Ok(false),
        };
        let mut ahead = *src;
        let found = rows(&mut ahead, shape, limits).field(field.name());
        match found {
            Err(fault) if fault.kind() == Kind::Syntax => return Err(fault),
            Err(fault) if fault.kind() == Kind::Depth => {
                self.note(fault);
                return Ok(false);
            }
            _ => {}
        }
        let behind = found.is_ok();
        if behind {
            *src = ahead;
        }
        // Two such fields are refused, whatever they hold.
        self.rows.get_or_insert((field, found));
        Ok(behind)
    }

    /// The first fault of the message as such.
    pub fn take_fault(&mut self) -> Option<Fault> {
        self.fault.take()
    }

    /// Whether the field is there and null.
    pub fn is_null(&self, field: Field) -> bool {
        self.at[field as usize] != 0 && self.value(field).is_none()
    }

    /// The message at the field's value; `None` if it is absent or null.
    pub fn value(&self, field: Field) -> Option<S> {
        match self.at[field as usize] {
            0 => None,
            at => {
                let src = self.src.at_field(at);
                let null = matches!({ src }.token(), Ok(Token::Null));
                (!null).then_some(src)
            }
        }
    }

    /// The field's value; `None` if it is absent or null. Of a container, its beginning.
    pub fn token(&self, field: Field) -> Fallible<Option<Token<'a>>> {
        self.value(field).map(|mut src| src.token()).transpose().field(field.name())
    }

    /// The rows of the field.
    pub fn take_rows(&mut self, field: Field) -> Fallible<Rows> {
        match self.rows.take() {
            Some((found, rows)) if found == field => Ok(rows?.unwrap_or_default()),
            _ => Ok(Rows::default()),
        }
    }
}
