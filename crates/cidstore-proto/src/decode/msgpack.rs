//! `MessagePack`, read in place. Lengths are believed only as far as there are bytes.

use super::fault::{Fallible, Fault};
use super::source::{Key, Open, Source, Token};
use rmp::Marker;
use std::borrow::Cow;

#[derive(Clone, Copy)]
pub(crate) struct MsgPack<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
    depth_max: usize,
}

impl<'a> MsgPack<'a> {
    pub fn new(bytes: &'a [u8], depth_max: usize) -> Self {
        Self { bytes, at: 0, depth: 0, depth_max }
    }

    #[cold]
    fn truncated(&self, wanted: usize) -> Fault {
        let (have, end) = (self.remaining(), self.bytes.len());
        Fault::syntax(self.at, format!("the message ends at byte {end}: {wanted} bytes wanted, {have} left"))
    }

    #[inline]
    fn take(&mut self, n: usize) -> Fallible<&'a [u8]> {
        let Some(taken) = self.bytes.get(self.at..).and_then(|rest| rest.get(..n)) else {
            return Err(self.truncated(n));
        };
        self.at += n;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Fallible<[u8; N]> {
        let Some(taken) = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<N>()) else {
            return Err(self.truncated(N));
        };
        self.at += N;
        Ok(*taken)
    }

    fn u8(&mut self) -> Fallible<usize> {
        Ok(usize::from(u8::from_be_bytes(self.array()?)))
    }

    fn u16(&mut self) -> Fallible<usize> {
        Ok(usize::from(u16::from_be_bytes(self.array()?)))
    }

    fn u32(&mut self) -> Fallible<usize> {
        Ok(u32::from_be_bytes(self.array()?) as usize)
    }

    #[inline]
    fn text(&mut self, len: usize) -> Fallible<Token<'a>> {
        let start = self.at;
        let bytes = self.take(len)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Token::Str(Cow::Borrowed(text))),
            Err(e) => Err(Fault::syntax(
                start + e.valid_up_to(),
                "text that is not UTF-8 (bytes are sent as MessagePack bin)",
            )),
        }
    }

    fn bin(&mut self, len: usize) -> Fallible<Token<'a>> {
        Ok(Token::Bin(self.take(len)?))
    }

    fn ext(&mut self, len: usize) -> Fallible<Token<'a>> {
        self.take(len + 1)?;
        Ok(Token::Ext)
    }

    /// Each element has at least one byte: what is announced beyond that is a lie.
    #[inline]
    fn open(&mut self, start: usize, left: usize, map: bool) -> Fallible<Open> {
        let least = if map { left.saturating_mul(2) } else { left };
        if least > self.remaining() {
            let (kind, have) = (if map { "a map" } else { "an array" }, self.remaining());
            let what = format!("{kind} of {left} is announced where {have} bytes are left");
            return Err(Fault::syntax(start, what));
        }
        if self.depth >= self.depth_max {
            return Err(Fault::depth(start, self.depth_max));
        }
        self.depth += 1;
        // At most the number of bytes, and each 4 GiB of them would have been refused before.
        Ok(Open { left: left as u32, map })
    }
}

fn int(value: i64) -> Token<'static> {
    u64::try_from(value).map_or(Token::Nint(value), Token::Uint)
}

impl<'a> Source<'a> for MsgPack<'a> {
    fn position(&self) -> usize {
        self.at
    }

    fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn at_field(&self, offset: usize) -> Self {
        Self { at: offset, depth: 1, ..*self }
    }

    #[inline]
    fn token(&mut self) -> Fallible<Token<'a>> {
        let start = self.at;
        let [first] = self.array()?;
        Ok(match Marker::from_u8(first) {
            Marker::Null => Token::Null,
            Marker::True => Token::Bool(true),
            Marker::False => Token::Bool(false),
            Marker::FixPos(value) => Token::Uint(value.into()),
            Marker::FixNeg(value) => Token::Nint(value.into()),
            Marker::U8 => Token::Uint(u8::from_be_bytes(self.array()?).into()),
            Marker::U16 => Token::Uint(u16::from_be_bytes(self.array()?).into()),
            Marker::U32 => Token::Uint(u32::from_be_bytes(self.array()?).into()),
            Marker::U64 => Token::Uint(u64::from_be_bytes(self.array()?)),
            Marker::I8 => int(i8::from_be_bytes(self.array()?).into()),
            Marker::I16 => int(i16::from_be_bytes(self.array()?).into()),
            Marker::I32 => int(i32::from_be_bytes(self.array()?).into()),
            Marker::I64 => int(i64::from_be_bytes(self.array()?)),
            Marker::F32 => Token::Float(f32::from_be_bytes(self.array()?).into()),
            Marker::F64 => Token::Float(f64::from_be_bytes(self.array()?)),
            Marker::FixStr(len) => self.text(len.into())?,
            Marker::Str8 => {
                let len = self.u8()?;
                self.text(len)?
            }
            Marker::Str16 => {
                let len = self.u16()?;
                self.text(len)?
            }
            Marker::Str32 => {
                let len = self.u32()?;
                self.text(len)?
            }
            Marker::Bin8 => {
                let len = self.u8()?;
                self.bin(len)?
            }
            Marker::Bin16 => {
                let len = self.u16()?;
                self.bin(len)?
            }
            Marker::Bin32 => {
                let len = self.u32()?;
                self.bin(len)?
            }
            Marker::FixArray(len) => Token::Array(self.open(start, len.into(), false)?),
            Marker::Array16 => {
                let len = self.u16()?;
                Token::Array(self.open(start, len, false)?)
            }
            Marker::Array32 => {
                let len = self.u32()?;
                Token::Array(self.open(start, len, false)?)
            }
            Marker::FixMap(len) => Token::Map(self.open(start, len.into(), true)?),
            Marker::Map16 => {
                let len = self.u16()?;
                Token::Map(self.open(start, len, true)?)
            }
            Marker::Map32 => {
                let len = self.u32()?;
                Token::Map(self.open(start, len, true)?)
            }
            Marker::FixExt1 => self.ext(1)?,
            Marker::FixExt2 => self.ext(2)?,
            Marker::FixExt4 => self.ext(4)?,
            Marker::FixExt8 => self.ext(8)?,
            Marker::FixExt16 => self.ext(16)?,
            Marker::Ext8 => {
                let len = self.u8()?;
                self.ext(len)?
            }
            Marker::Ext16 => {
                let len = self.u16()?;
                self.ext(len)?
            }
            Marker::Ext32 => {
                let len = self.u32()?;
                self.ext(len)?
            }
            Marker::Reserved => {
                return Err(Fault::syntax(start, "0xc1, which is no MessagePack"));
            }
        })
    }

    #[inline]
    fn more(&mut self, open: &mut Open) -> Fallible<bool> {
        if open.left == 0 {
            self.depth -= 1;
            return Ok(false);
        }
        open.left -= 1;
        Ok(true)
    }

    #[inline]
    fn key(&mut self) -> Fallible<Key<'a>> {
        Ok(match self.token()? {
            Token::Str(name) => Key::Name(name),
            Token::Uint(value) => Key::Int(value.into()),
            Token::Nint(value) => Key::Int(value.into()),
            other => {
                let what = other.describe();
                if let Token::Array(open) | Token::Map(open) = other {
                    self.skip_rest(open)?;
                }
                Key::Other(what)
            }
        })
    }

    fn skip_flat(&mut self) -> Fallible<()> {
        let mut values: u64 = 1;
        while values > 0 {
            values -= 1;
            self.depth = 0;
            if let Token::Array(open) | Token::Map(open) = self.token()? {
                values += u64::from(open.left) * if open.map { 2 } else { 1 };
            }
        }
        self.depth = 1;
        Ok(())
    }

    fn end(&mut self) -> Fallible<()> {
        match self.remaining() {
            0 => Ok(()),
            more => Err(Fault::syntax(self.at, format!("{more} more bytes behind the end of the message"))),
        }
    }
}
