//! The outcomes in memory: found by key, forgotten in the order in which they came.

use cidstore_types::{BatchRef, Fingerprint, Seq};
use std::collections::{HashMap, VecDeque};

/// So many that are over are forgotten at once, at most: a group must not wait for a million of them. More
/// than a group adds, so that the table does not grow with them.
const FORGOTTEN_AT_ONCE: usize = 16_384;
/// What became of a mutation that came under a key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Entry {
    /// Of the key.
    pub(crate) key: Fingerprint,
    /// Of what was asked for.
    pub(crate) request: Fingerprint,
    /// Its last sequence number.
    pub(crate) seq: Seq,
    /// Seconds since the epoch.
    pub(crate) received_at: f64,
    /// How many sequence numbers it took.
    pub(crate) count: u32,
    /// Triples affected, as its client was told.
    pub(crate) affected: u32,
}

impl Entry {
    /// That of the record's batch, if it came under a key.
    pub(crate) fn of_record(batch: &BatchRef<'_>, last_seq: Seq) -> Option<Self> {
        batch.kept.map(|kept| Self {
            key: Fingerprint::of_key(kept.key),
            request: kept.fingerprint,
            seq: last_seq,
            received_at: batch.received_at,
            count: batch.len() as u32,
            affected: kept.affected as u32,
        })
    }
}

/// About 100 bytes for each of a million: 56 here, and a place of 21 in a map that is at most 7/8 full.
#[derive(Default)]
pub(crate) struct Table {
    /// Ascending in `seq` and in `received_at`.
    entries: VecDeque<Entry>,
    /// Number of the first of them; numbers go on at 0 after the largest.
    first: u32,
    /// The number of the last one of each key.
    places: HashMap<Fingerprint, u32>,
}

impl Table {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Those of mutations after this one.
    pub(crate) fn after(&self, seq: Seq) -> impl Iterator<Item = &Entry> {
        self.entries.range(self.entries.partition_point(|entry| entry.seq <= seq)..)
    }

    /// The one of this key, unless it is older than `ttl` seconds.
    pub(crate) fn find(&self, key: &Fingerprint, now: f64, ttl: u64) -> Option<Entry> {
        let number = self.places.get(key)?;
        let entry = self.entries[number.wrapping_sub(self.first) as usize];
        (now - entry.received_at <= ttl as f64).then_some(entry)
    }

    /// Adds the newest one. It counts as received no earlier than the one before it: a clock that goes back,
    /// for a moment or for good, has nothing forgotten too early.
    pub(crate) fn add(&mut self, mut entry: Entry) {
        if let Some(last) = self.entries.back() {
            entry.received_at = entry.received_at.max(last.received_at);
        }
        self.places.insert(entry.key, self.first.wrapping_add(self.entries.len() as u32));
        self.entries.push_back(entry);
    }

    /// Forgets those that are older than `ttl` seconds, or some of them where there are many.
    pub(crate) fn forget(&mut self, now: f64, ttl: u64) {
        for _ in 0..FORGOTTEN_AT_ONCE {
            let Some(entry) = self.entries.pop_front_if(|entry| now - entry.received_at > ttl as f64) else {
                break;
            };
            // The same key may have come again since it was over.
            if self.places.get(&entry.key) == Some(&self.first) {
                self.places.remove(&entry.key);
            }
            self.first = self.first.wrapping_add(1);
        }
        if self.entries.is_empty() {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: u64 = 100;

    fn entry(key: u8, seq: Seq, received_at: f64) -> Entry {
        let (key, request) = (Fingerprint([key; 16]), Fingerprint([0; 16]));
        Entry { key, request, seq, received_at, count: 1, affected: 1 }
    }

    fn known(table: &Table, key: u8, now: f64) -> Option<Seq> {
        table.find(&Fingerprint([key; 16]), now, TTL).map(|entry| entry.seq)
    }

    #[test]
    fn outcomes_are_remembered_for_as_long_as_said() {
        let mut table = Table { first: u32::MAX - 1, ..Table::default() };
        for (key, at) in [(1, 0.0), (2, 10.0), (3, 20.0)] {
            table.add(entry(key, at as Seq, at));
        }
        assert_eq!((known(&table, 1, 100.0), known(&table, 1, 100.5)), (Some(0), None));
        // The key is free again, and the old outcome does not take the new one along.
        table.add(entry(1, 30, 105.0));
        table.forget(105.0, TTL);
        assert_eq!((known(&table, 1, 105.0), table.len()), (Some(30), 3));
        table.forget(115.0, TTL);
        assert_eq!([1, 2, 3].map(|key| known(&table, key, 115.0)), [Some(30), None, Some(20)]);
        table.forget(1000.0, TTL);
        assert_eq!((table.len(), table.places.len()), (0, 0));
        assert_eq!(table.after(0).count(), 0);
    }

    #[test]
    fn those_after_a_mutation() {
        let mut table = Table::default();
        for seq in [3, 5, 9] {
            table.add(entry(seq as u8, seq, 0.0));
        }
        let after = |seq| table.after(seq).map(|entry| entry.seq).collect::<Vec<_>>();
        assert_eq!([after(0), after(3), after(4), after(9)], [vec![3, 5, 9], vec![5, 9], vec![5, 9], vec![]]);
    }

    #[test]
    fn a_clock_that_goes_back_and_comes_right_again_has_nothing_forgotten() {
        let mut table = Table::default();
        let year = 365.0 * 86400.0;
        table.add(entry(1, 1, 50.0 * year));
        // A machine that has lost its clock, until somebody tells it.
        table.add(entry(2, 2, 30.0));
        table.forget(30.0, TTL);
        let now = 50.0 * year + 90.0;
        table.forget(now, TTL);
        assert_eq!([1, 2].map(|key| known(&table, key, now)), [Some(1), Some(2)]);
        table.forget(now + 20.0, TTL);
        assert_eq!(table.len(), 0);
        assert_eq!(table.places.capacity(), 0, "its memory is given back");
    }

    #[test]
    fn what_two_threads_receive_ascends() {
        let mut table = Table::default();
        table.add(entry(1, 1, 50.0));
        table.add(entry(2, 2, 49.0));
        assert_eq!(known(&table, 1, 150.0), Some(1));
        // Never a moment less than said.
        assert_eq!(known(&table, 2, 149.0), Some(2));
        table.forget(150.5, TTL);
        assert_eq!(table.len(), 0);
    }
}
