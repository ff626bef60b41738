//! Refusals: the codes that a client can rely on, and a request that was refused.

use crate::{Encoding, RequestId};

/// `error_code` of a refusal. A refused request stored nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum ErrorCode {
    /// Not understood, or a field that cannot be what it says.
    Malformed = 400,
    /// Who asks is not known.
    Unauthorized = 401,
    /// Who asks may not.
    Forbidden = 403,
    /// No such thing.
    NotFound = 404,
    /// Another request came under the same idempotency key.
    Conflict = 409,
    /// That part of the log is gone.
    Gone = 410,
    /// Over a limit.
    TooLarge = 413,
    /// Too much at once; ask again later.
    Overloaded = 429,
    /// A fault of the daemon.
    Internal = 500,
    /// No such command.
    UnknownCommand = 501,
    /// Not ready, read-only or shutting down.
    Unavailable = 503,
    /// No room on the disk.
    StorageFull = 507,
}

impl ErrorCode {
    /// All of them, ascending.
    pub const ALL: [Self; 12] = [
        Self::Malformed,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::Conflict,
        Self::Gone,
        Self::TooLarge,
        Self::Overloaded,
        Self::Internal,
        Self::UnknownCommand,
        Self::Unavailable,
        Self::StorageFull,
    ];

    /// The number on the wire.
    pub fn number(self) -> u16 {
        self as u16
    }

    /// The code of a number on the wire.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }
}

/// A request that was refused while it was read, with all that its reply needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Rejection {
    /// What to answer in.
    pub encoding: Encoding,
    /// The client's name for the request, if it could be read.
    pub request_id: Option<RequestId>,
    /// Why.
    pub code: ErrorCode,
    /// Why, for people: the field's path, what was found there, what was expected.
    pub message: String,
}
