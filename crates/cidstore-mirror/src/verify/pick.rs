//! Which rows of many are looked at, where not all of them are.

use fastrand::Rng;

/// Picks so many rows of so many, each as likely as the others, as they come by (Knuth, volume 2, section
/// 3.4.2, algorithm S). Where fewer rows come than were announced, about as much less is picked.
pub(super) struct Picker(Option<Sample>);

struct Sample {
    chance: Rng,
    rows: u64,
    wanted: u64,
}

impl Picker {
    /// One that picks all.
    pub fn all() -> Self {
        Self(None)
    }

    /// One that picks `wanted` of `rows`; the same seed picks the same.
    pub fn sample(wanted: u64, rows: u64, seed: u64) -> Self {
        Self(Some(Sample { chance: Rng::with_seed(seed), rows: rows.max(wanted), wanted }))
    }

    /// Whether the next row is one.
    pub fn picks(&mut self) -> bool {
        let Some(sample) = &mut self.0 else { return true };
        let picked = sample.wanted > 0 && sample.chance.u64(..sample.rows.max(1)) < sample.wanted;
        sample.rows = sample.rows.saturating_sub(1);
        sample.wanted -= u64::from(picked);
        picked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_picked_as_are_wanted_from_all_over() {
        let pick = |wanted, rows: u64, come: usize, seed| -> Vec<usize> {
            let mut picker = Picker::sample(wanted, rows, seed);
            (0..come).filter(|_| picker.picks()).collect()
        };
        for seed in 0..50 {
            let picked = pick(100, 10_000, 10_000, seed);
            assert_eq!(picked.len(), 100);
            assert!(picked[0] < 2000 && picked[99] >= 8000, "{seed}: {picked:?}");
            assert_eq!(picked, pick(100, 10_000, 10_000, seed));
            // More rows come than were announced, or fewer.
            assert_eq!(pick(100, 10_000, 20_000, seed).len(), 100);
            assert!((20..80).contains(&pick(100, 10_000, 5000, seed).len()));
            assert_eq!(pick(100, 7, 7, seed).len().cmp(&8), std::cmp::Ordering::Less);
        }
        assert_ne!(pick(100, 10_000, 10_000, 1), pick(100, 10_000, 10_000, 2));
        assert!((0..10).all(|_| Picker::all().picks()));
    }
}
