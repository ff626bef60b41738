//! Bare sockets: what is timed is the round trip, not the decoding of a client library.

use anyhow::{Context as _, Result, bail};
use zeromq::{Context, Message, Socket, SocketType};

/// How long a reply may take before the run is given up, in milliseconds.
const TIMEOUT_MS: i32 = 180_000;

/// Opens a socket of the given type, connected to `endpoint`.
///
/// # Errors
/// Of libzmq.
pub fn connect(context: &Context, kind: SocketType, endpoint: &str) -> Result<Socket> {
    let socket = context.socket(kind)?;
    socket.set_linger(0)?;
    socket.set_sndtimeo(TIMEOUT_MS)?;
    socket.set_rcvtimeo(TIMEOUT_MS)?;
    // Back-pressure of PUSH comes from the daemon; this bounds what libzmq keeps on this side.
    socket.set_sndhwm(16)?;
    socket.connect(endpoint).with_context(|| format!("connecting to {endpoint}"))?;
    Ok(socket)
}

/// One round trip on a REQ socket.
///
/// # Errors
/// Of libzmq; no reply in time.
pub fn ask(socket: &Socket, request: &[u8]) -> Result<Message> {
    socket.send(request, 0).context("sending a request")?;
    socket.recv_msg(0).context("waiting for the reply")
}

/// Refuses a reply that is not a success.
///
/// # Errors
/// Names what the daemon said.
pub fn expect_ok(reply: &[u8]) -> Result<()> {
    if memchr(reply, b"error_code") {
        bail!("the daemon refused: {}", String::from_utf8_lossy(reply));
    }
    Ok(())
}

/// Replies to mutations are short: the plain search costs less than decoding would.
fn memchr(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.len() < 4096 && haystack.windows(needle.len()).any(|window| window == needle)
}
