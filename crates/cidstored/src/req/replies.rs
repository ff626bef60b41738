//! The way out: replies, by the thread that has them.

use super::{Addressee, Event, Ticket};
use crate::service;
use crate::shared::Shared;
use crate::transport::{Mailbox, Result, Router, Sent};
use crate::writer::Failure;
use cidstore_engine::Outcome;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A reply up to this size is copied by libzmq and bounded by the high-water mark; a larger one is
/// counted in bytes.
pub(super) const SMALL_REPLY_BYTES: usize = 1024;

/// So many replies the writer sends itself: a change of threads costs more than they do.
const DIRECT_MAX: usize = 4;

/// A mutation and what became of it.
pub type Written = (Box<Ticket>, std::result::Result<Outcome, Failure>);

/// Replies to mutations, from the writer.
pub struct Replies {
    shared: Arc<Shared>,
    router: Router,
    mailbox: Arc<Mailbox<Event>>,
    /// Replies to mutations that are in the mailbox: later ones must not overtake them.
    queued: AtomicUsize,
}

impl Replies {
    /// Replies through that socket, or through the mailbox of the thread of requests.
    pub fn new(shared: Arc<Shared>, router: Router, mailbox: Arc<Mailbox<Event>>) -> Self {
        Self { shared, router, mailbox, queued: AtomicUsize::new(0) }
    }

    /// The writer: tells clients what became of a group, in its order. Many replies go through the
    /// mailbox, so that the next group does not wait for them.
    pub fn tell(&self, written: Vec<Written>) {
        if written.is_empty() {
            return;
        }
        // Only this thread adds to those queued: none now means none until we are done.
        if written.len() > DIRECT_MAX || self.queued.load(Ordering::Acquire) > 0 {
            return self.queue(written);
        }
        let mut buffer = Vec::new();
        let mut written = written.into_iter();
        while let Some((mut ticket, result)) = written.next() {
            buffer.clear();
            service::mutation_reply(&ticket, result.as_ref(), &mut buffer);
            let sent = buffer.len() <= SMALL_REPLY_BYTES && {
                // Before the reply: the client's next request must find the place free.
                ticket.to.place = None;
                self.small(&ticket.to, &buffer, result.is_err()).is_ok()
            };
            if !sent {
                // A large one is counted elsewhere; and where the socket fails, it fails there, too.
                return self.queue(std::iter::once((ticket, result)).chain(written).collect());
            }
        }
        // A socket that is no more is found by the thread that receives.
        let _ = self.router.nudge(self.mailbox.wake());
    }

    fn queue(&self, written: Vec<Written>) {
        self.queued.fetch_add(written.len(), Ordering::AcqRel);
        self.mailbox.extend(written.into_iter().map(|(ticket, result)| Event::Written(ticket, result)));
    }

    /// The thread of requests: a reply that was queued is sent.
    pub(super) fn dequeued(&self) {
        self.queued.fetch_sub(1, Ordering::AcqRel);
    }

    /// Sends a small reply.
    ///
    /// # Errors
    /// When the socket is no more.
    pub(super) fn small(&self, to: &Addressee, bytes: &[u8], refused: bool) -> Result<()> {
        let sent = self.router.send(&to.route, bytes)?;
        self.count(to, sent, refused);
        Ok(())
    }

    /// Counts what became of a reply.
    pub(super) fn count(&self, to: &Addressee, sent: Sent, refused: bool) {
        let metrics = &self.shared.metrics;
        metrics.request_seconds.add(to.received.elapsed());
        if refused {
            metrics.requests_refused_total.one();
        }
        match sent {
            Sent::Done => metrics.replies_total.one(),
            Sent::Gone => metrics.replies_gone_total.one(),
            Sent::Full => metrics.replies_dropped_total.one(),
        }
    }
}
