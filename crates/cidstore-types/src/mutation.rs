//! A validated mutation, as the protocol hands it to the store.

use crate::{Batch, Fingerprint, Key, Pattern};

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
        /// The idempotency key that it came under.
        key: Option<Box<Key>>,
    },
}

impl Mutation {
    /// A delete of everything that matches.
    pub fn delete_matching(pattern: Pattern, received_at: f64) -> Self {
        Self::DeleteMatching { pattern, received_at, key: None }
    }

    /// The same under a key.
    #[must_use]
    pub fn under(self, name: &[u8]) -> Self {
        match self {
            Self::Batch(batch) => Self::Batch(batch.under(name)),
            Self::DeleteMatching { pattern, received_at, .. } => {
                let key = Some(Box::new(Key::new(name, Fingerprint::of_pattern(&pattern))));
                Self::DeleteMatching { pattern, received_at, key }
            }
        }
    }

    /// The idempotency key that it came under.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Self::Batch(batch) => batch.key.as_deref(),
            Self::DeleteMatching { key, .. } => key.as_deref(),
        }
    }

    /// Seconds since the epoch at receipt.
    pub fn received_at(&self) -> f64 {
        match self {
            Self::Batch(batch) => batch.received_at,
            Self::DeleteMatching { received_at, .. } => *received_at,
        }
    }
}
