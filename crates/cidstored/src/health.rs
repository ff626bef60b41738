//! Whether the daemon is ready, and what is wrong where it is not.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard};

/// Where in its life the daemon is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Opening the store.
    Recovering = 0,
    /// At work.
    Running = 1,
    /// Ending in order.
    Stopping = 2,
}

/// Work in the background that is tried again when it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Rows from memory into run files.
    Seal,
    /// Run files into fewer, since there are too many.
    Merge,
    /// The same where it can wait.
    Compact,
}

impl Work {
    /// All of it.
    pub const ALL: [Self; 3] = [Self::Seal, Self::Merge, Self::Compact];

    /// For messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Seal => "sealing rows into a run file",
            Self::Merge => "merging run files",
            Self::Compact => "compacting run files",
        }
    }
}

/// What the parts know about themselves, for `/ready` and `/status`.
#[derive(Default)]
pub struct Health {
    phase: AtomicU8,
    full: AtomicBool,
    seals_lack_room: AtomicBool,
    latched: Mutex<Option<String>>,
    troubles: [Mutex<Option<String>>; Work::ALL.len()],
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("a panic ends the process")
}

impl Health {
    /// Enters a phase.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// The phase.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Recovering,
            1 => Phase::Running,
            _ => Phase::Stopping,
        }
    }

    /// The log stopped writing for good. The first reason stays.
    pub fn latch(&self, why: &str) {
        lock(&self.latched).get_or_insert_with(|| why.into());
    }

    /// Why the log stopped writing, if it did.
    pub fn latched(&self) -> Option<String> {
        lock(&self.latched).clone()
    }

    /// Whether the last commit found the medium full. Returns whether that is news.
    pub fn set_full(&self, full: bool) -> bool {
        self.full.swap(full, Ordering::AcqRel) != full
    }

    /// Whether the medium is full.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    /// What sealing last failed for: whether there was no room.
    pub fn set_seals_lack_room(&self, lack: bool) {
        self.seals_lack_room.store(lack, Ordering::Release);
    }

    /// Whether sealing, which fails, does so because there is no room.
    pub fn seals_lack_room(&self) -> bool {
        self.seals_lack_room.load(Ordering::Acquire)
    }

    /// Whether mutations are refused for lack of room, or will be when memory is full.
    pub fn lacks_room(&self) -> bool {
        self.is_full() || self.trouble(Work::Seal).is_some() && self.seals_lack_room()
    }

    /// What the last step of this work failed with; `None` when it went well. Returns whether that is
    /// news.
    pub fn set_trouble(&self, work: Work, error: Option<String>) -> bool {
        let mut last = lock(&self.troubles[work as usize]);
        let news = *last != error;
        *last = error;
        news
    }

    /// What this work fails with.
    pub fn trouble(&self, work: Work) -> Option<String> {
        lock(&self.troubles[work as usize]).clone()
    }

    /// Why the daemon is not ready to take mutations and queries.
    pub fn not_ready(&self) -> Option<String> {
        match self.phase() {
            Phase::Recovering => Some("recovering: opening the store".into()),
            Phase::Stopping => Some("shutting down".into()),
            Phase::Running => self.latched().map(|why| format!("read-only: {why}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_only_while_running_and_writable() {
        let health = Health::default();
        assert!(health.not_ready().unwrap().contains("recovering"));
        health.enter(Phase::Running);
        assert_eq!(health.not_ready(), None);
        assert!(health.set_full(true) && !health.set_full(true) && health.is_full());
        assert_eq!(health.not_ready(), None, "reads and, when there is room, writes go on");
        assert!(health.lacks_room() && health.set_full(false) && !health.lacks_room());
        health.set_seals_lack_room(true);
        assert!(!health.lacks_room(), "that was the last failure, and is over");
        health.set_trouble(Work::Seal, Some("no room".into()));
        assert!(health.lacks_room());
        health.latch("EIO on the first");
        health.latch("and on the second");
        assert_eq!(health.not_ready().unwrap(), "read-only: EIO on the first");
        health.enter(Phase::Stopping);
        assert!(health.not_ready().unwrap().contains("shutting down"));
    }
}
