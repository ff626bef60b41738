//! Reading JSON (RFC 8259), strictly, without losing the last bits of a u64.

use crate::error::{Fault, Result};
use crate::token::{Entries, Source, Token};
use std::borrow::Cow;

/// A JSON message being read.
pub(crate) struct Json<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    depth_max: usize,
}

impl<'a> Json<'a> {
    /// Fails where the bytes are not UTF-8.
    pub(crate) fn new(bytes: &'a [u8], depth_max: usize) -> Result<Self> {
        let text = std::str::from_utf8(bytes)
            .map_err(|e| Fault::malformed(format!("not UTF-8 at byte {}", e.valid_up_to())))?;
        Ok(Self { text, at: 0, depth: 0, depth_max })
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    fn fault(&self, expected: &str) -> Fault {
        let found = self.text[self.at..]
            .chars()
            .next()
            .map_or("the message ends".to_owned(), |c| format!("{c:?} stands"));
        Fault::malformed(format!("{found} at byte {}: expected {expected}", self.at))
    }

    fn expect(&mut self, byte: u8, what: &str) -> Result<()> {
        if self.peek() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        Err(self.fault(what))
    }

    /// Nothing but white space is left.
    pub(crate) fn end(&mut self) -> Result<()> {
        if self.peek().is_none() { Ok(()) } else { Err(self.fault("the end of the message")) }
    }

    fn open(&mut self, close: u8) -> Result<Entries> {
        if self.depth == self.depth_max {
            let max = self.depth_max;
            return Err(Fault::malformed(format!("nested deeper than {max} maps and arrays at byte {}", self.at)));
        }
        self.at += 1;
        self.depth += 1;
        Ok(Entries::Delimited { first: true, close })
    }

    fn word(&mut self, word: &str, token: Token<'a>) -> Result<Token<'a>> {
        if self.text[self.at..].starts_with(word) {
            self.at += word.len();
            return Ok(token);
        }
        Err(self.fault("a JSON value"))
    }

    /// A text; the opening quote is next.
    fn string(&mut self) -> Result<Cow<'a, str>> {
        self.expect(b'"', "a text in double quotes")?;
        let start = self.at;
        let bytes = self.text.as_bytes();
        let mut owned: Option<String> = None;
        let mut plain = start;
        loop {
            match bytes.get(self.at) {
                Some(b'"') => {
                    let rest = &self.text[plain..self.at];
                    self.at += 1;
                    return Ok(match owned {
                        None => Cow::Borrowed(rest),
                        Some(mut text) => {
                            text.push_str(rest);
                            Cow::Owned(text)
                        }
                    });
                }
                Some(b'\\') => {
                    let text = owned.get_or_insert_default();
                    text.push_str(&self.text[plain..self.at]);
                    self.at += 1;
                    let unescaped = self.escape()?;
                    owned.get_or_insert_default().push(unescaped);
                    plain = self.at;
                }
                Some(0..0x20) => return Err(self.fault("no control character inside a text")),
                Some(_) => self.at += 1,
                None => return Err(self.fault("the closing quote of a text")),
            }
        }
    }

    /// What follows a backslash.
    fn escape(&mut self) -> Result<char> {
        let Some(byte) = self.text.as_bytes().get(self.at).copied() else {
            return Err(self.fault("an escape"));
        };
        let plain = match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                self.at += 1;
                let first = self.hex4()?;
                if !(0xd800..0xdc00).contains(&first) {
                    return char::from_u32(first).ok_or_else(|| self.fault("no lone surrogate"));
                }
                if !self.text[self.at..].starts_with("\\u") {
                    return Err(self.fault("the second half of a surrogate pair"));
                }
                self.at += 2;
                let second = self.hex4()?;
                let low = second.checked_sub(0xdc00).filter(|low| *low < 0x400);
                return low
                    .and_then(|low| char::from_u32(0x10000 + ((first - 0xd800) << 10) + low))
                    .ok_or_else(|| self.fault("the second half of a surrogate pair"));
            }
            _ => return Err(self.fault("one of \" \\ / b f n r t u after a backslash")),
        };
        self.at += 1;
        Ok(plain)
    }

    fn hex4(&mut self) -> Result<u32> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4);
        let value = digits.and_then(|digits| {
            digits.iter().try_fold(0, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)?))
        });
        let value = value.ok_or_else(|| self.fault("four hex digits"))?;
        self.at += 4;
        Ok(value)
    }

    fn digits(&mut self) -> Result<()> {
        let start = self.at;
        while self.text.as_bytes().get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        if self.at == start { Err(self.fault("a digit")) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<Token<'a>> {
        let start = self.at;
        let bytes = self.text.as_bytes();
        let negative = bytes[start] == b'-';
        self.at += usize::from(negative);
        if bytes.get(self.at) == Some(&b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        let mut float = false;
        if bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
            float = true;
        }
        if matches!(bytes.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(bytes.get(self.at), Some(b'+' | b'-')));
            self.digits()?;
            float = true;
        }
        let text = &self.text[start..self.at];
        if float {
            return Ok(Token::Float(text.parse().map_err(|_| self.fault("a number"))?));
        }
        if negative {
            // "-0" is the integer 0.
            return Ok(match text.parse::<i64>() {
                Ok(0) => Token::Uint(0),
                Ok(value) => Token::Int(value),
                Err(_) => Token::Huge(text),
            });
        }
        Ok(text.parse().map_or(Token::Huge(text), Token::Uint))
    }
}

impl<'a> Source<'a> for Json<'a> {
    fn next(&mut self) -> Result<Token<'a>> {
        match self.peek() {
            Some(b'{') => self.open(b'}').map(Token::Map),
            Some(b'[') => self.open(b']').map(Token::Array),
            Some(b'"') => self.string().map(Token::Str),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Token::Bool(true)),
            Some(b'f') => self.word("false", Token::Bool(false)),
            Some(b'n') => self.word("null", Token::Nil),
            _ => Err(self.fault("a JSON value")),
        }
    }

    fn more(&mut self, entries: &mut Entries) -> Result<bool> {
        let Entries::Delimited { first, close } = entries else {
            unreachable!("JSON does not announce its entries")
        };
        if self.peek() == Some(*close) {
            self.at += 1;
            self.depth = self.depth.saturating_sub(1);
            return Ok(false);
        }
        if !std::mem::take(first) {
            self.expect(b',', if *close == b'}' { "',' or '}'" } else { "',' or ']'" })?;
            // A comma is followed by an entry: `[1,]` is not JSON.
            if self.peek() == Some(*close) {
                return Err(self.fault("another entry after the comma"));
            }
        }
        Ok(true)
    }

    fn key(&mut self) -> Result<Option<Cow<'a, str>>> {
        let key = self.string()?;
        self.expect(b':', "':'")?;
        Ok(Some(key))
    }

    fn offset(&self) -> usize {
        self.at
    }

    fn seek(&mut self, offset: usize) {
        (self.at, self.depth) = (offset, 1);
    }

    fn remaining(&self) -> usize {
        self.text.len() - self.at
    }
}
