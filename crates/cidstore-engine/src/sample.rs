//! Samples of sorted rows: what a search reads instead of rows, until it knows their place to a few.
//!
//! Of every [`EVERY`]th row in an order the [`Cut`] of its key is kept: the 64 bits from which on the
//! samples of its stretch differ. Those of one order take half a byte a row, stand side by side, and are
//! uniform where CIDs are hashes: two guesses and one look around find a key's place among a million of
//! them. A stretch is what has one leading part that a list leads to: the rows of one predicate where
//! predicates are listed, else all rows.
//!
//! **Invariant**: samples lead, rows decide. Samples that are wrong (damage) may hide rows or show some
//! twice, like any other damaged index; they never make up one, nor end the process.

use crate::hdf5::SAMPLE_ROWS;
use crate::order::{Key, Order, Row};
use crate::search::Sorted;
use std::cmp::Ordering;
use std::ops::Range;

/// Positions from one sample to the next. As many row numbers of a permutation fit into a cache line,
/// and as many rows can be fetched at once.
pub const EVERY: usize = SAMPLE_ROWS as usize;

/// Fewer rows than this are not sampled: they are searched as fast.
pub const SAMPLED_ROWS_MIN: usize = 4096;

/// Samples looked at around a guess, all at once.
const AROUND: usize = 32;

/// Rows looked at all at once; where more are left, they have much in common.
const AT_ONCE: usize = 2 * EVERY;

/// Where keys between two that are known begin to differ, and the 64 bits from there on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    order: Order,
    /// The first word in which they differ.
    word: usize,
    /// Its bits that they have in common.
    common: u32,
}

impl Cut {
    /// Of the keys of two rows; `None` where these are the same.
    pub fn between(order: Order, low: &Row, high: &Row) -> Option<Self> {
        let word = (0..Order::WORDS).find(|i| order.word(low, *i) != order.word(high, *i))?;
        let common = (order.word(low, word) ^ order.word(high, word)).leading_zeros();
        Some(Self { order, word, common })
    }

    /// The bits of a row's key.
    pub fn of_row(&self, row: &Row) -> u64 {
        self.of(|i| self.order.word(row, i))
    }

    /// The bits of a key.
    pub fn of_key(&self, key: &Key) -> u64 {
        self.of(|i| u64::from_be_bytes(key[8 * i..8 * i + 8].try_into().expect("8 bytes")))
    }

    fn of(&self, word: impl Fn(usize) -> u64) -> u64 {
        let rest = if self.word + 1 < Order::WORDS { word(self.word + 1) } else { 0 };
        ((u128::from(word(self.word)) << 64 | u128::from(rest)) << self.common >> 64) as u64
    }
}

/// The indexes of the samples within a range of positions.
fn within(positions: &Range<usize>) -> Range<usize> {
    positions.start.div_ceil(EVERY)..positions.end.div_ceil(EVERY)
}

/// The samples of an order, from every [`EVERY`]th row in it. `ends` are the positions where stretches
/// end, ascending; the last one is where all of them do. `go_on` hears of rows that were read, and may have
/// enough.
pub fn samples(
    order: Order,
    rows: &[&Row],
    ends: impl IntoIterator<Item = usize>,
    go_on: &mut dyn FnMut(usize) -> bool,
) -> Vec<u64> {
    let mut samples = Vec::with_capacity(rows.len());
    let mut start = 0;
    for end in ends {
        let Some(stretch) = rows.get(within(&(start..end))) else { break };
        if let (Some(first), Some(last)) = (stretch.first(), stretch.last()) {
            let cut = Cut::between(order, first, last);
            for row in stretch {
                samples.push(cut.map_or(0, |cut| cut.of_row(row)));
                // The row, and what stands around it in the page.
                if !go_on(EVERY) {
                    return samples;
                }
            }
        }
        start = end;
    }
    samples
}

/// Positions between which the first row stands that compares greater than `bar` with `key`, given that it
/// stands within `stretch`: all of the rows before the range do not, and that at its end does.
pub fn narrow(
    sorted: &Sorted<'_>,
    samples: &[u64],
    key: &Key,
    bar: Ordering,
    stretch: Range<usize>,
) -> Range<usize> {
    let order = sorted.order();
    let among = within(&stretch);
    let Some(samples) = samples.get(among.clone()).filter(|samples| samples.len() > 1) else {
        return stretch;
    };
    let position = |sample: usize| (among.start + sample) * EVERY;
    let (first, last) = (position(0), position(samples.len() - 1));
    let (first_row, last_row) = (sorted.row(first), sorted.row(last));
    if order.compare(first_row, key) > bar {
        return stretch.start..first;
    }
    if order.compare(last_row, key) <= bar {
        return last + 1..stretch.end;
    }
    let Some(cut) = Cut::between(order, first_row, last_row) else { return stretch };
    let value = cut.of_key(key);
    // The first sample is not greater than the key, the last one is not less.
    let not_less = position_of(samples, value);
    let equal = samples[not_less..].iter().take(2).take_while(|sample| **sample == value).count();
    let greater = if equal < 2 {
        not_less + equal
    } else {
        samples.partition_point(|sample| *sample <= value).max(not_less)
    };
    let start = if not_less == 0 { first } else { position(not_less - 1) + 1 };
    let end = if greater < samples.len() { position(greater) } else { last };
    if start >= end || end - start > AT_ONCE {
        return start.min(end)..end;
    }
    // Row by row without a branch in between, the processor fetches all of them at the same time.
    let (mut less, mut same) = (0, 0);
    for at in start..end {
        let row = cut.of_row(sorted.row(at));
        less += usize::from(row < value);
        same += usize::from(row == value);
    }
    start + less..(start + less + same).min(end)
}

/// Position of the first of ascending values that is not less than `value`, guessed as if they were spread
/// evenly, and looked for outward from there.
fn position_of(values: &[u64], value: u64) -> usize {
    let [least, .., greatest] = *values else { return values.partition_point(|v| *v < value) };
    if value <= least {
        return 0;
    }
    let last = values.len() - 1;
    let each = (greatest.saturating_sub(least) as f64 / last as f64).max(1.0);
    // What a conversion makes of values in no order, which only damage brings, is bounded, too.
    let guess = (((value - least) as f64 / each) as usize).min(last);
    let found = values[guess];
    let beside = (value.abs_diff(found) as f64 / each) as usize;
    let guess =
        if found < value { guess.saturating_add(beside).min(last) } else { guess.saturating_sub(beside) };
    outward(values, value, guess.saturating_sub(AROUND / 2), AROUND)
}

/// Position of the first of ascending values that is not less than `value`, searched outward from the
/// `step` values at `guess`.
pub fn outward<T: Copy + Ord>(values: &[T], value: T, guess: usize, step: usize) -> usize {
    let mut low = guess.min(values.len());
    let mut high = (low + step).min(values.len());
    // All at once: the processor need not wait for one before it asks for the next.
    let before = values[low..high].iter().filter(|v| **v < value).count();
    if before > 0 && before < high - low {
        return low + before;
    }
    if before == 0 {
        let mut step = step;
        high = low;
        while low > 0 && values[low - 1] >= value {
            high = low - 1;
            low = high.saturating_sub(step);
            step *= 2;
        }
    } else {
        let mut step = step;
        low = high;
        while high < values.len() && values[high] < value {
            low = high + 1;
            high = (low + step).min(values.len());
            step *= 2;
        }
    }
    low + values[low..high].partition_point(|v| *v < value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::column::Column;
    use crate::run::Rows;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// Parts of every skew: uniform, behind 16 bytes of zeros, very few.
    fn part() -> impl Strategy<Value = [u8; 32]> + Clone {
        prop_oneof![
            4 => any::<[u8; 32]>(),
            2 => any::<[u8; 16]>().prop_map(|low| std::array::from_fn(|i| if i < 16 { 0 } else { low[i - 16] })),
            4 => (0u8..4).prop_map(|low| std::array::from_fn(|i| if i == 31 { low } else { 0 })),
        ]
    }

    fn rows(parts: impl Strategy<Value = [u8; 32]> + Clone) -> impl Strategy<Value = Vec<Row>> {
        let row = [parts.clone(), parts.clone(), parts]
            .prop_map(|parts| std::array::from_fn(|i| parts[i / 32][i % 32]));
        vec(row, 0..600).prop_map(|mut rows| {
            rows.sort_unstable();
            rows.dedup();
            rows
        })
    }

    /// Rows with their indexes and samples, predicates listed or not.
    fn indexed(spo: Vec<Row>, listed: bool) -> Rows {
        let numbers = |order: Order| {
            let mut numbers: Vec<u32> = (0..spo.len() as u32).collect();
            numbers.sort_unstable_by_key(|number| order.key(&spo[*number as usize]));
            numbers
        };
        let (pos, osp) = (numbers(Order::Pos), numbers(Order::Osp));
        let (mut predicates, mut ends): (Vec<[u8; 32]>, Vec<u32>) = (Vec::new(), Vec::new());
        for (at, number) in pos.iter().enumerate().filter(|_| listed) {
            let predicate: [u8; 32] = spo[*number as usize][32..64].try_into().unwrap();
            if predicates.last() != Some(&predicate) {
                predicates.push(predicate);
                ends.push(0);
            }
            *ends.last_mut().unwrap() = at as u32 + 1;
        }
        let stretches = ends.iter().map(|end| *end as usize).chain([spo.len()]);
        let samples = {
            let taken = |numbers: &[u32]| -> Vec<&Row> {
                numbers.iter().step_by(EVERY).map(|number| &spo[*number as usize]).collect()
            };
            let all: Vec<u32> = (0..spo.len() as u32).collect();
            [
                samples(Order::Spo, &taken(&all), [spo.len()], &mut |_| true),
                samples(Order::Pos, &taken(&pos), stretches, &mut |_| true),
                samples(Order::Osp, &taken(&osp), [spo.len()], &mut |_| true),
            ]
        };
        for samples in &samples {
            assert_eq!(samples.len(), spo.len().div_ceil(EVERY));
        }
        Rows {
            spo: spo.into(),
            pos: pos.into(),
            osp: osp.into(),
            predicates: predicates.into(),
            predicate_end: ends.into(),
            samples: samples.map(Column::from),
        }
    }

    proptest! {
        #[test]
        fn bounds_agree_with_partition_point(
            of_all in rows(part()),
            uniform in rows(any::<[u8; 32]>()),
            other in rows(part()),
            listed: bool,
        ) {
            for spo in [of_all, uniform] {
                let rows = indexed(spo.clone(), listed);
                for order in [Order::Spo, Order::Pos, Order::Osp] {
                    let mut keys: Vec<Key> = spo.iter().map(|row| order.key(row)).collect();
                    keys.sort_unstable();
                    let asked = spo.iter().step_by(7).chain(other.iter().take(40));
                    for mut key in asked.map(|row| order.key(row)) {
                        for length in [96, 64, 32] {
                            key[length..].fill(0);
                            prop_assert_eq!(rows.lower_bound(order, &key), keys.partition_point(|k| *k < key));
                            prop_assert_eq!(rows.upper_bound(order, &key), keys.partition_point(|k| *k <= key));
                        }
                    }
                }
            }
        }

        #[test]
        fn samples_that_are_wrong_end_nothing(spo in rows(part()), other in rows(part()), wrong in vec(any::<u64>(), 40), listed: bool) {
            let mut rows = indexed(spo.clone(), listed);
            let count = spo.len().div_ceil(EVERY);
            rows.samples = std::array::from_fn(|_| wrong[..count].to_vec().into());
            for order in [Order::Spo, Order::Pos, Order::Osp] {
                for row in spo.iter().chain(&other) {
                    prop_assert!(rows.lower_bound(order, &order.key(row)) <= spo.len());
                    prop_assert!(rows.upper_bound(order, &order.key(row)) <= spo.len());
                }
            }
        }

        #[test]
        fn searching_outward_agrees_with_partition_point(
            mut values in vec(0u32..2000, 0..500), value in 0u32..2000, guess in 0usize..600, step in 1usize..70,
        ) {
            values.sort_unstable();
            prop_assert_eq!(outward(&values, value, guess, step), values.partition_point(|v| *v < value));
        }

        #[test]
        fn guessing_agrees_with_partition_point(mut values in vec(any::<u64>(), 0..500), value: u64, few in vec(0u64..9, 0..100)) {
            values.sort_unstable();
            for value in values.iter().copied().chain([value]) {
                prop_assert_eq!(position_of(&values, value), values.partition_point(|v| *v < value));
            }
            let mut few = few;
            few.sort_unstable();
            for value in 0..10 {
                prop_assert_eq!(position_of(&few, value), few.partition_point(|v| *v < value));
            }
        }
    }
}
