//! Sealing runs into files, merging files, and the catalog that names them.

use crate::catalog::CatalogFile;
use crate::compaction::{self, Compaction, Pending};
use crate::error::{StoreError, UnreadablePage};
use crate::garbage::{Garbage, KEPT_BYTES};
use crate::hdf5::{Catalog, RunEntry};
use crate::list::{Claim, RunList};
use crate::merge::{Merge, NEVER_STOPPED};
use crate::options::StoreOptions;
use crate::outcomes::Outcomes;
use crate::output::Writing;
use crate::reopen;
use crate::room::Room;
use crate::run::Run;
use crate::seal::{self, RunFile};
use cidstore_disk::Disk;
use cidstore_types::Seq;
use cidstore_wal::Log;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the writer, the readers and the maintainer share.
pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) list: RunList,
    pub(crate) options: StoreOptions,
    pub(crate) store_id: [u8; 16],
    pub(crate) sealed_seq: AtomicU64,
    pub(crate) garbage: Arc<Garbage>,
    /// The catalog as it is on disk; sealing and merging change it.
    pub(crate) catalog: Mutex<CatalogFile>,
    /// Rows written into run files since the start, for write amplification.
    pub(crate) rows_written: AtomicU64,
    /// No merge of files is wanted any more.
    pub(crate) stop_merging: AtomicBool,
    /// The merge of files that is under way is not wanted any more.
    pub(crate) give_up: AtomicBool,
    /// What of it there is still decides what a repair could bring back.
    pub(crate) log: Log,
    /// What became of mutations that came under a key.
    pub(crate) outcomes: Outcomes,
}

impl Shared {
    pub(crate) fn sealed_seq(&self) -> Seq {
        self.sealed_seq.load(Ordering::Acquire)
    }
}

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing needed doing.
    Idle,
    /// Rows in memory were sealed into a file.
    Sealed {
        /// Rows of the file.
        rows: u64,
        /// All mutations up to this one are in run files now.
        sealed_seq: Seq,
    },
    /// Run files were merged into one, or one was written anew.
    Merged {
        /// How many there were.
        runs: usize,
        /// Rows of the result.
        rows: u64,
    },
}

/// How much merging of run files is worth its cost now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merging {
    /// More files are to come: only what keeps their number bounded.
    Needed,
    /// No more files come for the time being: as few as that pays for.
    Settling,
    /// Somebody asks for a compaction: as few files as their size allows, and little in them that is
    /// dead. It begins with the first such step, and is done with the one that is idle.
    Everything,
}

/// What a [`Merger`] tells while it merges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// A merge begins.
    Begun {
        /// How many run files it takes.
        runs: usize,
        /// Their rows.
        rows: u64,
        /// Bytes that it will read and write, at most.
        bytes: u64,
    },
    /// Bytes were moved since the last time. Whoever hears it may take time: that is how a merge is
    /// slowed down, or waits. After [`MergeStop::stop`] it is not worth any.
    Moved {
        /// From run files.
        read: u64,
        /// Into the new one.
        written: u64,
    },
}

type OnProgress = dyn FnMut(Progress) + Send;

/// Seals and merges, one step at a time. A store has one, or one [`Sealer`] and one [`Merger`], which
/// may run beside each other, the writer and any readers.
pub struct Maintainer {
    sealer: Sealer,
    merger: Merger,
}

impl Maintainer {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let sealer = Sealer { shared: Arc::clone(&shared) };
        Self { sealer, merger: Merger { shared, compaction: None, told: Box::new(|_| ()) } }
    }

    /// Its two halves, for a thread each: so that memory need not wait for a merge of files.
    pub fn split(self) -> (Sealer, Merger) {
        (self.sealer, self.merger)
    }

    /// Does the next piece of work there is, sealing first.
    ///
    /// # Errors
    /// As [`Sealer::step`].
    pub fn step(&mut self, merging: Merging) -> Result<Step, StoreError> {
        match self.sealer.step()? {
            Step::Idle => self.merger.step(merging),
            sealed => Ok(sealed),
        }
    }

    /// See [`Sealer::checkpoint`].
    ///
    /// # Errors
    /// As [`Sealer::step`].
    pub fn checkpoint(&mut self) -> Result<Seq, StoreError> {
        self.sealer.checkpoint()
    }
}

/// Moves rows from memory into run files.
pub struct Sealer {
    shared: Arc<Shared>,
}

impl Sealer {
    /// Seals memory if it holds enough.
    ///
    /// # Errors
    /// [`StoreError`]. What was being made is abandoned; nothing that was there is lost, and the
    /// step may be tried again.
    pub fn step(&mut self) -> Result<Step, StoreError> {
        if self.shared.memory_weight() < self.shared.options.seal_rows {
            return Ok(Step::Idle);
        }
        self.seal()
    }

    /// Seals all that is visible now, and returns the sequence number up to which everything is in
    /// run files.
    ///
    /// # Errors
    /// As [`Sealer::step`].
    pub fn checkpoint(&mut self) -> Result<Seq, StoreError> {
        let target = self.shared.list.snapshot().as_of;
        while self.shared.sealed_seq() < target {
            if self.seal()? == Step::Idle {
                // What is left has no effect: it was inserted and deleted again in memory.
                self.shared.replace_catalog(|catalog| catalog.sealed_seq = catalog.sealed_seq.max(target))?;
            }
        }
        Ok(self.shared.sealed_seq())
    }

    /// Seals the oldest runs in memory; idle where there are none.
    fn seal(&mut self) -> Result<Step, StoreError> {
        let Some(claim) = self.shared.list.claim_memory() else { return Ok(Step::Idle) };
        let (rows, _) = self.shared.write(&claim, &[], &NEVER_STOPPED, &mut |_| (), &mut None)?;
        Ok(Step::Sealed { rows, sealed_seq: self.shared.sealed_seq() })
    }
}

/// Merges run files, removes those that nobody needs, and takes back into service those that can be read
/// again.
pub struct Merger {
    shared: Arc<Shared>,
    compaction: Option<Compaction>,
    told: Box<OnProgress>,
}

impl Merger {
    /// Has `told` called while run files are merged.
    pub fn on_progress(&mut self, told: impl FnMut(Progress) + Send + 'static) {
        self.told = Box::new(told);
    }

    /// Forgets the compaction that has begun, if one has: the next one begins anew, with the files that there
    /// are then.
    pub fn forget_compaction(&mut self) {
        self.compaction = None;
    }

    /// What a compaction would rewrite if it began now, by a sample of the rows.
    ///
    /// # Errors
    /// [`StoreError::Stopped`] after [`MergeStop::stop`].
    pub fn pending(&self) -> Result<Pending, StoreError> {
        compaction::pending(&self.shared)
    }

    /// Removes the files that nobody reads any more, which every step does first.
    ///
    /// # Errors
    /// What the disk says; what could not be removed is tried again.
    pub fn tidy(&mut self) -> Result<(), StoreError> {
        self.shared.collect_garbage()
    }

    /// Run files that are out of service, since a page of them could not be read.
    pub fn unreadable(&self) -> Vec<UnreadablePage> {
        reopen::unreadable(&self.shared)
    }

    /// Reads such a file anew, from front to back. Where it is what was written, whatever depends on it is
    /// answered again from then on. When that is worth another attempt is the caller's decision.
    ///
    /// # Errors
    /// What is wrong with the file, or what the disk says: it stays as it is then. [`StoreError::Stopped`]
    /// after [`MergeStop::stop`].
    pub fn reopen(&mut self, path: &Path) -> Result<(), StoreError> {
        reopen::reopen(&self.shared, path)?;
        if let Some(compaction) = &mut self.compaction {
            compaction.forget_lack_of_room();
        }
        Ok(())
    }

    /// Merges run files where the policy finds some.
    ///
    /// # Errors
    /// As [`Sealer::step`]; [`StoreError::Stopped`] after [`MergeStop::stop`]; [`StoreError::GivenUp`] after
    /// [`MergeStop::give_up`]; [`StoreError::NoRoomToMerge`] where nothing is merged for lack of room, and
    /// where room became scarce while a file was written.
    pub fn step(&mut self, merging: Merging) -> Result<Step, StoreError> {
        let shared = Arc::clone(&self.shared);
        shared.refuse_if_stopped()?;
        // That was for a step before.
        shared.give_up.store(false, Ordering::Release);
        // A file that cannot be removed is no reason not to merge others.
        let removed = shared.collect_garbage();
        let claim = match self.claim(merging, &shared.room()?) {
            // Whoever merges has more right to that room than another program that reads.
            Err(StoreError::NoRoomToMerge { available, needed, .. })
                if shared.keep_nothing(needed - available) =>
            {
                self.claim(merging, &shared.room()?)
            }
            claim => claim,
        };
        let Some(claim) = claim? else {
            if merging == Merging::Everything {
                self.compaction = None;
            }
            return removed.map(|()| Step::Idle);
        };
        let asked = match (&self.compaction, merging) {
            (Some(compaction), Merging::Everything) => compaction.unverified(&claim),
            _ => Vec::new(),
        };
        let mut needed = None;
        let written = shared.write(&claim, &asked, &shared.stop_merging, &mut self.told, &mut needed);
        if let (Some(compaction), Merging::Everything) = (&mut self.compaction, merging) {
            match &written {
                Ok((_, number)) => compaction.merged(&claim, &asked, *number),
                Err(error) if error.is_full() => compaction.lacked_room(&claim, error, needed),
                Err(_) => {}
            }
        }
        let (rows, _) = written?;
        let runs = claim.runs.len();
        drop((claim, asked));
        // They are merged, whatever becomes of them: the next step removes them first, and says what it
        // cannot.
        let _ = shared.collect_garbage();
        Ok(Step::Merged { runs, rows })
    }

    /// Claims what is to be merged next.
    fn claim(&mut self, merging: Merging, room: &Room) -> Result<Option<Claim>, StoreError> {
        let shared = &*self.shared;
        match merging {
            Merging::Everything => {
                self.compaction.get_or_insert_with(|| Compaction::of(shared)).next(shared, room)
            }
            Merging::Needed | Merging::Settling => shared.claim_files(merging, room),
        }
    }

    /// What stops a step that is under way.
    pub fn stopper(&self) -> MergeStop {
        MergeStop { shared: Arc::clone(&self.shared) }
    }
}

/// Stops a [`Merger`], soon and without a trace: its merge can be made again another time.
pub struct MergeStop {
    shared: Arc<Shared>,
}

impl MergeStop {
    /// Has the step under way, and every later one, fail with [`StoreError::Stopped`].
    pub fn stop(&self) {
        self.shared.stop_merging.store(true, Ordering::Release);
    }

    /// Has the step under way fail with [`StoreError::GivenUp`] at the next piece that it reads or writes, if
    /// there is one, and no later step. For who hears of its [`Progress`].
    pub fn give_up(&self) {
        self.shared.give_up.store(true, Ordering::Release);
    }
}

impl Shared {
    /// After [`MergeStop::stop`].
    pub(crate) fn refuse_if_stopped(&self) -> Result<(), StoreError> {
        if self.stop_merging.load(Ordering::Acquire) { Err(StoreError::Stopped) } else { Ok(()) }
    }

    /// Merges the claimed runs into a file, puts it into the catalog and then into the list. Returns how
    /// many rows the file has, and its number if there is one. `needed` becomes how much room there must be
    /// for a merge to begin that file, as soon as that is known.
    fn write(
        &self,
        claim: &Claim,
        asked: &[Arc<RunFile>],
        stop: &AtomicBool,
        told: &mut OnProgress,
        needed: &mut Option<u64>,
    ) -> Result<(u64, Option<u64>), StoreError> {
        match self.write_file(claim, asked, stop, told, needed) {
            Ok(run) => {
                let (rows, number) = (run.len() as u64, run.file.as_ref().map(|file| file.number));
                self.rows_written.fetch_add(rows, Ordering::Relaxed);
                self.list.release(claim, Some(run));
                for file in claim.runs.iter().filter_map(|run| run.file.as_ref()) {
                    file.mark_obsolete();
                }
                Ok((rows, number))
            }
            Err(error) => {
                self.list.release(claim, None);
                // What comes of zeros that were not in the file says less than that.
                claim.check_readable()?;
                Err(error)
            }
        }
    }

    pub(crate) fn lock_catalog(&self) -> MutexGuard<'_, CatalogFile> {
        // Its content is replaced as a whole, so a panic elsewhere cannot have broken it.
        self.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `asked` are files around the claimed runs that were not verified yet.
    fn write_file(
        &self,
        claim: &Claim,
        asked: &[Arc<RunFile>],
        stop: &AtomicBool,
        told: &mut OnProgress,
        needed: &mut Option<u64>,
    ) -> Result<Run, StoreError> {
        self.make_catalog_certain()?;
        let files = || claim.runs.iter().filter_map(|run| run.file.as_ref());
        let bytes = |file: &Arc<RunFile>| file.bytes;
        let merged: u64 = files().map(bytes).sum();
        told(Progress::Begun {
            runs: claim.runs.len(),
            rows: claim.runs.iter().map(|run| run.len() as u64).sum(),
            bytes: merged * 2 + asked.iter().map(bytes).sum::<u64>(),
        });
        let go_on = || {
            if stop.load(Ordering::Acquire) {
                return Err(StoreError::Stopped);
            }
            // What is sealed from memory is always wanted.
            if merged > 0 && self.give_up.load(Ordering::Acquire) {
                return Err(StoreError::GivenUp);
            }
            Ok(())
        };
        // A merge gives its result new checksums: what is damaged must not get one, nor have a say in it.
        // And what is read here from front to back need not be read from all over by the merge.
        for file in asked.iter().chain(files()) {
            go_on()?;
            file.verify(&*self.disk, &mut |read| {
                told(Progress::Moved { read, written: 0 });
                go_on()
            })?;
        }
        let merge = Merge::new(&claim.runs, claim.around(), stop);
        let id = self.list.new_id();
        let (first_seq, last_seq) = merge.seqs();
        if merge.is_stopped() {
            return Err(StoreError::Stopped);
        }
        let (run, entry) = if merge.triples_len() + merge.tombstones_len() == 0 && claim.is_alone() {
            (Run { id, seqs: (first_seq, last_seq), ..Run::default() }, None)
        } else {
            let (number, dir) = {
                let mut catalog = self.lock_catalog();
                (catalog.new_number(), catalog.runs_dir())
            };
            let place = seal::Place {
                disk: &self.disk,
                dir: &dir,
                store_id: self.store_id,
                number,
                garbage: &self.garbage,
            };
            let (run, entry) = seal::seal(&place, &merge, id, &mut |writing| {
                match writing {
                    Writing::Begins { bytes } => *needed = Some(self.needed_for(bytes)),
                    Writing::Goes { written, .. } => told(Progress::Moved { read: 0, written }),
                }
                go_on()?;
                // What is sealed from memory makes the log shorter: it may take the last room.
                if merged > 0 { self.check_room(&dir, writing) } else { Ok(()) }
            })?;
            (run, Some(entry))
        };
        // Zeros in the place of what could not be read must not replace it.
        if let Err(unreadable) = claim.check_readable() {
            if let Some(file) = &run.file {
                file.mark_obsolete();
            }
            return Err(unreadable.into());
        }
        let old: Vec<u64> =
            claim.runs.iter().filter_map(|run| run.file.as_ref()).map(|file| file.number).collect();
        let sealed = self.replace_catalog(|catalog| splice(catalog, &old, entry, last_seq));
        if let (Err(_), Some(file)) = (&sealed, &run.file) {
            self.lock_catalog().leave_out(file);
        }
        sealed.map(|()| run)
    }

    /// Where the catalog on disk may be another than the one in memory, it is replaced by that one. Until
    /// that succeeds no run file is worth writing: it could not be named, and none that is unnamed may go.
    fn make_catalog_certain(&self) -> Result<(), StoreError> {
        let uncertain = self.lock_catalog().is_uncertain();
        if uncertain { self.replace_catalog(|_| ()) } else { Ok(()) }
    }

    fn replace_catalog(&self, change: impl FnOnce(&mut Catalog)) -> Result<(), StoreError> {
        let mut catalog = self.lock_catalog();
        let mut next = catalog.content().clone();
        change(&mut next);
        if next.sealed_seq > catalog.content().sealed_seq {
            // First, since nobody looks for outcomes in the log's part that the catalog says is sealed.
            self.outcomes.save(&*self.disk, next.sealed_seq)?;
        }
        catalog.replace(&*self.disk, next)?;
        self.sealed_seq.store(catalog.content().sealed_seq, Ordering::Release);
        Ok(())
    }

    /// Removes the files that nobody reads any more.
    fn collect_garbage(&self) -> Result<(), StoreError> {
        let snapshot = self.list.snapshot();
        let in_use = snapshot.runs.iter().filter_map(|run| run.file.as_ref()).map(|file| file.bytes).sum();
        self.garbage.collect(&*self.disk, KEPT_BYTES.max(in_use))
    }
}

/// The catalog with `entry` in the place of the runs `old`, or at the end if there are none.
fn splice(catalog: &mut Catalog, old: &[u64], entry: Option<RunEntry>, last_seq: Seq) {
    let start = catalog.runs.iter().position(|run| old.contains(&run.id)).unwrap_or(catalog.runs.len());
    catalog.runs.splice(start..start + old.len(), entry);
    catalog.sealed_seq = catalog.sealed_seq.max(last_seq);
}
