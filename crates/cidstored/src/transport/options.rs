//! The hardening of a socket. libzmq's own defaults are unlimited.

use zeromq::{Result, Socket, SocketType};

/// What all sockets share.
#[derive(Debug, Clone)]
pub struct SocketOptions {
    /// A handshake that takes longer ends the connection.
    pub handshake_ms: i32,
    /// How often a silent peer is pinged; 0 never.
    pub heartbeat_ms: i32,
    /// How long a pinged peer may stay silent.
    pub heartbeat_timeout_ms: i32,
    /// How long unsent messages are kept after the socket was closed.
    pub linger_ms: i32,
    /// Connections that wait to be accepted.
    pub backlog: i32,
    /// Idle time before a TCP keep-alive probe.
    pub keepalive_idle_s: i32,
    /// Whether IPv6 addresses are taken too.
    pub ipv6: bool,
}

/// The bounds of one socket.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Largest frame in bytes; a larger one ends the connection before it is read.
    pub frame_bytes_max: i64,
    /// Messages that wait to be sent to one peer.
    pub sndhwm: i32,
    /// Messages of one peer that wait to be received.
    pub rcvhwm: i32,
}

/// Probes and their distance before TCP gives a peer up.
const KEEPALIVE_PROBES: i32 = 4;
const KEEPALIVE_INTERVAL_S: i32 = 15;

impl SocketOptions {
    pub(super) fn apply(&self, socket: &Socket, sizes: Sizes, kind: SocketType) -> Result<()> {
        socket.set_maxmsgsize(sizes.frame_bytes_max)?;
        socket.set_sndhwm(sizes.sndhwm)?;
        socket.set_rcvhwm(sizes.rcvhwm)?;
        socket.set_linger(self.linger_ms)?;
        socket.set_handshake_ivl(self.handshake_ms)?;
        socket.set_heartbeat_ivl(self.heartbeat_ms)?;
        if self.heartbeat_ms > 0 {
            socket.set_heartbeat_timeout(self.heartbeat_timeout_ms)?;
            // The time after which the peer may give us up; libzmq holds at most 6 553 s of it.
            socket.set_heartbeat_ttl(self.heartbeat_timeout_ms.min(6_553_000))?;
        }
        socket.set_backlog(self.backlog)?;
        socket.set_ipv6(self.ipv6)?;
        socket.set_tcp_keepalive(1)?;
        socket.set_tcp_keepalive_idle(self.keepalive_idle_s)?;
        socket.set_tcp_keepalive_cnt(KEEPALIVE_PROBES)?;
        socket.set_tcp_keepalive_intvl(KEEPALIVE_INTERVAL_S)?;
        // Only completed connections count as peers. The sockets only bind, where this is so anyway;
        // it is said in case one ever connects.
        socket.set_immediate(true)?;
        if kind == zeromq::ROUTER {
            // A reply to somebody who left is an error that we count, not silence.
            socket.set_router_mandatory(true)?;
            // A host that went down without a word and is back takes its routing id over: libzmq
            // would leave the new connection without any reply until the old one is given up.
            socket.set_router_handover(true)?;
            socket.set_probe_router(false)?;
        }
        Ok(())
    }
}
