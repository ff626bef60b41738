//! Decoding a request: one walk over the message that finds its fields and checks its syntax, then
//! the fields of the command. Written once over both encodings, see [`token::Source`].

mod cid;
mod command;
mod fault;
mod fields;
mod json;
mod msgpack;
mod mutation;
mod provenance;
mod token;

use crate::{
    Command, DEPTH_CEILING, Encoding, ErrorCode, Limits, REQUEST_ID_BYTES_MAX, Rejection, Request, RequestId,
};
use fault::{Fault, Result};
use fields::{Field, Fields};
use json::Json;
use msgpack::MsgPack;
use token::{Source, Token};

/// Decodes a message of one payload frame. `received_at` (seconds since the epoch) becomes the
/// `created_at` of triples that have none.
///
/// # Errors
/// A [`Rejection`] that says where and why; nothing of the request is to be stored then.
pub fn decode_request(
    message: &[u8],
    limits: &Limits,
    received_at: f64,
) -> std::result::Result<Request, Rejection> {
    let encoding = Encoding::of(message);
    let reject = |request_id, fault: &Fault| Rejection {
        encoding,
        request_id,
        code: fault.code,
        message: fault.message(),
    };
    if message.len() > limits.message_bytes_max {
        let what = format!("a message of {} bytes: the limit is {}", message.len(), limits.message_bytes_max);
        return Err(reject(None, &Fault::new(ErrorCode::TooLarge, what)));
    }
    if message.is_empty() {
        return Err(reject(None, &Fault::malformed("an empty message: expected a map")));
    }
    let depth_max = limits.depth_max.min(DEPTH_CEILING);
    let decoded = match encoding {
        Encoding::Json => match Json::new(message, depth_max) {
            Ok(mut source) => decode(&mut source, Json::end, encoding, limits, received_at),
            Err(fault) => Err((None, fault)),
        },
        Encoding::MsgPack => {
            let end = |source: &mut MsgPack<'_>| match source.remaining() {
                0 => Ok(()),
                more => Err(Fault::malformed(format!("{more} bytes after the request"))),
            };
            decode(&mut MsgPack::new(message, depth_max), end, encoding, limits, received_at)
        }
    };
    match decoded {
        Ok((request_id, command)) => Ok(Request { encoding, request_id, command }),
        Err((request_id, fault)) => Err(reject(request_id, &fault)),
    }
}

type Decoded<T> = std::result::Result<(Option<RequestId>, T), (Option<RequestId>, Fault)>;

fn decode<'a, S: Source<'a>>(
    source: &mut S,
    end: impl FnOnce(&mut S) -> Result<()>,
    encoding: Encoding,
    limits: &Limits,
    received_at: f64,
) -> Decoded<Command> {
    let (mut fields, mut scanned) = Fields::scan(source);
    if scanned.is_ok() {
        scanned = fields.end(end);
    }
    let (request_id, id_fault) = match request_id(&mut fields) {
        Ok(id) => (id, None),
        Err(fault) => (None, Some(fault)),
    };
    if let Some(fault) = scanned.err().or(id_fault) {
        return Err((request_id, fault));
    }
    match command::read(&mut fields, encoding, limits, received_at) {
        Ok(command) => Ok((request_id, command)),
        Err(fault) => Err((request_id, fault)),
    }
}

fn request_id<'a, S: Source<'a>>(fields: &mut Fields<'_, S>) -> Result<Option<RequestId>> {
    fields.read(Field::RequestId, |source| {
        let id = match source.next()? {
            Token::Str(text) => RequestId::Str(text.into_owned()),
            Token::Bin(bytes) => RequestId::Bin(bytes.to_owned()),
            Token::Uint(value) => RequestId::Int(value.into()),
            Token::Int(value) => RequestId::Int(value.into()),
            other => {
                return Err(Fault::malformed(format!(
                    "{}: expected text, an integer or bytes",
                    other.kind()
                )));
            }
        };
        let bytes = match &id {
            RequestId::Str(text) => text.len(),
            RequestId::Bin(bytes) => bytes.len(),
            RequestId::Int(_) => 0,
        };
        if bytes > REQUEST_ID_BYTES_MAX {
            let what = format!("{bytes} bytes: the limit is {}", REQUEST_ID_BYTES_MAX);
            return Err(Fault::new(ErrorCode::TooLarge, what));
        }
        Ok(id)
    })
}
