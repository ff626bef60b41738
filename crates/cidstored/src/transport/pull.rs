//! The socket of mutations without replies.

use super::tracked::Payload;
use super::{Ready, Result, Wake, failed, receive, wait};
use zeromq::{Message, Socket};

/// Bytes of messages that libzmq should read ahead of us, for each connection.
const READ_AHEAD_BYTES: usize = 4 << 20;
/// Least messages that it may, whatever their size.
const READ_AHEAD_MIN: i32 = 2;

/// A PULL socket.
///
/// libzmq's high-water mark counts messages, and a legal one may have 64 MiB. So the mark is lowered to
/// what the largest message yet says. It is never raised again: a connection that waits at a low mark
/// is told to go on after half of the mark has been read, and when that becomes more than is there to
/// be read, it waits for ever.
pub struct Puller {
    socket: Socket,
    read_ahead: i32,
}

/// What was pushed.
pub enum Pushed {
    /// One frame: a request.
    One(Payload),
    /// Several frames, which no request has; the number, and the first for its `request_id`.
    Many(Payload, usize),
}

impl Puller {
    pub(super) fn new(socket: Socket, read_ahead: i32) -> Self {
        Self { socket, read_ahead }
    }

    fn read_less_ahead(&mut self, bytes: usize) -> Result<()> {
        let fit = i32::try_from(READ_AHEAD_BYTES / bytes.max(1)).unwrap_or(i32::MAX).max(READ_AHEAD_MIN);
        if fit < self.read_ahead {
            self.socket.set_rcvhwm(fit).map_err(failed("lower the mark of", "push"))?;
            self.read_ahead = fit;
        }
        Ok(())
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
        self.read_less_ahead(first.len())?;
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
