//! How far the store is, told to those who follow it.

use crate::transport::Wake;
use cidstore_types::Seq;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::watch;

/// The last mutation that queries see. The log may show a later one for the moment between its sync
/// and the publication of the rows; who announces mutations follows this.
pub struct Visible {
    seq: AtomicU64,
    publisher: OnceLock<Arc<Wake>>,
    /// Whether the publisher is to be woken: without subscribers that would take a processor from
    /// the reply that is on its way at just that moment.
    listened: AtomicBool,
    watchers: watch::Sender<Seq>,
}

impl Default for Visible {
    fn default() -> Self {
        Self {
            seq: AtomicU64::new(0),
            publisher: OnceLock::new(),
            listened: AtomicBool::new(false),
            watchers: watch::Sender::new(0),
        }
    }
}

impl Visible {
    /// The last visible mutation.
    pub fn seq(&self) -> Seq {
        self.seq.load(Ordering::SeqCst)
    }

    /// Whether the publisher's wake is to be notified at each advance. After saying so, an advance
    /// is notified or was seen before: both sides write first and read then, in one order for all.
    pub fn listen(&self, listened: bool) {
        self.listened.store(listened, Ordering::SeqCst);
    }

    /// The publisher's wake.
    pub fn notify(&self, wake: &Arc<Wake>) {
        let _ = self.publisher.set(Arc::clone(wake));
    }

    /// Follows the advances from asynchronous code.
    pub fn watch(&self) -> watch::Receiver<Seq> {
        self.watchers.subscribe()
    }

    /// Everything up to `seq` is visible.
    pub fn advance(&self, seq: Seq) {
        self.seq.store(seq, Ordering::SeqCst);
        if self.listened.load(Ordering::SeqCst)
            && let Some(wake) = self.publisher.get()
        {
            wake.notify();
        }
        self.watchers.send_replace(seq);
    }
}
