//! Whether a daemon has a certain store open. The protocol names no store, but a mutation has one number, and
//! the log tells what has which.

use cidstore_client::{Client, Error, Refusal};
use cidstore_types::{Seq, TripleHash};

/// Whether the daemon's log has a mutation of this triple under this number. A log that does not reach back
/// to it, or never got there, has not.
///
/// # Errors
/// As every request.
pub fn has(client: &mut Client, seq: Seq, triple: TripleHash) -> Result<bool, Error> {
    match client.changes(seq.saturating_sub(1), 1) {
        Ok(found) => Ok(found
            .changes
            .first()
            .is_some_and(|change| (change.seq, change.triple.hash()) == (seq, triple))),
        Err(Error::Refused(Refusal { code: 410, .. })) => Ok(false),
        Err(error) => Err(error),
    }
}
