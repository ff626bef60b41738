//! Mutations without replies.

use crate::socket::{failed, millis, open};
use crate::wire::{Ask, encode};
use crate::{Config, Error};
use cidstore_types::{Op, Triple};
use zeromq::{Context, Socket, SocketType};

/// Messages that wait on this side; beyond it, sending waits for the daemon (back-pressure).
const WAITING_MAX: i32 = 64;

/// Sends mutations and learns nothing of them: what the daemon refuses is announced to subscribers
/// as a rejection. What has not left this process is lost with it.
pub struct Pusher {
    socket: Socket,
    config: Config,
    message: Vec<u8>,
}

impl Pusher {
    /// Connects.
    ///
    /// # Errors
    /// [`Error::Socket`] when the endpoint is not one.
    pub fn connect(config: &Config) -> Result<Self, Error> {
        let socket = open(&Context::new(), SocketType::PUSH, &config.push, |socket| {
            socket.set_sndhwm(WAITING_MAX)?;
            socket.set_sndtimeo(millis(config.timeout))?;
            socket.set_linger(millis(config.timeout))?;
            // Without a daemon, sending waits (and then fails) instead of filling a queue.
            socket.set_immediate(true)
        })?;
        Ok(Self { socket, config: config.clone(), message: Vec::new() })
    }

    /// Sends a batch, one message. Waits while the daemon is busy.
    ///
    /// # Errors
    /// [`Error::NoReply`] when the daemon takes nothing within the timeout.
    pub fn batch(&mut self, op: Op, triples: &[Triple]) -> Result<(), Error> {
        encode(&Ask::Batch { op, triples }, None, &mut self.message);
        match self.socket.send(&self.message, 0) {
            Ok(()) => Ok(()),
            Err(zeromq::Error::EAGAIN) => Err(Error::NoReply {
                endpoint: self.config.push.clone(),
                timeout: self.config.timeout,
                tries: 1,
            }),
            Err(source) => Err(failed(&self.config.push, "cannot send")(source)),
        }
    }
}
