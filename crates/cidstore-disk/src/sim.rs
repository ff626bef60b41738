//! A medium for tests that loses what was not synced.
//!
//! Everything is kept twice: as the processes see it, and as it would be found after a power cut.
//! Between two syncs the second may have any part of the first: any subset of the 512-byte sectors
//! of each write, any subset of the names created, renamed and removed (a rename is one change).
//! Which, a seed decides.

use crate::{Disk, DiskError, File, Map, Open, Result};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes that the medium writes whole or not at all.
pub const SECTOR_BYTES: u64 = 512;

/// The simulated medium. Clones share it.
#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    inodes: Vec<Inode>,
    live: BTreeMap<PathBuf, usize>,
    durable: BTreeMap<PathBuf, usize>,
    dirs: Vec<PathBuf>,
    /// Changes of names since the last sync of their directory.
    names: Vec<NameChange>,
    operations: u64,
    fail: Option<(u64, ErrorKind)>,
    fail_all_after: bool,
    capacity: Option<u64>,
    /// Handles opened before this count are of a process that died.
    generation: u64,
}

#[derive(Default, Clone)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Write>,
    /// Other programs that have it open and locked.
    held: u32,
}

#[derive(Clone)]
enum Write {
    Bytes { offset: u64, bytes: Vec<u8> },
    Len(u64),
}

#[derive(Clone)]
struct NameChange {
    dir: PathBuf,
    unset: Option<PathBuf>,
    set: Option<(PathBuf, usize)>,
}

/// A small generator (`SplitMix64`, Steele et al. 2014), so that a seed replays exactly.
pub struct Seeded(pub u64);

impl Seeded {
    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound
    }

    fn coin(&mut self) -> bool {
        self.next_u64() & 1 == 1
    }
}

impl SimDisk {
    /// An empty medium.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The power is cut. What was not synced survives in part, as the seed decides; handles from
    /// before are dead.
    pub fn crash(&self, seed: u64) {
        let mut random = Seeded(seed);
        // Some cuts lose or keep everything: the two ends of what may happen.
        let mode = random.below(4);
        let survives = |random: &mut Seeded| match mode {
            0 => false,
            1 => true,
            _ => random.coin(),
        };
        let state = &mut *self.state();
        for inode in &mut state.inodes {
            for write in std::mem::take(&mut inode.pending) {
                match write {
                    Write::Len(len) if survives(&mut random) => inode.durable.resize(len as usize, 0),
                    Write::Len(_) => {}
                    Write::Bytes { offset, bytes } => {
                        let mut at = offset;
                        while at < offset + bytes.len() as u64 {
                            let end =
                                ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(offset + bytes.len() as u64);
                            if survives(&mut random) {
                                let part = &bytes[(at - offset) as usize..(end - offset) as usize];
                                put(&mut inode.durable, at, part);
                            }
                            at = end;
                        }
                    }
                }
            }
            inode.live.clone_from(&inode.durable);
        }
        for change in std::mem::take(&mut state.names) {
            if survives(&mut random) {
                change.apply(&mut state.durable);
            }
        }
        state.live = state.durable.clone();
        state.fail = None;
        state.fail_all_after = false;
        state.generation += 1;
    }

    /// The process is killed: the operating system still has all that it wrote.
    pub fn kill(&self) {
        let mut state = self.state();
        state.fail = None;
        state.fail_all_after = false;
        state.generation += 1;
    }

    /// Operations that change something (writes, syncs, names) so far.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Makes the `n`-th operation from now (0 is the next) fail.
    pub fn fail_nth(&self, n: u64, kind: ErrorKind) {
        let mut state = self.state();
        state.fail = Some((state.operations + n, kind));
        state.fail_all_after = false;
    }

    /// Makes the `n`-th operation from now and all after it fail, as if the process ended there.
    pub fn stop_at(&self, n: u64) {
        let mut state = self.state();
        state.fail = Some((state.operations + n, ErrorKind::Other));
        state.fail_all_after = true;
    }

    /// Limits the bytes of all files together; `None` for no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Flips one bit of a file, at rest and as it is seen.
    ///
    /// # Panics
    /// If there is no such file or byte.
    pub fn flip_bit(&self, path: &Path, bit: u64) {
        let state = &mut *self.state();
        let inode = &mut state.inodes[state.live[path]];
        let (byte, mask) = ((bit / 8) as usize, 1 << (bit % 8));
        inode.live[byte] ^= mask;
        if let Some(byte) = inode.durable.get_mut(byte) {
            *byte ^= mask;
        }
    }

    /// Another program opens a file, and holds a lock on it until the holder is dropped.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn hold(&self, path: &Path) -> Holder {
        let state = &mut *self.state();
        let inode = state.live[path];
        state.inodes[inode].held += 1;
        Holder { disk: self.clone(), inode }
    }

    /// All files with their bytes as they are seen.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let state = self.state();
        state.live.iter().map(|(path, inode)| (path.clone(), state.inodes[*inode].live.clone())).collect()
    }
}

fn put(to: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let (start, end) = (offset as usize, offset as usize + bytes.len());
    if to.len() < end {
        to.resize(end, 0);
    }
    to[start..end].copy_from_slice(bytes);
}

fn error(op: &'static str, path: &Path, kind: ErrorKind) -> DiskError {
    DiskError { op, path: path.to_owned(), source: io::Error::from(kind) }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        if let Some(path) = &self.unset {
            names.remove(path);
        }
        if let Some((path, inode)) = &self.set {
            names.insert(path.clone(), *inode);
        }
    }
}

impl State {
    /// Counts an operation, and fails it if it was chosen to.
    fn operate(&mut self, op: &'static str, path: &Path) -> Result<()> {
        let number = self.operations;
        self.operations += 1;
        match self.fail {
            Some((n, kind)) if n == number || (self.fail_all_after && n < number) => {
                Err(error(op, path, kind))
            }
            _ => Ok(()),
        }
    }

    fn reserve(&self, op: &'static str, path: &Path, more: u64) -> Result<()> {
        let used: u64 = self.live.values().map(|inode| self.inodes[*inode].live.len() as u64).sum();
        match self.capacity {
            Some(capacity) if more > 0 && used + more > capacity => {
                Err(error(op, path, ErrorKind::StorageFull))
            }
            _ => Ok(()),
        }
    }

    fn rename(&mut self, unset: Option<&Path>, set: Option<(&Path, usize)>) {
        let path = set.map(|(path, _)| path).or(unset).unwrap_or(Path::new(""));
        let change = NameChange {
            dir: path.parent().unwrap_or(Path::new("")).to_owned(),
            unset: unset.map(Path::to_owned),
            set: set.map(|(path, inode)| (path.to_owned(), inode)),
        };
        change.apply(&mut self.live);
        self.names.push(change);
    }

    fn find(&self, op: &'static str, path: &Path) -> Result<usize> {
        self.live.get(path).copied().ok_or_else(|| error(op, path, ErrorKind::NotFound))
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, how: Open) -> Result<Arc<dyn File>> {
        let mut state = self.state();
        let inode = if how == Open::Create {
            state.operate("create", path)?;
            if state.live.contains_key(path) {
                return Err(error("create", path, ErrorKind::AlreadyExists));
            }
            state.inodes.push(Inode::default());
            let inode = state.inodes.len() - 1;
            state.rename(None, Some((path, inode)));
            inode
        } else {
            state.find("open", path)?
        };
        let generation = state.generation;
        Ok(Arc::new(SimFile { disk: self.clone(), inode, path: path.to_owned(), generation }))
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>> {
        let state = self.state();
        let within = state.live.keys().filter(|path| path.parent() == Some(dir));
        Ok(within.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect())
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        let state = self.state();
        Ok(state.live.contains_key(path) || state.dirs.iter().any(|dir| dir == path))
    }

    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        let mut state = self.state();
        state.operate("create directory", dir)?;
        if !state.dirs.iter().any(|known| known == dir) {
            state.dirs.push(dir.to_owned());
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let mut state = self.state();
        state.operate("rename", from)?;
        let inode = state.find("rename", from)?;
        state.rename(Some(from), Some((to, inode)));
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let mut state = self.state();
        state.operate("remove", path)?;
        state.find("remove", path)?;
        state.rename(Some(path), None);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        let state = &mut *self.state();
        state.operate("sync directory", dir)?;
        let (synced, rest) =
            std::mem::take(&mut state.names).into_iter().partition(|change| change.dir == dir);
        state.names = rest;
        let synced: Vec<NameChange> = synced;
        for change in synced {
            change.apply(&mut state.durable);
        }
        Ok(())
    }

    fn map(&self, path: &Path) -> Result<Arc<dyn Map>> {
        let state = self.state();
        let inode = state.find("map", path)?;
        Ok(Arc::new(SimMap::copy_of(&state.inodes[inode].live)))
    }

    fn available_bytes(&self, _dir: &Path) -> Result<u64> {
        let state = self.state();
        let used: u64 = state.live.values().map(|inode| state.inodes[*inode].live.len() as u64).sum();
        Ok(state.capacity.unwrap_or(u64::MAX).saturating_sub(used))
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
    fn of_this_process(&self, op: &'static str) -> Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        if state.generation != self.generation {
            return Err(error(op, &self.path, ErrorKind::BrokenPipe));
        }
        Ok(state)
    }

    /// Counts a changing operation.
    fn operate(&self, op: &'static str) -> Result<MutexGuard<'_, State>> {
        let mut state = self.of_this_process(op)?;
        state.operate(op, &self.path)?;
        Ok(state)
    }

    fn sync(&self) -> Result<()> {
        let mut state = self.operate("sync")?;
        let inode = &mut state.inodes[self.inode];
        inode.pending.clear();
        inode.durable = inode.live.clone();
        Ok(())
    }
}

impl File for SimFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> Result<u64> {
        Ok(self.disk.state().inodes[self.inode].live.len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let state = self.disk.state();
        let bytes = state.inodes[self.inode].live.get(offset as usize..).unwrap_or_default();
        let read = bytes.len().min(buf.len());
        buf[..read].copy_from_slice(&bytes[..read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let mut state = self.of_this_process("write")?;
        let more = (offset + bytes.len() as u64).saturating_sub(state.inodes[self.inode].live.len() as u64);
        let outcome =
            state.operate("write", &self.path).and_then(|()| state.reserve("write", &self.path, more));
        // A write that fails has often written a part: here its first half, up to a sector's border.
        let border = (offset + bytes.len() as u64 / 2) / SECTOR_BYTES * SECTOR_BYTES;
        let part = match outcome {
            Ok(()) => bytes,
            Err(_) => &bytes[..border.saturating_sub(offset) as usize],
        };
        if !part.is_empty() {
            let inode = &mut state.inodes[self.inode];
            put(&mut inode.live, offset, part);
            inode.pending.push(Write::Bytes { offset, bytes: part.to_owned() });
        }
        outcome
    }

    fn allocate(&self, len: u64) -> Result<()> {
        if self.len()? < len { self.set_len(len) } else { Ok(()) }
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let mut state = self.operate("set the length of")?;
        let more = len.saturating_sub(state.inodes[self.inode].live.len() as u64);
        state.reserve("set the length of", &self.path, more)?;
        let inode = &mut state.inodes[self.inode];
        inode.live.resize(len as usize, 0);
        inode.pending.push(Write::Len(len));
        Ok(())
    }

    fn sync_data(&self) -> Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> Result<()> {
        self.sync()
    }

    fn is_in_use(&self) -> bool {
        self.disk.state().inodes[self.inode].held > 0
    }
}

/// Another program that has a file open; see [`SimDisk::hold`].
pub struct Holder {
    disk: SimDisk,
    inode: usize,
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.disk.state().inodes[self.inode].held -= 1;
    }
}

/// A copy of a file's bytes, aligned as a mapping would be for 8-byte values.
struct SimMap {
    words: Vec<u64>,
    len: usize,
}

impl SimMap {
    fn copy_of(bytes: &[u8]) -> Self {
        let word = |chunk: &[u8]| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_ne_bytes(word)
        };
        Self { words: bytes.chunks(8).map(word).collect(), len: bytes.len() }
    }
}

// SAFETY: the words are on the heap, and nothing changes them.
unsafe impl Map for SimMap {
    fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len]
    }
}
