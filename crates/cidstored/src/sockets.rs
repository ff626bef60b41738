//! The sockets that the settings ask for, bound.

use crate::config::Config;
use crate::endpoints::Endpoints;
use crate::exit::{Exit, Fatal};
use crate::transport::{self, Sizes, SocketOptions, Transport};

/// Largest message on the socket of notifications, which receives subscriptions only.
const SUBSCRIPTION_BYTES_MAX: i64 = 4096;

fn options(config: &Config) -> SocketOptions {
    // Checked with the settings: all of them fit.
    let int = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    SocketOptions {
        handshake_ms: int(config.handshake_ms),
        heartbeat_ms: int(config.heartbeat_ms),
        heartbeat_timeout_ms: int(config.heartbeat_timeout_ms),
        linger_ms: int(config.socket_linger_ms),
        backlog: int(config.backlog),
        keepalive_idle_s: int(config.tcp_keepalive_idle_s),
        ipv6: config.ipv6,
    }
}

/// Requests, pushes, notifications, and where they are.
type Bound = (transport::Router, transport::Puller, transport::Publisher, Endpoints);

/// Binds all of them.
///
/// # Errors
/// When an address is taken or is none of this machine.
pub fn bind(transport: &Transport, config: &Config) -> Result<Bound, Fatal> {
    let options = options(config);
    let int = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    // A message that is a little too large gets its 413; beyond that libzmq ends the connection.
    let max = config.message_bytes_max.0;
    let frame_bytes_max = i64::try_from(max + max / 4).unwrap_or(i64::MAX);
    let at = config.zmq_endpoints();
    let of = |name: &str| at.iter().find(|(setting, _)| setting.starts_with(name)).map(|(_, at)| &**at);
    let requests: Vec<&str> = [of("req"), of("router_dealer")].into_iter().flatten().collect();
    let failed = |error: transport::TransportError| Fatal::new(Exit::Unavailable, error);
    let sizes = Sizes { frame_bytes_max, sndhwm: int(config.req_sndhwm), rcvhwm: int(config.req_rcvhwm) };
    let (router, mut routed) = transport.router(&options, sizes, &requests).map_err(failed)?;
    let sizes = Sizes { frame_bytes_max, sndhwm: 1, rcvhwm: int(config.push_rcvhwm) };
    let (puller, push) = transport.puller(&options, sizes, of("push").unwrap_or_default()).map_err(failed)?;
    let hwm = int(config.pub_sndhwm);
    let sizes = Sizes { frame_bytes_max: SUBSCRIPTION_BYTES_MAX, sndhwm: hwm, rcvhwm: hwm };
    let (publisher, publish) =
        transport.publisher(&options, sizes, of("pub").unwrap_or_default()).map_err(failed)?;
    let req = routed.remove(0);
    let router_dealer = routed.pop();
    let pid = std::process::id();
    Ok((router, puller, publisher, Endpoints { req, push, publish, router_dealer, http: String::new(), pid }))
}
