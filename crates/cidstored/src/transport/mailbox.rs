//! How other threads reach a thread that waits on a socket.

use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// An event that a socket's wait listens to beside its socket. Cheap to notify again before it was
/// seen: one atomic swap.
pub struct Wake {
    fd: OwnedFd,
    pending: AtomicBool,
}

impl Wake {
    /// A wake that nobody has notified.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn new() -> std::io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { fd, pending: AtomicBool::new(false) })
    }

    /// Ends the wait, now or the next one.
    pub fn notify(&self) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            // The counter cannot overflow: it is 0 or 1, since `pending` was clear.
            let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
        }
    }

    /// Takes the notification. What was done before a `notify` that this swallows is visible after.
    pub fn clear(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.fd, &mut count);
        self.pending.swap(false, Ordering::AcqRel);
    }

    /// Whether there is a notification, without a system call.
    pub fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    pub(super) fn poll_item(&self) -> zeromq::PollItem<'_> {
        zeromq::PollItem::from_fd(self.fd.as_raw_fd(), zeromq::POLLIN)
    }
}

/// A queue into a thread that waits on a socket. Its bound is its senders': each holds a place that
/// was counted elsewhere (a request in flight).
pub struct Mailbox<T> {
    items: Mutex<Vec<T>>,
    wake: Arc<Wake>,
}

impl<T> Mailbox<T> {
    /// An empty mailbox.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { items: Mutex::new(Vec::new()), wake: Arc::new(Wake::new()?) })
    }

    /// The event that says there is something.
    pub fn wake(&self) -> &Arc<Wake> {
        &self.wake
    }

    /// Puts one item in.
    pub fn push(&self, item: T) {
        self.lock().push(item);
        self.wake.notify();
    }

    /// Puts many in under one lock and one notification.
    pub fn extend(&self, items: impl IntoIterator<Item = T>) {
        self.lock().extend(items);
        self.wake.notify();
    }

    /// Moves all items into `into`, which must be empty.
    pub fn take(&self, into: &mut Vec<T>) {
        debug_assert!(into.is_empty());
        self.wake.clear();
        std::mem::swap(&mut *self.lock(), into);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<T>> {
        self.items.lock().expect("a panic ends the process")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn nothing_is_lost_between_many_senders_and_a_waiting_reader() {
        let context = zeromq::Context::new();
        let socket = context.socket(zeromq::PAIR).unwrap();
        let mailbox = Arc::new(Mailbox::new().unwrap());
        let senders: Vec<_> = (0..4u64)
            .map(|from| {
                let mailbox = Arc::clone(&mailbox);
                std::thread::spawn(move || {
                    for i in 0..10_000 {
                        mailbox.push((from, i));
                        if i % 1000 == 0 {
                            std::thread::sleep(Duration::from_millis(1));
                        }
                    }
                })
            })
            .collect();
        let mut next = [0; 4];
        let mut batch = Vec::new();
        while next.iter().sum::<u64>() < 40_000 {
            let ready = super::super::wait(&socket, mailbox.wake(), 60_000).unwrap();
            assert!(ready.woken, "slept through a notification with {next:?} received");
            mailbox.take(&mut batch);
            for (from, i) in batch.drain(..) {
                assert_eq!(next[from as usize], i);
                next[from as usize] += 1;
            }
        }
        for sender in senders {
            sender.join().unwrap();
        }
    }
}
