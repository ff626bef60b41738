//! How far the store is, told to those who follow it.

use crate::transport::Wake;
use cidstore_types::Seq;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::watch;

/// The last mutation that queries see. The log may show a later one for the moment between its sync
/// and the publication of the rows; who announces mutations follows this.
pub struct Visible {
    seq: AtomicU64,
    publisher: OnceLock<Arc<Wake>>,
    watchers: watch::Sender<Seq>,
}

impl Default for Visible {
    fn default() -> Self {
        Self { seq: AtomicU64::new(0), publisher: OnceLock::new(), watchers: watch::Sender::new(0) }
    }
}

impl Visible {
    /// The last visible mutation.
    pub fn seq(&self) -> Seq {
        self.seq.load(Ordering::Acquire)
    }

    /// Has a wake notified at each advance, beside the watchers.
    pub fn notify(&self, wake: &Arc<Wake>) {
        let _ = self.publisher.set(Arc::clone(wake));
    }

    /// Follows the advances from asynchronous code.
    pub fn watch(&self) -> watch::Receiver<Seq> {
        self.watchers.subscribe()
    }

    /// Everything up to `seq` is visible.
    pub fn advance(&self, seq: Seq) {
        self.seq.store(seq, Ordering::Release);
        if let Some(wake) = self.publisher.get() {
            wake.notify();
        }
        self.watchers.send_replace(seq);
    }
}
