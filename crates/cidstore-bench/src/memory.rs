//! Resident memory of a process, sampled while something else goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

const EVERY: Duration = Duration::from_millis(50);

/// Greatest values seen, in KiB.
#[derive(Debug, Default)]
pub struct Peak {
    resident: AtomicU64,
    anonymous: AtomicU64,
}

impl Peak {
    /// All resident pages (`VmRSS`), mapped files included, in MiB.
    pub fn resident_mib(&self) -> f64 {
        self.resident.load(Ordering::Relaxed) as f64 / 1024.0
    }

    /// Resident pages that are no file's (`RssAnon`), in MiB.
    pub fn anonymous_mib(&self) -> f64 {
        self.anonymous.load(Ordering::Relaxed) as f64 / 1024.0
    }
}

/// Samples until dropped.
pub struct Sampler {
    /// What was seen so far.
    pub peak: Arc<Peak>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    /// Starts to look at the process `pid` twenty times a second; ends with the process.
    pub fn start(pid: u32) -> Self {
        let (peak, stop) = (Arc::new(Peak::default()), Arc::new(AtomicBool::new(false)));
        let (seen, ended) = (Arc::clone(&peak), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { return };
                seen.resident.fetch_max(kib(&status, "VmRSS:"), Ordering::Relaxed);
                seen.anonymous.fetch_max(kib(&status, "RssAnon:"), Ordering::Relaxed);
                thread::sleep(EVERY);
            }
        });
        Self { peak, stop, thread: Some(thread) }
    }
}

impl Drop for Sampler {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_this_process() {
        assert_eq!(kib("Name:\tx\nVmRSS:\t  123 kB\n", "VmRSS:"), 123);
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        assert!(kib(&status, "VmRSS:") >= kib(&status, "RssAnon:") && kib(&status, "RssAnon:") > 0);
    }
}
