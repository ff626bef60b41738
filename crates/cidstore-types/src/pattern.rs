//! What a query, a count or a delete matches.

use crate::{Cid, Triple};

/// Any subset of subject, predicate and object; an unbound part matches everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Pattern {
    /// Subject, if bound.
    pub s: Option<Cid>,
    /// Predicate, if bound.
    pub p: Option<Cid>,
    /// Object, if bound.
    pub o: Option<Cid>,
}

impl Pattern {
    /// The pattern that matches everything.
    pub const ALL: Self = Self { s: None, p: None, o: None };

    /// The pattern of the key form: the pair (k, v) is the triple (k, `E(0,0,0,0)`, v).
    pub fn of_key(key: Cid, value: Option<Cid>) -> Self {
        Self { s: Some(key), p: Some(Cid::ZERO), o: value }
    }

    /// Whether the triple has every bound part.
    pub fn matches(&self, triple: &Triple) -> bool {
        let fits = |bound: Option<Cid>, part: Cid| bound.is_none_or(|cid| cid == part);
        fits(self.s, triple.s()) && fits(self.p, triple.p()) && fits(self.o, triple.o())
    }
}
