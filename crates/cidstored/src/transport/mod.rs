//! The sockets: the only module that knows `ZeroMQ`.
//!
//! **Owns** the context, the hardening of each socket, framing, the count of connections, and the
//! accounting of replies that a peer has not taken yet.
//!
//! **Knows nothing of** commands, encodings or the store.
//!
//! **Invariants**
//! - Every option that bounds a peer is set explicitly, since libzmq's defaults are "no limit".
//! - No call blocks on a peer: sends return at once with [`Sent`], receives return `None`.
//! - One peer's message costs at most its own bytes here: frames beyond the few that a request can
//!   have are dropped as they are read. (libzmq has by then held the whole message in memory: what
//!   bounds a hostile multipart message is the memory limit of the container.)

mod connections;
mod mailbox;
mod options;
mod publisher;
mod pull;
mod router;
mod tracked;

pub use connections::Connections;
pub use mailbox::{Mailbox, Wake};
pub use options::{Sizes, SocketOptions};
pub use publisher::{Publisher, Subscription};
pub use pull::{Puller, Pushed};
#[cfg(test)]
pub use router::Envelope;
pub use router::{Incoming, Route, Router};
pub use tracked::Outstanding;
#[cfg(test)]
pub use tracked::Payload;

use std::sync::Arc;

/// A refused socket operation.
#[derive(Debug, thiserror::Error)]
#[error("cannot {op} {at}: {source}")]
pub struct TransportError {
    /// What was tried.
    pub op: &'static str,
    /// On which socket or address.
    pub at: String,
    /// What libzmq said.
    pub source: zeromq::Error,
}

/// Result of a socket operation.
pub type Result<T> = std::result::Result<T, TransportError>;

fn failed(op: &'static str, at: impl Into<String>) -> impl FnOnce(zeromq::Error) -> TransportError {
    let at = at.into();
    move |source| TransportError { op, at, source }
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Given to libzmq.
    Done,
    /// The peer is gone.
    Gone,
    /// The peer's queue is at its high-water mark.
    Full,
}

/// What a socket waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ready {
    /// The socket has a message.
    pub socket: bool,
    /// Somebody called [`Wake::notify`].
    pub woken: bool,
}

/// The libzmq context and what all its sockets share.
pub struct Transport {
    context: zeromq::Context,
    connections: Arc<Connections>,
}

/// Version of the libzmq that is linked, and whether it has CURVE.
pub fn library() -> (String, bool) {
    let (major, minor, patch) = zeromq::version();
    (format!("{major}.{minor}.{patch}"), zeromq::has("curve").unwrap_or(false))
}

impl Transport {
    /// A context with its I/O threads, and the watch over the number of connections.
    ///
    /// # Errors
    /// When libzmq refuses.
    pub fn new(io_threads: i32, connections_max: usize) -> Result<Self> {
        let context = zeromq::Context::new();
        context.set_io_threads(io_threads).map_err(failed("set the I/O threads of", "the context"))?;
        let connections = Connections::start(connections_max)?;
        Ok(Self { context, connections })
    }

    /// The watch over the number of connections.
    pub fn connections(&self) -> Arc<Connections> {
        Arc::clone(&self.connections)
    }

    /// A ROUTER bound to the addresses.
    ///
    /// # Errors
    /// When an address cannot be bound.
    pub fn router(
        &self,
        options: &SocketOptions,
        sizes: Sizes,
        at: &[&str],
    ) -> Result<(Router, Vec<String>)> {
        let (socket, bound) = self.bound("req", zeromq::ROUTER, options, sizes, at)?;
        let router = Router::new(socket).map_err(failed("ask the descriptor of", "req"))?;
        Ok((router, bound))
    }

    /// A PULL bound to the address.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn puller(&self, options: &SocketOptions, sizes: Sizes, at: &str) -> Result<(Puller, String)> {
        let (socket, mut bound) = self.bound("push", zeromq::PULL, options, sizes, &[at])?;
        Ok((Puller::new(socket), bound.remove(0)))
    }

    /// An XPUB bound to the address.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn publisher(&self, options: &SocketOptions, sizes: Sizes, at: &str) -> Result<(Publisher, String)> {
        let (socket, mut bound) = self.bound("pub", zeromq::XPUB, options, sizes, &[at])?;
        Ok((Publisher::new(socket)?, bound.remove(0)))
    }

    fn bound(
        &self,
        name: &'static str,
        kind: zeromq::SocketType,
        options: &SocketOptions,
        sizes: Sizes,
        at: &[&str],
    ) -> Result<(zeromq::Socket, Vec<String>)> {
        let socket = self.context.socket(kind).map_err(failed("create", name))?;
        options.apply(&socket, sizes, kind).map_err(failed("set options of", name))?;
        // Watched before it is bound, so that no connection goes uncounted.
        self.connections.watch(&self.context, &socket, name)?;
        let mut bound = Vec::new();
        for address in at {
            socket.bind(address).map_err(failed("bind", format!("{name} to {address}")))?;
            let last = socket.get_last_endpoint().map_err(failed("ask the address of", name))?;
            let last = last.unwrap_or_else(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            self.connections.allow(name, &last);
            bound.push(last);
        }
        Ok((socket, bound))
    }
}

impl Drop for Transport {
    /// libzmq ends a context only when all its sockets are closed, the monitors among them.
    fn drop(&mut self) {
        self.connections.stop();
    }
}

/// Waits until the socket has a message, the wake is called, or the time is over.
fn wait(socket: &zeromq::Socket, wake: &Wake, timeout_ms: u32) -> Result<Ready> {
    let mut items = [socket.as_poll_item(zeromq::POLLIN), wake.poll_item()];
    match zeromq::poll(&mut items, timeout_ms.into()) {
        Ok(_) => Ok(Ready { socket: items[0].is_readable(), woken: items[1].is_readable() }),
        // A signal arrived; the caller looks at its own state and comes back.
        Err(zeromq::Error::EINTR) => Ok(Ready::default()),
        Err(source) => Err(TransportError { op: "wait on", at: "a socket".into(), source }),
    }
}

/// Receives one frame if there is one.
fn receive(socket: &zeromq::Socket, into: &mut zeromq::Message) -> Result<bool> {
    loop {
        match socket.recv(into, zeromq::DONTWAIT) {
            Ok(()) => return Ok(true),
            Err(zeromq::Error::EAGAIN) => return Ok(false),
            Err(zeromq::Error::EINTR) => {}
            Err(source) => return Err(TransportError { op: "receive from", at: "a socket".into(), source }),
        }
    }
}

#[cfg(test)]
mod tests;
