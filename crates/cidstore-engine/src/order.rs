//! The three orders in which rows are kept, and the keys they are compared by.
//!
//! A key is a row rotated so that plain byte comparison is comparison in the order: `S‖P‖O` as it
//! is, `P‖O‖S`, or `O‖S‖P`. With three orders every combination of bound parts is a prefix of one.

use cidstore_types::{Cid, Pattern, Triple};
use std::cmp::Ordering;

/// The 96 bytes of a triple.
pub type Row = [u8; Triple::BYTES];

/// A row rotated into an order.
pub type Key = [u8; Triple::BYTES];

/// An order of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Order {
    /// Subject, predicate, object: the order in which rows are stored.
    Spo = 0,
    /// Predicate, object, subject: by a permutation.
    Pos = 1,
    /// Object, subject, predicate: by a permutation.
    Osp = 2,
}

impl Order {
    /// Words of a key.
    pub const WORDS: usize = Triple::BYTES / 8;

    /// Where a key of this order begins in a row.
    fn start(self) -> usize {
        self as usize * 32
    }

    /// The key of a row.
    pub fn key(self, row: &Row) -> Key {
        let (head, tail) = row.split_at(self.start());
        let mut key = [0; Triple::BYTES];
        key[..tail.len()].copy_from_slice(tail);
        key[tail.len()..].copy_from_slice(head);
        key
    }

    /// The word number `i` of a row's key: 8 bytes, as the number that compares like them.
    pub fn word(self, row: &Row, i: usize) -> u64 {
        let at = self.start() + 8 * i;
        let at = if at < Triple::BYTES { at } else { at - Triple::BYTES };
        u64::from_be_bytes(row[at..at + 8].try_into().expect("8 bytes"))
    }

    /// Reads of a row what a comparison in this order nearly always looks at. The value says nothing.
    pub fn touch(self, row: &Row) -> u8 {
        let start = self.start();
        row[start] ^ row[if start == 64 { 0 } else { start + 32 }]
    }

    /// Compares a row's key with a key, without building the former.
    pub fn compare(self, row: &Row, key: &Key) -> Ordering {
        let (head, tail) = row.split_at(self.start());
        let (first, second) = key.split_at(tail.len());
        tail.cmp(first).then_with(|| head.cmp(second))
    }
}

/// What a pattern asks of the index: all keys of `order` that begin with `prefix`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix {
    /// The order to read.
    pub order: Order,
    bytes: Key,
    len: usize,
}

impl Prefix {
    /// The order and prefix that answer a pattern.
    pub fn of(pattern: &Pattern) -> Self {
        let Pattern { s, p, o } = *pattern;
        let (order, parts) = match (s, p, o) {
            (_, None, None) | (Some(_), Some(_), _) => (Order::Spo, [s, p, o]),
            (None, Some(_), _) => (Order::Pos, [p, o, None]),
            (_, None, Some(_)) => (Order::Osp, [o, s, None]),
        };
        let mut prefix = Self { order, bytes: [0; Triple::BYTES], len: 0 };
        for Cid(part) in parts.into_iter().map_while(|part| part) {
            prefix.bytes[prefix.len..prefix.len + 32].copy_from_slice(&part);
            prefix.len += 32;
        }
        prefix
    }

    /// The bytes that keys must begin with: 0, 32, 64 or 96.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Whether a row's key begins with it.
    pub fn is_of(&self, row: &Row) -> bool {
        self.order.key(row).starts_with(self.bytes())
    }

    /// The least key with this prefix.
    pub fn least(&self) -> Key {
        self.bytes
    }

    /// The greatest key with this prefix.
    pub fn greatest(&self) -> Key {
        let mut key = self.bytes;
        key[self.len..].fill(0xff);
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(bytes: &[u8]) -> Row {
        std::array::from_fn(|i| bytes[i % bytes.len()])
    }

    proptest! {
        #[test]
        fn keys_rotate_and_compare_alike(a: [u8; 32], b: [u8; 32]) {
            let (a, b) = (row(&a), row(&b[..31]));
            for order in [Order::Spo, Order::Pos, Order::Osp] {
                let words: Vec<u8> = (0..12).flat_map(|i| order.word(&a, i).to_be_bytes()).collect();
                prop_assert_eq!(words, order.key(&a));
                let expected = order.key(&a).cmp(&order.key(&b));
                prop_assert_eq!(order.compare(&a, &order.key(&b)), expected);
            }
        }
    }

    #[test]
    fn every_pattern_is_a_prefix_that_its_matches_share() {
        let cid = |low| Cid::from_two_lanes([0, low]);
        let triple = Triple::new(cid(1), cid(2), cid(3));
        for bound in 0..8 {
            let part = |bit, value| (bound & bit != 0).then_some(value);
            let pattern = Pattern { s: part(1, triple.s()), p: part(2, triple.p()), o: part(4, triple.o()) };
            let prefix = Prefix::of(&pattern);
            assert_eq!(prefix.bytes().len(), 32 * (bound as u32).count_ones() as usize, "{pattern:?}");
            assert!(prefix.order.key(&triple.0).starts_with(prefix.bytes()), "{pattern:?}");
            assert!((prefix.least()..=prefix.greatest()).contains(&prefix.order.key(&triple.0)));
        }
    }
}
