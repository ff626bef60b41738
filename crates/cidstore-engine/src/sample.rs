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

/// A search for the first row that compares greater than a bar with a key, in steps each of which waits for
/// memory about once. The processor goes on while it waits: searches that are made step by step beside each
/// other wait together.
pub struct Search<'a> {
    sorted: Sorted<'a>,
    key: &'a Key,
    bar: Ordering,
    /// The rows before it are none of the rows looked for, and that at its end is greater.
    among: Range<usize>,
    samples: Option<Samples<'a>>,
    /// By what rows can be told apart.
    cut: Option<(Cut, u64)>,
}

/// The samples of a stretch, while a search is led by them.
struct Samples<'a> {
    values: &'a [u64],
    /// Position of the first.
    first: usize,
    /// About where the value of the key belongs.
    guess: usize,
}

impl<'a> Search<'a> {
    /// Begins it, given that the row stands within `stretch`, or at its end.
    pub fn new(
        sorted: Sorted<'a>,
        samples: &'a [u64],
        key: &'a Key,
        bar: Ordering,
        stretch: Range<usize>,
    ) -> Self {
        let sampled = within(&stretch);
        let mut search = Self { sorted, key, bar, among: stretch, samples: None, cut: None };
        let Some(values) = samples.get(sampled.clone()).filter(|values| values.len() > 1) else {
            return search;
        };
        let (first, last) = (sampled.start * EVERY, (sampled.end - 1) * EVERY);
        let (first_row, last_row) = (sorted.row(first), sorted.row(last));
        let order = sorted.order();
        if order.compare(first_row, key) > bar {
            search.among.end = first;
        } else if order.compare(last_row, key) <= bar {
            search.among.start = last + 1;
        } else if let Some(cut) = Cut::between(order, first_row, last_row) {
            let value = cut.of_key(key);
            search.among = first..last;
            search.cut = Some((cut, value));
            search.samples = Some(Samples { values, first, guess: guess(values, value) });
        }
        search
    }

    /// First step: guesses once more, from what stands at the first guess.
    pub fn guess(&mut self) {
        if let (Some(samples), Some((_, value))) = (&mut self.samples, self.cut) {
            samples.guess = guess_from(samples.values, value, samples.guess);
        }
    }

    /// Second step: finds the samples between which the row stands.
    pub fn narrow(&mut self) {
        let (Some(Samples { values, first, guess }), Some((_, value))) = (self.samples.take(), self.cut)
        else {
            return;
        };
        let position = |sample: usize| first + sample * EVERY;
        let not_less = outward(values, value, guess.saturating_sub(AROUND / 2), AROUND);
        let equal = values[not_less..].iter().take(2).take_while(|sample| **sample == value).count();
        let greater = if equal < 2 {
            not_less + equal
        } else {
            values.partition_point(|sample| *sample <= value).max(not_less)
        };
        if not_less > 0 {
            self.among.start = position(not_less - 1) + 1;
        }
        if greater < values.len() {
            self.among.end = position(greater);
        }
        // Only damage has them the other way round.
        self.among.start = self.among.start.min(self.among.end);
        std::hint::black_box(self.sorted.row_number(self.among.start.min(self.sorted.len() - 1)));
    }

    /// Third step: looks at the rows between them, if they are few.
    pub fn look(&mut self) {
        let Some((cut, value)) = self.cut.filter(|_| self.among.len() <= AT_ONCE) else { return };
        // Row by row without a branch in between, the processor fetches all of them at the same time.
        let (mut less, mut same) = (0, 0);
        for at in self.among.clone() {
            let row = cut.of_row(self.sorted.row(at));
            less += usize::from(row < value);
            same += usize::from(row == value);
        }
        let start = self.among.start + less;
        self.among = start..(start + same).min(self.among.end);
    }

    /// Position of the row; the end of the stretch where there is none.
    pub fn end(self) -> usize {
        match self.bar {
            Ordering::Equal => self.sorted.upper_bound(self.key, self.among),
            _ => self.sorted.lower_bound(self.key, self.among),
        }
    }

    /// All of it.
    pub fn run(mut self) -> usize {
        self.guess();
        self.narrow();
        self.look();
        self.end()
    }
}

/// About where `value` belongs among ascending values, if they are spread evenly. Whatever they are, it is a
/// position of one of them, of which there are some.
fn guess(values: &[u64], value: u64) -> usize {
    ((value.saturating_sub(values[0]) as f64 / spacing(values)) as usize).min(values.len() - 1)
}

/// The same, given what stands at a guess.
fn guess_from(values: &[u64], value: u64, guess: usize) -> usize {
    let found = values[guess];
    let beside = (value.abs_diff(found) as f64 / spacing(values)) as usize;
    if found < value {
        guess.saturating_add(beside).min(values.len() - 1)
    } else {
        guess.saturating_sub(beside)
    }
}

/// From one value to the next, on the average.
fn spacing(values: &[u64]) -> f64 {
    let last = values.len() - 1;
    (values[last].saturating_sub(values[0]) as f64 / last.max(1) as f64).max(1.0)
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
                            let found = |bar| rows.search(order, &key, bar).run();
                            prop_assert_eq!(found(Ordering::Less), keys.partition_point(|k| *k < key));
                            prop_assert_eq!(found(Ordering::Equal), keys.partition_point(|k| *k <= key));
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
                    for bar in [Ordering::Less, Ordering::Equal] {
                        prop_assert!(rows.search(order, &order.key(row), bar).run() <= spo.len());
                    }
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
            let mut few = few;
            few.sort_unstable();
            for (values, asked) in [(&values, values.iter().copied().chain([value]).collect()), (&few, (0..10).collect::<Vec<_>>())] {
                for value in asked.into_iter().filter(|_| !values.is_empty()) {
                    let guess = guess_from(values, value, guess(values, value));
                    let found = outward(values, value, guess.saturating_sub(AROUND / 2), AROUND);
                    prop_assert_eq!(found, values.partition_point(|v| *v < value));
                }
            }
        }
    }
}
