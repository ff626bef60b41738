//! Networks of IP addresses, as a setting.

use super::value::Value;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Addresses that begin alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    /// How many bits they have in common.
    bits: u8,
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address.parse::<IpAddr>().ok()?, Some(bits.parse().ok()?)),
            None => (text.parse::<IpAddr>().ok()?, None),
        };
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(all);
        (bits <= all).then_some(Self { address, bits })
    }

    fn contains(&self, address: IpAddr) -> bool {
        let differs = match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros(),
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros(),
            _ => return false,
        };
        differs >= self.bits.into()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = if self.address.is_ipv4() { 32 } else { 128 };
        if self.bits == all {
            write!(f, "{}", self.address)
        } else {
            write!(f, "{}/{}", self.address, self.bits)
        }
    }
}

/// Networks, with commas between: addresses, or an address and how many bits of it are meant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Networks(Vec<Network>);

impl Networks {
    /// Whether the address is in one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

impl FromStr for Networks {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let network = |part| {
            let wrong = || "expected addresses or networks with commas between, such as 127.0.0.1,10.0.0.0/8,fd00::/8";
            Network::parse(part).ok_or_else(|| wrong().to_string())
        };
        parts.map(network).collect::<Result<_, _>>().map(Self)
    }
}

impl Value for Networks {
    fn read(text: &str) -> Result<Self, String> {
        text.parse()
    }
    fn show(&self) -> String {
        self.0.iter().map(Network::to_string).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_what_begins_alike() {
        let networks = Networks::read("127.0.0.1, 10.0.0.0/8,fd00::/8,::1").unwrap();
        assert_eq!(networks.show(), "127.0.0.1,10.0.0.0/8,fd00::/8,::1");
        let holds = |address: &str| networks.contains(address.parse().unwrap());
        assert!(["127.0.0.1", "10.255.0.1", "fdff::1", "::1"].into_iter().all(holds));
        assert!(!["127.0.0.2", "11.0.0.1", "fe00::1", "::2"].into_iter().any(holds));
        assert!(Networks::read("0.0.0.0/0").unwrap().contains([1, 2, 3, 4].into()));
        assert_eq!(Networks::read("").unwrap(), Networks::default());
        for wrong in ["10.0.0.0/33", "::/129", "10.0.0.0/", "proxy", "10.0.0.0/-1", "1.2.3.4:80"] {
            assert!(Networks::read(wrong).is_err(), "{wrong}");
        }
    }
}
