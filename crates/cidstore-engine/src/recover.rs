//! Opening a store: the catalog, the run files that it names, then the log beyond them.

use crate::builder::Builder;
use crate::catalog::{CatalogFile, beside};
use crate::error::StoreError;
use crate::hdf5::{Catalog, FORMAT_VERSION, RunEntry};
use crate::list::RunList;
use crate::maintain::{Maintainer, Shared};
use crate::options::StoreOptions;
use crate::outcomes::{self, Outcomes};
use crate::seal::{self, Place};
use cidstore_disk::Disk;
use cidstore_types::{BatchRef, Seq};
use cidstore_wal::{Log, Wal};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

/// Rows of the runs that replaying makes, and bytes of their metadata, about.
const REPLAY_ROWS: usize = 1 << 16;
/// See `REPLAY_ROWS`.
const REPLAY_TEXT_BYTES: usize = 8 << 20;

/// What opening a store found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenReport {
    /// Whether the store was made now.
    pub created: bool,
    /// Run files opened.
    pub runs: usize,
    /// All mutations up to this one were in run files.
    pub sealed_seq: Seq,
    /// Last mutation of the store.
    pub last_seq: Seq,
    /// Mutations replayed from the log.
    pub replayed: u64,
    /// Mutations that came under a key and are remembered.
    pub keys: usize,
    /// Files that an interrupted seal or merge had left, and that were removed.
    pub debris: Vec<String>,
    /// What the log found and did.
    pub wal: cidstore_wal::Recovery,
}

/// Opens or creates the store at `path`.
pub(crate) fn open(
    disk: Arc<dyn Disk>,
    path: &Path,
    options: StoreOptions,
) -> Result<(Arc<Shared>, Wal, OpenReport), StoreError> {
    let (wal_dir, runs_dir) = (beside(path, ".wal"), beside(path, ".runs"));
    let decision = crate::files::repair_decision(path);
    if disk.exists(&decision)? {
        return Err(StoreError::RepairUnfinished { path: decision });
    }
    let created = !disk.exists(path)?;
    let catalog = if created {
        refuse_if_used(&*disk, path, &[&wal_dir, &runs_dir])?;
        let outcomes = outcomes::beside(path);
        if disk.exists(&outcomes)? {
            return Err(StoreError::CatalogMissing { catalog: path.to_owned(), other: outcomes });
        }
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            disk.create_dir_all(parent)?;
        }
        disk.create_dir_all(&runs_dir)?;
        let first = Catalog {
            format_version: FORMAT_VERSION,
            store_id: options.new_store_id,
            sealed_seq: 0,
            next_run_id: 1,
            runs: Vec::new(),
        };
        CatalogFile::create(&*disk, path, first)?
    } else {
        CatalogFile::read(&*disk, path)?
    };
    disk.create_dir_all(&runs_dir)?;

    let garbage = Arc::clone(catalog.garbage());
    let store_id = catalog.content().store_id;
    let mut runs = Vec::new();
    for entry in &catalog.content().runs {
        let place = Place { disk: &disk, dir: &runs_dir, store_id, number: entry.id, garbage: &garbage };
        let run = seal::open(&place, entry, runs.len() as u64 + 1).map_err(|error| unusable(entry, error))?;
        runs.push(Arc::new(run));
    }
    let (runs_len, sealed_seq) = (runs.len(), catalog.content().sealed_seq);
    let outcomes = Outcomes::read(&*disk, path, store_id, sealed_seq)?;

    let wal_options = cidstore_wal::Options {
        segment_bytes: options.segment_bytes,
        nonce: options.nonce,
        next_seq: sealed_seq + 1,
    };
    let (wal, recovery) = Wal::open(Arc::clone(&disk), &wal_dir, store_id, wal_options)?;
    let log = wal.log();
    if log.first_seq() > sealed_seq + 1 {
        return Err(StoreError::LogGap { path: wal_dir, sealed: sealed_seq, log: log.first_seq() });
    }
    // Not before everything else fits together: with another catalog this may be all there is.
    let debris = remove_debris(&*disk, &runs_dir, catalog.content())?;
    let shared = Arc::new(Shared {
        disk,
        list: RunList::new(runs, sealed_seq),
        options,
        store_id,
        sealed_seq: AtomicU64::new(sealed_seq),
        garbage,
        catalog: Mutex::new(catalog),
        rows_written: AtomicU64::new(0),
        stop_merging: AtomicBool::new(false),
        give_up: AtomicBool::new(false),
        log: log.clone(),
        outcomes,
    });
    let replayed = replay(&shared, &log)?;
    let last_seq = shared.list.snapshot().as_of;
    let keys = shared.outcomes.len();
    let report =
        OpenReport { created, runs: runs_len, sealed_seq, last_seq, replayed, keys, debris, wal: recovery };
    Ok((shared, wal, report))
}

/// A store without a catalog may only be begun where there is nothing of another one.
fn refuse_if_used(disk: &dyn Disk, catalog: &Path, dirs: &[&Path]) -> Result<(), StoreError> {
    for dir in dirs {
        if disk.exists(dir)? && !disk.list(dir)?.is_empty() {
            return Err(StoreError::CatalogMissing { catalog: catalog.to_owned(), other: dir.to_path_buf() });
        }
    }
    Ok(())
}

/// Why a run file cannot be used; other reasons, as a lack of memory, are not the file's.
pub(crate) fn unusable(entry: &RunEntry, error: StoreError) -> StoreError {
    let of_the_file = match &error {
        StoreError::Disk(error) => error.is_not_found(),
        StoreError::Hdf5(_) | StoreError::RunMismatch { .. } => true,
        _ => false,
    };
    if !of_the_file {
        return error;
    }
    StoreError::Run {
        rows: entry.rows + entry.tombstones,
        first_seq: entry.first_seq,
        last_seq: entry.last_seq,
        source: Box::new(error),
    }
}

/// Removes run files that the catalog does not name: those of an interrupted seal or merge, and
/// those that a finished one had not yet removed.
fn remove_debris(disk: &dyn Disk, dir: &Path, catalog: &Catalog) -> Result<Vec<String>, StoreError> {
    let named: BTreeSet<String> = catalog.runs.iter().map(|run| seal::file_name(run.id)).collect();
    let ours = |name: &str| {
        let number = name.strip_suffix(".new").unwrap_or(name).strip_suffix(".h5");
        number.is_some_and(|number| number.len() >= 6 && number.bytes().all(|b| b.is_ascii_digit()))
    };
    let mut debris = disk.list(dir)?;
    debris.retain(|name| ours(name) && !named.contains(name));
    for name in &debris {
        disk.remove(&dir.join(name))?;
    }
    Ok(debris)
}

/// Applies the log beyond what is sealed. Memory stays bounded: what is too much for it is sealed
/// on the way.
fn replay(shared: &Arc<Shared>, log: &Log) -> Result<u64, StoreError> {
    let start = shared.sealed_seq() + 1;
    if log.last_seq() < start {
        return Ok(0);
    }
    let mut tail = log.tail(start)?;
    let mut builder = Builder::default();
    let mut last_seq = start - 1;
    let mut first_seq = start;
    let mut disk_is_full = false;
    let mut finish = |builder: &mut Builder, first: Seq, last: Seq| -> Result<(), StoreError> {
        let run = builder.finish(shared.list.new_id(), (first, last)).with_filters();
        shared.list.publish(vec![Arc::new(run)], last);
        shared.list.tidy(shared.options.memory_fan_in, shared.options.tidy_rows_max);
        if shared.memory_weight() >= shared.options.memory_rows_max && !disk_is_full {
            match Maintainer::new(Arc::clone(shared)).split().0.step() {
                // No reason not to start: what was not sealed fitted into memory before, but for the
                // last group.
                Err(error) if error.is_full() => disk_is_full = true,
                done => {
                    done?;
                }
            }
        }
        Ok(())
    };
    while let Some(entry) = tail.next()? {
        let batch = BatchRef::decode(entry.payload)
            .map_err(|source| StoreError::Record { seq: entry.first_seq, source })?;
        last_seq = entry.first_seq + u64::from(entry.count) - 1;
        shared.outcomes.add_record(&batch, last_seq);
        builder.push_batch(&batch);
        if builder.len() >= REPLAY_ROWS || builder.text_bytes() >= REPLAY_TEXT_BYTES {
            finish(&mut builder, first_seq, last_seq)?;
            first_seq = last_seq + 1;
        }
    }
    if !builder.is_empty() {
        finish(&mut builder, first_seq, last_seq)?;
    }
    Ok(last_seq + 1 - start)
}
