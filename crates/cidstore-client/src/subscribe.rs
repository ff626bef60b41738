//! Notifications.

use crate::socket::{failed, millis, open};
use crate::{Change, Config, Error, wire};
use cidstore_types::Seq;
use std::time::Duration;
use zeromq::{Context, Socket, SocketType};

/// Notifications that wait on this side before libzmq drops further ones.
const WAITING_MAX: i32 = 100_000;

/// What the daemon announces.
#[derive(Debug, Clone, PartialEq)]
pub enum Notification {
    /// Each second.
    Heartbeat {
        /// The last seq that was announced.
        seq: Seq,
        /// Seconds since the epoch, by the daemon's clock.
        time: f64,
    },
    /// Inserts or deletes, by consecutive `seq`.
    Changes(Vec<Change>),
    /// A pushed mutation that was refused.
    Rejected {
        /// The client's own name for it, as text, if it gave one.
        request_id: Option<String>,
        /// As in replies.
        code: u16,
        /// The reason.
        message: String,
    },
    /// The mirror's state changed.
    Mirror {
        /// Its new state.
        state: String,
        /// Mutations it is behind, if known.
        lag: Option<u64>,
    },
}

/// A subscription. Slowness here never slows the daemon: notifications are lost instead, which shows
/// as a hole in `seq` (a [`crate::Follower`] fills it).
pub struct Subscriber {
    socket: Socket,
    endpoint: String,
}

impl Subscriber {
    /// Subscribes to the given prefixes of messages; none means everything.
    ///
    /// # Errors
    /// [`Error::Socket`] when the endpoint is not one.
    pub fn connect(config: &Config, prefixes: &[&[u8]]) -> Result<Self, Error> {
        let endpoint = config.subscribe.clone();
        let prefixes = if prefixes.is_empty() { &[&b""[..]] } else { prefixes };
        let socket = open(&Context::new(), SocketType::SUB, &endpoint, |socket| {
            socket.set_rcvhwm(WAITING_MAX)?;
            prefixes.iter().try_for_each(|prefix| socket.set_subscribe(prefix))
        })?;
        Ok(Self { socket, endpoint })
    }

    /// The next notification; `None` if none came within `wait`. One of a kind that this client does
    /// not know is passed over.
    ///
    /// # Errors
    /// [`Error::Protocol`] for a message that is not a notification.
    pub fn next(&mut self, wait: Duration) -> Result<Option<Notification>, Error> {
        loop {
            let failed_here = |source| failed(&self.endpoint, "cannot receive")(source);
            self.socket.set_rcvtimeo(millis(wait)).map_err(failed_here)?;
            let message = match self.socket.recv_msg(0) {
                Ok(message) => message,
                Err(zeromq::Error::EAGAIN) => return Ok(None),
                Err(source) => return Err(failed_here(source)),
            };
            let notification = wire::decode_notification(&message)
                .map_err(|what| Error::Protocol { endpoint: self.endpoint.clone(), what })?;
            if notification.is_some() {
                return Ok(notification);
            }
        }
    }
}
