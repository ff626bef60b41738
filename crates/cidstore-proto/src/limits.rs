//! What bounds a request, and the constants of the protocol.

/// The protocol's version, in every reply and notification.
pub const VERSION: &str = "1.0";

/// Longest `request_id`, in bytes of text or bin. It is held while the request is worked on and
/// goes back with the reply.
pub const REQUEST_ID_BYTES_MAX: usize = 1024;

/// Most containers inside each other that [`Limits::depth_max`] can allow. Metadata is stored as
/// JSON, whose reader stops at 128 levels, and the replies that carry it add a few.
pub const DEPTH_CEILING: usize = 100;

/// Rows of a page of `query` and entries of a page of `changes` where the client names no `limit`.
pub const QUERY_LIMIT_DEFAULT: usize = 1000;

/// Most triples in one notification; see [`crate::announcements`].
pub const NOTIFICATION_TRIPLES_MAX: usize = 1000;

/// Most hashes of one `get`. Each triple of the reply may come with as much metadata as one may have.
pub const GET_HASHES_MAX: usize = 1000;

/// Bounds of requests. Each has its own error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a message.
    pub message_bytes_max: usize,
    /// Triples of a batch.
    pub batch_triples_max: usize,
    /// Containers inside each other, the request's own map being the first. Beyond
    /// [`DEPTH_CEILING`] it allows no more than that.
    pub depth_max: usize,
    /// Bytes of one triple's metadata, as the JSON it is stored as.
    pub metadata_bytes_max: usize,
    /// Most rows of one page of `query`, `lookup` or `changes`.
    pub query_limit_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 64 << 20,
            batch_triples_max: 1_000_000,
            depth_max: 16,
            metadata_bytes_max: cidstore_types::METADATA_BYTES_MAX,
            query_limit_max: 100_000,
        }
    }
}

/// How a message is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// `MessagePack`.
    MsgPack,
    /// JSON (RFC 8259), UTF-8.
    Json,
}

impl Encoding {
    /// The encoding of a message: JSON if its first byte is `{`, else `MessagePack`.
    pub fn of(message: &[u8]) -> Self {
        if message.first() == Some(&b'{') { Self::Json } else { Self::MsgPack }
    }
}
