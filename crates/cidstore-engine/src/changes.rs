//! The change feed: what the log says happened, mutation by mutation.

use crate::error::StoreError;
use cidstore_types::{BatchRef, Op, Seq, Triple};
use cidstore_wal::Log;

/// One mutation of one triple.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Its number.
    pub seq: Seq,
    /// What was done.
    pub op: Op,
    /// To which triple.
    pub triple: Triple,
    /// Seconds since the epoch.
    pub created_at: f64,
    /// Stored metadata, if any.
    pub metadata: Option<Box<str>>,
}

/// As [`changes_until`], without any other end than the limit.
///
/// # Errors
/// As there.
pub fn changes(log: &Log, since: Seq, limit: usize) -> Result<Vec<Change>, StoreError> {
    changes_until(log, since, limit, &mut |_| false)
}

/// At most `limit` mutations after `since`, in order, as far as the log is visible, and none after one that
/// is `enough`.
///
/// # Errors
/// [`cidstore_wal::WalError::Gone`] (inside [`StoreError`]) when the log no longer reaches back to
/// `since`; [`cidstore_wal::WalError::Ahead`] when it never got there, as far as it can know: after a
/// power cut with [`crate::Durability::Os`] others may have seen more than is left.
pub fn changes_until(
    log: &Log,
    since: Seq,
    limit: usize,
    enough: &mut dyn FnMut(&Change) -> bool,
) -> Result<Vec<Change>, StoreError> {
    let mut changes = Vec::new();
    if limit == 0 {
        return Ok(changes);
    }
    let mut tail = log.tail(since.saturating_add(1))?;
    while let Some(entry) = tail.next()? {
        let first = entry.first_seq;
        let batch =
            BatchRef::decode(entry.payload).map_err(|source| StoreError::Record { seq: first, source })?;
        for (seq, row) in (first..).zip(batch.rows()).filter(|(seq, _)| *seq > since) {
            if changes.len() == limit {
                return Ok(changes);
            }
            let change = Change {
                seq,
                op: batch.op,
                triple: row.triple,
                created_at: row.created_at,
                metadata: row.metadata.map(Into::into),
            };
            let last = enough(&change);
            changes.push(change);
            if last {
                return Ok(changes);
            }
        }
        if changes.len() == limit {
            break;
        }
    }
    Ok(changes)
}
