//! How much was tried.

use cidstore_disk::sim::Tally;
use std::collections::BTreeMap;
use std::fmt;

/// Numbers with names; of several histories, or processes, they add up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts(BTreeMap<String, u64>);

impl Counts {
    /// Adds to one of them.
    pub fn add(&mut self, name: &str, more: u64) {
        match self.0.get_mut(name) {
            Some(count) => *count += more,
            None if more > 0 => drop(self.0.insert(name.to_owned(), more)),
            None => {}
        }
    }

    /// Adds all of another's.
    pub fn merge(&mut self, other: &Self) {
        for (name, count) in &other.0 {
            self.add(name, *count);
        }
    }

    /// Adds what a disk went through since `before`.
    pub fn add_tally(&mut self, tally: &Tally, before: &Tally) {
        for ((name, now), (_, before)) in tally.entries().into_iter().zip(before.entries()) {
            self.add(name, now - before);
        }
    }

    /// One of them; 0 if nothing was added to it.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Reads what `Display` writes; `None` if it is something else.
    pub fn parse(text: &str) -> Option<Self> {
        let pairs = text.split_whitespace().map(|pair| {
            let (name, count) = pair.split_once('=')?;
            Some((name.to_owned(), count.parse().ok()?))
        });
        pairs.collect::<Option<_>>().map(Self)
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, count)) in self.0.iter().enumerate() {
            write!(f, "{}{name}={count}", if i == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_reads_back_and_adds_up() {
        let mut counts = Counts::default();
        counts.add("histories", 2);
        counts.add("crashes", 5);
        let mut twice = Counts::parse(&counts.to_string()).unwrap();
        assert_eq!(twice, counts);
        twice.merge(&counts);
        assert_eq!(twice.to_string(), "crashes=10 histories=4");
        assert_eq!(Counts::parse("crashes"), None);
    }
}
