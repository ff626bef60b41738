//! Random histories: all that will be done, drawn from a seed before any of it is done.

use crate::keys;
use crate::model::metadata_text;
use crate::templates::TEMPLATES;
use cidstore_disk::sim::{ReadFault, Seeded};
use cidstore_engine::{Durability, Merging, StoreOptions};
use cidstore_types::{Batch, Cid, Mutation, Op, Pattern, Triple};

/// What may happen at any moment, also while the maintainer works.
#[derive(Debug, Clone)]
pub enum Live {
    /// A group of mutations is committed.
    Commit(Durability, Vec<Mutation>),
    /// The log is synced, as by interval.
    Sync,
    /// Small runs in memory are merged.
    Tidy,
    /// Memory is sealed, if it is not being sealed just now.
    Seal,
    /// Run files are merged, if they are not being merged just now.
    Merge(Merging),
    /// A merge under way is stopped, and there will be none until the next start.
    StopMerging,
    /// A reader keeps a snapshot.
    Hold,
    /// A snapshot that was kept is compared with what it was.
    Compare,
    /// A query, by pages.
    Ask(Pattern, usize),
    /// Another program opens the catalog.
    Look,
    /// One that did closes it.
    LookAway,
    /// The log loses what is sealed, but for so many mutations.
    RemoveLog(u64),
    /// A follower of the log reads so many records.
    Follow(usize),
    /// The feed of changes from a place on.
    Changes(u64, usize),
}

/// How a process ends.
#[derive(Debug, Clone, Copy)]
pub enum End {
    /// Killed.
    Kill,
    /// With the power; what survives, the seed decides.
    PowerCut(u64),
}

/// How operations fail.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// One change, with an I/O error.
    Error,
    /// One change, since the medium is full.
    Full,
    /// Every change from then on, with an I/O error, until the process ends.
    ErrorForGood,
    /// One read.
    Read(ReadFault),
}

/// What is done next.
#[derive(Debug, Clone)]
pub enum Action {
    /// Something that does not need the maintainer.
    Live(Live),
    /// A step of the sealer, and what happens before the n-th of its operations.
    Step(Vec<(u64, Live)>),
    /// Everything is sealed.
    Checkpoint(Vec<(u64, Live)>),
    /// Run files are merged.
    Merge(Merging, Vec<(u64, Live)>),
    /// The process ends in order, having sealed everything or not, and starts again.
    Close(bool),
    /// The process ends and starts again.
    End(End),
    /// The n-th change from now is the last that is not done: so the process or the power ends
    /// somewhere within what is done next.
    EndAt(u64, End),
    /// Killed, and then the power is cut at the n-th change of each next start; the last one succeeds.
    CutStarts(Vec<(u64, u64)>),
    /// Killed, and the n-th operation of the next start fails.
    FailStart(u64, Fault),
    /// The n-th operation from now fails.
    Fail(u64, Fault),
    /// Room for so many bytes more, or no limit.
    Room(Option<u64>),
    /// Killed, and a file is damaged: what a start makes of that.
    Rot(u64),
}

/// What a history begins with.
#[derive(Debug, Clone, Copy)]
pub enum Start {
    /// Nothing; the power is cut at the n-th change of the very first start, if told so.
    Nothing(Option<(u64, u64)>),
    /// One of the stores of `templates`.
    Template(usize),
}

/// A history before it happens.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Bounds and thresholds of the store.
    pub options: StoreOptions,
    /// Files take room where they are written to, not where they only become longer.
    pub allocates_late: bool,
    /// What is there.
    pub start: Start,
    /// What is done.
    pub actions: Vec<Action>,
    /// What survives the power cut at the end.
    pub last_cut: u64,
}

/// How the histories of a seed look.
struct Generator {
    random: Seeded,
    /// Different content ids of each kind: so few that triples meet again.
    ids: u64,
    /// Most rows of a batch.
    rows: u64,
    /// Longest text of metadata; 0 for none at all.
    text: u64,
    /// How often the maintainer's turn comes, of 64.
    maintenance: u64,
    /// How often something goes wrong, of 64.
    trouble: u64,
}

/// The history of a seed.
pub fn plan(seed: u64) -> Plan {
    let mut random = Seeded(seed ^ 0xC1D5_704E);
    // Sealing and merging cost a hundred times what a commit does: most histories have little of it.
    let kind = random.below(32);
    let maintenance = match kind {
        0..=23 => 0,
        24..=29 => 4,
        _ => 14,
    };
    let options = options(&mut random, maintenance > 0);
    let (ids, rows) = (random.pick(&[2, 3, 4, 6]), random.pick(&[1, 4, 10, 25]));
    let text = random.pick(&[0, 0, 8, 8, 60, 1500]);
    let trouble = random.pick(&[2, 6, 12, 20]);
    let mut generator = Generator { random, ids, rows, text, maintenance, trouble };
    let most = if maintenance > 0 { 24 } else { 16 };
    let mut actions: Vec<_> = (0..2 + generator.random.below(most)).map(|_| generator.action()).collect();
    let mut random = generator.random;
    let start = match (random.below(64), maintenance) {
        (0, _) => Start::Nothing(random.one_in(2).then(|| (random.below(24), random.next_u64()))),
        (_, 14..) => Start::Template(random.below(TEMPLATES as u64) as usize),
        _ => Start::Template(0),
    };
    let options = StoreOptions { keys_max: keys::give(&mut actions, seed), ..options };
    // By numbers of its own: what is drawn above stays what it was for each seed.
    let allocates_late = Seeded(seed ^ 0xB10C_1A7E).one_in(2);
    Plan { options, allocates_late, start, actions, last_cut: random.next_u64() }
}

fn options(random: &mut Seeded, seals: bool) -> StoreOptions {
    let seal_rows = if seals { random.pick(&[6, 12, 24, 60]) } else { 1 << 20 };
    // The columns of a file take a page each: it weighs 150 at least. So with the first of these no two
    // are merged, and what is dead in one goes by itself; with the second a few are.
    let run_rows_max = random.pick(&[60, 600, 1 << 20]);
    StoreOptions {
        new_store_id: *b"a simulated one.",
        nonce: 0,
        segment_bytes: random.pick(&[600, 1024, 2048, 4096, 4096, 16384, 40_000]),
        batch_rows_max: random.pick(&[3, 12, 10_000, 10_000]),
        seal_rows,
        memory_rows_max: seal_rows * random.pick(&[1, 2, 4]) as usize,
        memory_fan_in: random.pick(&[2, 3, 5]),
        tidy_rows_max: random.pick(&[4, 16, 64]),
        small_files_max: random.pick(&[2, 3, 5]),
        run_rows_max,
        // They are remembered for good: what is forgotten when is tried elsewhere.
        key_ttl_s: u64::MAX,
        ..StoreOptions::default()
    }
}

/// Content ids of every skew: uniform ones, two lanes, small numbers.
pub fn cid(kind: u64, i: u64) -> Cid {
    match kind {
        0 => Cid::from_lanes([i.wrapping_mul(0x9e37_79b9_7f4a_7c15), i, !i, i << 7]),
        1 => Cid::from_two_lanes([u64::MAX - i, i]),
        _ => Cid::from_two_lanes([0, i]),
    }
}

impl Generator {
    fn cid(&mut self) -> Cid {
        cid(self.random.below(3), self.random.below(self.ids))
    }

    fn pattern(&mut self) -> Pattern {
        let mut part = || (!self.random.one_in(2)).then(|| self.cid());
        Pattern { s: part(), p: part(), o: part() }
    }

    fn batch(&mut self) -> Batch {
        let op = if self.random.below(5) < 3 { Op::Insert } else { Op::Delete };
        let count = 1 + self.random.below(self.rows);
        let rows = (0..count).map(|_| Triple::new(self.cid(), self.cid(), self.cid())).collect();
        let mut batch = Batch::new(op, self.random.below(1_000_000) as f64, rows);
        for row in 0..count as u32 {
            if op == Op::Insert && self.random.one_in(6) {
                batch.created_at.push((row, self.random.below(1000) as f64 + 0.5));
            }
            if op == Op::Insert && self.text > 0 && self.random.one_in(2) {
                let letter = self.random.pick(&["a", "é", "z"]);
                let text = letter.repeat(self.random.below(self.text) as usize);
                batch.metadata.push((row, metadata_text(&text).into()));
            }
        }
        batch
    }

    fn mutation(&mut self) -> Mutation {
        if self.random.one_in(6) {
            Mutation::delete_matching(self.pattern(), 1.0)
        } else {
            Mutation::Batch(self.batch())
        }
    }

    fn commit(&mut self) -> Live {
        let durability = if self.random.one_in(3) { Durability::Os } else { Durability::Fsync };
        let count = 1 + self.random.below(3);
        Live::Commit(durability, (0..count).map(|_| self.mutation()).collect())
    }

    fn live(&mut self) -> Live {
        match self.random.below(32) {
            0..=15 => self.commit(),
            16 => Live::Sync,
            17 | 18 => Live::Tidy,
            19 | 20 => Live::Hold,
            21 => Live::Compare,
            22 | 23 => Live::Ask(self.pattern(), self.random.pick(&[1, 7, 1000])),
            24 => Live::Look,
            25 => Live::LookAway,
            26 | 27 => Live::RemoveLog(self.random.pick(&[0, 0, 5, 40])),
            28 | 29 => Live::Follow(1 + self.random.below(7) as usize),
            _ => Live::Changes(self.random.next_u64(), 1 + self.random.below(40) as usize),
        }
    }

    /// What happens while the maintainer works, and before which of its operations.
    fn beside(&mut self, other: &Live) -> Vec<(u64, Live)> {
        (0..self.random.below(6))
            .map(|_| {
                let what = match self.random.below(8) {
                    0 | 1 => other.clone(),
                    2 if self.random.one_in(3) => Live::StopMerging,
                    _ => self.live(),
                };
                (self.random.below(40), what)
            })
            .collect()
    }

    fn end(&mut self) -> End {
        if self.random.one_in(3) { End::Kill } else { End::PowerCut(self.random.next_u64()) }
    }

    fn fault(&mut self) -> Fault {
        match self.random.below(8) {
            0 | 1 => Fault::Error,
            2..=4 => Fault::Full,
            5 => Fault::ErrorForGood,
            6 => Fault::Read(ReadFault::Error),
            _ => Fault::Read(ReadFault::Short),
        }
    }

    fn action(&mut self) -> Action {
        let turn = self.random.below(64);
        if turn < self.maintenance {
            return match self.random.below(8) {
                0..=2 => Action::Step(self.beside(&Live::Merge(Merging::Needed))),
                3 => Action::Step(self.beside(&Live::Merge(Merging::Everything))),
                4 => Action::Checkpoint(self.beside(&Live::Merge(Merging::Settling))),
                5 => Action::Merge(Merging::Needed, self.beside(&Live::Seal)),
                6 => Action::Merge(Merging::Settling, self.beside(&Live::Seal)),
                _ => Action::Merge(Merging::Everything, self.beside(&Live::Seal)),
            };
        }
        if turn < self.maintenance + self.trouble {
            return self.trouble();
        }
        Action::Live(self.live())
    }

    fn trouble(&mut self) -> Action {
        match self.random.below(32) {
            0..=3 => Action::End(self.end()),
            4 | 5 => Action::Close(self.maintenance > 0 && self.random.one_in(3)),
            6..=15 => Action::EndAt(self.random.below(30), self.end()),
            16..=18 => {
                let count = 1 + self.random.below(3);
                Action::CutStarts(
                    (0..count).map(|_| (self.random.below(16), self.random.next_u64())).collect(),
                )
            }
            19 | 20 => Action::FailStart(self.random.below(16), self.fault()),
            21..=26 => Action::Fail(self.random.below(20), self.fault()),
            27 => Action::Room(Some(self.random.below(12_000))),
            28 | 29 => Action::Room(None),
            _ => Action::Rot(self.random.next_u64()),
        }
    }
}
