//! The wire protocol: requests, replies and notifications as bytes, in `MessagePack` and JSON.
//! `proto/README.md` at the top of the repository describes it for those who write clients.
//!
//! **Owns** the names and forms of everything on the wire, the limits of a request, and the error
//! codes.
//!
//! **Knows nothing of** sockets, files, threads, clocks and the store.
//!
//! **Invariants**
//! - [`decode_request`] answers every sequence of bytes, and never panics: with a request that is
//!   valid throughout, or with a refusal that says what is wrong where.
//! - No recursion is deeper than [`DEPTH_CEILING`], and nothing is allocated because a length was
//!   announced: only for bytes that are there.
//! - What the daemon announces has the field `type` first.

mod answer;
mod decode;
mod error;
mod limits;
mod names;
mod notification;
mod reply;
mod request;
mod write;

pub use answer::{Announced, Answer, Answered, Changed, DecodeError, Facts, Refusal, ReplyKind};
pub use decode::{REQUEST_ID_SEARCH_MAX, decode_notification, decode_reply, decode_request, find_request_id};
pub use error::{ErrorCode, Rejection};
pub use limits::{
    DEPTH_CEILING, Encoding, GET_HASHES_MAX, Limits, NOTIFICATION_TRIPLES_MAX, QUERY_LIMIT_DEFAULT,
    REQUEST_ID_BYTES_MAX, VERSION,
};
pub use names::COMMANDS;
pub use notification::{Notification, announcements};
pub use reply::{ChangeEntry, Reply};
pub use request::{Command, CompactAction, Format, MirrorAction, MutateKind, Request, RequestId};
pub use write::{encode_notification, encode_reply, encode_request};
