//! Idempotency keys: a client's own name for a mutation, so that it takes effect once however often it is
//! sent.

use crate::Pattern;
use sha2::{Digest, Sha256};

/// Longest idempotency key, in bytes of text or bin. The shortest has one.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 256;

/// What tells the content of one request from that of another: the first half of a SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; Self::BYTES]);

/// A key and what was asked for under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    name: Box<[u8]>,
    fingerprint: Fingerprint,
}

impl Fingerprint {
    /// Bytes of one.
    pub const BYTES: usize = 16;

    pub(crate) fn of(hasher: Sha256) -> Self {
        let hash: [u8; 32] = hasher.finalize().into();
        Self(*hash.first_chunk().expect("32 bytes"))
    }

    /// Of the delete of whatever matches: of a byte that says which parts are bound (1 subject, 2 predicate,
    /// 4 object), then of the three parts, zeros where they are not.
    pub fn of_pattern(pattern: &Pattern) -> Self {
        let parts = [pattern.s, pattern.p, pattern.o];
        let bound = parts.iter().rev().fold(0, |bound: u8, part| bound << 1 | u8::from(part.is_some()));
        let mut hasher = Sha256::new();
        hasher.update([bound]);
        for part in parts {
            hasher.update(part.unwrap_or_default().0);
        }
        Self::of(hasher)
    }

    /// Of the key itself: what stands for it where there are many.
    pub fn of_key(name: &[u8]) -> Self {
        Self::of(Sha256::new_with_prefix(name))
    }
}

impl Key {
    /// A key with this name, for what has this fingerprint.
    ///
    /// # Panics
    /// If the name has not from 1 to [`IDEMPOTENCY_KEY_BYTES_MAX`] bytes.
    pub fn new(name: &[u8], fingerprint: Fingerprint) -> Self {
        assert!((1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&name.len()), "a key of {} bytes", name.len());
        Self { name: name.into(), fingerprint }
    }

    /// As the client gave it.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Of the request.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Batch, Cid, Op};
    use std::collections::HashSet;

    #[test]
    fn patterns_differ_in_what_they_bind() {
        let parts = [None, Some(Cid::ZERO), Some(Cid::from_two_lanes([0, 1]))];
        let mut found = HashSet::new();
        for s in parts {
            for p in parts {
                for o in parts {
                    found.insert(Fingerprint::of_pattern(&Pattern { s, p, o }));
                }
            }
        }
        assert_eq!(found.len(), 27);
        // And from a batch that deletes the same.
        let triple = crate::Triple::new(Cid::ZERO, Cid::ZERO, Cid::ZERO);
        assert!(found.insert(Batch::new(Op::Delete, 0.0, vec![triple]).fingerprint()));
    }
}
