//! Sealing runs into files, merging files, and the catalog that names them.

use crate::catalog::CatalogFile;
use crate::error::StoreError;
use crate::garbage::Garbage;
use crate::hdf5::{Catalog, RunEntry};
use crate::list::{Claim, RunList};
use crate::merge::{Merge, NEVER_STOPPED};
use crate::options::StoreOptions;
use crate::run::Run;
use crate::seal;
use cidstore_disk::Disk;
use cidstore_types::Seq;
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
    /// Run files were merged into one.
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
}

/// Seals and merges, one step at a time. A store has one, or one [`Sealer`] and one [`Merger`], which
/// may run beside each other, the writer and any readers.
pub struct Maintainer {
    sealer: Sealer,
    merger: Merger,
}

impl Maintainer {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let sealer = Sealer { shared: Arc::clone(&shared) };
        Self { sealer, merger: Merger { shared } }
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
        let rows = self.shared.write(&claim, &NEVER_STOPPED)?;
        Ok(Step::Sealed { rows, sealed_seq: self.shared.sealed_seq() })
    }
}

/// Merges run files, and removes those that nobody needs.
pub struct Merger {
    shared: Arc<Shared>,
}

impl Merger {
    /// Merges run files where the policy finds some.
    ///
    /// # Errors
    /// As [`Sealer::step`]; [`StoreError::Stopped`] after [`MergeStop::stop`].
    pub fn step(&mut self, merging: Merging) -> Result<Step, StoreError> {
        let shared = &self.shared;
        if shared.stop_merging.load(Ordering::Acquire) {
            return Err(StoreError::Stopped);
        }
        // A file that cannot be removed is no reason not to merge others.
        let removed = shared.collect_garbage();
        let StoreOptions { small_files_max, run_rows_max, .. } = shared.options;
        let Some(claim) = shared.list.claim_files(merging, small_files_max, run_rows_max) else {
            return removed.map(|()| Step::Idle);
        };
        let rows = shared.write(&claim, &shared.stop_merging)?;
        let runs = claim.runs.len();
        drop(claim);
        shared.collect_garbage()?;
        Ok(Step::Merged { runs, rows })
    }

    /// What stops a step that is under way.
    pub fn stopper(&self) -> MergeStop {
        MergeStop { shared: Arc::clone(&self.shared) }
    }
}

/// Stops a [`Merger`] for good, soon and without a trace: its merge can be made again another time.
pub struct MergeStop {
    shared: Arc<Shared>,
}

impl MergeStop {
    /// Has the step under way, and every later one, fail with [`StoreError::Stopped`].
    pub fn stop(&self) {
        self.shared.stop_merging.store(true, Ordering::Release);
    }
}

impl Shared {
    /// Merges the claimed runs into a file, puts it into the catalog and then into the list.
    fn write(&self, claim: &Claim, stop: &AtomicBool) -> Result<u64, StoreError> {
        match self.write_file(claim, stop) {
            Ok(run) => {
                let rows = run.len() as u64;
                self.rows_written.fetch_add(rows, Ordering::Relaxed);
                self.list.release(claim, Some(run));
                for file in claim.runs.iter().filter_map(|run| run.file.as_ref()) {
                    file.mark_obsolete();
                }
                Ok(rows)
            }
            Err(error) => {
                self.list.release(claim, None);
                Err(error)
            }
        }
    }

    fn lock_catalog(&self) -> MutexGuard<'_, CatalogFile> {
        // Its content is replaced as a whole, so a panic elsewhere cannot have broken it.
        self.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_file(&self, claim: &Claim, stop: &AtomicBool) -> Result<Run, StoreError> {
        // A merge gives its result new checksums: what is damaged must not get one. And what is read here
        // from front to back need not be read from all over by the merge.
        for file in claim.runs.iter().filter_map(|run| run.file.as_ref()) {
            if stop.load(Ordering::Acquire) {
                return Err(StoreError::Stopped);
            }
            file.verify(&*self.disk)?;
        }
        let merge = Merge::new(&claim.runs, claim.bottom, stop);
        let id = self.list.new_id();
        let (first_seq, last_seq) = merge.seqs();
        if merge.is_stopped() {
            return Err(StoreError::Stopped);
        }
        let (run, entry) = if merge.triples_len() + merge.tombstones_len() == 0 {
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
            let (run, entry) = seal::seal(&place, &merge, id)?;
            (run, Some(entry))
        };
        let old: Vec<u64> =
            claim.runs.iter().filter_map(|run| run.file.as_ref()).map(|file| file.number).collect();
        let sealed = self.replace_catalog(|catalog| splice(catalog, &old, entry, last_seq));
        if let (Err(_), Some(file)) = (&sealed, &run.file) {
            if self.lock_catalog().is_uncertain() {
                // The catalog on disk may or may not name the new file: it stays until the next
                // start finds out.
                tracing::warn!(path = %file.path.display(), "run file written, but the catalog could not be replaced");
            } else {
                file.mark_obsolete();
            }
        }
        sealed.map(|()| run)
    }

    fn replace_catalog(&self, change: impl FnOnce(&mut Catalog)) -> Result<(), StoreError> {
        let mut catalog = self.lock_catalog();
        catalog.replace(&*self.disk, change)?;
        self.sealed_seq.store(catalog.content().sealed_seq, Ordering::Release);
        Ok(())
    }

    /// Removes the files that nobody reads any more.
    fn collect_garbage(&self) -> Result<(), StoreError> {
        let snapshot = self.list.snapshot();
        let in_use = snapshot.runs.iter().filter_map(|run| run.file.as_ref()).map(|file| file.bytes).sum();
        self.garbage.collect(&*self.disk, in_use)
    }
}

/// The catalog with `entry` in the place of the runs `old`, or at the end if there are none.
fn splice(catalog: &mut Catalog, old: &[u64], entry: Option<RunEntry>, last_seq: Seq) {
    let start = catalog.runs.iter().position(|run| old.contains(&run.id)).unwrap_or(catalog.runs.len());
    catalog.runs.splice(start..start + old.len(), entry);
    catalog.sealed_seq = catalog.sealed_seq.max(last_seq);
}
