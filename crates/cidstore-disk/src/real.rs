//! The real file system.

use crate::guard::Guard;
use crate::{Disk, DiskError, File, Map, Open, Result};
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, fdatasync, flock, fsync, ftruncate, statvfs};
use rustix::io::{Errno, pread, pwrite, retry_on_intr};
use rustix::mm::{Advice, madvise};
use std::fs;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file system of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

fn error(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DiskError {
    let path = path.to_owned();
    move |source| DiskError { op, path, source }
}

fn errno(op: &'static str, path: &Path) -> impl FnOnce(Errno) -> DiskError {
    let with_io = error(op, path);
    move |errno| with_io(errno.into())
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, how: Open) -> Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(how != Open::Read).create_new(how == Open::Create);
        let op = if how == Open::Create { "create" } else { "open" };
        let file = options.open(path).map_err(error(op, path))?;
        Ok(Arc::new(RealFile { file, path: path.to_owned() }))
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir).map_err(error("list", dir))? {
            let entry = entry.map_err(error("list", dir))?;
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        path.try_exists().map_err(error("look for", path))
    }

    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        let mut missing: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.exists()).collect();
        missing.retain(|dir| !dir.as_os_str().is_empty());
        fs::create_dir_all(dir).map_err(error("create directory", dir))?;
        for made in missing {
            let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty());
            self.sync_dir(parent.unwrap_or(Path::new(".")))?;
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        fs::rename(from, to).map_err(error("rename", from))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        fs::remove_file(path).map_err(error("remove", path))
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        let file = fs::File::open(dir).map_err(error("open directory", dir))?;
        fsync(&file).map_err(errno("sync directory", dir))
    }

    fn map(&self, path: &Path) -> Result<Arc<dyn Map>> {
        let file = fs::File::open(path).map_err(error("open", path))?;
        // SAFETY: the trait asks its callers not to change a mapped file; run files, the only ones
        // that are mapped, are never written again once they have their name.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(error("map", path))?;
        // Lookups touch a page here and there; what is read front to back says so.
        let _ = map.advise(memmap2::Advice::Random);
        let start = map.as_ptr() as usize;
        let guard = Guard::new(start..start + map.len()).map_err(error("guard", path))?;
        Ok(Arc::new(RealMap { guard, map }))
    }

    fn available_bytes(&self, dir: &Path) -> Result<u64> {
        let stat = statvfs(dir).map_err(errno("measure", dir))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

struct RealFile {
    file: fs::File,
    path: PathBuf,
}

impl File for RealFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> Result<u64> {
        self.file.metadata().map(|about| about.len()).map_err(error("size", &self.path))
    }

    fn allocated(&self) -> Result<u64> {
        // Blocks are counted in 512 bytes, whatever those of the file system are.
        self.file.metadata().map(|about| about.blocks() * 512).map_err(error("size", &self.path))
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match pread(&self.file, &mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(Errno::INTR) => {}
                Err(e) => return Err(errno("read", &self.path)(e)),
            }
        }
        Ok(done)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            match pwrite(&self.file, &bytes[done..], offset + done as u64) {
                Ok(0) => return Err(error("write", &self.path)(io::ErrorKind::WriteZero.into())),
                Ok(written) => done += written,
                Err(Errno::INTR) => {}
                Err(e) => return Err(errno("write", &self.path)(e)),
            }
        }
        Ok(())
    }

    fn allocate(&self, len: u64) -> Result<()> {
        // Some file systems stop reserving when a signal comes; it can be asked for again.
        match retry_on_intr(|| fallocate(&self.file, FallocateFlags::empty(), 0, len)) {
            // Not every file system can reserve; the writes will find out about space then.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) if self.len()? < len => self.set_len(len),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            other => other.map_err(errno("allocate", &self.path)),
        }
    }

    fn set_len(&self, len: u64) -> Result<()> {
        retry_on_intr(|| ftruncate(&self.file, len)).map_err(errno("set the length of", &self.path))
    }

    fn sync_data(&self) -> Result<()> {
        fdatasync(&self.file).map_err(errno("sync", &self.path))
    }

    fn write_back(&self, begin: Range<u64>, end: Range<u64>) -> Result<()> {
        let write_back = |range: &Range<u64>, flags| {
            if range.is_empty() { Ok(()) } else { sync_file_range(&self.file, range, flags) }
        };
        match write_back(&begin, libc::SYNC_FILE_RANGE_WRITE) {
            // No pages to write back in such a file, or the call is not allowed. To begin takes no error
            // from a later sync; to wait does, so that none may be left out there.
            Err(error) if NOT_THERE.contains(&error.raw_os_error().unwrap_or(0)) => return Ok(()),
            other => other.map_err(error("write back", &self.path))?,
        }
        write_back(&end, libc::SYNC_FILE_RANGE_WAIT_BEFORE).map_err(error("write back", &self.path))
    }

    fn sync_all(&self) -> Result<()> {
        fsync(&self.file).map_err(errno("sync", &self.path))
    }

    fn is_in_use(&self) -> bool {
        match flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                let _ = flock(&self.file, FlockOperation::Unlock);
                false
            }
            // Anything else than this: a file system without locks.
            Err(errno) => errno == Errno::WOULDBLOCK,
        }
    }

    fn share_lock(&self) -> bool {
        flock(&self.file, FlockOperation::NonBlockingLockShared).is_ok()
    }
}

/// What systems and sandboxes answer where there is no `sync_file_range`.
const NOT_THERE: [i32; 4] = [libc::ENOSYS, libc::EINVAL, libc::ESPIPE, libc::EPERM];

/// `sync_file_range(2)`. An error of the medium that waiting tells is told to no later sync.
fn sync_file_range(file: &fs::File, range: &Range<u64>, flags: libc::c_uint) -> io::Result<()> {
    let (offset, bytes) = (range.start.cast_signed(), (range.end - range.start).cast_signed());
    // SAFETY: takes no memory of this process, and the descriptor is open as long as `file` is.
    match unsafe { libc::sync_file_range(file.as_raw_fd(), offset, bytes, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

struct RealMap {
    /// Goes before the map does: fields are dropped in this order.
    guard: Option<Guard>,
    map: memmap2::Mmap,
}

impl RealMap {
    /// Advises on the pages that lie wholly within `range`.
    fn advise(&self, range: &Range<usize>, advice: Advice) {
        let page = rustix::param::page_size();
        let start = range.start.next_multiple_of(page);
        let end = range.end.min(self.map.len()) / page * page;
        if start < end {
            let address = self.map[start..end].as_ptr().cast_mut().cast();
            // SAFETY: the range lies within a live, read-only, file-backed mapping: whatever the
            // advice (dropping pages included), later reads see the same bytes of the file.
            let _ = unsafe { madvise(address, end - start, advice) };
        }
    }
}

// SAFETY: the mapping is read-only, stays at its address until it is dropped, and hints do not change
// what is read there; nor does the guard, as long as all of its pages can be read.
unsafe impl Map for RealMap {
    fn bytes(&self) -> &[u8] {
        &self.map
    }

    fn unreadable_page(&self) -> Option<u64> {
        self.guard.as_ref()?.unreadable().map(|offset| offset as u64)
    }

    fn will_scan(&self, range: Range<usize>) {
        self.advise(&range, Advice::Sequential);
    }

    fn release(&self, range: Range<usize>) {
        self.advise(&range, Advice::LinuxDontNeed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_back_and_stay_what_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.open(&dir.path().join("run"), Open::Create).unwrap();
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| i as u8).collect();
        file.write_at(&bytes, 0).unwrap();
        file.write_back(0..1_000_000, 0..0).unwrap();
        file.write_back(1_000_000..3_000_000, 0..1_000_000).unwrap();
        file.write_back(0..0, 1_000_000..3_000_000).unwrap();
        assert_eq!(file.read_all().unwrap(), bytes);
        // A pipe has no pages to write back, which is no reason to fail.
        let (_, pipe) = io::pipe().unwrap();
        let path = Path::new("pipe").to_owned();
        let pipe = RealFile { file: fs::File::from(std::os::fd::OwnedFd::from(pipe)), path };
        pipe.write_back(0..10, 0..0).unwrap();
        // To wait for what cannot be waited for is: the error may be the medium's.
        assert!(pipe.write_back(0..0, 0..10).is_err());
    }

    #[test]
    fn what_was_not_written_yet_is_not_allocated() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.open(&dir.path().join("run"), Open::Create).unwrap();
        file.set_len(8 << 20).unwrap();
        assert!(file.allocated().unwrap() < 1 << 20);
        // No file system makes next to nothing of these.
        let bytes: Vec<u8> = (0..2_u32 << 20).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
        file.write_at(&bytes, 0).unwrap();
        file.sync_all().unwrap();
        assert!((1 << 20..4 << 20).contains(&file.allocated().unwrap()));
        assert_eq!(file.len().unwrap(), 8 << 20);
    }

    #[test]
    fn a_file_that_another_has_locked_is_in_use_even_without_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog");
        fs::write(&path, b"x").unwrap();
        let file = RealDisk.open(&path, Open::Read).unwrap();
        assert!(!file.is_in_use());
        let other = RealDisk.open(&path, Open::Read).unwrap();
        assert!(other.share_lock());
        fs::remove_file(&path).unwrap();
        assert!(file.is_in_use());
        drop(other);
        assert!(!file.is_in_use());
    }
}
