//! A process and its folder, looked at while something else goes on: memory, disk, threads.

use anyhow::{Context as _, Result};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

const EVERY: Duration = Duration::from_millis(50);

/// Greatest values seen.
#[derive(Debug, Default)]
pub struct Peak {
    resident_kib: AtomicU64,
    anonymous_kib: AtomicU64,
    folder_bytes: AtomicU64,
}

impl Peak {
    /// All resident pages (`VmRSS`), mapped files included, in MiB.
    pub fn resident_mib(&self) -> f64 {
        self.resident_kib.load(Ordering::Relaxed) as f64 / 1024.0
    }

    /// Resident pages that are no file's (`RssAnon` and `RssShmem`), in MiB: what the kernel could not
    /// take away and read again.
    pub fn anonymous_mib(&self) -> f64 {
        self.anonymous_kib.load(Ordering::Relaxed) as f64 / 1024.0
    }

    /// What the folder occupied on disk, in bytes.
    pub fn folder_bytes(&self) -> u64 {
        self.folder_bytes.load(Ordering::Relaxed)
    }
}

/// Looks until dropped.
pub struct Watch {
    /// What was seen so far.
    pub peak: Arc<Peak>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts to look at the process `pid`, and at a folder if there is one, twenty times a second;
    /// ends with the process.
    pub fn start(pid: u32, folder: Option<&Path>) -> Self {
        let (peak, stop) = (Arc::new(Peak::default()), Arc::new(AtomicBool::new(false)));
        let (seen, ended) = (Arc::clone(&peak), Arc::clone(&stop));
        let folder: Option<PathBuf> = folder.map(Into::into);
        let thread = thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { return };
                let field = |name| kib(&status, name);
                seen.resident_kib.fetch_max(field("VmRSS:"), Ordering::Relaxed);
                seen.anonymous_kib.fetch_max(field("RssAnon:") + field("RssShmem:"), Ordering::Relaxed);
                if let Some(folder) = &folder {
                    seen.folder_bytes.fetch_max(folder_bytes(folder), Ordering::Relaxed);
                }
                thread::sleep(EVERY);
            }
        });
        Self { peak, stop, thread: Some(thread) }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A field of `/proc/PID/status` in KiB; 0 where it is absent (proc(5): a process without memory).
fn kib(status: &str, name: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

/// What the files below a folder occupy on disk, in bytes. Files that come or go meanwhile may be
/// counted or not.
pub fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let bytes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(facts) if facts.is_dir() => folder_bytes(&entry.path()),
        Ok(facts) => facts.blocks() * 512,
        Err(_) => 0,
    });
    bytes.sum()
}

/// Bytes that a process has caused to be written to disks so far (`write_bytes` of `/proc/PID/io`).
///
/// # Errors
/// When the kernel does not tell.
pub fn written_bytes(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/io");
    let io = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    write_bytes(&io).with_context(|| format!("no write_bytes in {path}"))
}

/// That field; what was written and removed before it reached a disk (`cancelled_write_bytes`) counts.
fn write_bytes(io: &str) -> Option<u64> {
    io.lines()
        .find_map(|line| line.strip_prefix("write_bytes: "))
        .and_then(|number| number.trim().parse().ok())
}

/// The processor time of one thread of a process.
pub struct ThreadTime {
    path: PathBuf,
}

impl ThreadTime {
    /// The thread of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn of(pid: u32, name: &str) -> Result<Self> {
        let tasks = PathBuf::from(format!("/proc/{pid}/task"));
        for task in std::fs::read_dir(&tasks).with_context(|| tasks.display().to_string())? {
            let path = task?.path();
            // A thread may end between the two.
            if std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name) {
                return Ok(Self { path: path.join("schedstat") });
            }
        }
        anyhow::bail!("process {pid} has no thread named `{name}`")
    }

    /// Nanoseconds so far.
    ///
    /// # Errors
    /// When the thread has ended, or the kernel does not tell.
    pub fn nanos(&self) -> Result<u64> {
        let text = std::fs::read_to_string(&self.path).with_context(|| self.path.display().to_string())?;
        let first = text.split_whitespace().next().and_then(|number| number.parse().ok());
        first.with_context(|| format!("{} says {text:?}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_this_process() {
        assert_eq!(kib("Name:\tx\nVmRSS:\t  123 kB\n", "VmRSS:"), 123);
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        assert!(kib(&status, "VmRSS:") >= kib(&status, "RssAnon:") && kib(&status, "RssAnon:") > 0);
    }

    #[test]
    fn bytes_of_a_folder_and_those_written() {
        let io = "wchar: 1\nread_bytes: 2\nwrite_bytes: 4096\ncancelled_write_bytes: 8\n";
        assert_eq!((write_bytes(io), write_bytes("wchar: 1\n")), (Some(4096), None));
        written_bytes(std::process::id()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("inner")).unwrap();
        let path = folder.path().join("inner/file");
        std::fs::write(&path, vec![1; 1 << 20]).unwrap();
        std::fs::File::open(&path).unwrap().sync_all().unwrap();
        assert!((1 << 20..2 << 20).contains(&folder_bytes(folder.path())));
        assert_eq!(folder_bytes(&folder.path().join("absent")), 0);
    }

    #[test]
    fn a_thread_that_works_is_told_from_one_that_sleeps() {
        let (ready, told) = std::sync::mpsc::channel();
        let (work, wanted) = std::sync::mpsc::channel::<()>();
        let worker = thread::Builder::new().name("bench-worker".into()).spawn(move || {
            ready.send(()).unwrap();
            while wanted.recv().is_ok() {
                let sum = (0..20_000_000u64).fold(0u64, |sum, n| sum.wrapping_add(std::hint::black_box(n)));
                std::hint::black_box(sum);
                ready.send(()).unwrap();
            }
        });
        told.recv().unwrap();
        let time = ThreadTime::of(std::process::id(), "bench-worker").unwrap();
        let before = time.nanos().unwrap();
        work.send(()).unwrap();
        told.recv().unwrap();
        assert!(time.nanos().unwrap() > before + 1_000_000);
        drop(work);
        worker.unwrap().join().unwrap();
        assert!(ThreadTime::of(std::process::id(), "no such thread").is_err());
    }
}
