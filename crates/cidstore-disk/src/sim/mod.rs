//! A medium for tests that loses what was not synced.
//!
//! **Owns** files in memory, each twice: as the processes see it, and as it would be found after a
//! power cut. Between two syncs the second may have any part of the first: any subset of the 512-byte
//! sectors of each write, any subset of the names created, renamed and removed (a rename is one
//! change). Also what else goes wrong with media: a full one, errors, short reads, bits that flip.
//!
//! **Knows nothing of** what is stored, and of chance: which part survives, the caller's seed or
//! function decides.
//!
//! **Invariants**
//! - The same calls give the same bytes, the same failures and the same trace.
//! - What a sync said is durable survives, except for what damages it at rest.
//! - A sync that fails forgets what it could not write: a later one succeeds without it, as on Linux.

mod bytes;
mod faults;
mod medium;
mod seeded;

pub use faults::{ReadFault, Tally};
pub use seeded::Seeded;

use crate::{Disk, File, Map, Open, Result};
use bytes::SimMap;
use medium::{Inode, Medium, error};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes that the medium writes whole or not at all.
pub const SECTOR_BYTES: u64 = 512;

/// The simulated medium. Clones share it; [`SimDisk::fork`] copies it.
#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<Medium>>);

impl SimDisk {
    /// An empty medium.
    pub fn new() -> Self {
        Self::default()
    }

    fn medium(&self) -> MutexGuard<'_, Medium> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another medium in the same state, unsynced parts included. Files are copied when they change.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self(Arc::new(Mutex::new(self.medium().clone())))
    }

    /// The power is cut. What was not synced survives in part, as the seed decides; handles from
    /// before are dead.
    pub fn crash(&self, seed: u64) {
        let mut random = Seeded(seed);
        let now = self.operations();
        // Some cuts lose or keep everything: the two ends of what may happen. Some keep what was
        // done first, some nearly all, the others any part.
        match random.below(6) {
            0 => self.crash_where(&mut |_| false),
            1 => self.crash_where(&mut |_| true),
            2 => {
                let kept = now - random.below(12).min(now);
                self.crash_where(&mut |by| by < kept);
            }
            3 => self.crash_where(&mut |_| !random.one_in(8)),
            _ => self.crash_where(&mut |_| random.one_in(2)),
        }
    }

    /// The power is cut. Of each part that was not synced, `survives` decides, given the number of the
    /// operation that made it; it is asked [`SimDisk::unsynced_parts`] times.
    pub fn crash_where(&self, survives: &mut dyn FnMut(u64) -> bool) {
        self.medium().cut_power(survives);
    }

    /// How many parts a power cut would take or leave, each by itself: sectors and lengths of files,
    /// and names.
    pub fn unsynced_parts(&self) -> u64 {
        self.medium().unsynced_parts()
    }

    /// The process is killed: the operating system still has all that it wrote.
    pub fn kill(&self) {
        self.medium().kill();
    }

    /// Operations that change something (writes, syncs, names) so far.
    pub fn operations(&self) -> u64 {
        self.tally().operations
    }

    /// What was done so far, and what went wrong.
    pub fn tally(&self) -> Tally {
        self.medium().faults.tally
    }

    /// Makes the `n`-th change from now (0 is the next) fail.
    pub fn fail_nth(&self, n: u64, kind: ErrorKind) {
        self.medium().faults.fail(n, kind, false);
    }

    /// Makes the `n`-th change from now and all after it fail, until [`SimDisk::heal`].
    pub fn fail_from(&self, n: u64, kind: ErrorKind) {
        self.medium().faults.fail(n, kind, true);
    }

    /// Makes the `n`-th read from now (opening and mapping included) fail.
    pub fn fail_nth_read(&self, n: u64, fault: ReadFault) {
        self.medium().faults.fail_read(n, fault);
    }

    /// Makes the `n`-th change from now and all after it fail, as if the process ended there.
    pub fn stop_at(&self, n: u64) {
        self.medium().faults.end(n);
    }

    /// Whether the change chosen by [`SimDisk::stop_at`] was reached.
    pub fn has_stopped(&self) -> bool {
        self.medium().faults.has_ended()
    }

    /// From now on, what was chosen to fail and is not reached when the process ends fails in a later
    /// one. Without this, the end of the process, or of the power, is the end of it.
    pub fn let_faults_outlive(&self) {
        self.medium().faults.outlive = true;
    }

    /// Nothing is chosen to fail any more.
    pub fn heal(&self) {
        self.medium().faults.heal();
    }

    /// From now on a file that becomes longer takes no room before it is written to, as after `ftruncate`
    /// on most file systems; [`File::allocate`] sets room aside as before.
    pub fn allocate_late(&self) {
        self.medium().allocates_late = true;
    }

    /// Limits the bytes that all files together have on the medium; `None` for no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.medium().capacity = bytes;
    }

    /// Bytes that all files together have on the medium.
    pub fn used(&self) -> u64 {
        self.medium().used()
    }

    /// Flips one bit of a file at rest. Maps that were made before do not show it.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn flip_bit(&self, path: &Path, bit: u64) {
        self.damage(path, |bytes| bytes.flip(bit));
    }

    /// Cuts a file at rest, or adds zeros to it.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn cut(&self, path: &Path, len: u64) {
        self.damage(path, |bytes| bytes.resize(len as usize));
    }

    fn damage(&self, path: &Path, damage: impl Fn(&mut bytes::Bytes)) {
        let medium = &mut *self.medium();
        medium.faults.tally.damaged += 1;
        medium.faults.note(|| format!("-- {} is damaged", path.display()));
        medium.inodes[medium.live[path]].damage(damage);
    }

    /// Another program opens a file, and holds a lock on it until the holder is dropped.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn hold(&self, path: &Path) -> Holder {
        let medium = &mut *self.medium();
        let inode = medium.live[path];
        medium.inodes[inode].held += 1;
        Holder { disk: self.clone(), inode }
    }

    /// All files with their bytes as they are seen.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let medium = self.medium();
        let bytes = |inode: &usize| medium.inodes[*inode].live.as_slice().to_owned();
        medium.live.iter().map(|(path, inode)| (path.clone(), bytes(inode))).collect()
    }

    /// Names of all files, as they are seen.
    pub fn names(&self) -> Vec<PathBuf> {
        self.medium().live.keys().cloned().collect()
    }

    /// The bytes of a file as they are seen, if it exists.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let medium = self.medium();
        Some(medium.inodes[*medium.live.get(path)?].live.as_slice().to_owned())
    }

    /// Keeps the last so many operations as text.
    pub fn keep_trace(&self, lines: usize) {
        self.medium().faults.keep_trace(lines);
    }

    /// What [`SimDisk::keep_trace`] kept, the oldest first.
    pub fn trace(&self) -> Vec<String> {
        self.medium().faults.trace()
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, how: Open) -> Result<Arc<dyn File>> {
        let mut medium = self.medium();
        let inode = if how == Open::Create {
            medium.operate("create", path, format_args!(""))?;
            if medium.live.contains_key(path) {
                return Err(error("create", path, ErrorKind::AlreadyExists));
            }
            medium.inodes.push(Inode::default());
            let inode = medium.inodes.len() - 1;
            medium.rename(None, Some((path, inode)));
            inode
        } else {
            medium.operate_read("open", path)?;
            medium.find("open", path)?
        };
        let generation = medium.generation;
        Ok(Arc::new(SimFile { disk: self.clone(), inode, path: path.to_owned(), generation }))
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>> {
        let mut medium = self.medium();
        medium.operate_read("list", dir)?;
        let within = medium.live.keys().filter(|path| path.parent() == Some(dir));
        Ok(within.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect())
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        let mut medium = self.medium();
        medium.operate_read("look for", path)?;
        Ok(medium.live.contains_key(path) || medium.dirs.iter().any(|dir| dir == path))
    }

    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        let mut medium = self.medium();
        medium.operate("create directory", dir, format_args!(""))?;
        if !medium.dirs.iter().any(|known| known == dir) {
            medium.dirs.push(dir.to_owned());
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let mut medium = self.medium();
        medium.operate("rename", from, format_args!(" to {}", to.display()))?;
        let inode = medium.find("rename", from)?;
        medium.rename(Some(from), Some((to, inode)));
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let mut medium = self.medium();
        medium.operate("remove", path, format_args!(""))?;
        medium.find("remove", path)?;
        medium.rename(Some(path), None);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        let mut medium = self.medium();
        medium.operate("sync directory", dir, format_args!(""))?;
        medium.sync_names(dir);
        Ok(())
    }

    fn map(&self, path: &Path) -> Result<Arc<dyn Map>> {
        let mut medium = self.medium();
        medium.operate_read("map", path)?;
        let inode = medium.find("map", path)?;
        Ok(Arc::new(SimMap(Arc::clone(&medium.inodes[inode].live))))
    }

    fn available_bytes(&self, _dir: &Path) -> Result<u64> {
        let medium = self.medium();
        Ok(medium.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(medium.used())))
    }
}

struct SimFile {
    disk: SimDisk,
    inode: usize,
    path: PathBuf,
    generation: u64,
}

impl SimFile {
    /// Handles of a dead process fail.
    fn of_this_process(&self, op: &'static str) -> Result<MutexGuard<'_, Medium>> {
        let medium = self.disk.medium();
        if medium.generation != self.generation {
            return Err(error(op, &self.path, ErrorKind::BrokenPipe));
        }
        Ok(medium)
    }

    /// Makes it `len` long; room is set aside for `written` of it.
    fn resize(&self, len: u64, written: Range<u64>) -> Result<()> {
        let medium = &mut *self.of_this_process("set the length of")?;
        let by = medium.faults.tally.operations;
        medium.operate("set the length of", &self.path, format_args!(" to {len}"))?;
        let taken = medium.taken(len, written);
        medium.reserve("set the length of", &self.path, self.inode, len, &taken)?;
        let inode = &mut medium.inodes[self.inode];
        inode.take(len, &taken);
        inode.set_len(by, len);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        let medium = &mut *self.of_this_process("sync")?;
        let outcome = medium.operate("sync", &self.path, format_args!(""));
        let inode = &mut medium.inodes[self.inode];
        match &outcome {
            Ok(()) => inode.sync(),
            // The end of the process or the power, which decides by itself what survives.
            Err(_) if medium.faults.has_ended() => {}
            Err(_) => inode.fail_to_sync(&mut Seeded(medium.faults.tally.operations)),
        }
        outcome
    }
}

impl File for SimFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> Result<u64> {
        Ok(self.of_this_process("size")?.inodes[self.inode].live.len() as u64)
    }

    fn allocated(&self) -> Result<u64> {
        Ok(self.of_this_process("size")?.inodes[self.inode].allocated())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let mut medium = self.of_this_process("read")?;
        let short = medium.operate_read("read", &self.path)?;
        let bytes = medium.inodes[self.inode].live.as_slice().get(offset as usize..).unwrap_or_default();
        let read = bytes.len().min(buf.len()) / if short { 2 } else { 1 };
        buf[..read].copy_from_slice(&bytes[..read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let medium = &mut *self.of_this_process("write")?;
        let end = offset + bytes.len() as u64;
        let len = end.max(medium.inodes[self.inode].live.len() as u64);
        let taken = medium.taken(len, offset..end);
        let by = medium.faults.tally.operations;
        let outcome = medium
            .operate("write", &self.path, format_args!(" {offset}..{end}"))
            .and_then(|()| medium.reserve("write", &self.path, self.inode, len, &taken));
        // A write that fails has often written a part: here its first half, up to a sector's border.
        let border = (offset + bytes.len() as u64 / 2) / SECTOR_BYTES * SECTOR_BYTES;
        let part = match outcome {
            Ok(()) => bytes,
            Err(_) => &bytes[..border.saturating_sub(offset) as usize],
        };
        if !part.is_empty() {
            let end = offset + part.len() as u64;
            let inode = &mut medium.inodes[self.inode];
            let len = end.max(inode.live.len() as u64);
            inode.take(len, &(taken.start..end.max(taken.start)));
            inode.put(by, offset, part);
        }
        outcome
    }

    fn allocate(&self, len: u64) -> Result<()> {
        let (longest, has_room) = {
            let inode = &self.of_this_process("size")?.inodes[self.inode];
            let longest = len.max(inode.live.len() as u64);
            (longest, inode.allocated_with(longest, &(0..len)) == inode.allocated())
        };
        if has_room { Ok(()) } else { self.resize(longest, 0..len) }
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.resize(len, 0..0)
    }

    fn sync_data(&self) -> Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> Result<()> {
        self.sync()
    }

    fn is_in_use(&self) -> bool {
        self.disk.medium().inodes[self.inode].held > 0
    }
}

/// Another program that has a file open; see [`SimDisk::hold`].
pub struct Holder {
    disk: SimDisk,
    inode: usize,
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.disk.medium().inodes[self.inode].held -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_by_what_is_written_or_set_aside() {
        let disk = SimDisk::new();
        disk.allocate_late();
        disk.set_capacity(Some(5000));
        let file = disk.open(Path::new("/a"), Open::Create).unwrap();
        // Longer than there is room for.
        file.set_len(10_000).unwrap();
        let numbers = || (file.len().unwrap(), file.allocated().unwrap(), disk.used());
        assert_eq!(numbers(), (10_000, 0, 0));
        // A sector, however little of it is written, and once.
        for at in [1000, 1001, 600] {
            file.write_at(&[1], at).unwrap();
            assert_eq!(numbers(), (10_000, 512, 512));
        }
        // The last one is as long as the file.
        file.write_at(&[1], 9_999).unwrap();
        assert_eq!(numbers(), (10_000, 512 + 272, 784));
        file.allocate(1024).unwrap();
        assert_eq!(numbers(), (10_000, 1024 + 272, 1296));
        assert_eq!(disk.available_bytes(Path::new("/")).unwrap(), 5000 - 1296);
        // There is no room for all of it; some of the first half is written.
        assert!(file.write_at(&[2; 6000], 2048).unwrap_err().is_full());
        assert_eq!(numbers(), (10_000, 1296 + 5 * 512, 1296 + 5 * 512));
    }
}
