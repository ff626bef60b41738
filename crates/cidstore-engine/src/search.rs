//! Finding a key among sorted rows: interpolation, guarded by bisection.
//!
//! CIDs are mostly hashes, so a guess by value lands close; but 2-lane CIDs share 16 leading zero
//! bytes and small ones share 31, so the guess is made on the eight bytes after what the current
//! bounds have in common. Among n uniform values it is off by about √n rows; a second guess, from
//! there, by about the square root of that; a third look a little further on the other side of the
//! key leaves a short range. So few pages are touched, which in a mapped file is what costs. Where
//! values are not uniform that fails, and a fourth look halves the range whatever they are: skew may
//! cost speed, never correctness, nor more than about 4 log2 n looks.

use crate::order::{Key, Order, Row};
use std::cmp::Ordering;

/// Below this many rows a range is bisected without guessing.
const GUESS_ROWS_MIN: usize = 32;

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

    /// The row with this number.
    pub fn row_numbered(&self, number: u32) -> &'a Row {
        &self.rows[number as usize]
    }

    /// The row at `position` in the order.
    pub fn row(&self, position: usize) -> &'a Row {
        self.row_numbered(self.row_number(position))
    }

    /// Position of the first row whose key is not less than `key`.
    pub fn lower_bound(&self, key: &Key) -> usize {
        self.partition(key, Ordering::Less, 0, self.len())
    }

    /// Position after the last row whose key is not greater than `key`, given that the answer is
    /// `from` or later. Fast when it is near `from`: most ranges are short.
    pub fn upper_bound_from(&self, key: &Key, from: usize) -> usize {
        let mut step = 1;
        let mut low = from;
        let mut high = from;
        while high < self.len() && self.order.compare(self.row(high), key).is_le() {
            low = high + 1;
            high = (high + step).min(self.len());
            step *= 2;
        }
        self.partition(key, Ordering::Equal, low, high)
    }

    /// Position, within `low..high`, of the first row that compares greater than `bar` with `key`.
    fn partition(&self, key: &Key, bar: Ordering, mut low: usize, mut high: usize) -> usize {
        let before = |at: usize| self.order.compare(self.row(at), key) <= bar;
        // Narrows the range by what the row at `at` says.
        let look = |at: usize, low: &mut usize, high: &mut usize| {
            let is_before = before(at);
            if is_before {
                *low = at + 1;
            } else {
                *high = at;
            }
            is_before
        };
        while high - low >= GUESS_ROWS_MIN {
            let first = self.guess(key, low, high);
            look(first, &mut low, &mut high);
            if low == high {
                break;
            }
            let second = self.guess(key, low, high);
            // Rows with a part in common come in groups, which makes the error several times larger.
            let error = 4 * first.abs_diff(second).isqrt() + 16;
            let bracketed = if look(second, &mut low, &mut high) {
                low + error < high && !look(low + error, &mut low, &mut high)
            } else {
                low + error < high && look(high - error, &mut low, &mut high)
            };
            if !bracketed && low < high {
                look(low + (high - low) / 2, &mut low, &mut high);
            }
        }
        while low < high {
            look(low + (high - low) / 2, &mut low, &mut high);
        }
        low
    }

    /// A position within `low..high` where the key would stand if keys were spread evenly.
    fn guess(&self, key: &Key, low: usize, high: usize) -> usize {
        let first = self.order.key(self.row(low));
        let last = self.order.key(self.row(high - 1));
        let at = first.iter().zip(&last).take_while(|(a, b)| a == b).count().min(first.len() - 8);
        let lane = |key: &Key| u64::from_be_bytes(key[at..at + 8].try_into().expect("8 bytes"));
        if key[..at] != first[..at] {
            return if key[..at] < first[..at] { low } else { high - 1 };
        }
        let (first, last, key) = (lane(&first), lane(&last), lane(key));
        let offset = key.clamp(first, last.max(first)) - first;
        let share = offset as f64 / (last.saturating_sub(first) as f64 + 1.0);
        low + ((share * (high - low) as f64) as usize).min(high - low - 1)
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
                    prop_assert_eq!(sorted.lower_bound(&key), low);
                    let high = keys.partition_point(|k| *k <= key);
                    prop_assert_eq!(sorted.upper_bound_from(&key, low), high);
                    prop_assert_eq!(sorted.upper_bound_from(&key, 0), high);
                }
            }
        }
    }
}
