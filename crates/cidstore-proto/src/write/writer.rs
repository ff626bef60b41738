//! Writing either encoding straight into a buffer, without a tree in between.

use crate::{Encoding, RequestId};
use cidstore_types::{Cid, Triple};
use serde_json::Value;

/// A message being written. The caller announces the right number of entries and closes what it
/// opens; MessagePack needs the former, JSON the latter.
pub(crate) struct Writer<'o> {
    out: &'o mut Vec<u8>,
    encoding: Encoding,
    /// JSON: whether the next entry is the first of its map or array. One bit a level, the lowest
    /// for the innermost: deeper than [`crate::DEPTH_CEILING`] nothing goes.
    first: u128,
    /// JSON: a key was written, its value follows.
    after_key: bool,
}

impl<'o> Writer<'o> {
    pub(crate) fn new(out: &'o mut Vec<u8>, encoding: Encoding) -> Self {
        Self { out, encoding, first: 1, after_key: false }
    }

    fn is_json(&self) -> bool {
        self.encoding == Encoding::Json
    }

    /// JSON: the comma before an entry that is not the first, unless it is a key's value.
    fn separate(&mut self) {
        if std::mem::take(&mut self.after_key) {
            return;
        }
        if self.first & 1 == 0 {
            self.out.push(b',');
        }
        self.first &= !1;
    }

    pub(crate) fn map(&mut self, entries: usize) {
        self.open(b'{', 0x80, 0xde, entries);
    }

    pub(crate) fn array(&mut self, entries: usize) {
        self.open(b'[', 0x90, 0xdc, entries);
    }

    fn open(&mut self, bracket: u8, small: u8, large: u8, entries: usize) {
        if self.is_json() {
            self.separate();
            self.out.push(bracket);
            self.first = self.first << 1 | 1;
        } else if entries < 16 {
            self.out.push(small | entries as u8);
        } else if let Ok(entries) = u16::try_from(entries) {
            self.out.push(large);
            self.out.extend_from_slice(&entries.to_be_bytes());
        } else {
            self.out.push(large + 1);
            self.out.extend_from_slice(&(entries as u32).to_be_bytes());
        }
    }

    pub(crate) fn end_map(&mut self) {
        self.close(b'}');
    }

    pub(crate) fn end_array(&mut self) {
        self.close(b']');
    }

    fn close(&mut self, bracket: u8) {
        if self.is_json() {
            self.out.push(bracket);
            self.first >>= 1;
        }
    }

    pub(crate) fn key(&mut self, key: &str) {
        self.str(key);
        if self.is_json() {
            self.out.push(b':');
            self.after_key = true;
        }
    }

    pub(crate) fn str(&mut self, text: &str) {
        if self.is_json() {
            self.separate();
            serde_json::to_writer(&mut *self.out, text).expect("text into a vector");
            return;
        }
        self.str_head(text.len());
        self.out.extend_from_slice(text.as_bytes());
    }

    fn str_head(&mut self, len: usize) {
        if len < 32 {
            self.out.push(0xa0 | len as u8);
        } else if let Ok(len) = u8::try_from(len) {
            self.out.extend_from_slice(&[0xd9, len]);
        } else if let Ok(len) = u16::try_from(len) {
            self.out.push(0xda);
            self.out.extend_from_slice(&len.to_be_bytes());
        } else {
            self.out.push(0xdb);
            self.out.extend_from_slice(&(len as u32).to_be_bytes());
        }
    }

    pub(crate) fn uint(&mut self, value: u64) {
        if self.is_json() {
            self.separate();
            self.digits(value);
        } else if let Ok(value) = u8::try_from(value) {
            if value >= 0x80 {
                self.out.push(0xcc);
            }
            self.out.push(value);
        } else if let Ok(value) = u16::try_from(value) {
            self.out.push(0xcd);
            self.out.extend_from_slice(&value.to_be_bytes());
        } else if let Ok(value) = u32::try_from(value) {
            self.out.push(0xce);
            self.out.extend_from_slice(&value.to_be_bytes());
        } else {
            self.out.push(0xcf);
            self.out.extend_from_slice(&value.to_be_bytes());
        }
    }

    fn digits(&mut self, value: u64) {
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    /// A negative integer.
    fn negative(&mut self, value: i64) {
        if self.is_json() {
            self.separate();
            self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
        } else if let Ok(value) = i8::try_from(value) {
            if value < -32 {
                self.out.push(0xd0);
            }
            self.out.extend_from_slice(&value.to_be_bytes());
        } else if let Ok(value) = i16::try_from(value) {
            self.out.push(0xd1);
            self.out.extend_from_slice(&value.to_be_bytes());
        } else if let Ok(value) = i32::try_from(value) {
            self.out.push(0xd2);
            self.out.extend_from_slice(&value.to_be_bytes());
        } else {
            self.out.push(0xd3);
            self.out.extend_from_slice(&value.to_be_bytes());
        }
    }

    /// A number; JSON has none that is not finite and gets null.
    pub(crate) fn float(&mut self, value: f64) {
        if self.is_json() {
            self.separate();
            serde_json::to_writer(&mut *self.out, &value).expect("a number into a vector");
        } else {
            self.out.push(0xcb);
            self.out.extend_from_slice(&value.to_be_bytes());
        }
    }

    pub(crate) fn bool(&mut self, value: bool) {
        if self.is_json() {
            self.separate();
            self.out.extend_from_slice(if value { b"true" } else { b"false" });
        } else {
            self.out.push(0xc2 | u8::from(value));
        }
    }

    pub(crate) fn nil(&mut self) {
        if self.is_json() {
            self.separate();
            self.out.extend_from_slice(b"null");
        } else {
            self.out.push(0xc0);
        }
    }

    /// Bytes; in JSON their hex digits.
    pub(crate) fn bin(&mut self, bytes: &[u8]) {
        if self.is_json() {
            self.hex(bytes);
        } else {
            self.bin_head(bytes.len());
            self.out.extend_from_slice(bytes);
        }
    }

    fn bin_head(&mut self, len: usize) {
        if let Ok(len) = u8::try_from(len) {
            self.out.extend_from_slice(&[0xc4, len]);
        } else if let Ok(len) = u16::try_from(len) {
            self.out.push(0xc5);
            self.out.extend_from_slice(&len.to_be_bytes());
        } else {
            self.out.push(0xc6);
            self.out.extend_from_slice(&(len as u32).to_be_bytes());
        }
    }

    /// All rows as one value of bytes; in JSON their hex digits.
    pub(crate) fn packed(&mut self, rows: &[Triple]) {
        if self.is_json() {
            self.separate();
            self.out.push(b'"');
            for row in rows {
                self.hex_digits(&row.0);
            }
            self.out.push(b'"');
            return;
        }
        self.bin_head(rows.len() * Triple::BYTES);
        self.out.reserve(rows.len() * Triple::BYTES);
        for row in rows {
            self.out.extend_from_slice(&row.0);
        }
    }

    /// Hex digits as text.
    pub(crate) fn hex(&mut self, bytes: &[u8]) {
        if self.is_json() {
            self.separate();
            self.out.push(b'"');
            self.hex_digits(bytes);
            self.out.push(b'"');
        } else {
            self.str_head(bytes.len() * 2);
            self.hex_digits(bytes);
        }
    }

    fn hex_digits(&mut self, bytes: &[u8]) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let pairs = bytes.iter().map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        self.out.reserve(bytes.len() * 2 + 1);
        pairs.for_each(|pair| self.out.extend_from_slice(&pair));
    }

    /// A CID as canonical text.
    pub(crate) fn cid_text(&mut self, cid: Cid) {
        let lanes = cid.lanes();
        let mut text = [0; 88];
        let mut len = 0;
        let mut put = |bytes: &[u8]| {
            text[len..len + bytes.len()].copy_from_slice(bytes);
            len += bytes.len();
        };
        put(b"E(");
        for (i, lane) in lanes.into_iter().enumerate() {
            if i > 0 {
                put(b",");
            }
            put(itoa::Buffer::new().format(lane).as_bytes());
        }
        put(b")");
        if self.is_json() {
            self.separate();
            self.out.push(b'"');
        } else {
            self.str_head(len);
        }
        self.out.extend_from_slice(&text[..len]);
        if self.is_json() {
            self.out.push(b'"');
        }
    }

    /// A CID as an array of four lanes.
    pub(crate) fn cid_lanes(&mut self, cid: Cid) {
        self.array(4);
        for lane in cid.lanes() {
            self.uint(lane);
        }
        self.end_array();
    }

    /// Any JSON value.
    pub(crate) fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.nil(),
            Value::Bool(value) => self.bool(*value),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(value), _) => self.uint(value),
                (None, Some(value)) => self.negative(value),
                _ => self.float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => self.str(text),
            Value::Array(array) => {
                self.array(array.len());
                for value in array {
                    self.value(value);
                }
                self.end_array();
            }
            Value::Object(map) => {
                self.map(map.len());
                for (key, value) in map {
                    self.key(key);
                    self.value(value);
                }
                self.end_map();
            }
        }
    }

    pub(crate) fn request_id(&mut self, id: &RequestId) {
        match id {
            RequestId::Str(text) => self.str(text),
            RequestId::Bin(bytes) => self.bin(bytes),
            RequestId::Int(value) => match (u64::try_from(*value), i64::try_from(*value)) {
                (Ok(value), _) => self.uint(value),
                (_, Ok(value)) => self.negative(value),
                // Decoding makes none of these.
                _ => self.str(&value.to_string()),
            },
        }
    }
}
