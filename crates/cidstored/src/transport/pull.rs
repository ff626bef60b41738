//! The socket of mutations without replies.

use super::tracked::Payload;
use super::{Ready, Result, Wake, receive, wait};
use zeromq::{Message, Socket};

/// A PULL socket.
pub struct Puller {
    socket: Socket,
}

/// What was pushed.
pub enum Pushed {
    /// One frame: a request.
    One(Payload),
    /// Several frames, which no request has; the number, and the first for its `request_id`.
    Many(Payload, usize),
}

impl Puller {
    pub(super) fn new(socket: Socket) -> Self {
        Self { socket }
    }

    /// Waits for a message or the wake.
    ///
    /// # Errors
    /// When the socket is no more.
    pub fn wait(&self, wake: &Wake, timeout_ms: u32) -> Result<Ready> {
        wait(&self.socket, wake, timeout_ms)
    }

    /// The next message, if there is one.
    ///
    /// # Errors
    /// When the socket is no more.
    pub fn receive(&mut self) -> Result<Option<Pushed>> {
        let mut first = Message::new();
        if !receive(&self.socket, &mut first)? {
            return Ok(None);
        }
        let mut frames = 1;
        let mut more = first.get_more();
        while more {
            let mut other = Message::new();
            // The frames of a message arrive together.
            if !receive(&self.socket, &mut other)? {
                break;
            }
            frames += 1;
            more = other.get_more();
        }
        let first = Payload(first);
        Ok(Some(if frames == 1 { Pushed::One(first) } else { Pushed::Many(first, frames) }))
    }
}
