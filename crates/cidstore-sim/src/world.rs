//! A store on a simulated disk, beside the oracle of what it must be.

use crate::counts::Counts;
use crate::generate::{Live, Plan, Start};
use crate::hook::HookDisk;
use crate::keys;
use crate::model::{Model, ask, difference};
use crate::oracle::Oracle;
use crate::templates::{PATH, template};
use cidstore_disk::sim::{Holder, SimDisk, Tally};
use cidstore_engine::hdf5::read_catalog;
use cidstore_engine::{Durability, Maintainer, MergeStop, Snapshot, Step, Store, StoreError, StoreOptions};
use cidstore_types::{Mutation, Pattern, Seq};
use cidstore_wal::{Tail, WalError};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The store, the medium under it, those who use it, and what is known of it.
pub struct World {
    pub disk: HookDisk,
    pub options: StoreOptions,
    pub oracle: Oracle,
    pub counts: Counts,
    pub(crate) store: Option<Store>,
    /// Snapshots that readers keep.
    held: VecDeque<(Arc<Snapshot>, Arc<Model>)>,
    /// Other programs that have a catalog open, and the run files that it names.
    lookers: VecDeque<(Holder, Vec<PathBuf>)>,
    pub(crate) tail: Option<Tail>,
    /// The follower of the log has seen all up to here.
    pub(crate) seen: Seq,
    pub(crate) starts: u64,
    stop: Option<MergeStop>,
    /// The power was not cut since a store was open: all that was written is there.
    pub(crate) kept: bool,
    /// Something was chosen to fail.
    pub(crate) planned: bool,
    /// The medium has a limit now.
    pub(crate) limited: bool,
    /// What had gone wrong with the disk when this process began.
    pub(crate) before: Tally,
    /// What the disk had been through when the history began.
    beginning: Tally,
}

impl World {
    /// The store that a history begins with, started.
    pub fn begin(plan: &Plan, trace_lines: usize) -> Self {
        let (sim, seq, model) = match plan.start {
            Start::Nothing(_) => (SimDisk::new(), 0, Arc::default()),
            Start::Template(number) => {
                let template = template(number);
                (template.disk.fork(), template.seq, Arc::clone(&template.model))
            }
        };
        if trace_lines > 0 {
            sim.keep_trace(trace_lines);
        }
        sim.let_faults_outlive();
        if plan.allocates_late {
            sim.allocate_late();
        }
        let tally = sim.tally();
        let mut world = Self {
            disk: HookDisk::on(sim),
            options: plan.options.clone(),
            oracle: Oracle::new(seq, model),
            counts: Counts::default(),
            store: None,
            held: VecDeque::new(),
            lookers: VecDeque::new(),
            tail: None,
            seen: seq,
            starts: 0,
            stop: None,
            kept: false,
            planned: false,
            limited: false,
            before: tally,
            beginning: tally,
        };
        if let Start::Nothing(Some((n, seed))) = plan.start {
            world.disk.sim.stop_at(n);
            let _ = world.try_open();
            world.disk.sim.crash(seed);
            world.heal();
        }
        world.open();
        world
    }

    pub fn store(&self) -> &Store {
        self.store.as_ref().expect("it is open")
    }

    pub(crate) fn store_mut(&mut self) -> &mut Store {
        self.store.as_mut().expect("it is open")
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.store().reader().snapshot()
    }

    /// The next process opens the store.
    pub(crate) fn try_open(&mut self) -> Result<Store, StoreError> {
        self.starts += 1;
        let options = StoreOptions { nonce: self.starts, ..self.options.clone() };
        Store::open(Arc::new(self.disk.clone()), Path::new(PATH), options).map(|(store, _)| store)
    }

    /// What a process had dies with it. A start does not know who reads, either.
    pub(crate) fn forget_process(&mut self) {
        (self.store, self.tail, self.stop) = (None, None, None);
        self.held.clear();
        self.lookers.clear();
    }

    /// Forgets the states that can no longer come back.
    pub(crate) fn note_durable(&mut self) {
        if let Some(store) = &mut self.store {
            let durable = store.wal().synced_seq().max(store.reader().sealed_seq());
            self.oracle.note_durable(durable);
        }
    }

    /// Whether something went wrong with the disk since the process began, so that it may fail.
    pub(crate) fn is_excused(&self) -> bool {
        let faults = |tally: &Tally| tally.io_errors + tally.full + tally.read_errors + tally.short_reads;
        faults(&self.disk.sim.tally()) > faults(&self.before) || self.disk.sim.has_stopped()
    }

    /// A failure needs a reason.
    pub(crate) fn excuse(&self, what: &str, error: &dyn std::fmt::Display) {
        assert!(self.is_excused(), "{what} failed, and nothing is wrong with the disk: {error}");
    }

    pub fn commit(&mut self, group: &[Mutation], durability: Durability) {
        let prepared = self.oracle.prepare(group, self.options.batch_rows_max, self.options.keys_max);
        let store = self.store.as_mut().expect("it is open");
        let latched = store.wal().latched().is_some();
        let synced = store.wal().synced_seq();
        match store.commit(group, durability) {
            Ok(outcomes) => {
                let done = outcomes.len();
                assert!(!latched || !prepared.takes_numbers(), "a latched log took a group");
                assert!(done > 0 || group.is_empty(), "a group without an outcome");
                assert_eq!(outcomes, prepared.outcomes[..done], "outcomes of a group");
                self.counts.add("commits", 1);
                let done_now = outcomes.iter().flatten().filter(|outcome| !outcome.is_repeat);
                self.counts.add("mutations", done_now.map(|outcome| outcome.count).sum());
                let repeats = outcomes.iter().flatten().filter(|outcome| outcome.is_repeat).count() as u64;
                self.counts.add("repeats", repeats);
                self.counts.add("refused", outcomes.iter().filter(|outcome| outcome.is_err()).count() as u64);
                let took_numbers = self.oracle.acknowledge(prepared, done, synced);
                if took_numbers && durability == Durability::Fsync {
                    // By what the caller was promised, whatever the log says of itself.
                    self.oracle.note_durable(self.oracle.visible());
                }
                if done < group.len() {
                    return self.commit(&group[done..], durability);
                }
            }
            // Refused: as far as this process shows, nothing of it happened. A full disk is an
            // answer: nothing of the group may come back. After any other failure it is unknown
            // what reached the medium, and the log is latched.
            Err(error) => {
                self.excuse("a commit", &error);
                self.counts.add("commits_failed", 1);
                if !error.is_full() && !latched {
                    self.oracle.leave_open(prepared);
                }
            }
        }
        self.compare("after a commit");
    }

    /// The store shows the model.
    pub fn compare(&self, when: &str) {
        if let Some(what) = difference(&self.snapshot(), self.oracle.model()) {
            panic!("{when}: {what}");
        }
        assert_eq!(self.snapshot().as_of(), self.oracle.visible(), "{when}");
    }

    /// The store remembers what came under keys.
    pub fn check_keys(&mut self, when: &str) {
        let store = self.store.as_mut().expect("it is open");
        let checked = keys::check(store, &self.oracle, self.oracle.visible());
        checked.unwrap_or_else(|what| panic!("{when}: {what}"));
    }

    /// Something that may happen at any moment.
    pub fn live(&mut self, live: &Live) {
        match live {
            Live::Commit(durability, group) => self.commit(group, *durability),
            Live::Sync => self.sync(),
            Live::Tidy => drop(self.store().tidy()),
            Live::Seal => {
                let (mut sealer, _) = self.store().maintainer().split();
                self.note_step(sealer.step());
            }
            Live::Merge(merging) => {
                let (_, mut merger) = self.store().maintainer().split();
                self.note_step(merger.step(*merging));
            }
            Live::StopMerging => {
                let (_, merger) = self.store().maintainer().split();
                let stop = merger.stopper();
                stop.stop();
                self.stop = Some(stop);
            }
            Live::Hold => self.held.push_back((self.snapshot(), Arc::clone(self.oracle.model()))),
            Live::Compare => self.compare_held(),
            Live::Ask(pattern, limit) => ask(&self.snapshot(), self.oracle.model(), pattern, *limit),
            Live::Look => self.look(),
            Live::LookAway => drop(self.lookers.pop_front()),
            Live::RemoveLog(keep) => {
                let sealed = self.store().reader().sealed_seq();
                // It may fail, and is tried again some time.
                if let Err(error) = self.store_mut().wal().remove_before((sealed + 1).saturating_sub(*keep)) {
                    self.excuse("removing a part of the log", &error);
                }
            }
            Live::Follow(records) => self.follow(*records),
            Live::Changes(since, limit) => self.check_changes(since % (self.oracle.visible() + 2), *limit),
        }
        self.check_lookers();
    }

    fn sync(&mut self) {
        let visible = self.oracle.visible();
        let store = self.store_mut();
        let latched = store.wal().latched().is_some();
        match store.wal().sync() {
            Ok(_) => {
                assert!(!latched, "a latched log was synced");
                self.oracle.note_durable(visible);
            }
            Err(error) => self.excuse("a sync", &error),
        }
    }

    /// The maintainer did a step, or failed to.
    pub(crate) fn note_step(&mut self, step: Result<Step, StoreError>) {
        match step {
            Ok(Step::Idle) => {}
            Ok(Step::Sealed { .. }) => self.counts.add("seals", 1),
            Ok(Step::Merged { runs: 1, .. }) => self.counts.add("rewrites", 1),
            Ok(Step::Merged { .. }) => self.counts.add("merges", 1),
            Err(StoreError::Stopped) => {
                assert!(self.stop.is_some(), "nobody stopped it");
                self.counts.add("merges_stopped", 1);
            }
            Err(StoreError::NoRoomToMerge { .. }) => {
                assert!(self.limited, "there is room without end");
                self.counts.add("merges_without_room", 1);
            }
            Err(error) => {
                self.excuse("a step", &error);
                self.counts.add("steps_failed", 1);
            }
        }
        self.note_durable();
    }

    /// The maintainer of this process.
    pub(crate) fn maintainer(&self) -> Maintainer {
        self.store().maintainer()
    }

    fn compare_held(&mut self) {
        if let Some((snapshot, model)) = self.held.pop_front() {
            if let Some(what) = difference(&snapshot, &model) {
                panic!("a snapshot of {} changed: {what}", snapshot.as_of());
            }
            ask(&snapshot, &model, &Pattern::ALL, 1000);
        }
    }

    fn look(&mut self) {
        let path = Path::new(PATH);
        let Some(bytes) = self.disk.sim.bytes(path) else { return };
        let catalog = read_catalog("the catalog", &bytes).expect("it is always whole");
        let files = catalog.runs.iter().map(|run| path.with_file_name(&run.file)).collect();
        self.lookers.push_back((self.disk.sim.hold(path), files));
    }

    /// Whoever has a catalog open finds all that it names, as long as there is room.
    pub fn check_lookers(&self) {
        if self.lookers.is_empty() || self.limited {
            return;
        }
        let files = self.disk.sim.names();
        for named in self.lookers.iter().flat_map(|(_, named)| named) {
            assert!(files.contains(named), "{} is gone under a reader", named.display());
        }
    }

    /// All that was kept is compared; the store is asked in every way.
    pub fn compare_all(&mut self) {
        while !self.held.is_empty() {
            self.compare_held();
        }
        self.compare("at the end");
        self.check_keys("at the end");
        ask(&self.snapshot(), self.oracle.model(), &Pattern::ALL, 16);
    }

    /// Gives the medium room for so many bytes more, or takes the limit away.
    pub(crate) fn limit(&mut self, more: Option<u64>) {
        if std::mem::replace(&mut self.limited, more.is_some()) {
            // What these read may have made room.
            self.lookers.clear();
        }
        let sim = &self.disk.sim;
        sim.set_capacity(more.map(|more| sim.used() + more));
    }

    /// What was tried in this history.
    pub fn counts(&self) -> Counts {
        let mut counts = self.counts.clone();
        counts.add_tally(&self.disk.sim.tally(), &self.beginning);
        counts.add("starts", self.starts);
        counts
    }
}

/// The log does not reach that far back, or forward.
pub(crate) fn is_out_of_reach(error: &WalError) -> bool {
    matches!(error, WalError::Gone { .. } | WalError::Ahead { .. })
}
