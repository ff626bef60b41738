//! What can go wrong for a client.

use std::time::Duration;

/// Why a request has no answer, or not the one hoped for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing answered in time. A mutation may or may not have taken effect; sending it again is
    /// safe, since inserting what is there and deleting what is not change nothing.
    #[error("no reply from {endpoint} within {timeout:?}, {tries} tries: is the daemon running there?")]
    NoReply {
        /// Whom was asked.
        endpoint: String,
        /// How long each try waited.
        timeout: Duration,
        /// How often the request was sent.
        tries: u32,
    },
    /// The daemon said no. Nothing of the request was stored.
    #[error("refused by the daemon: {0}")]
    Refused(#[from] Refusal),
    /// The reply is not what the protocol says.
    #[error("{endpoint} sent what the protocol does not have: {what}")]
    Protocol {
        /// Who sent it.
        endpoint: String,
        /// What was found and what was expected.
        what: String,
    },
    /// The endpoint is not one, or libzmq could not do what was asked of it.
    #[error("{endpoint}: {what}: {source}")]
    Socket {
        /// The endpoint in question.
        endpoint: String,
        /// What was being done.
        what: &'static str,
        /// libzmq's reason.
        source: zeromq::Error,
    },
}

/// A refusal in the daemon's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (error {code})")]
pub struct Refusal {
    /// As in the protocol: 400 malformed, 404 no such thing, 410 log part gone, 413 over a limit,
    /// 429 overloaded, 500 internal, 501 unknown command, 503 not ready, 507 storage full.
    pub code: u16,
    /// The reason, for a person.
    pub message: String,
}

impl Refusal {
    /// Whether the same request may succeed a little later: overloaded, or not ready yet.
    pub fn is_transient(&self) -> bool {
        matches!(self.code, 429 | 503)
    }
}
