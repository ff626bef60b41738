//! Reading several sorted sequences as one: the k-way merge under queries and under merging.

use crate::order::Key;
use crate::search::Sorted;
use std::ops::Range;

/// Keys gathered ahead at most. A permutation leads all over the rows; gathering a block of keys in
/// one tight loop lets the processor overlap the cache misses, which a merge that fetches one key
/// at a time cannot.
const BLOCK_KEYS_MAX: usize = 64;
/// Keys gathered first: most query ranges are short.
const BLOCK_KEYS_MIN: usize = 4;

/// A range of sorted rows being read front to back.
struct Stream<'a> {
    sorted: Sorted<'a>,
    /// Position after the gathered block.
    next: usize,
    end: usize,
    block: Vec<Key>,
    at: usize,
}

impl<'a> Stream<'a> {
    fn new(sorted: Sorted<'a>, range: Range<usize>) -> Self {
        let mut stream = Self { sorted, next: range.start, end: range.end, block: Vec::new(), at: 0 };
        stream.gather(BLOCK_KEYS_MIN);
        stream
    }

    fn gather(&mut self, keys: usize) {
        let order = self.sorted.order();
        let until = (self.next + keys).min(self.end);
        self.block.clear();
        self.block.extend((self.next..until).map(|position| order.key(self.sorted.row(position))));
        self.next = until;
        self.at = 0;
    }

    fn key(&self) -> &Key {
        &self.block[self.at]
    }

    fn is_done(&self) -> bool {
        self.at >= self.block.len()
    }

    fn advance(&mut self) {
        self.at += 1;
        if self.is_done() && self.next < self.end {
            self.gather((self.block.len() * 4).min(BLOCK_KEYS_MAX));
        }
    }

    fn position(&self) -> usize {
        self.next - self.block.len() + self.at
    }
}

/// Several sorted ranges of one order, read as one sorted sequence. Where keys are equal the stream
/// that was added last comes first.
pub struct KWay<'a> {
    streams: Vec<Stream<'a>>,
    /// Streams that are not done, as a binary heap with the least key on top.
    heap: Vec<u32>,
}

/// The row at the front of a [`KWay`].
#[derive(Debug, Clone, Copy)]
pub struct Front {
    /// Which of the ranges, by the order in which they were given.
    pub stream: usize,
    /// Its position within the range's sorted rows.
    pub position: usize,
}

impl<'a> KWay<'a> {
    /// Merges these ranges. The later a range is given, the newer it is.
    pub fn new(ranges: impl IntoIterator<Item = (Sorted<'a>, Range<usize>)>) -> Self {
        let streams: Vec<_> = ranges.into_iter().map(|(sorted, range)| Stream::new(sorted, range)).collect();
        let heap = (0..streams.len() as u32).filter(|i| !streams[*i as usize].is_done()).collect();
        let mut merged = Self { streams, heap };
        for at in (0..merged.heap.len() / 2).rev() {
            merged.sift_down(at);
        }
        merged
    }

    fn before(&self, a: u32, b: u32) -> bool {
        self.streams[a as usize].key().cmp(self.streams[b as usize].key()).then(b.cmp(&a)).is_lt()
    }

    fn sift_down(&mut self, mut at: usize) {
        loop {
            let mut least = 2 * at + 1;
            if least >= self.heap.len() {
                return;
            }
            if least + 1 < self.heap.len() && self.before(self.heap[least + 1], self.heap[least]) {
                least += 1;
            }
            if self.before(self.heap[at], self.heap[least]) {
                return;
            }
            self.heap.swap(at, least);
            at = least;
        }
    }

    /// The front row, if any is left.
    pub fn front(&self) -> Option<Front> {
        let stream = *self.heap.first()? as usize;
        Some(Front { stream, position: self.streams[stream].position() })
    }

    /// The key of the front row.
    ///
    /// # Panics
    /// When there is none.
    pub fn key(&self) -> &Key {
        self.streams[self.heap[0] as usize].key()
    }

    /// Drops the front row.
    pub fn advance(&mut self) {
        let Some(top) = self.heap.first().map(|top| *top as usize) else { return };
        self.streams[top].advance();
        if self.streams[top].is_done() {
            self.heap.swap_remove(0);
        }
        self.sift_down(0);
    }

    /// Takes the newest of the rows with the least key, and drops the others with that key.
    /// `superseded` is told of each that is dropped.
    pub fn next_newest(&mut self, mut superseded: impl FnMut(Front)) -> Option<(Front, Key)> {
        let newest = self.front()?;
        let key = *self.key();
        self.advance();
        while let Some(front) = self.front() {
            if *self.key() != key {
                break;
            }
            superseded(front);
            self.advance();
        }
        Some((newest, key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::Row;
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn yields_every_key_once_from_the_newest_stream(sets in vec(btree_set(0u8..60, 0..60), 0..6)) {
            let rows: Vec<Vec<Row>> = sets.iter().map(|set| set.iter().map(|v| [*v; 96]).collect()).collect();
            let mut merged = KWay::new(rows.iter().map(|rows| (Sorted::rows(rows), 0..rows.len())));
            for value in 0u8..60 {
                let Some(newest) = sets.iter().rposition(|set| set.contains(&value)) else { continue };
                let mut dropped = 0;
                let (front, key) = merged.next_newest(|_| dropped += 1).unwrap();
                prop_assert_eq!((front.stream, key), (newest, [value; 96]));
                prop_assert_eq!(rows[newest][front.position], key);
                prop_assert_eq!(dropped + 1, sets.iter().filter(|set| set.contains(&value)).count());
            }
            prop_assert!(merged.next_newest(|_| ()).is_none());
        }
    }
}
