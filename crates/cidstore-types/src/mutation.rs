//! A validated mutation, as the protocol hands it to the store.

use crate::{Batch, Pattern};

/// One client request that changes the store. It takes effect whole or not at all.
#[derive(Debug, Clone, PartialEq)]
pub enum Mutation {
    /// Insert or delete exactly these triples. A batch of n takes n sequence numbers.
    Batch(Batch),
    /// Delete every triple that matches at the moment it takes effect; as many sequence numbers as
    /// there were matches.
    DeleteMatching {
        /// What to delete.
        pattern: Pattern,
        /// Seconds since the epoch at receipt.
        received_at: f64,
    },
}
