//! The client's name for a request that is refused unread: without it, a client that has many
//! requests under way could not tell which one was meant.
//!
//! The walk over the request's map is the one that [`super::fields`] makes, but it decodes nothing
//! and it ends: at the name, at the first byte that makes no sense, or when it has cost enough.

use super::fault::{Fallible, Fault, Kind};
use super::json::Json;
use super::msgpack::MsgPack;
use super::source::{Key, Open, Source, Token};
use super::{fields::Field, request_id_of_token};
use crate::{Encoding, Limits, RequestId};
use std::cell::Cell;

/// How far the name is looked for: so many values of `MessagePack`, however long each is, or so
/// many bytes of JSON. At most some 50 ms of the one thread that everybody waits for.
pub const REQUEST_ID_SEARCH_MAX: usize = 8 << 20;

/// The `request_id` of a request that is not decoded, if there is one that is valid and not more
/// than [`REQUEST_ID_SEARCH_MAX`] from the beginning. What it finds is what [`crate::decode_request`] finds.
pub fn find_request_id(bytes: &[u8], limits: &Limits) -> Option<RequestId> {
    find_within(bytes, limits, REQUEST_ID_SEARCH_MAX)
}

fn find_within(bytes: &[u8], limits: &Limits, most: usize) -> Option<RequestId> {
    let depth_max = limits.depth_max.min(crate::DEPTH_CEILING);
    let left = Cell::new(most);
    // A fault is for who decodes it; here it only ends the search.
    match Encoding::of(bytes) {
        Encoding::Json => {
            let src = Json::new(&bytes[..bytes.len().min(most)], depth_max);
            walk(Metered { src, left: &left }).ok().flatten()
        }
        Encoding::MsgPack => {
            let src = MsgPack::new(bytes, depth_max);
            walk(Metered { src, left: &left }).ok().flatten()
        }
    }
}

fn walk<'a, S: Source<'a>>(mut src: S) -> Fallible<Option<RequestId>> {
    let Token::Map(mut open) = src.token()? else { return Ok(None) };
    while src.more(&mut open)? {
        let start = src.position();
        let key = match src.key() {
            Err(fault) if fault.kind() == Kind::Depth => {
                src = src.at_field(start);
                src.skip_flat()?;
                None
            }
            key => Some(key?),
        };
        if key.as_ref().and_then(Key::name) == Some(Field::RequestId.name()) {
            return request_id_of_token(src.token()?);
        }
        let start = src.position();
        match src.skip() {
            Err(fault) if fault.kind() == Kind::Depth => {
                src = src.at_field(start);
                src.skip_flat()?;
            }
            other => other?,
        }
    }
    Ok(None)
}

/// A message that is read no further when `left` is used up.
#[derive(Clone, Copy)]
struct Metered<'c, S> {
    src: S,
    left: &'c Cell<usize>,
}

impl<'a, S: Source<'a>> Metered<'_, S> {
    fn charge(&self, cost: usize) -> Fallible<()> {
        let left = self.left.get().checked_sub(cost);
        self.left.set(left.unwrap_or(0));
        left.map(|_| ()).ok_or_else(|| Fault::syntax(self.src.position(), "looked far enough"))
    }

    /// Does what does not charge by itself. It passes over one byte at least for each step, so what
    /// is left of the message bounds it.
    fn whole<T>(&mut self, work: impl FnOnce(&mut S) -> Fallible<T>) -> Fallible<T> {
        let before = self.src.remaining();
        if before > self.left.get() {
            self.charge(before)?;
        }
        let done = work(&mut self.src)?;
        self.charge(before - self.src.remaining())?;
        Ok(done)
    }
}

impl<'a, S: Source<'a>> Source<'a> for Metered<'_, S> {
    fn position(&self) -> usize {
        self.src.position()
    }

    fn remaining(&self) -> usize {
        self.src.remaining()
    }

    fn at_field(&self, offset: usize) -> Self {
        Self { src: self.src.at_field(offset), ..*self }
    }

    #[inline]
    fn token(&mut self) -> Fallible<Token<'a>> {
        self.charge(1)?;
        self.src.token()
    }

    #[inline]
    fn more(&mut self, open: &mut Open) -> Fallible<bool> {
        self.src.more(open)
    }

    fn key(&mut self) -> Fallible<Key<'a>> {
        // A container as a key is passed over in there, without a charge.
        if matches!({ self.src }.token(), Ok(Token::Array(_) | Token::Map(_))) {
            return self.whole(S::key);
        }
        self.charge(1)?;
        self.src.key()
    }

    fn skip_flat(&mut self) -> Fallible<()> {
        self.whole(S::skip_flat)
    }

    fn end(&mut self) -> Fallible<()> {
        self.src.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(bytes: &[u8], most: usize) -> Option<RequestId> {
        find_within(bytes, &Limits::default(), most)
    }

    #[test]
    fn the_search_ends_when_it_has_cost_enough() {
        let id = Some(RequestId::Int(7));
        // {"x": [[], [], …], "request_id": 7}: a step for the map, the key and each array.
        let mut message = b"\x82\xa1x\xdc\x03\xe8".to_vec();
        message.extend(std::iter::repeat_n(0x90, 1000));
        message.extend_from_slice(b"\xaarequest_id\x07");
        assert_eq!(found(&message, 1005), id);
        assert_eq!(found(&message, 1004), None);
        // One long value is one step.
        let mut message = b"\x82\xa1x\xc5\x03\xe8".to_vec();
        message.extend(std::iter::repeat_n(0xff, 1000));
        message.extend_from_slice(b"\xaarequest_id\x07");
        assert_eq!(found(&message, 5), id);
        // What is too deep, or a container as a key, counts with all that is behind it.
        for head in [b"\x82\xa1x".as_slice(), b"\x82"] {
            let mut message = head.to_vec();
            message.extend(std::iter::repeat_n(0x91, 1000));
            message.extend_from_slice(if head.len() == 1 { b"\xc0\xc0" } else { b"\xc0" });
            message.extend_from_slice(b"\xaarequest_id\x07");
            assert_eq!(found(&message, 5000), id, "{head:?}");
            assert_eq!(found(&message, 500), None, "{head:?}");
        }
        let text = format!("{{\"x\":\"{}\",\"request_id\":7}}", "y".repeat(1000));
        assert_eq!(found(text.as_bytes(), text.len()), id);
        assert_eq!(found(text.as_bytes(), 1000), None);
    }
}
