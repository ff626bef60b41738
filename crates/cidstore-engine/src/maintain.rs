//! Sealing runs into files, merging files, and the catalog that names them.

use crate::catalog::CatalogFile;
use crate::error::StoreError;
use crate::hdf5::{Catalog, RunEntry};
use crate::list::{Claim, RunList};
use crate::merge::Merge;
use crate::options::StoreOptions;
use crate::run::Run;
use crate::seal;
use cidstore_disk::Disk;
use cidstore_types::Seq;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What the writer, the readers and the maintainer share.
pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) list: RunList,
    pub(crate) options: StoreOptions,
    pub(crate) store_id: [u8; 16],
    pub(crate) sealed_seq: AtomicU64,
    pub(crate) garbage: Arc<Garbage>,
    /// The catalog as it is on disk; only the maintainer changes it.
    pub(crate) catalog: Mutex<CatalogFile>,
    /// Rows written into run files since the start, for write amplification.
    pub(crate) rows_written: AtomicU64,
}

impl Shared {
    pub(crate) fn sealed_seq(&self) -> Seq {
        self.sealed_seq.load(Ordering::Acquire)
    }
}

/// Paths of run files that nobody reads any more.
#[derive(Default)]
pub struct Garbage(Mutex<Vec<PathBuf>>);

impl Garbage {
    pub(crate) fn add(&self, path: PathBuf) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(path);
    }

    fn take(&self) -> Vec<PathBuf> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
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

/// Seals and merges. There must be one only; it may run beside the writer and any readers.
pub struct Maintainer {
    shared: Arc<Shared>,
}

impl Maintainer {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Does the next piece of work there is: seals memory when it holds enough, or else merges run
    /// files; removes files that nobody needs.
    ///
    /// # Errors
    /// [`StoreError`]. What was being made is abandoned; nothing that was there is lost, and the
    /// step may be tried again.
    pub fn step(&mut self) -> Result<Step, StoreError> {
        self.collect_garbage()?;
        if self.shared.memory_rows() >= self.shared.options.seal_rows {
            return self.seal();
        }
        let options = &self.shared.options;
        let Some(claim) = self.shared.list.claim_files(options.file_fan_in, options.run_rows_max) else {
            return Ok(Step::Idle);
        };
        let rows = self.write(&claim)?;
        self.collect_garbage()?;
        Ok(Step::Merged { runs: claim.runs.len(), rows })
    }

    /// Seals all that is visible now, and returns the sequence number up to which everything is in
    /// run files.
    ///
    /// # Errors
    /// As [`Maintainer::step`].
    pub fn checkpoint(&mut self) -> Result<Seq, StoreError> {
        let target = self.shared.list.snapshot().as_of;
        while self.shared.sealed_seq() < target {
            let before = self.shared.sealed_seq();
            self.seal()?;
            if self.shared.sealed_seq() == before {
                // What is left has no effect: it was inserted and deleted again in memory.
                self.replace_catalog(|catalog| catalog.sealed_seq = target)?;
            }
        }
        Ok(self.shared.sealed_seq())
    }

    /// Seals the oldest runs in memory.
    fn seal(&mut self) -> Result<Step, StoreError> {
        let Some(claim) = self.shared.list.claim_memory() else { return Ok(Step::Idle) };
        let rows = self.write(&claim)?;
        Ok(Step::Sealed { rows, sealed_seq: self.shared.sealed_seq() })
    }

    /// Merges the claimed runs into a file, puts it into the catalog and then into the list.
    fn write(&mut self, claim: &Claim) -> Result<u64, StoreError> {
        let written = self.write_file(claim);
        match written {
            Ok(run) => {
                let rows = run.len() as u64;
                self.shared.rows_written.fetch_add(rows, Ordering::Relaxed);
                self.shared.list.release(claim, Some(run));
                for file in claim.runs.iter().filter_map(|run| run.file.as_ref()) {
                    file.mark_obsolete();
                }
                Ok(rows)
            }
            Err(error) => {
                self.shared.list.release(claim, None);
                Err(error)
            }
        }
    }

    fn write_file(&self, claim: &Claim) -> Result<Run, StoreError> {
        let shared = &self.shared;
        let merge = Merge::new(&claim.runs, claim.bottom);
        let id = shared.list.new_id();
        let (first_seq, last_seq) = merge.seqs();
        let number = {
            let mut catalog = shared.catalog.lock().unwrap_or_else(PoisonError::into_inner);
            catalog.new_number()
        };
        let (run, entry) = if merge.triples_len() + merge.tombstones_len() == 0 {
            (Run { id, seqs: (first_seq, last_seq), ..Run::default() }, None)
        } else {
            let place = seal::Place {
                disk: &shared.disk,
                dir: &shared.catalog.lock().unwrap_or_else(PoisonError::into_inner).runs_dir(),
                store_id: shared.store_id,
                number,
                garbage: &shared.garbage,
            };
            let (run, entry) = seal::seal(&place, &merge, id)?;
            (run, Some(entry))
        };
        let old: Vec<u64> =
            claim.runs.iter().filter_map(|run| run.file.as_ref()).map(|file| file.number).collect();
        let sealed = self.replace_catalog(|catalog| splice(catalog, &old, entry, last_seq));
        if let (Err(_), Some(file)) = (&sealed, &run.file) {
            // The catalog on disk may or may not name the new file: it stays until the next start
            // finds out.
            tracing::warn!(path = %file.path.display(), "run file written, but the catalog could not be replaced");
        }
        sealed.map(|()| run)
    }

    fn replace_catalog(&self, change: impl FnOnce(&mut Catalog)) -> Result<(), StoreError> {
        let mut catalog = self.shared.catalog.lock().unwrap_or_else(PoisonError::into_inner);
        catalog.replace(&*self.shared.disk, change)?;
        self.shared.sealed_seq.store(catalog.content().sealed_seq, Ordering::Release);
        Ok(())
    }

    fn collect_garbage(&self) -> Result<(), StoreError> {
        for path in self.shared.garbage.take() {
            self.shared.disk.remove(&path)?;
        }
        Ok(())
    }
}

/// The catalog with `entry` in the place of the runs `old`, or at the end if there are none.
fn splice(catalog: &mut Catalog, old: &[u64], entry: Option<RunEntry>, last_seq: Seq) {
    let start = catalog.runs.iter().position(|run| old.contains(&run.id)).unwrap_or(catalog.runs.len());
    catalog.runs.splice(start..start + old.len(), entry);
    catalog.sealed_seq = catalog.sealed_seq.max(last_seq);
}
