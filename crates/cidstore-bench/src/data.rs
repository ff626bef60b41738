//! The triples that are loaded: a function of (shape, seed, number), so that a query can ask for
//! one that is known to be there without a table of what was sent.

use cidstore_types::{Cid, Triple};
use clap::ValueEnum;

/// Letters of the parts that a pattern binds, for all eight patterns.
pub const PATTERNS: [&str; 8] = ["spo", "sp", "so", "po", "s", "p", "o", ""];

/// How the CIDs are distributed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// Eight triples per subject, 64 predicates, half of the objects from a pool of 100 000: hashes
    /// with the repetition that graphs have.
    Graph,
    /// Every part of every triple a hash of its own.
    Uniform,
    /// As `graph`, but 128-bit ids: 16 leading zero bytes in every CID.
    TwoLane,
    /// Small integers: all but the last lane zero.
    Tiny,
}

/// An endless, repeatable list of distinct triples.
#[derive(Debug, Clone, Copy)]
pub struct Data {
    /// Distribution of the CIDs.
    pub shape: Shape,
    /// Different seeds give different triples (for `tiny`, a different range).
    pub seed: u64,
}

/// The output function of `SplitMix64` (Steele, Lea, Flood 2014): a bijection that scatters.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
const SUBJECT_TRIPLES: u64 = 8;
const PREDICATES: u64 = 64;
const OBJECT_POOL: u64 = 100_000;

impl Data {
    fn wide(self, kind: u64, n: u64) -> Cid {
        let start = mix(self.seed.wrapping_mul(STEP) ^ mix(kind.wrapping_add(1))).wrapping_add(mix(n));
        Cid::from_lanes([1, 2, 3, 4].map(|lane: u64| mix(start.wrapping_add(lane.wrapping_mul(STEP)))))
    }

    /// The `n`-th triple, from 0.
    pub fn triple(self, n: u64) -> Triple {
        match self.shape {
            Shape::Uniform => Triple::new(self.wide(0, n), self.wide(1, n), self.wide(2, n)),
            Shape::Graph => self.graph(n, |cid| cid),
            Shape::TwoLane => self.graph(n, |cid| {
                let [_, _, high, low] = cid.lanes();
                Cid::from_two_lanes([high, low])
            }),
            Shape::Tiny => {
                let small = |low| Cid::from_two_lanes([0, low]);
                let n = n + self.seed * 1_000_000_000;
                Triple::new(small(n / 1000 + 1), small(n / 50 % 20 + 1), small(n % 50 + 1))
            }
        }
    }

    /// Number of the `i`-th triple to ask for among the first `present`: all over the place, and one
    /// of those that share their object with no other triple (`graph` and `two-lane`: half of them).
    pub fn scattered(self, present: u64, i: u64) -> u64 {
        // A step coprime to any count that is not a multiple of this prime visits all of them.
        let n = (u128::from(i + 1) * 2_147_483_647 % u128::from(present.max(1))) as u64;
        if matches!(self.shape, Shape::Graph | Shape::TwoLane) { n & !1 } else { n }
    }

    fn graph(self, n: u64, narrow: impl Fn(Cid) -> Cid) -> Triple {
        let subject = n / SUBJECT_TRIPLES;
        // Eight consecutive predicates from a place that depends on the subject: (s, p) is unique.
        let predicate = (mix(subject) + n % SUBJECT_TRIPLES) % PREDICATES;
        let object = if n.is_multiple_of(2) { OBJECT_POOL + n } else { mix(n) % OBJECT_POOL };
        Triple::new(
            narrow(self.wide(0, subject)),
            narrow(Self { seed: 0, ..self }.wide(1, predicate)),
            narrow(self.wide(2, object)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn triples_are_distinct_repeatable_and_of_their_shape() {
        for shape in Shape::value_variants() {
            let one = Data { shape: *shape, seed: 1 };
            let other = Data { seed: 2, ..one };
            let triples: HashSet<_> = (0..20_000).flat_map(|n| [one.triple(n), other.triple(n)]).collect();
            assert_eq!(triples.len(), 40_000, "{shape:?}");
            assert_eq!(one.triple(7), one.triple(7));
            let pairs: HashSet<_> = (0..800).map(|n| (one.triple(n).s(), one.triple(n).p())).collect();
            if *shape != Shape::Tiny {
                assert_eq!(pairs.len(), 800, "{shape:?}: a query by (s, p) has one answer");
            }
            let asked: Vec<_> = (0..1_000).map(|i| one.scattered(1_000, i)).collect();
            assert!(asked.iter().all(|n| *n < 1_000));
            if *shape == Shape::Graph {
                let objects: Vec<_> = (0..1_000).map(|n| one.triple(n).o()).collect();
                let alone = |n: &u64| objects.iter().filter(|o| **o == objects[*n as usize]).count() == 1;
                assert!(asked.iter().all(alone));
                assert_eq!(asked.iter().collect::<HashSet<_>>().len(), 500);
            }
            let leading = one.triple(3).s().lanes()[..2] == [0, 0];
            assert_eq!(leading, matches!(shape, Shape::TwoLane | Shape::Tiny));
        }
    }
}
