//! Reading MessagePack.

use crate::error::{Fault, Result};
use crate::token::{Entries, Source, Token};
use std::borrow::Cow;

/// A MessagePack message being read.
pub(crate) struct MsgPack<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
    depth_max: usize,
}

impl<'a> MsgPack<'a> {
    pub(crate) fn new(bytes: &'a [u8], depth_max: usize) -> Self {
        Self { bytes, at: 0, depth: 0, depth_max }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let Some(taken) = rest.get(..len) else {
            return Err(Fault::malformed(format!(
                "the message ends early: {len} bytes expected at byte {}, {} there",
                self.at,
                rest.len()
            )));
        };
        self.at += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("as many as were taken"))
    }

    /// An announced length of 1, 2 or 4 bytes.
    fn len(&mut self, bytes: u8) -> Result<usize> {
        Ok(match bytes {
            1 => usize::from(self.array::<1>()?[0]),
            2 => usize::from(u16::from_be_bytes(self.array()?)),
            _ => u32::from_be_bytes(self.array()?) as usize,
        })
    }

    fn str(&mut self, len: usize) -> Result<Token<'a>> {
        let at = self.at;
        let text = std::str::from_utf8(self.take(len)?)
            .map_err(|e| Fault::malformed(format!("text is not UTF-8 at byte {}", at + e.valid_up_to())))?;
        Ok(Token::Str(Cow::Borrowed(text)))
    }

    fn open(&mut self, count: usize, each: usize) -> Result<Entries> {
        if self.depth == self.depth_max {
            return Err(Fault::malformed(format!(
                "nested deeper than {} maps and arrays at byte {}",
                self.depth_max, self.at
            )));
        }
        // Every entry takes a byte at least, or two in a map.
        if count.saturating_mul(each) > self.remaining() {
            return Err(Fault::malformed(format!(
                "the message ends early: {count} entries announced at byte {}, {} bytes left",
                self.at,
                self.remaining()
            )));
        }
        self.depth += 1;
        Ok(Entries::Counted(count))
    }

    fn ext(&mut self, len: usize) -> Result<Token<'a>> {
        let kind = self.array::<1>()?[0].cast_signed();
        self.take(len)?;
        Ok(Token::Ext(kind))
    }
}

fn signed(value: i64) -> Token<'static> {
    u64::try_from(value).map_or(Token::Int(value), Token::Uint)
}

impl<'a> Source<'a> for MsgPack<'a> {
    fn next(&mut self) -> Result<Token<'a>> {
        let at = self.at;
        let marker = self.array::<1>()?[0];
        Ok(match marker {
            0x00..=0x7f => Token::Uint(marker.into()),
            0x80..=0x8f => Token::Map(self.open(usize::from(marker & 0x0f), 2)?),
            0x90..=0x9f => Token::Array(self.open(usize::from(marker & 0x0f), 1)?),
            0xa0..=0xbf => self.str(usize::from(marker & 0x1f))?,
            0xc0 => Token::Nil,
            0xc1 => return Err(Fault::malformed(format!("byte {at} is 0xc1, which MessagePack never uses"))),
            0xc2 | 0xc3 => Token::Bool(marker == 0xc3),
            0xc4..=0xc6 => {
                let len = self.len(1 << (marker - 0xc4))?;
                Token::Bin(self.take(len)?)
            }
            0xc7..=0xc9 => {
                let len = self.len(1 << (marker - 0xc7))?;
                self.ext(len)?
            }
            0xca => Token::Float(f32::from_be_bytes(self.array()?).into()),
            0xcb => Token::Float(f64::from_be_bytes(self.array()?)),
            0xcc => Token::Uint(self.array::<1>()?[0].into()),
            0xcd => Token::Uint(u16::from_be_bytes(self.array()?).into()),
            0xce => Token::Uint(u32::from_be_bytes(self.array()?).into()),
            0xcf => Token::Uint(u64::from_be_bytes(self.array()?)),
            0xd0 => signed(i8::from_be_bytes(self.array()?).into()),
            0xd1 => signed(i16::from_be_bytes(self.array()?).into()),
            0xd2 => signed(i32::from_be_bytes(self.array()?).into()),
            0xd3 => signed(i64::from_be_bytes(self.array()?)),
            0xd4..=0xd8 => self.ext(1 << (marker - 0xd4))?,
            0xd9..=0xdb => {
                let len = self.len(1 << (marker - 0xd9))?;
                self.str(len)?
            }
            0xdc | 0xdd => {
                let count = self.len(if marker == 0xdc { 2 } else { 4 })?;
                Token::Array(self.open(count, 1)?)
            }
            0xde | 0xdf => {
                let count = self.len(if marker == 0xde { 2 } else { 4 })?;
                Token::Map(self.open(count, 2)?)
            }
            0xe0..=0xff => Token::Int(marker.cast_signed().into()),
        })
    }

    fn more(&mut self, entries: &mut Entries) -> Result<bool> {
        match entries {
            Entries::Counted(0) => {
                self.depth = self.depth.saturating_sub(1);
                Ok(false)
            }
            Entries::Counted(left) => {
                *left -= 1;
                Ok(true)
            }
            Entries::Delimited { .. } => unreachable!("MessagePack announces its entries"),
        }
    }

    fn key(&mut self) -> Result<Option<Cow<'a, str>>> {
        let at = self.at;
        Ok(match self.next()? {
            Token::Str(text) => Some(text),
            Token::Uint(value) => Some(value.to_string().into()),
            Token::Int(value) => Some(value.to_string().into()),
            Token::Map(_) | Token::Array(_) => {
                return Err(Fault::malformed(format!("a map or array as a map's key at byte {at}")));
            }
            _ => None,
        })
    }

    fn offset(&self) -> usize {
        self.at
    }

    fn seek(&mut self, offset: usize) {
        (self.at, self.depth) = (offset, 1);
    }

    fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }
}
