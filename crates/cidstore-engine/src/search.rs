//! Finding a key among sorted rows: interpolation, guarded by bisection.
//!
//! What a look costs is waiting for memory: a row, and in a permuted order its number before it. So
//! the search goes by two rows that it has seen, one before the key and one that is not, and guesses
//! from the 64 bits of them that come after what they have in common: CIDs are mostly hashes, but
//! 2-lane CIDs share 16 leading zero bytes and small ones share 31. Among n uniform values a guess is
//! off by about √n rows; a second guess, from there, by about the square root of that; a third look a
//! little further on the other side of the key leaves a short range. Where values are not uniform that
//! fails, and a fourth look halves the range whatever they are: skew may cost speed, never
//! correctness, nor more than about 4 log2 n looks.

use crate::order::{Key, Order, Row};
use crate::sample::Cut;
use cidstore_types::Triple;
use std::cmp::Ordering;
use std::ops::Range;

/// Rows no further from each other than this are bisected without guessing.
const GUESS_GAP_MIN: usize = 4;

/// What stands in the place of a row that does not exist. Cold, so that the check costs what the one
/// that would panic does: a branch that is never taken.
#[cold]
#[inline(never)]
fn no_row<'a>() -> &'a Row {
    static NO_ROW: Row = [0; Triple::BYTES];
    &NO_ROW
}

/// Rows sorted in an order, the rows themselves or a permutation of them.
#[derive(Clone, Copy)]
pub struct Sorted<'a> {
    order: Order,
    rows: &'a [Row],
    /// Row numbers in the order; `None` when the rows stand in it.
    permutation: Option<&'a [u32]>,
}

impl<'a> Sorted<'a> {
    /// Rows that stand in `Order::Spo`.
    pub fn rows(rows: &'a [Row]) -> Self {
        Self { order: Order::Spo, rows, permutation: None }
    }

    /// Rows in `order` by a permutation of the same length.
    pub fn permuted(order: Order, rows: &'a [Row], permutation: &'a [u32]) -> Self {
        Self { order, rows, permutation: Some(permutation) }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.permutation.map_or(self.rows.len(), <[u32]>::len)
    }

    /// The order.
    pub fn order(&self) -> Order {
        self.order
    }

    /// Row number of the row at `position` in the order.
    pub fn row_number(&self, position: usize) -> u32 {
        self.permutation.map_or(position as u32, |permutation| permutation[position])
    }

    /// The row with this number. A number that no row has, which only a damaged permutation holds,
    /// reads as a row of zeros: a lookup may then miss what is there, but never ends the process.
    pub fn row_numbered(&self, number: u32) -> &'a Row {
        self.rows.get(number as usize).unwrap_or_else(no_row)
    }

    /// The row at `position` in the order.
    pub fn row(&self, position: usize) -> &'a Row {
        self.row_numbered(self.row_number(position))
    }

    /// Position of the first row whose key is not less than `key`, or the end, given that the answer is
    /// within `among`.
    pub fn lower_bound(&self, key: &Key, among: Range<usize>) -> usize {
        self.partition(key, Ordering::Less, among.start, among.end)
    }

    /// Position after the last row whose key is not greater than `key`, given that the answer is within
    /// `among`.
    pub fn upper_bound(&self, key: &Key, among: Range<usize>) -> usize {
        self.partition(key, Ordering::Equal, among.start, among.end)
    }

    /// Position after the last row whose key is not greater than `key`, given that the answer is
    /// `from` or later. Fast when it is near `from`: most ranges are short.
    pub fn upper_bound_from(&self, key: &Key, from: usize) -> usize {
        self.partition_from(key, Ordering::Equal, from)
    }

    /// Position of the first row whose key is not less than `key`, given that the answer is `from` or
    /// later. Fast when it is near `from`.
    pub fn lower_bound_from(&self, key: &Key, from: usize) -> usize {
        self.partition_from(key, Ordering::Less, from)
    }

    fn partition_from(&self, key: &Key, bar: Ordering, from: usize) -> usize {
        let mut step = 1;
        let mut low = from;
        let mut high = from;
        while high < self.len() && self.order.compare(self.row(high), key) <= bar {
            low = high + 1;
            high = (high + step).min(self.len());
            step *= 2;
        }
        self.partition(key, bar, low, high)
    }

    /// Position, within `low..high`, of the first row that compares greater than `bar` with `key`.
    fn partition(&self, key: &Key, bar: Ordering, low: usize, high: usize) -> usize {
        if low == high {
            return low;
        }
        let look = |at: usize| {
            let row = self.row(at);
            (row, self.order.compare(row, key) <= bar)
        };
        let (first, first_is_before) = look(low);
        if !first_is_before {
            return low;
        }
        let (last, last_is_before) = look(high - 1);
        if last_is_before {
            return high;
        }
        let mut between = Between { before: (low, first), after: (high - 1, last) };
        let narrow = |between: &mut Between<'a>, at: usize| {
            let (row, is_before) = look(at);
            *(if is_before { &mut between.before } else { &mut between.after }) = (at, row);
            is_before
        };
        while between.gap() > GUESS_GAP_MIN {
            let first = between.guess(self.order, key);
            narrow(&mut between, first);
            if between.gap() == 1 {
                break;
            }
            let second = between.guess(self.order, key);
            // Rows with a part in common come in groups, which makes the error several times larger.
            let error = 4 * first.abs_diff(second).isqrt() + 4;
            let second_is_before = narrow(&mut between, second);
            let beyond = if second_is_before { second + error } else { second.saturating_sub(error) };
            let bracketed = between.holds(beyond) && narrow(&mut between, beyond) != second_is_before;
            if !bracketed && between.gap() > 1 {
                let middle = between.middle();
                narrow(&mut between, middle);
            }
        }
        while between.gap() > 1 {
            let middle = between.middle();
            narrow(&mut between, middle);
        }
        between.after.0
    }
}

/// Two rows, by position, that a search has seen: one that is before the place looked for, and one
/// that is not.
struct Between<'a> {
    before: (usize, &'a Row),
    after: (usize, &'a Row),
}

impl Between<'_> {
    /// How far they are from each other. At 1 the place is found.
    fn gap(&self) -> usize {
        self.after.0 - self.before.0
    }

    /// Whether a position is between them.
    fn holds(&self, at: usize) -> bool {
        self.before.0 < at && at < self.after.0
    }

    fn middle(&self) -> usize {
        usize::midpoint(self.before.0, self.after.0)
    }

    /// The position between them where the key would stand if keys were spread evenly. It stands
    /// between theirs, so that it begins with what they have in common.
    fn guess(&self, order: Order, key: &Key) -> usize {
        let (low, high) = (self.before.1, self.after.1);
        let Some(cut) = Cut::between(order, low, high) else { return self.middle() };
        let (low, high, key) = (cut.of_row(low), cut.of_row(high), cut.of_key(key));
        let share = key.saturating_sub(low) as f64 / high.saturating_sub(low).max(1) as f64;
        // In a damaged file the rows may stand in any order, and the share be anything.
        let at = self.before.0.saturating_add((share * self.gap() as f64) as usize);
        at.clamp(self.before.0 + 1, self.after.0 - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// Rows of every skew: uniform, a shared zero prefix, tiny.
    fn rows() -> impl Strategy<Value = Vec<Row>> {
        let part = prop_oneof![
            any::<[u8; 32]>(),
            any::<[u8; 16]>().prop_map(|low| std::array::from_fn(|i| if i < 16 { 0 } else { low[i - 16] })),
            (0u8..4).prop_map(|low| std::array::from_fn(|i| if i == 31 { low } else { 0 })),
        ];
        let row = [part.clone(), part.clone(), part]
            .prop_map(|parts| std::array::from_fn(|i| parts[i / 32][i % 32]));
        vec(row, 0..300).prop_map(|mut rows| {
            rows.sort_unstable();
            rows.dedup();
            rows
        })
    }

    proptest! {
        #[test]
        fn bounds_agree_with_partition_point(rows in rows(), other in rows()) {
            for order in [Order::Spo, Order::Pos, Order::Osp] {
                let mut permutation: Vec<u32> = (0..rows.len() as u32).collect();
                permutation.sort_unstable_by_key(|i| order.key(&rows[*i as usize]));
                let sorted = match order {
                    Order::Spo => Sorted::rows(&rows),
                    _ => Sorted::permuted(order, &rows, &permutation),
                };
                let keys: Vec<Key> = permutation.iter().map(|i| order.key(&rows[*i as usize])).collect();
                for row in rows.iter().chain(&other).take(40) {
                    let key = order.key(row);
                    let low = keys.partition_point(|k| *k < key);
                    prop_assert_eq!(sorted.lower_bound(&key, 0..rows.len()), low);
                    let high = keys.partition_point(|k| *k <= key);
                    prop_assert_eq!(sorted.upper_bound_from(&key, low), high);
                    prop_assert_eq!(sorted.upper_bound(&key, 0..rows.len()), high);
                    prop_assert_eq!(sorted.lower_bound(&key, low..low), low);
                    prop_assert_eq!(sorted.upper_bound_from(&key, 0), high);
                }
            }
        }
    }
}
