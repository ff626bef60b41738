//! The cursor on disk: how far Redis is known to be.
//!
//! The file, integers little-endian:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | `CIDMIRR1` |
//! | 8 | 16 | store id |
//! | 24 | 8 | seq: every mutation up to it is in Redis |
//! | 32 | 4 | 1 if a rebuild is owed, else 0 |
//! | 36 | 4 | CRC-32C of the 36 bytes before |

use crate::failure::Failure;
use cidstore_disk::{Disk, DiskError, Open};
use cidstore_types::Seq;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

const MAGIC: &[u8; 8] = b"CIDMIRR1";
const FILE_BYTES: usize = 40;
/// Least time between two writes of the file, but for those that must be there before going on.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// What the file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Position {
    /// Every mutation up to it is in Redis.
    pub seq: Seq,
    /// Redis must be rebuilt from the store, whatever `seq` says.
    pub rebuild_owed: bool,
}

/// The file, replaced whole: written beside, synced, renamed.
#[derive(Clone)]
pub(crate) struct CursorFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    store_id: [u8; 16],
}

/// Why a file that exists tells nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("{found} bytes, expected {FILE_BYTES}")]
    Length { found: u64 },
    #[error("bytes 0..8 are not the mark of a mirror cursor")]
    Magic,
    #[error("checksum at byte 36 is {found:08x}, expected {expected:08x}")]
    Checksum { found: u32, expected: u32 },
    #[error("it belongs to another store")]
    OtherStore,
}

impl CursorFile {
    pub fn new(disk: Arc<dyn Disk>, path: PathBuf, store_id: [u8; 16]) -> Self {
        Self { disk, path, store_id }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file: `None` if there is none, or why it cannot be used.
    pub fn load(&self) -> Result<Option<Result<Position, Unusable>>, DiskError> {
        if !self.disk.exists(&self.path)? {
            return Ok(None);
        }
        let file = self.disk.open(&self.path, Open::Read)?;
        let len = file.len()?;
        let mut bytes = [0; FILE_BYTES];
        if len != FILE_BYTES as u64 || file.read_at(&mut bytes, 0)? != FILE_BYTES {
            return Ok(Some(Err(Unusable::Length { found: len })));
        }
        Ok(Some(self.decode(&bytes)))
    }

    fn decode(&self, bytes: &[u8; FILE_BYTES]) -> Result<Position, Unusable> {
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        if &bytes[..8] != MAGIC {
            return Err(Unusable::Magic);
        }
        let (found, expected) = (u32_at(36), crc32c::crc32c(&bytes[..36]));
        if found != expected {
            return Err(Unusable::Checksum { found, expected });
        }
        if bytes[8..24] != self.store_id {
            return Err(Unusable::OtherStore);
        }
        let seq = Seq::from_le_bytes(bytes[24..32].try_into().expect("8 bytes"));
        Ok(Position { seq, rebuild_owed: u32_at(32) != 0 })
    }

    fn encode(&self, position: Position) -> [u8; FILE_BYTES] {
        let mut bytes = [0; FILE_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..24].copy_from_slice(&self.store_id);
        bytes[24..32].copy_from_slice(&position.seq.to_le_bytes());
        bytes[32] = position.rebuild_owed.into();
        let crc = crc32c::crc32c(&bytes[..36]);
        bytes[36..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Replaces the file. Durable when it returns.
    pub fn save(&self, position: Position) -> Result<(), DiskError> {
        let mut beside = self.path.clone().into_os_string();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        // One of these may be left from a crash.
        if self.disk.exists(&beside)? {
            self.disk.remove(&beside)?;
        }
        let file = self.disk.open(&beside, Open::Create)?;
        file.write_at(&self.encode(position), 0)?;
        file.sync_all()?;
        drop(file);
        self.disk.rename(&beside, &self.path)?;
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        self.disk.sync_dir(parent.unwrap_or(Path::new(".")))
    }
}

/// Saves the cursor from time to time, in the background: a sync takes milliseconds and more.
pub(crate) struct Keeper {
    file: CursorFile,
    saved: Position,
    begun_at: Instant,
    saving: Option<JoinHandle<(Position, Result<(), DiskError>)>>,
}

impl Keeper {
    pub fn new(file: CursorFile, saved: Position) -> Self {
        Self { file, saved, begun_at: Instant::now(), saving: None }
    }

    /// What a restart would find.
    pub fn saved(&self) -> Position {
        self.saved
    }

    /// Begins to save, when something is new and the last time is long enough ago. Tells how the
    /// one before went.
    pub async fn save_if_due(&mut self, position: Position) -> Result<(), Failure> {
        if self.saving.as_ref().is_some_and(|saving| !saving.is_finished()) {
            return Ok(());
        }
        let before = self.finish().await;
        if position != self.saved && self.begun_at.elapsed() >= SAVE_INTERVAL {
            self.begin(position);
        }
        before
    }

    /// Saves, and returns when it is durable.
    pub async fn save(&mut self, position: Position) -> Result<(), Failure> {
        // How an older one went does not matter any more.
        let _ = self.finish().await;
        self.begin(position);
        self.finish().await
    }

    fn begin(&mut self, position: Position) {
        self.begun_at = Instant::now();
        let file = self.file.clone();
        self.saving = Some(tokio::task::spawn_blocking(move || (position, file.save(position))));
    }

    async fn finish(&mut self) -> Result<(), Failure> {
        const REMEDY: &str = "check the data folder; the mirror goes on, and repeats itself after a restart";
        // Taken only when it is done: this future may be dropped while it waits.
        let Some(saving) = &mut self.saving else { return Ok(()) };
        let done = saving.await;
        self.saving = None;
        match done {
            Ok((position, Ok(()))) => {
                self.saved = position;
                Ok(())
            }
            Ok((_, Err(e))) => Err(Failure::store(format!("the mirror's cursor: {e}"), REMEDY)),
            Err(e) => Err(Failure::store(format!("saving the mirror's cursor ended badly: {e}"), REMEDY)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cidstore_disk::sim::SimDisk;

    #[test]
    fn round_trips_and_is_as_large_as_written_down() {
        let disk = Arc::new(SimDisk::new());
        let file = CursorFile::new(Arc::clone(&disk) as Arc<dyn Disk>, "/d/cursor".into(), [7; 16]);
        disk.create_dir_all(Path::new("/d")).unwrap();
        assert_eq!(file.load().unwrap(), None);
        let position = Position { seq: 1 << 40, rebuild_owed: true };
        file.save(position).unwrap();
        assert_eq!(file.load().unwrap(), Some(Ok(position)));
        assert_eq!(disk.files()[Path::new("/d/cursor")].len(), 40);
        let other = CursorFile::new(Arc::clone(&disk) as Arc<dyn Disk>, "/d/cursor".into(), [8; 16]);
        assert_eq!(other.load().unwrap(), Some(Err(Unusable::OtherStore)));
        for bit in 0..40 * 8 {
            disk.flip_bit(Path::new("/d/cursor"), bit);
            assert!(matches!(file.load().unwrap(), Some(Err(_))), "bit {bit}");
            disk.flip_bit(Path::new("/d/cursor"), bit);
        }
    }

    #[test]
    fn a_power_cut_at_any_moment_leaves_the_old_or_the_new() {
        let at = |seq| Position { seq, rebuild_owed: false };
        for (n, seed) in (0..12).flat_map(|n| (0..20).map(move |seed| (n, seed))) {
            let disk = Arc::new(SimDisk::new());
            disk.create_dir_all(Path::new("/d")).unwrap();
            let file = CursorFile::new(Arc::clone(&disk) as Arc<dyn Disk>, "/d/cursor".into(), [7; 16]);
            file.save(at(1)).unwrap();
            disk.stop_at(n);
            let saved = file.save(at(2)).is_ok();
            disk.crash(seed);
            let found = file.load().unwrap();
            let fits = if saved {
                found == Some(Ok(at(2)))
            } else {
                found == Some(Ok(at(1))) || found == Some(Ok(at(2)))
            };
            assert!(fits, "operation {n}, seed {seed}: {found:?}");
            // What is left of the interrupted one is no obstacle.
            file.save(at(3)).unwrap();
            assert_eq!(file.load().unwrap(), Some(Ok(at(3))));
        }
    }
}
