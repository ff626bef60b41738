//! Sorting rows of a commit, word by word of their keys: integers beside the row numbers are sorted,
//! and only what is equal in them is looked at again. Merging takes over above that (`merge`).

use crate::order::{Order, Row};

/// A row to be sorted, by a word of its key.
#[derive(Clone, Copy)]
struct Entry {
    word: u64,
    number: u32,
}

/// Row numbers in the order of the rows; of equal rows the last one first.
pub fn sorted(order: Order, rows: &[Row]) -> Vec<u32> {
    let mut entries: Vec<Entry> = (0..rows.len() as u32).map(|number| Entry { word: 0, number }).collect();
    sort(order, rows, &mut entries, 0);
    entries.iter().map(|entry| entry.number).collect()
}

/// Sorts rows that are equal in the words before `from`.
fn sort(order: Order, rows: &[Row], entries: &mut [Entry], from: usize) {
    let mut differ = false;
    let mut at = from;
    while !differ && at < Order::WORDS {
        for entry in &mut *entries {
            entry.word = order.word(&rows[entry.number as usize], at);
        }
        differ = entries.windows(2).any(|pair| pair[0].word != pair[1].word);
        at += 1;
    }
    if !differ {
        return entries.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.number));
    }
    entries.sort_unstable_by_key(|entry| entry.word);
    for equal in entries.chunk_by_mut(|a, b| a.word == b.word).filter(|equal| equal.len() > 1) {
        sort(order, rows, equal, at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_a_comparison_of_whole_keys(parts in vec((0u8..3, 0u8..3, 0u8..3, 0usize..96), 0..200)) {
            let row = |(s, p, o, at): &(u8, u8, u8, usize)| -> Row {
                std::array::from_fn(|i| if i == *at { 7 } else { [*s, *p, *o][i / 32] })
            };
            let rows: Vec<Row> = parts.iter().map(row).collect();
            for order in [Order::Spo, Order::Pos, Order::Osp] {
                let mut expected: Vec<u32> = (0..rows.len() as u32).collect();
                expected.sort_by_key(|n| (order.key(&rows[*n as usize]), std::cmp::Reverse(*n)));
                prop_assert_eq!(sorted(order, &rows), expected);
            }
        }
    }
}
