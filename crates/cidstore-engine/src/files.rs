//! A store's files for those who work on the files themselves: where they are, what their parts mean,
//! and how a new one is written.
//!
//! **Invariants**
//! - Nothing here changes a file that exists.
//! - A run file made here is made as the sealer makes one: durable, and opened once, before it has its
//!   name.

pub use crate::catalog::beside;
pub use crate::filter::{BLOCK_BYTES as FILTER_BLOCK_BYTES, key_hash, may_contain};
pub use crate::order::{Order, Row};
pub use crate::run::hash_prefix;
pub use crate::sample::Cut;
pub use crate::seal::file_name;

use crate::builder::Builder;
use crate::error::StoreError;
use crate::hdf5::{self, Catalog, PerColumn, RunEntry};
use crate::mentions::Around;
use crate::merge::{Merge, NEVER_STOPPED};
use crate::outcomes::{self, Entry};
use crate::seal::{self, Place};
use cidstore_disk::{Disk, Open};
use cidstore_types::{BatchRef, Op, Seq, Triple};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the parts of the store are whose catalog is at `catalog`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The catalog.
    pub catalog: PathBuf,
    /// The folder of run files.
    pub runs: PathBuf,
    /// The folder of the log.
    pub wal: PathBuf,
    /// The file with outcomes of mutations that came under a key, if there are any.
    pub outcomes: PathBuf,
    /// The lock.
    pub lock: PathBuf,
}

impl Places {
    /// The parts beside a catalog.
    pub fn of(catalog: &Path) -> Self {
        Self {
            catalog: catalog.to_owned(),
            runs: beside(catalog, ".runs"),
            wal: beside(catalog, ".wal"),
            outcomes: outcomes::beside(catalog),
            lock: beside(catalog, ".lock"),
        }
    }

    /// The file of a run.
    pub fn run(&self, number: u64) -> PathBuf {
        self.runs.join(file_name(number))
    }

    /// How a catalog names the file of a run: relative to the catalog's folder.
    pub fn run_name(&self, number: u64) -> String {
        let folder = self.runs.file_name().unwrap_or_default().to_string_lossy();
        format!("{folder}/{}", file_name(number))
    }
}

/// The file that says that a repair was decided and is not carried out yet. A store that has one does
/// not open.
pub fn repair_decision(catalog: &Path) -> PathBuf {
    beside(catalog, ".repair")
}

/// Reads a catalog.
///
/// # Errors
/// What the disk says; [`StoreError::Catalog`] if it is damaged.
pub fn read_catalog(disk: &dyn Disk, path: &Path) -> Result<Catalog, StoreError> {
    let file = disk.open(path, Open::Read)?;
    hdf5::read_catalog(&path.display().to_string(), &file.read_all()?).map_err(StoreError::Catalog)
}

/// What a file of outcomes of mutations that came under a key holds.
#[derive(Default)]
pub struct Outcomes(Vec<Entry>);

impl Outcomes {
    /// Reads the bytes of such a file of this store. `path` is for messages.
    ///
    /// # Errors
    /// [`StoreError::Outcomes`] says what is wrong.
    pub fn read(path: &Path, bytes: &[u8], store_id: &[u8; 16]) -> Result<Self, StoreError> {
        outcomes::decode(path, bytes, store_id).map(Self)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Leaves out those of mutations after `seq`.
    pub fn cut(&mut self, seq: Seq) {
        self.0.retain(|entry| entry.seq <= seq);
    }

    /// Adds that of the batch of a log record that ends with `last_seq`, if it came under a key and is newer
    /// than those that are there.
    pub fn push_batch(&mut self, batch: &BatchRef<'_>, last_seq: Seq) {
        if self.0.last().is_none_or(|last| last.seq < last_seq) {
            self.0.extend(Entry::of_record(batch, last_seq));
        }
    }

    /// The bytes of a file of them, which holds all of mutations up to `seq`.
    pub fn encode(&self, store_id: &[u8; 16], seq: Seq) -> Vec<u8> {
        outcomes::encode(&self.0, store_id, seq)
    }
}

/// Rows that become a run file. All of them are in memory until then, about 250 bytes for each.
#[derive(Default)]
pub struct NewRun {
    rows: Builder,
}

impl NewRun {
    /// Adds a mutation, newer than those before it.
    pub fn push(&mut self, op: Op, triple: &Triple, created_at: f64, metadata: Option<&str>) {
        self.rows.push(op, triple, created_at, metadata);
    }

    /// Adds the batch of a log record, newer than what is there.
    pub fn push_batch(&mut self, batch: &BatchRef<'_>) {
        self.rows.push_batch(batch);
    }

    /// How many mutations were added.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes of metadata that were added.
    pub fn text_bytes(&self) -> usize {
        self.rows.text_bytes()
    }

    /// How many elements the columns of a run file of these rows have, but for those of metadata.
    pub fn lens(mut self) -> PerColumn<u64> {
        let run = Arc::new(self.rows.finish(0, (0, 0)));
        let merge = Merge::new(std::slice::from_ref(&run), Around::bottom(false), &NEVER_STOPPED);
        seal::lens(&merge, &merge.indexes(), &[])
    }

    /// Writes what was added as the run file `number` into `dir`, which is not necessarily where the
    /// store has its run files. Durable when it returns. `None` where nothing was added.
    ///
    /// # Errors
    /// What the disk says; nothing is left then.
    pub fn write(
        mut self,
        disk: &Arc<dyn Disk>,
        dir: &Path,
        store_id: [u8; 16],
        number: u64,
        seqs: (Seq, Seq),
    ) -> Result<Option<RunEntry>, StoreError> {
        if self.is_empty() {
            return Ok(None);
        }
        let run = Arc::new(self.rows.finish(number, seqs));
        let place = Place { disk, dir, store_id, number, garbage: &Arc::default() };
        let merge = Merge::new(std::slice::from_ref(&run), Around::bottom(false), &NEVER_STOPPED);
        let (_, entry) = seal::seal(&place, &merge, number, &mut |_| Ok(()))?;
        Ok(Some(entry))
    }
}
