//! Reading several sorted sequences as one: the k-way merge under queries and under merging.
//!
//! Keys are compared by offset-value codes (Conner, IBM TDB 20(7), 1977; Graefe and Do, EDBT 2023).
//! The code of a key against one that is not greater says where they begin to differ and with which
//! value. Of two keys with codes against the same third one the lesser code belongs to the lesser
//! key, and where codes differ the greater one is also the code against the other key. So a match is
//! nearly always the comparison of two integers that are in the tree already; the rows are looked at
//! once, when a stream's next key is coded against its last.

use crate::order::{Order, Row};
use crate::search::Sorted;
use crate::tree::{ENDED, Player, Tree};
use std::ops::Range;

/// Rows coded ahead at most. A permutation leads all over the rows; coding a block in one tight loop
/// lets the processor overlap the cache misses, which a merge that looks at one row at a time cannot.
const BLOCK_ROWS_MAX: usize = 64;
/// Rows coded first: most query ranges are short.
const BLOCK_ROWS_MIN: usize = 4;

const WORDS: usize = Order::WORDS;
/// Bits of a code that hold the first differing word, without its last bits.
const VALUE_BITS: u32 = 60;
/// The code of a key against itself.
const SAME: u64 = 0;

/// The code of a key whose first `shared` words are those of the key that it is coded against, and
/// whose next one is `word`: the more they share, the less it is.
fn code(shared: usize, word: u64) -> u64 {
    ((WORDS - shared) as u64) << VALUE_BITS | word >> (u64::BITS - VALUE_BITS)
}

/// Words that a key shares with the one that it is coded against.
fn shared(code: u64) -> usize {
    WORDS - (code >> VALUE_BITS) as usize
}

/// The first of the words from `from` on in which the keys of two rows differ, `WORDS` if none does.
fn first_difference(order: Order, a: &Row, b: &Row, from: usize) -> usize {
    (from..WORDS).find(|i| order.word(a, *i) != order.word(b, *i)).unwrap_or(WORDS)
}

/// The code of `row` against `last`, which is not greater.
fn code_against(order: Order, last: &Row, row: &Row) -> u64 {
    match first_difference(order, last, row, 0) {
        WORDS => SAME,
        at => code(at, order.word(row, at)),
    }
}

/// A row that was read ahead.
struct Ahead {
    /// Against the row before it in the stream.
    code: u64,
    number: u32,
}

/// A range of sorted rows being read front to back.
struct Stream<'a> {
    sorted: Sorted<'a>,
    /// Position after the block.
    next: usize,
    end: usize,
    block: Vec<Ahead>,
    at: usize,
}

impl<'a> Stream<'a> {
    fn new(sorted: Sorted<'a>, range: Range<usize>) -> Self {
        let mut stream = Self { sorted, next: range.start, end: range.end, block: Vec::new(), at: 0 };
        stream.read_ahead(BLOCK_ROWS_MIN);
        if let Some(first) = stream.block.first_mut() {
            first.code = code(0, sorted.order().word(sorted.row_numbered(first.number), 0));
        }
        stream
    }

    fn read_ahead(&mut self, rows: usize) {
        let order = self.sorted.order();
        let until = (self.next + rows).min(self.end);
        // Coding needs two rows at a time and waits for each: so they are fetched before, all at once.
        let fetched = (self.next..until).fold(0, |all, at| all ^ order.touch(self.sorted.row(at)));
        std::hint::black_box(fetched);
        let mut last = self.block.last().map(|last| self.sorted.row_numbered(last.number));
        self.block.clear();
        self.block.extend((self.next..until).map(|position| {
            let number = self.sorted.row_number(position);
            let row = self.sorted.row_numbered(number);
            let code = code_against(order, last.unwrap_or(row), row);
            last = Some(row);
            Ahead { code, number }
        }));
        self.next = until;
        self.at = 0;
    }

    fn code(&self) -> u64 {
        self.block.get(self.at).map_or(ENDED, |ahead| ahead.code)
    }

    fn number(&self) -> u32 {
        self.block[self.at].number
    }

    fn row(&self) -> &'a Row {
        self.sorted.row_numbered(self.number())
    }

    fn advance(&mut self) {
        self.at += 1;
        if self.at == self.block.len() && self.next < self.end {
            self.read_ahead((self.block.len() * 4).min(BLOCK_ROWS_MAX));
        }
    }
}

/// Several sorted ranges of one order, read as one sorted sequence. Where keys are equal the stream
/// that was added last comes first.
pub struct KWay<'a> {
    streams: Vec<Stream<'a>>,
    tree: Tree,
    /// Rows that [`KWay::next_newest`] left out.
    superseded: usize,
}

/// A row that a [`KWay`] came to.
#[derive(Debug, Clone, Copy)]
pub struct Front<'a> {
    /// Which of the ranges, by the order in which they were given.
    pub stream: usize,
    /// Its row number there.
    pub number: u32,
    /// The row.
    pub row: &'a Row,
    /// How many of its key's bytes, in whole words of 8, are those of the row before it in the merged
    /// sequence.
    pub shared: usize,
}

/// Settles a match between equal codes by the rest of the keys.
fn tie(streams: &[Stream<'_>], a: &mut Player, b: &mut Player) -> bool {
    let newest = a.stream > b.stream;
    if a.code == SAME || a.code == ENDED {
        return newest;
    }
    let (row_a, row_b) = (streams[a.stream as usize].row(), streams[b.stream as usize].row());
    let order = streams[a.stream as usize].sorted.order();
    let at = first_difference(order, row_a, row_b, shared(a.code));
    if at == WORDS {
        (if newest { b } else { a }).code = SAME;
        return newest;
    }
    let (word_a, word_b) = (order.word(row_a, at), order.word(row_b, at));
    if word_a < word_b {
        b.code = code(at, word_b);
    } else {
        a.code = code(at, word_a);
    }
    word_a < word_b
}

impl<'a> KWay<'a> {
    /// Merges these ranges, all of one order. The later a range is given, the newer it is.
    pub fn new(ranges: impl IntoIterator<Item = (Sorted<'a>, Range<usize>)>) -> Self {
        let streams: Vec<_> = ranges.into_iter().map(|(sorted, range)| Stream::new(sorted, range)).collect();
        let tree = Tree::new(streams.iter().map(Stream::code), &mut |a, b| tie(&streams, a, b));
        Self { streams, tree, superseded: 0 }
    }

    /// The next row in order; of rows with the same key the newest first.
    pub fn next(&mut self) -> Option<Front<'a>> {
        let winner = self.tree.winner();
        if winner.code == ENDED {
            return None;
        }
        let stream = &mut self.streams[winner.stream as usize];
        let (number, row) = (stream.number(), stream.row());
        stream.advance();
        let code = stream.code();
        self.tree.replace(code, &mut |a, b| tie(&self.streams, a, b));
        Some(Front { stream: winner.stream as usize, number, row, shared: 8 * shared(winner.code) })
    }

    /// The newest of the rows with the next key.
    pub fn next_newest(&mut self) -> Option<Front<'a>> {
        let newest = self.next();
        while self.tree.winner().code == SAME {
            self.next();
            self.superseded += 1;
        }
        newest
    }

    /// How many rows [`KWay::next_newest`] has left out since this was last asked.
    pub fn take_superseded(&mut self) -> usize {
        std::mem::take(&mut self.superseded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::Key;
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    /// Rows that share beginnings of any length, whose words differ in any of their bits.
    fn row() -> impl Strategy<Value = Row> {
        let word = prop_oneof![Just(0u64), Just(1), Just(15), Just(16), Just(17), Just(u64::MAX)];
        vec((0..WORDS, word), 0..4).prop_map(|set| {
            let mut row = [0; 96];
            for (at, word) in set {
                row[8 * at..8 * at + 8].copy_from_slice(&word.to_be_bytes());
            }
            row
        })
    }

    proptest! {
        #[test]
        fn yields_every_row_in_order_the_newest_first(sets in vec(btree_set(row(), 0..100), 0..9)) {
            let runs: Vec<Vec<Row>> = sets.iter().map(|set| set.iter().copied().collect()).collect();
            for order in [Order::Spo, Order::Pos, Order::Osp] {
                let permutations: Vec<Vec<u32>> = runs
                    .iter()
                    .map(|rows| {
                        let mut numbers: Vec<u32> = (0..rows.len() as u32).collect();
                        numbers.sort_unstable_by_key(|number| order.key(&rows[*number as usize]));
                        numbers
                    })
                    .collect();
                let merge = || KWay::new(runs.iter().zip(&permutations).map(|(rows, permutation)| {
                    let sorted = match order {
                        Order::Spo => Sorted::rows(rows),
                        _ => Sorted::permuted(order, rows, permutation),
                    };
                    (sorted, 0..rows.len())
                }));
                let mut expected: Vec<(Key, std::cmp::Reverse<usize>)> = Vec::new();
                for (stream, rows) in runs.iter().enumerate() {
                    expected.extend(rows.iter().map(|row| (order.key(row), std::cmp::Reverse(stream))));
                }
                expected.sort_unstable();
                let mut merged = merge();
                let mut last: Option<Key> = None;
                for (key, std::cmp::Reverse(stream)) in &expected {
                    let front = merged.next().unwrap();
                    prop_assert_eq!((order.key(front.row), front.stream), (*key, *stream));
                    prop_assert_eq!(&runs[*stream][front.number as usize], front.row);
                    let common = last.map_or(0, |last| last.iter().zip(key).take_while(|(a, b)| a == b).count());
                    prop_assert_eq!(front.shared, common / 8 * 8);
                    last = Some(*key);
                }
                prop_assert!(merged.next().is_none());

                expected.dedup_by_key(|(key, _)| *key);
                let mut merged = merge();
                for (key, std::cmp::Reverse(stream)) in &expected {
                    let front = merged.next_newest().unwrap();
                    prop_assert_eq!((order.key(front.row), front.stream), (*key, *stream));
                }
                prop_assert!(merged.next_newest().is_none());
            }
        }
    }
}
