//! A disk that lets something happen between any two of its operations.
//!
//! What the maintainer does takes long, and commits go on meanwhile. On one thread, and repeatable
//! from a seed, that is: a commit in the middle of the maintainer's I/O.

use cidstore_disk::sim::SimDisk;
use cidstore_disk::{Disk, File, Map, Open, Result};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Called before each operation that changes something, with its path.
type Hook = Box<dyn FnMut(&Path) + Send>;

/// A simulated disk with a hook. Clones share both.
#[derive(Clone)]
pub struct HookDisk {
    pub sim: SimDisk,
    hook: Arc<Mutex<Option<Hook>>>,
}

impl HookDisk {
    pub fn on(sim: SimDisk) -> Self {
        Self { sim, hook: Arc::default() }
    }

    /// Runs `work` with `hook` called before each of its operations; not before the hook's own.
    pub fn with_hook<T>(&self, hook: impl FnMut(&Path) + Send + 'static, work: impl FnOnce() -> T) -> T {
        *self.hook.lock().unwrap() = Some(Box::new(hook));
        let result = work();
        *self.hook.lock().unwrap() = None;
        result
    }

    fn tick(&self, path: &Path) {
        // Taken out while it runs: what it does itself does not call it.
        let hook = self.hook.lock().unwrap().take();
        if let Some(mut hook) = hook {
            hook(path);
            *self.hook.lock().unwrap() = Some(hook);
        }
    }
}

impl Disk for HookDisk {
    fn open(&self, path: &Path, how: Open) -> Result<Arc<dyn File>> {
        self.tick(path);
        Ok(Arc::new(HookFile { file: self.sim.open(path, how)?, disk: self.clone() }))
    }
    fn list(&self, dir: &Path) -> Result<Vec<String>> {
        self.sim.list(dir)
    }
    fn exists(&self, path: &Path) -> Result<bool> {
        self.sim.exists(path)
    }
    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        self.tick(dir);
        self.sim.create_dir_all(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.tick(from);
        self.sim.rename(from, to)
    }
    fn remove(&self, path: &Path) -> Result<()> {
        self.tick(path);
        self.sim.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.tick(dir);
        self.sim.sync_dir(dir)
    }
    fn map(&self, path: &Path) -> Result<Arc<dyn Map>> {
        self.tick(path);
        self.sim.map(path)
    }
    fn available_bytes(&self, dir: &Path) -> Result<u64> {
        self.sim.available_bytes(dir)
    }
}

struct HookFile {
    file: Arc<dyn File>,
    disk: HookDisk,
}

impl File for HookFile {
    fn path(&self) -> &Path {
        self.file.path()
    }
    fn len(&self) -> Result<u64> {
        self.file.len()
    }
    fn allocated(&self) -> Result<u64> {
        self.file.allocated()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.file.read_at(buf, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.disk.tick(self.path());
        self.file.write_at(bytes, offset)
    }
    fn allocate(&self, len: u64) -> Result<()> {
        self.disk.tick(self.path());
        self.file.allocate(len)
    }
    fn set_len(&self, len: u64) -> Result<()> {
        self.disk.tick(self.path());
        self.file.set_len(len)
    }
    fn sync_data(&self) -> Result<()> {
        self.disk.tick(self.path());
        self.file.sync_data()
    }
    fn sync_all(&self) -> Result<()> {
        self.disk.tick(self.path());
        self.file.sync_all()
    }
    fn is_in_use(&self) -> bool {
        self.file.is_in_use()
    }
}
