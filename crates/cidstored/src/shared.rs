//! What the threads share.

use crate::compaction::Compaction;
use crate::config::Config;
use crate::health::Health;
use crate::http::Limits;
use crate::metrics::{Metrics, Window};
use crate::pulse::Pulses;
use crate::queue::Queue;
use crate::reading::Reading;
use crate::resident::Touched;
use crate::transport::{Connections, Outstanding, Wake};
use crate::visible::Visible;
use crate::writer::Job;
use cidstore_engine::Reader;
use cidstore_mirror::MirrorState;
use cidstore_types::Seq;
use cidstore_wal::Log;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The readers' end of the store.
pub struct Engine {
    /// Snapshots and counts.
    pub reader: Reader,
    /// The log, for followers.
    pub log: Log,
}

/// Everything that more than one thread uses.
pub struct Shared {
    /// The settings.
    pub config: Config,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Rates of the last minute.
    pub window: Window,
    /// Ready or not, and why.
    pub health: Health,
    /// The store, once it is open.
    pub engine: OnceLock<Engine>,
    /// Mutations on their way to the writer.
    pub queue: Queue<Job>,
    /// How far the store is.
    pub visible: Visible,
    /// How the mirror is.
    pub mirror: Arc<MirrorState>,
    /// The way to single triples.
    pub reading: Reading,
    /// How often clients of HTTP may ask, if that is limited.
    pub http_limits: Option<Limits>,
    /// How many connections there are, once there are sockets.
    pub connections: OnceLock<Arc<Connections>>,
    /// Large replies that no client has taken yet.
    pub outstanding: Arc<Outstanding>,
    /// Work for the thread that seals.
    pub sealing: Bell,
    /// Work for the thread that merges.
    pub merging: Bell,
    /// What is asked of merging, and how it is.
    pub compaction: Compaction,
    /// The end, for the thread that scrubs.
    pub scrubbing: Bell,
    /// Log before this one may be removed, in the judgement of the thread that seals.
    pub removable: AtomicU64,
    /// What the publisher still reads of the log: everything from here on.
    pub published: AtomicU64,
    /// What readers may have made resident.
    pub touched: Touched,
    /// Whether the threads come by.
    pub pulses: Pulses,
    /// The end is wanted.
    pub stop: Stop,
    /// When the process started.
    pub started: Instant,
}

impl Shared {
    /// The state before anything is open.
    pub fn new(config: Config) -> Self {
        let metrics = Arc::new(Metrics::default());
        let (items, bytes) = (config.writer_queue_max, config.writer_queue_bytes_max.len());
        Self {
            window: Window::new(&metrics),
            health: Health::default(),
            engine: OnceLock::new(),
            queue: Queue::new(items, bytes, Arc::clone(&metrics)),
            visible: Visible::default(),
            mirror: Arc::new(MirrorState::new()),
            reading: Reading::new(&config),
            http_limits: Limits::new(&config),
            connections: OnceLock::new(),
            outstanding: Arc::default(),
            sealing: Bell::default(),
            merging: Bell::default(),
            compaction: Compaction::new(config.compaction_bytes_per_second.0),
            scrubbing: Bell::default(),
            removable: AtomicU64::new(0),
            published: AtomicU64::new(Seq::MAX),
            touched: Touched::default(),
            pulses: Pulses::default(),
            stop: Stop::default(),
            started: Instant::now(),
            metrics,
            config,
        }
    }

    /// The store. Threads that use it are started after it was opened.
    pub fn engine(&self) -> &Engine {
        self.engine.get().expect("the store is opened before the threads that use it start")
    }
}

/// Seconds since the epoch.
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Wakes one thread that waits for work; rung before the wait, it ends it at once.
#[derive(Default)]
pub struct Bell {
    rung: Mutex<bool>,
    condition: Condvar,
    /// Spares the lock where the bell is rung already.
    hint: AtomicBool,
}

impl Bell {
    /// There is work.
    pub fn ring(&self) {
        if !self.hint.swap(true, Ordering::AcqRel) {
            *self.rung.lock().expect("a panic ends the process") = true;
            self.condition.notify_one();
        }
    }

    /// Waits for work at most that long. Returns whether there is some.
    pub fn wait(&self, at_most: Duration) -> bool {
        let rung = self.rung.lock().expect("a panic ends the process");
        let waited = self.condition.wait_timeout_while(rung, at_most, |rung| !*rung);
        let rung = std::mem::take(&mut *waited.expect("a panic ends the process").0);
        // A swap: who found the bell rung and left it did its work before, and the waiter sees that.
        self.hint.swap(false, Ordering::AcqRel);
        rung
    }
}

/// The wish to end, and who must hear of it.
#[derive(Default)]
pub struct Stop {
    wanted: AtomicBool,
    wakes: Mutex<Vec<Arc<Wake>>>,
}

impl Stop {
    /// Has a wake notified when the end is wanted, or now if it is.
    pub fn notify(&self, wake: &Arc<Wake>) {
        self.wakes.lock().expect("a panic ends the process").push(Arc::clone(wake));
        if self.is_wanted() {
            wake.notify();
        }
    }

    /// Wants the end.
    pub fn want(&self) {
        self.wanted.store(true, Ordering::SeqCst);
        self.wakes.lock().expect("a panic ends the process").iter().for_each(|wake| wake.notify());
    }

    /// Whether the end is wanted.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bell_is_never_missed() {
        let bell = Arc::new(Bell::default());
        let (ringer, rounds) = (Arc::clone(&bell), 10_000);
        let done = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&done);
        let thread = std::thread::spawn(move || {
            for i in 1..=rounds {
                counted.store(i, Ordering::SeqCst);
                ringer.ring();
            }
        });
        let mut seen = 0;
        while seen < rounds {
            bell.wait(Duration::from_mins(1));
            let now = done.load(Ordering::SeqCst);
            // Every wait was ended by a ring, since none took a minute.
            assert!(now >= seen);
            seen = now;
        }
        thread.join().unwrap();
    }
}
