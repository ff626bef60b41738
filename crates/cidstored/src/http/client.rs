//! Who asks: the other end of the connection, or whom a proxy names that is trusted to.

use crate::config::Networks;
use axum::http::HeaderMap;
use std::net::{IpAddr, Ipv6Addr};

/// The client behind a connection. A trusted proxy has put whom it serves at the end of `X-Forwarded-For`, behind
/// what the client may have written there itself.
pub fn client(peer: IpAddr, headers: &HeaderMap, trusted: &Networks) -> IpAddr {
    let mut client = peer.to_canonical();
    let lines = headers.get_all("x-forwarded-for").iter().rev();
    let named = lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(','));
    for name in named {
        // What is no address was not written by a proxy that we know.
        let Ok(address) = name.trim().parse::<IpAddr>() else { break };
        if !trusted.contains(client) {
            break;
        }
        client = address.to_canonical();
    }
    client
}

/// What requests are counted for. Whoever has an IPv6 address has 2^64 of them.
pub fn network_of(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(peer: &str, forwarded: &[&str], trusted: &str) -> String {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append("x-forwarded-for", line.parse().unwrap());
        }
        client(peer.parse().unwrap(), &headers, &trusted.parse().unwrap()).to_string()
    }

    #[test]
    fn only_trusted_proxies_name_clients() {
        assert_eq!(found("1.1.1.1", &["2.2.2.2"], ""), "1.1.1.1");
        assert_eq!(found("10.0.0.1", &["2.2.2.2"], "10.0.0.0/8"), "2.2.2.2");
        assert_eq!(found("10.0.0.1", &[], "10.0.0.0/8"), "10.0.0.1");
        // What the client has written itself stands before that.
        assert_eq!(found("10.0.0.1", &["9.9.9.9, 2.2.2.2"], "10.0.0.0/8"), "2.2.2.2");
        assert_eq!(found("10.0.0.1", &["9.9.9.9", "2.2.2.2"], "10.0.0.0/8"), "2.2.2.2");
        // Proxies one behind the other.
        assert_eq!(found("10.0.0.1", &["2.2.2.2, 10.0.0.7"], "10.0.0.0/8"), "2.2.2.2");
        assert_eq!(found("::ffff:10.0.0.1", &["::ffff:2.2.2.2"], "10.0.0.0/8"), "2.2.2.2");
        assert_eq!(found("10.0.0.1", &["2.2.2.2, unknown"], "10.0.0.0/8"), "10.0.0.1");
        assert_eq!(found("::1", &["2001:db8::1"], "::1"), "2001:db8::1");
    }

    #[test]
    fn an_ipv6_client_is_its_network() {
        let [one, same, other] = ["2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1"]
            .map(|address| network_of(address.parse().unwrap()));
        assert_eq!(one, same);
        assert_ne!(one, other);
        let address: IpAddr = "1.2.3.4".parse().unwrap();
        assert_eq!(network_of(address), address);
    }
}
