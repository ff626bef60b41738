//! JSON (RFC 8259), read in place: integers of 64 bits stay exact, and text without escapes is not
//! copied.

use super::fault::{Fallible, Fault, excerpt};
use super::source::{Key, Open, Source, Token};
use std::borrow::Cow;

#[derive(Clone, Copy)]
pub(crate) struct Json<'a> {
    text: &'a str,
    /// Whether bytes that are not UTF-8 follow the text.
    cut: bool,
    at: usize,
    depth: usize,
    depth_max: usize,
}

impl<'a> Json<'a> {
    pub fn new(bytes: &'a [u8], depth_max: usize) -> Self {
        let (text, cut) = match std::str::from_utf8(bytes) {
            Ok(text) => (text, false),
            Err(e) => (std::str::from_utf8(&bytes[..e.valid_up_to()]).unwrap_or_default(), true),
        };
        Self { text, cut, at: 0, depth: 0, depth_max }
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[inline]
    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// The fault of not finding what has to stand here.
    #[cold]
    fn wrong(&self, expected: &str) -> Fault {
        let what = match self.text.get(self.at..).and_then(|rest| rest.chars().next()) {
            Some(found) => {
                format!("found '{}': expected {expected}", excerpt(found.encode_utf8(&mut [0; 4])))
            }
            None if self.cut => "bytes that are not UTF-8".into(),
            None => format!("the message ends: expected {expected}"),
        };
        Fault::syntax(self.at, what)
    }

    #[inline]
    fn expect(&mut self, byte: u8, expected: &str) -> Fallible<()> {
        if self.peek() != Some(byte) {
            return Err(self.wrong(expected));
        }
        self.at += 1;
        Ok(())
    }

    fn open(&mut self, map: bool) -> Fallible<Open> {
        if self.depth >= self.depth_max {
            return Err(Fault::depth(self.at, self.depth_max));
        }
        self.at += 1;
        self.depth += 1;
        Ok(Open { left: 1, map })
    }

    /// A string, from its opening quote on.
    #[inline]
    fn string(&mut self) -> Fallible<Cow<'a, str>> {
        self.expect(b'"', "a text in quotes")?;
        let start = self.at;
        self.at += plain_len(&self.text.as_bytes()[self.at..]);
        if self.peek() == Some(b'"') {
            let text = &self.text[start..self.at];
            self.at += 1;
            return Ok(Cow::Borrowed(text));
        }
        self.string_with_escapes(start).map(Cow::Owned)
    }

    #[cold]
    fn string_with_escapes(&mut self, start: usize) -> Fallible<String> {
        let mut out = String::from(&self.text[start..self.at]);
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => out.push(self.escape()?),
                Some(byte) if byte < 0x20 => {
                    return Err(Fault::syntax(self.at, "a control character in a text: JSON escapes these"));
                }
                Some(_) => {
                    let run = self.at;
                    self.at += plain_len(&self.text.as_bytes()[run..]);
                    out.push_str(&self.text[run..self.at]);
                }
                None => return Err(self.wrong("the closing quote of a text")),
            }
        }
    }

    /// One escape, from its backslash on.
    fn escape(&mut self) -> Fallible<char> {
        let start = self.at;
        self.at += 1;
        let c = match self.peek() {
            Some(c @ (b'"' | b'\\' | b'/')) => char::from(c),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode_escape(start);
            }
            _ => return Err(self.wrong("one of \" \\ / b f n r t u")),
        };
        self.at += 1;
        Ok(c)
    }

    fn unicode_escape(&mut self, start: usize) -> Fallible<char> {
        let first = self.hex4()?;
        let code = if let 0xd800..=0xdbff = first
            && self.text.as_bytes()[self.at..].starts_with(b"\\u")
        {
            self.at += 2;
            let second = self.hex4()?;
            if !matches!(second, 0xdc00..=0xdfff) {
                return Err(Fault::syntax(start, "half of a surrogate pair"));
            }
            0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
        } else {
            first
        };
        char::from_u32(code).ok_or_else(|| Fault::syntax(start, "half of a surrogate pair"))
    }

    fn hex4(&mut self) -> Fallible<u32> {
        let mut value = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            value = value << 4 | digit.ok_or_else(|| self.wrong("a hex digit"))?;
            self.at += 1;
        }
        Ok(value)
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        self.at - start
    }

    fn number(&mut self) -> Fallible<Token<'a>> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let first = self.at;
        match self.digits() {
            0 => return Err(self.wrong("a digit")),
            1 => {}
            _ if self.text.as_bytes()[first] == b'0' => {
                return Err(Fault::syntax(start, "a number with a leading zero"));
            }
            _ => {}
        }
        let mut integer = true;
        if self.peek() == Some(b'.') {
            integer = false;
            self.at += 1;
            if self.digits() == 0 {
                return Err(self.wrong("a digit"));
            }
        }
        if let Some(b'e' | b'E') = self.peek() {
            integer = false;
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            if self.digits() == 0 {
                return Err(self.wrong("a digit"));
            }
        }
        let text = &self.text[start..self.at];
        if !integer {
            let value = text.parse().map_err(|_| Fault::syntax(start, "not a number"))?;
            return Ok(Token::Float(value));
        }
        if let Ok(value) = text.parse() {
            return Ok(Token::Uint(value));
        }
        Ok(match text.parse::<i64>() {
            Ok(value) => u64::try_from(value).map_or(Token::Nint(value), Token::Uint),
            Err(_) => Token::Huge(text),
        })
    }

    fn word(&mut self) -> Fallible<Token<'a>> {
        let rest = &self.text.as_bytes()[self.at..];
        let (len, token) = match rest {
            [b't', b'r', b'u', b'e', ..] => (4, Token::Bool(true)),
            [b'f', b'a', b'l', b's', b'e', ..] => (5, Token::Bool(false)),
            [b'n', b'u', b'l', b'l', ..] => (4, Token::Null),
            [b'N', b'a', b'N', ..] | [b'I', b'n', b'f', ..] => {
                return Err(Fault::syntax(self.at, "JSON has neither NaN nor Infinity"));
            }
            _ => return Err(self.wrong("a value")),
        };
        self.at += len;
        Ok(token)
    }
}

/// Bytes at the beginning that stand for themselves in a string: no quote, no backslash, no control
/// character. Eight at a time.
#[inline]
fn plain_len(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
    // The highest bit of each byte that is zero; bytes behind the first such may be marked wrongly.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let (words, rest) = bytes.as_chunks::<8>();
    for (i, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        let found = zeros(word ^ (ONES * 0x22)) | zeros(word ^ (ONES * 0x5c)) | control;
        if found != 0 {
            return i * 8 + (found.trailing_zeros() / 8) as usize;
        }
    }
    let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
    words.len() * 8 + rest.iter().position(special).unwrap_or(rest.len())
}

impl<'a> Source<'a> for Json<'a> {
    fn position(&self) -> usize {
        self.at
    }

    fn remaining(&self) -> usize {
        self.text.len() - self.at
    }

    fn at_field(&self, offset: usize) -> Self {
        Self { at: offset, depth: 1, ..*self }
    }

    #[inline]
    fn token(&mut self) -> Fallible<Token<'a>> {
        self.skip_space();
        match self.peek() {
            Some(b'"') => self.string().map(Token::Str),
            Some(b'{') => self.open(true).map(Token::Map),
            Some(b'[') => self.open(false).map(Token::Array),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.word(),
        }
    }

    #[inline]
    fn more(&mut self, open: &mut Open) -> Fallible<bool> {
        self.skip_space();
        if self.peek() == Some(if open.map { b'}' } else { b']' }) {
            self.at += 1;
            self.depth -= 1;
            return Ok(false);
        }
        if open.left == 0 {
            self.expect(b',', if open.map { "',' or '}'" } else { "',' or ']'" })?;
            // A comma before the end is caught where a key or a value is expected.
            self.skip_space();
        }
        open.left = 0;
        Ok(true)
    }

    #[inline]
    fn key(&mut self) -> Fallible<Key<'a>> {
        self.skip_space();
        let name = self.string()?;
        self.skip_space();
        self.expect(b':', "':'")?;
        self.skip_space();
        Ok(Key::Name(name))
    }

    fn skip_flat(&mut self) -> Fallible<()> {
        let mut open: usize = 0;
        loop {
            self.skip_space();
            match self.peek() {
                Some(b'{' | b'[') => {
                    self.at += 1;
                    open += 1;
                }
                Some(b'}' | b']') if open > 0 => {
                    self.at += 1;
                    open -= 1;
                }
                Some(b',' | b':') if open > 0 => {
                    self.at += 1;
                    continue;
                }
                _ => {
                    self.token()?;
                }
            }
            if open == 0 {
                self.depth = 1;
                return Ok(());
            }
        }
    }

    fn end(&mut self) -> Fallible<()> {
        self.skip_space();
        match self.remaining() {
            0 if self.cut => Err(self.wrong("the end")),
            0 => Ok(()),
            more => Err(Fault::syntax(self.at, format!("{more} more bytes behind the end of the message"))),
        }
    }
}
