//! A triple of CIDs and its hash.

use crate::cid::{Cid, from_hex, hex};
use sha2::{Digest, Sha256};
use std::fmt;

/// Subject, predicate and object as the 96 bytes `S ‖ P ‖ O`, each part in its 32-byte form: the
/// row that the log and the run files hold.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Triple(pub [u8; 96]);

impl Triple {
    /// Size of a row in bytes.
    pub const BYTES: usize = 96;

    /// Builds a triple from its parts.
    pub fn new(s: Cid, p: Cid, o: Cid) -> Self {
        let mut bytes = [0; 96];
        bytes[..32].copy_from_slice(&s.0);
        bytes[32..64].copy_from_slice(&p.0);
        bytes[64..].copy_from_slice(&o.0);
        Self(bytes)
    }

    fn part(&self, at: usize) -> Cid {
        let (parts, _) = self.0.as_chunks::<32>();
        Cid(parts[at])
    }

    /// The subject.
    pub fn s(&self) -> Cid {
        self.part(0)
    }

    /// The predicate.
    pub fn p(&self) -> Cid {
        self.part(1)
    }

    /// The object.
    pub fn o(&self) -> Cid {
        self.part(2)
    }

    /// `SHA-256(S ‖ P ‖ O)` (FIPS 180-4).
    pub fn hash(&self) -> TripleHash {
        TripleHash(Sha256::digest(self.0).into())
    }
}

impl fmt::Debug for Triple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} {} {})", self.s(), self.p(), self.o())
    }
}

/// SHA-256 of a triple's 96 bytes; written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct TripleHash(pub [u8; 32]);

impl TripleHash {
    /// 64 lower-case hex digits.
    pub fn to_hex(&self) -> String {
        hex(&self.0)
    }

    /// Reads 64 hex digits of either case; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        from_hex(text.as_bytes()).map(Self)
    }
}

impl fmt::Display for TripleHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl fmt::Debug for TripleHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_of_small_lanes() {
        let cid = |a| Cid::from_lanes([a, a + 1, a + 2, a + 3]);
        let triple = Triple::new(cid(1), cid(5), cid(9));
        // From an independent implementation (Python hashlib over the same 96 bytes).
        let hex = "82f9bc6e775741f8311d18d120e959ac5d1efdc32e08165e0c8ddb7f7ffe1a29";
        assert_eq!(triple.hash().to_hex(), hex);
        assert_eq!(TripleHash::parse(hex), Some(triple.hash()));
        assert_eq!(TripleHash::parse(&hex[1..]), None);
        assert_eq!((triple.s(), triple.p(), triple.o()), (cid(1), cid(5), cid(9)));
    }
}
