//! Notifications: what the daemon announces to subscribers.

use crate::{ErrorCode, NOTIFICATION_TRIPLES_MAX, RequestId};
use cidstore_types::{Op, Seq, Triple};

/// What is announced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Notification<'a> {
    /// Each second.
    Heartbeat {
        /// The last mutation that was announced.
        seq: Seq,
        /// Seconds since the epoch.
        time: f64,
    },
    /// `insert` or `delete`: one triple.
    One {
        /// What was done.
        op: Op,
        /// To which triple.
        triple: Triple,
        /// Its number.
        seq: Seq,
    },
    /// `batch_insert` or `batch_delete`: triples of consecutive numbers, at most
    /// [`NOTIFICATION_TRIPLES_MAX`] of them.
    Many {
        /// What was done.
        op: Op,
        /// To which triples.
        triples: &'a [Triple],
        /// Number of the first.
        first_seq: Seq,
    },
    /// A pushed mutation was refused.
    Rejected {
        /// The client's name for it, if it could be read.
        request_id: Option<&'a RequestId>,
        /// As in a reply.
        code: ErrorCode,
        /// As in a reply.
        message: &'a str,
    },
    /// The mirror's state changed.
    Mirror {
        /// Its new state.
        state: &'a str,
        /// Mutations that it is behind, if known.
        lag: Option<u64>,
    },
}

/// The notifications of consecutive mutations of one kind: a single one as [`Notification::One`],
/// others as [`Notification::Many`] in pieces of at most [`NOTIFICATION_TRIPLES_MAX`].
pub fn announcements(op: Op, triples: &[Triple], first_seq: Seq) -> impl Iterator<Item = Notification<'_>> {
    let firsts = (first_seq..).step_by(NOTIFICATION_TRIPLES_MAX);
    triples.chunks(NOTIFICATION_TRIPLES_MAX).zip(firsts).map(move |(triples, first_seq)| match triples {
        [triple] => Notification::One { op, triple: *triple, seq: first_seq },
        _ => Notification::Many { op, triples, first_seq },
    })
}
