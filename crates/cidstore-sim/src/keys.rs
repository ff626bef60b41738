//! Idempotency keys: which mutations of a history come under one, and what their repeats must hear.

use crate::generate::{Action, Live};
use crate::oracle::Oracle;
use cidstore_disk::sim::Seeded;
use cidstore_engine::{Durability, Outcome, Store};
use cidstore_types::{Mutation, Seq};

/// What must be remembered of a mutation that came under a key.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The whole of it.
    pub mutation: Mutation,
    /// What its client was told.
    pub outcome: Outcome,
}

impl Kept {
    /// Whether this mutation, under the same key, is a repeat: all is the same but the time of receipt.
    pub fn is_repeated_by(&self, mutation: &Mutation) -> bool {
        let at_no_time = |mutation: &Mutation| {
            let mut mutation = mutation.clone();
            match &mut mutation {
                Mutation::Batch(batch) => (batch.received_at, batch.key) = (0.0, None),
                Mutation::DeleteMatching { received_at, key, .. } => (*received_at, *key) = (0.0, None),
            }
            mutation
        };
        at_no_time(&self.mutation) == at_no_time(mutation)
    }

    /// What a repeat hears.
    pub fn repeated(&self) -> Outcome {
        Outcome { is_repeat: true, ..self.outcome }
    }
}

/// Gives keys to some mutations of half of the histories, and makes others repeats of earlier ones. By
/// numbers of its own: the other half stays what it was for each seed. Returns how many may be remembered.
pub fn give(actions: &mut [Action], seed: u64) -> usize {
    let mut random = Seeded(seed ^ 0x1DE3_B07E);
    if random.one_in(2) {
        return 1 << 20;
    }
    let names = random.pick(&[2, 5, 40]);
    let mut given: Vec<Mutation> = Vec::new();
    for mutation in actions.iter_mut().flat_map(mutations) {
        let again = random.below(given.len().max(1) as u64) as usize;
        match random.below(8) {
            0..=2 => {
                let name = [b'a' + random.below(names) as u8];
                *mutation = mutation.clone().under(&name);
                given.push(mutation.clone());
            }
            3 | 4 if !given.is_empty() => *mutation = received(given[again].clone(), random.below(9) as f64),
            _ => {}
        }
    }
    random.pick(&[3, 1 << 20, 1 << 20])
}

fn mutations(action: &mut Action) -> Vec<&mut Mutation> {
    let lives: Vec<&mut Live> = match action {
        Action::Live(live) => vec![live],
        Action::Step(beside) | Action::Checkpoint(beside) | Action::Merge(_, beside) => {
            beside.iter_mut().map(|(_, live)| live).collect()
        }
        _ => Vec::new(),
    };
    let groups = lives.into_iter().filter_map(|live| match live {
        Live::Commit(_, group) => Some(group),
        _ => None,
    });
    groups.flatten().collect()
}

/// The same, received at another time.
fn received(mut mutation: Mutation, at: f64) -> Mutation {
    match &mut mutation {
        Mutation::Batch(batch) => batch.received_at = at,
        Mutation::DeleteMatching { received_at, .. } => *received_at = at,
    }
    mutation
}

/// A store in the state after `seq` remembers what came under a key up to there, and nothing else. Repeats
/// change nothing, so that asking does no harm.
///
/// # Errors
/// What is wrong.
pub fn check(store: &mut Store, oracle: &Oracle, seq: Seq) -> Result<(), String> {
    let kept = oracle.kept_at(seq);
    let remembered = store.reader().stats().keys;
    if remembered != kept.len() {
        return Err(format!("{remembered} keys are remembered, expected {}", kept.len()));
    }
    let repeats: Vec<Mutation> = kept.iter().map(|kept| received(kept.mutation.clone(), 3.0)).collect();
    let expected: Vec<_> = kept.iter().map(|kept| Ok(kept.repeated())).collect();
    match store.commit(&repeats, Durability::Fsync) {
        Ok(outcomes) if outcomes == expected => Ok(()),
        Ok(outcomes) => Err(format!("repeats of {repeats:?} hear {outcomes:?}, expected {expected:?}")),
        Err(error) => Err(format!("repeats fail: {error}")),
    }
}
