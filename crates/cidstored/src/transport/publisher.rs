//! The socket of notifications.

use super::{Ready, Result, Sent, TransportError, Wake, failed, receive, wait};
use std::os::fd::RawFd;
use zeromq::{DONTWAIT, Message, Socket};

/// An XPUB socket that can tell when a subscriber is at its high-water mark.
pub struct Publisher {
    socket: Socket,
    lossy: bool,
}

/// What a subscriber asked for. Only the first subscription and the last unsubscription of a topic
/// are told.
#[derive(Debug, PartialEq, Eq)]
pub enum Subscription {
    /// A topic got its first subscriber.
    Added {
        /// The byte prefix.
        topic: Vec<u8>,
        /// The connection it came from.
        from: Option<RawFd>,
    },
    /// A topic lost its last subscriber.
    Removed {
        /// The byte prefix.
        topic: Vec<u8>,
    },
    /// A message that is no subscription.
    Garbage,
}

impl Publisher {
    pub(super) fn new(socket: Socket) -> Result<Self> {
        let mut publisher = Self { socket, lossy: true };
        publisher.set_lossy(false)?;
        Ok(publisher)
    }

    /// Waits for a subscription or the wake.
    ///
    /// # Errors
    /// When the socket is no more.
    pub fn wait(&self, wake: &Wake, timeout_ms: u32) -> Result<Ready> {
        wait(&self.socket, wake, timeout_ms)
    }

    /// Whether a subscriber at its high-water mark loses a message (lossy), or the message is handed
    /// back as [`Sent::Full`] and nobody gets it.
    ///
    /// # Errors
    /// When the socket is no more.
    pub fn set_lossy(&mut self, lossy: bool) -> Result<()> {
        if self.lossy != lossy {
            let no_drop = i32::from(!lossy);
            // SAFETY: the socket is open, and the option's value is an int of the size that is said.
            let set = unsafe {
                zmq_sys::zmq_setsockopt(
                    self.socket.as_mut_ptr(),
                    zmq_sys::ZMQ_XPUB_NODROP.cast_signed(),
                    (&raw const no_drop).cast(),
                    size_of::<i32>(),
                )
            };
            if set != 0 {
                // SAFETY: reads this thread's errno of libzmq, right after the call that failed.
                let errno = unsafe { zmq_sys::zmq_errno() };
                return Err(failed("set options of", "pub")(zeromq::Error::from_raw(errno)));
            }
            self.lossy = lossy;
        }
        Ok(())
    }

    /// The next subscription, if there is one.
    ///
    /// # Errors
    /// When the socket is no more.
    pub fn receive(&mut self) -> Result<Option<Subscription>> {
        let mut message = Message::new();
        if !receive(&self.socket, &mut message)? {
            return Ok(None);
        }
        // The connection's descriptor, which libzmq attaches to what it receives.
        let from = message.gets("__fd").and_then(|fd| fd.parse().ok());
        Ok(Some(match message.split_first() {
            Some((1, topic)) => Subscription::Added { topic: topic.into(), from },
            Some((0, topic)) => Subscription::Removed { topic: topic.into() },
            _ => Subscription::Garbage,
        }))
    }

    /// Sends one notification to those who want it.
    ///
    /// # Errors
    /// When the socket is no more.
    pub fn send(&mut self, payload: &[u8]) -> Result<Sent> {
        match self.socket.send(payload, DONTWAIT) {
            Ok(()) => Ok(Sent::Done),
            Err(zeromq::Error::EAGAIN) => Ok(Sent::Full),
            Err(source) => Err(TransportError { op: "send on", at: "pub".into(), source }),
        }
    }
}
