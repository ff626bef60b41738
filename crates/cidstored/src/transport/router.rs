//! The socket of requests and replies.
//!
//! One thread receives. Any thread that has a reply may send it: that spares the reply a change of
//! threads. libzmq allows a socket in one thread at a time, with a full fence in between; the lock
//! is both.

use super::tracked::{self, Outstanding, Payload};
use super::{Ready, Result, Sent, TransportError, Wake, receive};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use zeromq::{DONTWAIT, Message, POLLIN, SNDMORE, Socket};

/// Routing frames that a request may pass through on its way (one per broker), with the delimiter.
const ENVELOPE_FRAMES_MAX: usize = 8;

/// What stands between a client's id and its payload, and comes back with the reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Envelope {
    /// Nothing: a DEALER that sends bare payloads.
    Bare,
    /// The empty delimiter: a REQ, or a DEALER that does as one.
    Delimited,
    /// Routing ids of brokers, then the empty delimiter.
    Routed(Box<[Box<[u8]>]>),
}

/// Where a reply goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The connection's routing id.
    pub client: Box<[u8]>,
    /// What stands before the payload.
    pub envelope: Envelope,
}

/// A request as it came.
pub struct Incoming {
    /// Where its reply goes.
    pub route: Route,
    /// Its payload; the first one if there are several.
    pub payload: Payload,
    /// Number of payload frames. A request has one.
    pub frames: usize,
}

/// A ROUTER socket.
#[derive(Clone)]
pub struct Router(Arc<Inner>);

struct Inner {
    socket: Mutex<Socket>,
    /// What libzmq signals when something happened to the socket (`ZMQ_FD`).
    events: RawFd,
}

impl Router {
    pub(super) fn new(socket: Socket) -> zeromq::Result<Self> {
        let events = socket.get_fd()?;
        Ok(Self(Arc::new(Inner { socket: Mutex::new(socket), events })))
    }

    fn lock(&self) -> MutexGuard<'_, Socket> {
        self.0.socket.lock().expect("a panic ends the process")
    }

    /// Waits until there may be a request, or the wake is called. For as long as `look` it does
    /// not sleep: it gives way to whoever wants the processor, and need not be woken.
    ///
    /// libzmq signals its descriptor once for what happens, and any call may take the signal away
    /// (zmq_getsockopt(3), `ZMQ_FD`). So the socket is asked first, unless this thread's last call was
    /// `drained`, a [`Router::receive`] that found nothing; and who sends from another thread calls
    /// [`Router::nudge`] after.
    ///
    /// # Errors
    /// When the socket is no more.
    pub fn wait(&self, wake: &Wake, drained: bool, look: Duration, timeout: Duration) -> Result<Ready> {
        if wake.is_pending() || !drained && self.is_readable()? {
            return Ok(Ready { socket: true, woken: wake.is_pending() });
        }
        // SAFETY: libzmq's descriptor is open for as long as its socket, which `self` holds.
        let events = unsafe { BorrowedFd::borrow_raw(self.0.events) };
        let mut fds = [PollFd::new(&events, PollFlags::IN), PollFd::new(wake.fd(), PollFlags::IN)];
        let mut poll = |timeout: Duration| {
            let timeout = Timespec::try_from(timeout).expect("a short time");
            match rustix::event::poll(&mut fds, Some(&timeout)) {
                Ok(_) => {
                    Ok(Ready { socket: !fds[0].revents().is_empty(), woken: !fds[1].revents().is_empty() })
                }
                // A signal arrived; the caller looks at its own state and comes back.
                Err(Errno::INTR) => Ok(Ready::default()),
                Err(errno) => {
                    let source = zeromq::Error::from_raw(errno.raw_os_error());
                    Err(TransportError { op: "wait on", at: "req".into(), source })
                }
            }
        };
        let start = Instant::now();
        while !look.is_zero() && start.elapsed() < look {
            let ready = poll(Duration::ZERO)?;
            if ready.socket || ready.woken {
                return Ok(ready);
            }
            std::thread::yield_now();
        }
        poll(timeout)
    }

    fn is_readable(&self) -> Result<bool> {
        let asked = self.lock().get_events();
        let failed = |source| TransportError { op: "ask the state of", at: "req".into(), source };
        asked.map(|events| events.contains(POLLIN)).map_err(failed)
    }

    /// To be called after sending by a thread that does not receive: wakes the one that does, if a
    /// request has come meanwhile.
    ///
    /// # Errors
    /// When the socket is no more.
    pub fn nudge(&self, wake: &Wake) -> Result<()> {
        if self.is_readable()? {
            wake.notify();
        }
        Ok(())
    }

    /// The next request, if there is one.
    ///
    /// # Errors
    /// When the socket is no more.
    pub fn receive(&self) -> Result<Option<Incoming>> {
        let socket = &*self.lock();
        let mut id = Message::new();
        if !receive(socket, &mut id)? {
            return Ok(None);
        }
        let client: Box<[u8]> = id[..].into();
        let mut frame = Message::new();
        // The usual two shapes first: a payload, or the delimiter and a payload.
        if !id.get_more() || !receive(socket, &mut frame)? {
            let route = Route { client, envelope: Envelope::Bare };
            return Ok(Some(Incoming { route, payload: Payload(Message::new()), frames: 0 }));
        }
        if !frame.get_more() {
            let route = Route { client, envelope: Envelope::Bare };
            return Ok(Some(Incoming { route, payload: Payload(frame), frames: 1 }));
        }
        let mut head = vec![frame];
        let mut frames = 1;
        let mut delimiter = head[0].is_empty().then_some(0);
        let mut more = true;
        while more {
            let mut next = Message::new();
            if !receive(socket, &mut next)? {
                break;
            }
            more = next.get_more();
            if delimiter.is_none() && frames < ENVELOPE_FRAMES_MAX && next.is_empty() && more {
                delimiter = Some(frames);
            }
            frames += 1;
            // Kept: the envelope and one payload. The rest is only counted.
            if head.len() < delimiter.map_or(ENVELOPE_FRAMES_MAX, |at| at + 2) {
                head.push(next);
            }
        }
        let (envelope, payload_at) = match delimiter {
            None => (Envelope::Bare, 0),
            Some(0) => (Envelope::Delimited, 1),
            Some(at) => (Envelope::Routed(head[..at].iter().map(|frame| frame[..].into()).collect()), at + 1),
        };
        let payload = if payload_at < head.len() { head.swap_remove(payload_at) } else { Message::new() };
        let route = Route { client, envelope };
        Ok(Some(Incoming { route, payload: Payload(payload), frames: frames - payload_at }))
    }

    /// Sends a small reply, which libzmq copies.
    ///
    /// # Errors
    /// When the socket is no more.
    pub fn send(&self, route: &Route, payload: &[u8]) -> Result<Sent> {
        let socket = self.lock();
        outcome(head(&socket, route).and_then(|()| socket.send(payload, DONTWAIT)))
    }

    /// Sends a large reply without copying it, counted on both counters until libzmq has done with it.
    ///
    /// # Errors
    /// When the socket is no more.
    pub fn send_tracked(
        &self,
        route: &Route,
        payload: Vec<u8>,
        counters: [Arc<Outstanding>; 2],
    ) -> Result<Sent> {
        let mut socket = self.lock();
        outcome(head(&socket, route).and_then(|()| tracked::send(&mut socket, payload, counters, DONTWAIT)))
    }
}

/// Sends all frames before the payload. The first one decides: once libzmq has taken it, it takes the
/// rest of the message.
fn head(socket: &Socket, route: &Route) -> zeromq::Result<()> {
    let flags = DONTWAIT | SNDMORE;
    socket.send(&route.client[..], flags)?;
    match &route.envelope {
        Envelope::Bare => Ok(()),
        Envelope::Delimited => socket.send(&b""[..], flags),
        Envelope::Routed(ids) => {
            for id in ids {
                socket.send(&id[..], flags)?;
            }
            socket.send(&b""[..], flags)
        }
    }
}

fn outcome(sent: zeromq::Result<()>) -> Result<Sent> {
    match sent {
        Ok(()) => Ok(Sent::Done),
        Err(zeromq::Error::EHOSTUNREACH) => Ok(Sent::Gone),
        Err(zeromq::Error::EAGAIN) => Ok(Sent::Full),
        Err(source) => Err(TransportError { op: "send on", at: "req".into(), source }),
    }
}
