//! What became of mutations that came under an idempotency key: for their repeats.
//!
//! The record in the log says it, so that mutation and outcome are durable at one moment. What is sealed may
//! leave the log: therefore a file beside the catalog holds the outcomes of all mutations up to the catalog's
//! `sealed_seq` at least, written before a catalog says so. A start takes those from the file and the others
//! from the records that it replays. A store without keys has no such file.
//!
//! **Invariants**
//! - An outcome is in the table before its mutation is visible, and so before it can be sealed.
//! - What the file holds beyond the catalog's `sealed_seq` counts for nothing: a power cut may have taken the
//!   log's records of it. The file is replaced before a later catalog could make it count.

mod file;
mod table;

pub(crate) use file::{beside, decode, encode};
pub(crate) use table::{Entry, Table};

use crate::catalog::{self, create_beside, put_in_place};
use crate::error::StoreError;
use cidstore_disk::{Disk, Open};
use cidstore_types::{BatchRef, Fingerprint, Key, Seq};
use file::{ENTRY_BYTES, HEAD_BYTES, head};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Outcomes copied at once for the file: so long the writer may have to wait.
const COPIED_AT_ONCE: usize = 4096;
/// A file that holds so many outcomes more than twice as many as there still are is written anew.
const FORGOTTEN_MAX: usize = 1024;

/// The outcomes of a store, in memory and in their file.
pub(crate) struct Outcomes {
    path: PathBuf,
    store_id: [u8; 16],
    table: Mutex<Kept>,
}

/// The table, and what of it is in the file.
struct Kept {
    table: Table,
    /// The file holds the outcomes of all mutations up to this one.
    saved: Seq,
    /// How many it holds.
    in_file: usize,
    /// It also holds some that count for nothing, and must not come to count.
    stale: bool,
}

impl Kept {
    /// Whether the file must be written before everything up to `through` may leave the log.
    fn is_due(&self, through: Seq) -> bool {
        let unsaved = self.table.after(self.saved).next().is_some_and(|entry| entry.seq <= through);
        unsaved || self.stale || self.in_file > 2 * self.table.len() + FORGOTTEN_MAX
    }
}

impl Outcomes {
    /// Those that the file beside `catalog` holds of mutations up to `sealed`.
    ///
    /// # Errors
    /// What the disk says; [`StoreError::Outcomes`] if it is damaged, or that of another store.
    pub(crate) fn read(
        disk: &dyn Disk,
        catalog: &Path,
        store_id: [u8; 16],
        sealed: Seq,
    ) -> Result<Self, StoreError> {
        let path = beside(catalog);
        let mut kept = Kept { table: Table::default(), saved: sealed, in_file: 0, stale: false };
        match disk.open(&path, Open::Read) {
            Err(error) if error.is_not_found() => {}
            opened => {
                let entries = decode(&path, &opened?.read_all()?, &store_id)?;
                kept.in_file = entries.len();
                for entry in entries.into_iter().take_while(|entry| entry.seq <= sealed) {
                    kept.table.add(entry);
                }
                kept.stale = kept.table.len() < kept.in_file;
            }
        }
        Ok(Self { path, store_id, table: Mutex::new(kept) })
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Each change is complete before anything can panic.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are remembered.
    pub(crate) fn len(&self) -> usize {
        self.lock().table.len()
    }

    /// What became of the mutation under this key, unless that is longer ago than `ttl` seconds.
    pub(crate) fn find(&self, key: &Fingerprint, now: f64, ttl: u64) -> Option<Entry> {
        self.lock().table.find(key, now, ttl)
    }

    /// Whether there are fewer than `limit`, once those are forgotten that are over.
    pub(crate) fn has_room(&self, limit: usize, now: f64, ttl: u64) -> bool {
        let mut kept = self.lock();
        if kept.table.len() >= limit {
            kept.table.forget(now, ttl);
        }
        kept.table.len() < limit
    }

    /// Remembers outcomes, in the order of their mutations, and forgets those that are over. Returns how many
    /// there are then.
    pub(crate) fn add(&self, entries: &[Entry], now: f64, ttl: u64) -> usize {
        let mut kept = self.lock();
        for entry in entries {
            kept.table.add(*entry);
        }
        kept.table.forget(now, ttl);
        kept.table.len()
    }

    /// Remembers the outcome of a record, if it came under a key.
    pub(crate) fn add_record(&self, batch: &BatchRef<'_>, last_seq: Seq) {
        if let Some(entry) = Entry::of_record(batch, last_seq) {
            self.lock().table.add(entry);
        }
    }

    /// Makes the outcomes of all mutations up to `through` durable outside the log, where there are any. The
    /// file is written beside, synced, renamed, its folder synced. Nobody else may do so meanwhile.
    ///
    /// # Errors
    /// What the disk says; the former file or the new one is there.
    pub(crate) fn save(&self, disk: &dyn Disk, through: Seq) -> Result<(), StoreError> {
        if !self.lock().is_due(through) {
            return Ok(());
        }
        let in_file = match self.write(disk, through) {
            Ok(in_file) => in_file,
            Err(error) => {
                // Free what was taken, above all after ENOSPC; else the next attempt does.
                let _ = disk.remove(&catalog::beside(&self.path, ".new"));
                return Err(error);
            }
        };
        let mut kept = self.lock();
        (kept.saved, kept.in_file, kept.stale) = (through, in_file, false);
        Ok(())
    }

    /// Replaces the file. Returns how many outcomes it holds.
    fn write(&self, disk: &dyn Disk, through: Seq) -> Result<usize, StoreError> {
        let file = create_beside(disk, &self.path)?;
        let (mut bytes, mut begun) = (Vec::new(), 0..0);
        let (mut in_file, mut crc32c, mut last) = (0, 0, 0);
        loop {
            bytes.clear();
            {
                let kept = self.lock();
                let entries = kept.table.after(last).take_while(|entry| entry.seq <= through);
                for entry in entries.take(COPIED_AT_ONCE) {
                    last = entry.seq;
                    entry.encode_into(&mut bytes);
                }
            }
            if bytes.is_empty() {
                break;
            }
            let at = (HEAD_BYTES + in_file * ENTRY_BYTES) as u64;
            file.write_at(&bytes, at)?;
            let written = at..at + bytes.len() as u64;
            // Else the next sync of the log may have to wait for all of it.
            file.write_back(written.clone(), std::mem::replace(&mut begun, written))?;
            crc32c = crc32c::crc32c_append(crc32c, &bytes);
            in_file += bytes.len() / ENTRY_BYTES;
        }
        file.write_at(&head(&self.store_id, through, in_file as u64, crc32c), 0)?;
        file.sync_all()?;
        put_in_place(disk, &self.path)?;
        Ok(in_file)
    }
}

/// The outcomes of a group that is being staged.
#[derive(Default)]
pub(crate) struct Staging {
    pub(crate) entries: Vec<Entry>,
    places: HashMap<Fingerprint, usize>,
}

impl Staging {
    /// What became of the mutation under this key, within the group.
    pub(crate) fn find(&self, key: &Fingerprint) -> Option<Entry> {
        self.places.get(key).map(|at| self.entries[*at])
    }

    /// Adds one.
    pub(crate) fn add(&mut self, entry: Entry) {
        self.places.insert(entry.key, self.entries.len());
        self.entries.push(entry);
    }
}

/// A mutation's key, as the table knows it.
pub(crate) struct Asked {
    pub(crate) key: Fingerprint,
    pub(crate) request: Fingerprint,
}

impl Asked {
    pub(crate) fn of(key: &Key) -> Self {
        Self { key: Fingerprint::of_key(key.name()), request: key.fingerprint() }
    }
}
