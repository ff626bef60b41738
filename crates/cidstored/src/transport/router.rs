//! The socket of requests and replies.

use super::tracked::{self, Outstanding, Payload};
use super::{Ready, Result, Sent, TransportError, Wake, receive, wait};
use std::sync::Arc;
use zeromq::{DONTWAIT, Message, SNDMORE, Socket};

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
pub struct Router {
    socket: Socket,
}

impl Router {
    pub(super) fn new(socket: Socket) -> Self {
        Self { socket }
    }

    /// Waits for a request or the wake.
    ///
    /// # Errors
    /// When the socket is no more.
    pub fn wait(&self, wake: &Wake, timeout_ms: u32) -> Result<Ready> {
        wait(&self.socket, wake, timeout_ms)
    }

    /// The next request, if there is one.
    ///
    /// # Errors
    /// When the socket is no more.
    pub fn receive(&mut self) -> Result<Option<Incoming>> {
        let mut id = Message::new();
        if !receive(&self.socket, &mut id)? {
            return Ok(None);
        }
        let client: Box<[u8]> = id[..].into();
        let mut frame = Message::new();
        // The usual two shapes first: a payload, or the delimiter and a payload.
        if !id.get_more() || !receive(&self.socket, &mut frame)? {
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
            if !receive(&self.socket, &mut next)? {
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
    pub fn send(&mut self, route: &Route, payload: &[u8]) -> Result<Sent> {
        let sent = self.head(route).and_then(|()| self.socket.send(payload, DONTWAIT));
        outcome(sent)
    }

    /// Sends a large reply without copying it, counted on both counters until libzmq has done with it.
    ///
    /// # Errors
    /// When the socket is no more.
    pub fn send_tracked(
        &mut self,
        route: &Route,
        payload: Vec<u8>,
        counters: [Arc<Outstanding>; 2],
    ) -> Result<Sent> {
        let sent =
            self.head(route).and_then(|()| tracked::send(&mut self.socket, payload, counters, DONTWAIT));
        outcome(sent)
    }

    /// All frames before the payload. The first one decides: once libzmq has taken it, it takes the
    /// rest of the message.
    fn head(&self, route: &Route) -> zeromq::Result<()> {
        let flags = DONTWAIT | SNDMORE;
        self.socket.send(&route.client[..], flags)?;
        match &route.envelope {
            Envelope::Bare => Ok(()),
            Envelope::Delimited => self.socket.send(&b""[..], flags),
            Envelope::Routed(ids) => {
                for id in ids {
                    self.socket.send(&id[..], flags)?;
                }
                self.socket.send(&b""[..], flags)
            }
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
