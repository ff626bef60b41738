//! Ends of the process and the power, and the starts that follow.

use crate::generate::{End, Fault};
use crate::keys;
use crate::world::World;
use cidstore_types::Seq;
use cidstore_wal::WalError;
use std::io::ErrorKind;

impl World {
    /// The process ends in some way, and a new one starts.
    pub(crate) fn restart(&mut self, end: End) {
        self.end(end);
        self.open();
    }

    /// The process is gone, and what becomes of the disk is left to the caller.
    pub(crate) fn abandon(&mut self) {
        self.note_durable();
        self.forget_process();
    }

    pub(crate) fn end(&mut self, end: End) {
        self.abandon();
        match end {
            End::Kill => self.disk.sim.kill(),
            End::PowerCut(seed) => self.crash(seed),
        }
    }

    fn crash(&mut self, seed: u64) {
        self.disk.sim.crash(seed);
        self.kept = false;
    }

    /// Everything up to here must be found.
    pub(crate) fn least(&self) -> Seq {
        if self.kept { self.oracle.visible() } else { self.oracle.durable() }
    }

    /// The process ends in order.
    pub(crate) fn close(&mut self, seal: bool) {
        if seal {
            let step = self.maintainer().checkpoint().map(|_| cidstore_engine::Step::Idle);
            self.note_step(step);
        }
        if let Err(error) = self.store_mut().wal().sync() {
            self.excuse("the last sync", &error);
        }
        self.restart(End::Kill);
    }

    /// A start, which must need no help, and what it finds. Where the disk fails it, the next one must
    /// succeed. There is none if the power is cut meanwhile.
    pub(crate) fn open(&mut self) {
        self.before = self.disk.sim.tally();
        let mut store = match self.try_open() {
            Ok(store) => store,
            Err(_) if self.disk.sim.has_stopped() => return,
            Err(error) => {
                self.excuse("a start", &error);
                if self.limited && error.is_full() && !self.has_reserve() {
                    self.limit(None);
                    self.counts.add("starts_without_room", 1);
                } else {
                    assert!(self.planned, "nothing is to fail any more, and a start does: {error}");
                    self.counts.add("starts_failed", 1);
                }
                self.heal();
                self.disk.sim.kill();
                return self.open();
            }
        };
        let snapshot = store.reader().snapshot();
        if let Err(what) = self.oracle.judge(&snapshot, self.least()) {
            panic!("a start found what cannot be: {what}");
        }
        let found = snapshot.as_of();
        self.oracle.accept(found);
        keys::check(&mut store, &self.oracle, found)
            .unwrap_or_else(|what| panic!("a start found what cannot be: {what}"));
        // What a start found must not be gone at the next one.
        assert_eq!(store.wal().synced_seq(), found, "what a start found is durable");
        if self.seen > found {
            let ahead = store.log().tail(self.seen + 1).err();
            assert!(matches!(ahead, Some(WalError::Ahead { last }) if last == found), "{ahead:?}");
            self.seen = found;
        }
        self.store = Some(store);
        self.kept = true;
    }

    /// Killed; then the power is cut at the n-th change of each of the next starts.
    pub(crate) fn cut_starts(&mut self, cuts: &[(u64, u64)]) {
        self.end(End::Kill);
        for (n, seed) in cuts {
            self.disk.sim.stop_at(*n);
            // Whether it got that far or not.
            drop(self.try_open());
            self.crash(*seed);
            self.counts.add("starts_cut", 1);
        }
        self.open();
    }

    /// Killed; then an operation of the next start fails.
    pub(crate) fn fail_start(&mut self, n: u64, fault: Fault) {
        self.end(End::Kill);
        self.before = self.disk.sim.tally();
        self.plan_fault(n, fault);
        match self.try_open() {
            Ok(store) => {
                let judged = self.oracle.judge(&store.reader().snapshot(), self.least());
                judged.unwrap_or_else(|what| {
                    panic!("a start in spite of {fault:?} found what cannot be: {what}")
                });
            }
            Err(error) => {
                self.excuse("a start", &error);
                self.counts.add("starts_failed", 1);
            }
        }
        self.heal();
        self.disk.sim.kill();
        self.open();
    }

    /// Whether the log's last segment has room behind its records, which a start on a full disk takes.
    fn has_reserve(&self) -> bool {
        let names = self.disk.sim.names();
        let last = names.iter().rfind(|path| path.extension().is_some_and(|extension| extension == "wal"));
        let bytes = last.and_then(|path| self.disk.sim.bytes(path)).unwrap_or_default();
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
        bytes.len() - used > 1024
    }

    /// Nothing fails any more, but for want of room.
    pub(crate) fn heal(&mut self) {
        self.disk.sim.heal();
        self.planned = false;
    }

    /// The n-th operation from now fails.
    pub(crate) fn plan_fault(&mut self, n: u64, fault: Fault) {
        self.planned = true;
        let sim = &self.disk.sim;
        match fault {
            Fault::Error => sim.fail_nth(n, ErrorKind::Other),
            Fault::Full => sim.fail_nth(n, ErrorKind::StorageFull),
            Fault::ErrorForGood => sim.fail_from(n, ErrorKind::Other),
            Fault::Read(fault) => sim.fail_nth_read(n, fault),
        }
    }
}
