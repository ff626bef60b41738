//! The forms of a CID on the wire.

use super::fault::{Fault, Result};
use super::token::{Source, Token, read_map};
use cidstore_types::{Cid, CidError};

fn fault(error: &CidError) -> Fault {
    Fault::malformed(error.to_string())
}

/// Reads a CID in any form: text, array or map of lanes, 32 binary bytes.
pub(crate) fn read<'a>(source: &mut impl Source<'a>) -> Result<Cid> {
    let token = source.next()?;
    read_token(source, token)
}

/// Reads a CID, or `None` for null.
pub(crate) fn read_optional<'a>(source: &mut impl Source<'a>) -> Result<Option<Cid>> {
    match source.next()? {
        Token::Nil => Ok(None),
        token => read_token(source, token).map(Some),
    }
}

fn read_token<'a, S: Source<'a>>(source: &mut S, token: Token<'a>) -> Result<Cid> {
    match token {
        Token::Str(text) => Cid::parse(&text).map_err(|e| fault(&e)),
        Token::Bin(bytes) => Cid::from_slice(bytes).map_err(|e| fault(&e)),
        Token::Array(mut entries) => {
            let mut lanes = [0; 4];
            let mut count = 0;
            while source.more(&mut entries)? {
                let value = lane(count, &source.next()?)?;
                if let Some(lane) = lanes.get_mut(count) {
                    *lane = value;
                }
                count += 1;
            }
            if count > lanes.len() {
                return Err(fault(&CidError::LaneCount { found: count }));
            }
            Cid::from_lane_slice(&lanes[..count]).map_err(|e| fault(&e))
        }
        Token::Map(entries) => {
            let mut lanes = [None; 4];
            read_map(source, entries, |source, key| {
                let at = match key {
                    "high" => 0,
                    "high_mid" => 1,
                    "low_mid" => 2,
                    "low" => 3,
                    _ => return Ok(None),
                };
                lanes[at] = Some(lane(at, &source.next()?)?);
                Ok(Some(at as u32))
            })?;
            let [Some(high), high_mid, low_mid, Some(low)] = lanes else {
                return Err(Fault::malformed("a map of lanes needs `high` and `low` at least"));
            };
            Ok(Cid::from_lanes([high, high_mid.unwrap_or(0), low_mid.unwrap_or(0), low]))
        }
        other => Err(Fault::malformed(format!(
            "{} is not a CID: expected text like E(1,2,3,4) or 64 hex digits, 4 or 2 lanes as an array, \
             a map of lanes, or 32 binary bytes",
            other.kind()
        ))),
    }
}

fn lane(lane: usize, token: &Token<'_>) -> Result<u64> {
    match token {
        Token::Uint(value) => Ok(*value),
        other => Err(fault(&CidError::Lane { lane, found: other.kind() })),
    }
}
