//! What may be found after the process or the power ended, from what was acknowledged.
//!
//! A store that starts must be in the state after some mutation: not before the last one that is
//! durable; not in the middle of a record; not with anything that was refused. What was committed
//! without waiting for the medium may be gone from some record on. Of a group that failed in a way
//! that leaves the medium's content open, any number of its first records may be there.

use crate::keys::Kept;
use crate::model::{Effect, Model, Version, apply, difference};
use cidstore_engine::{Outcome, Refused, Snapshot};
use cidstore_types::{Mutation, Op, Seq, Triple};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A mutation that took numbers.
#[derive(Debug, Clone)]
pub struct Record {
    pub first: Seq,
    op: Op,
    pub rows: Vec<(Triple, Version)>,
    by_pattern: bool,
    /// What repeats of it hear, if it came under a key.
    kept: Option<Kept>,
}

impl Record {
    pub fn last(&self) -> Seq {
        self.first + self.rows.len() as u64 - 1
    }

    /// Whether the log may say this of `seq`.
    pub fn tells(&self, seq: Seq, op: Op, triple: &Triple, version: &Version) -> bool {
        let (row, expected) = &self.rows[(seq - self.first) as usize];
        let same_row =
            if self.by_pattern { self.rows.iter().any(|(row, _)| row == triple) } else { row == triple };
        same_row && self.op == op && version == expected
    }
}

/// A record, and the state after it.
type Applied = (Record, Arc<Model>);

/// What a group must answer, and what it does, mutation by mutation.
pub struct Prepared {
    pub outcomes: Vec<Result<Outcome, Refused>>,
    /// Which mutation of the group, and what it did; those that took no numbers are left out.
    applied: Vec<(usize, Applied)>,
}

impl Prepared {
    pub fn takes_numbers(&self) -> bool {
        !self.applied.is_empty()
    }
}

#[derive(Clone)]
pub struct Oracle {
    /// The states that may be found, by their last mutation, but for what is in flight.
    states: BTreeMap<Seq, Arc<Model>>,
    visible: Seq,
    durable: Seq,
    /// Where the last group of the log is damaged, a start may take it for a torn one: then
    /// everything up to here must still be there.
    floor: Seq,
    /// Those that the log may still have.
    records: Vec<Record>,
    in_flight: Vec<Applied>,
    /// What was acknowledged of mutations that came under a key.
    kept: BTreeMap<Box<[u8]>, Kept>,
}

impl Oracle {
    pub fn new(seq: Seq, model: Arc<Model>) -> Self {
        Self {
            states: BTreeMap::from([(seq, model)]),
            visible: seq,
            durable: seq,
            floor: seq,
            records: Vec::new(),
            in_flight: Vec::new(),
            kept: BTreeMap::new(),
        }
    }

    /// The state that queries must show.
    pub fn model(&self) -> &Arc<Model> {
        &self.states[&self.visible]
    }

    pub fn visible(&self) -> Seq {
        self.visible
    }

    pub fn durable(&self) -> Seq {
        self.durable
    }

    pub fn floor(&self) -> Seq {
        self.floor
    }

    /// The record that covers `seq`, if it was written in this history.
    pub fn record_of(&self, seq: Seq) -> Option<&Record> {
        let at = self.records.partition_point(|record| record.last() < seq);
        self.records.get(at).filter(|record| record.first <= seq)
    }

    /// What must be remembered after `seq`.
    pub fn kept_at(&self, seq: Seq) -> Vec<&Kept> {
        let in_flight = self.in_flight.iter().filter_map(|(record, _)| record.kept.as_ref());
        self.kept.values().chain(in_flight).filter(|kept| kept.outcome.seq <= seq).collect()
    }

    pub fn prepare(&self, group: &[Mutation], rows_max: usize, keys_max: usize) -> Prepared {
        let mut known = self.kept.clone();
        let mut state = Arc::clone(self.model());
        let mut last = self.visible;
        let mut prepared = Prepared { outcomes: Vec::new(), applied: Vec::new() };
        for (i, mutation) in group.iter().enumerate() {
            if let Some(key) = mutation.key() {
                let refused = match known.get(key.name()) {
                    Some(kept) if kept.is_repeated_by(mutation) => Some(Ok(kept.repeated())),
                    Some(kept) => Some(Err(Refused::KeyTaken { seq: kept.outcome.seq })),
                    None if known.len() >= keys_max => Some(Err(Refused::TooManyKeys { limit: keys_max })),
                    None => None,
                };
                if let Some(refused) = refused {
                    prepared.outcomes.push(refused);
                    continue;
                }
            }
            let outcome = apply(Arc::make_mut(&mut state), mutation, rows_max).map(|effect| {
                let Effect { affected, op, rows, by_pattern } = effect;
                let (first, count) = (last + 1, rows.len() as u64);
                last += count;
                let outcome = Outcome { seq: last, count, affected, is_repeat: false };
                if count > 0 {
                    let kept = mutation.key().map(|key| {
                        let kept = Kept { mutation: mutation.clone(), outcome };
                        known.insert(key.name().into(), kept.clone());
                        kept
                    });
                    let record = Record { first, op, rows, by_pattern, kept };
                    prepared.applied.push((i, (record, Arc::clone(&state))));
                }
                outcome
            });
            prepared.outcomes.push(outcome);
        }
        prepared
    }

    /// The first `done` mutations of a group are acknowledged. `synced` was durable before. Whether any
    /// of them took numbers.
    pub fn acknowledge(&mut self, prepared: Prepared, done: usize, synced: Seq) -> bool {
        let before = self.visible;
        for (_, (record, model)) in prepared.applied.into_iter().take_while(|(i, _)| *i < done) {
            self.floor = synced;
            self.visible = record.last();
            self.states.insert(self.visible, model);
            self.remember(&record);
            self.records.push(record);
        }
        self.visible > before
    }

    fn remember(&mut self, record: &Record) {
        if let Some(kept) = &record.kept {
            let key = kept.mutation.key().expect("it came under one");
            self.kept.insert(key.name().into(), kept.clone());
        }
    }

    /// A group was refused, and it is open what of it reached the medium.
    pub fn leave_open(&mut self, prepared: Prepared) {
        self.in_flight = prepared.applied.into_iter().map(|(_, applied)| applied).collect();
    }

    /// Everything up to here outlives a power cut.
    pub fn note_durable(&mut self, seq: Seq) {
        assert!(seq <= self.visible, "{seq} is durable, {} is the last", self.visible);
        self.durable = self.durable.max(seq);
        self.states = self.states.split_off(&self.durable.min(self.floor));
    }

    fn state(&self, seq: Seq) -> Option<&Arc<Model>> {
        let in_flight = self.in_flight.iter().find(|(record, _)| record.last() == seq);
        self.states.get(&seq).or(in_flight.map(|(_, model)| model))
    }

    /// Whether a start may have found this; at least everything up to `least` must be there.
    pub fn judge(&self, found: &Snapshot, least: Seq) -> Result<(), String> {
        let seq = found.as_of();
        if seq < least {
            return Err(format!("it ends at {seq}, and everything up to {least} was durable"));
        }
        let Some(model) = self.state(seq) else {
            return Err(format!(
                "it ends at {seq}, in the middle of a record or behind all that was written"
            ));
        };
        difference(found, model).map_or(Ok(()), |what| Err(format!("not the state after {seq}: {what}")))
    }

    /// A start found this; [`Oracle::judge`] has nothing against it.
    pub fn accept(&mut self, seq: Seq) {
        let model = Arc::clone(self.state(seq).expect("it was judged"));
        for (record, _) in std::mem::take(&mut self.in_flight) {
            self.remember(&record);
            self.records.push(record);
        }
        self.kept.retain(|_, kept| kept.outcome.seq <= seq);
        self.records.retain(|record| record.last() <= seq);
        self.states = BTreeMap::from([(seq, model)]);
        (self.visible, self.durable, self.floor) = (seq, seq, seq);
    }
}
