//! Which server of a cluster has which key (Redis Cluster Specification, "Key distribution model" and
//! "Hash tags").

use crate::connect::text;
use crate::endpoint::Address;
use crate::failure::{Category, Failure};
use redis::Value;
use std::sync::LazyLock;

/// Slots of a cluster.
pub(crate) const SLOTS: u16 = 16384;
/// Epoch keys of a cluster: so many that each primary has some, unless it has next to no slots.
const EPOCH_TAGS: u16 = 64;
const NOBODY: u16 = u16::MAX;

/// CRC-16/XMODEM: polynomial 0x1021, beginning with 0, not reflected.
const CRC16: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = ((byte as u16) << 8, 0);
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| crc << 8 ^ CRC16[usize::from((crc >> 8) as u8 ^ byte)])
}

/// The slot of a key: of what is between the first `{` and the next `}`, if that is something, else of all
/// of it.
pub(crate) fn slot_of(key: &[u8]) -> u16 {
    let tag = || {
        let begin = key.iter().position(|byte| *byte == b'{')? + 1;
        let len = key[begin..].iter().position(|byte| *byte == b'}')?;
        (len > 0).then(|| &key[begin..begin + len])
    };
    crc16(tag().unwrap_or(key)) % SLOTS
}

/// A text whose slot this is.
pub(crate) fn tag_of(slot: u16) -> String {
    let mut tags = (0..u32::MAX).map(|n| n.to_string());
    tags.find(|tag| slot_of(tag.as_bytes()) == slot).expect("every slot has numbers")
}

/// Texts whose slots are spread evenly, in the order of these: what epoch keys have between braces.
pub(crate) fn epoch_tags() -> &'static [String] {
    static TAGS: LazyLock<Vec<String>> = LazyLock::new(|| {
        let every = SLOTS / EPOCH_TAGS;
        let mut tags = vec![String::new(); EPOCH_TAGS.into()];
        let mut missing = tags.len();
        for n in 0_u32.. {
            let tag = n.to_string();
            let slot = slot_of(tag.as_bytes());
            let place = &mut tags[usize::from(slot / every)];
            if slot.is_multiple_of(every) && place.is_empty() {
                *place = tag;
                missing -= 1;
                if missing == 0 {
                    break;
                }
            }
        }
        tags
    });
    &TAGS
}

/// Which primary has which slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlotMap {
    /// Of each slot, the place of its primary in `nodes`.
    owners: Vec<u16>,
    /// The primaries.
    pub nodes: Vec<Address>,
}

impl SlotMap {
    /// Reads a reply to `CLUSTER SLOTS`, which came from `asked`.
    ///
    /// # Errors
    /// [`Failure`] where the reply is none, or slots have no primary.
    pub fn of(reply: &Value, asked: &Address) -> Result<Self, Failure> {
        let mut map = Self { owners: vec![NOBODY; SLOTS.into()], nodes: Vec::new() };
        let unexpected = || Failure::unexpected_reply("CLUSTER SLOTS", reply);
        let Value::Array(ranges) = reply else { return Err(unexpected()) };
        for range in ranges {
            map.add(range, asked).ok_or_else(unexpected)?;
        }
        match map.owners.iter().position(|owner| *owner == NOBODY) {
            None => Ok(map),
            Some(slot) => Err(Failure::new(
                Category::Resource,
                format!("the cluster has no primary for slot {slot}"),
                "see CLUSTER INFO and CLUSTER NODES there: bring the missing servers back, or give their slots to others",
            )),
        }
    }

    /// `[first, last, [host, port, …], …]`, of which the replicas are passed over.
    fn add(&mut self, range: &Value, asked: &Address) -> Option<()> {
        let Value::Array(parts) = range else { return None };
        let [Value::Int(first), Value::Int(last), Value::Array(primary), ..] = &**parts else { return None };
        let [host, Value::Int(port), more @ ..] = &**primary else { return None };
        let host = match text(host).unwrap_or_default() {
            // It should have a name, and has none: its address stands among what else there is.
            "?" => address_among(more.get(1)?)?.to_owned(),
            // The one that was asked does not know its own name.
            "" => match asked {
                Address::Tcp { host, .. } => host.clone(),
                Address::Unix(_) => return None,
            },
            host => host.to_owned(),
        };
        let address = Address::Tcp { host, port: u16::try_from(*port).ok()? };
        let node = self.nodes.iter().position(|node| *node == address).unwrap_or_else(|| {
            self.nodes.push(address);
            self.nodes.len() - 1
        });
        let (first, last) = (usize::try_from(*first).ok()?, usize::try_from(*last).ok()?);
        self.owners.get_mut(first..last.checked_add(1)?)?.fill(node as u16);
        Some(())
    }

    /// Whether the slots are divided alike, whoever the primaries are: no slot was moved.
    pub fn divides_alike(&self, other: &Self) -> bool {
        let mut names = vec![None; self.nodes.len()];
        self.nodes.len() == other.nodes.len()
            && self
                .owners
                .iter()
                .zip(&other.owners)
                .all(|(own, others)| *names[usize::from(*own)].get_or_insert(*others) == *others)
    }

    /// Places of primaries that have none of these keys, each with its first slot.
    pub fn without(&self, keys: &[(usize, String)]) -> Vec<(usize, u16)> {
        let bare = (0..self.nodes.len()).filter(|node| !keys.iter().any(|(server, _)| server == node));
        let first = |node: usize| self.owners.iter().position(|owner| usize::from(*owner) == node);
        bare.filter_map(|node| Some((node, first(node)? as u16))).collect()
    }

    /// The place in `nodes` of the primary that has this key.
    pub fn node_of(&self, key: &[u8]) -> usize {
        self.owners[usize::from(slot_of(key))].into()
    }
}

/// The address of a server that is called by name (Redis 7), from pairs in either form of the protocol.
fn address_among(pairs: &Value) -> Option<&str> {
    match pairs {
        Value::Array(pairs) => {
            pairs.chunks(2).find(|pair| text(&pair[0]) == Some("ip")).and_then(|pair| text(pair.get(1)?))
        }
        Value::Map(pairs) => {
            pairs.iter().find(|(name, _)| text(name) == Some("ip")).and_then(|(_, address)| text(address))
        }
        _ => None,
    }
}

/// Where an error reply sends the command instead: `MOVED 3999 host:port`, `ASK 3999 host:port`.
pub(crate) fn redirection(details: &str, asked: &Address) -> Option<Address> {
    let (_, place) = details.split_once(' ')?;
    let (host, port) = place.rsplit_once(':')?;
    let port = port.parse().ok()?;
    match (host, asked) {
        ("", Address::Tcp { host, .. }) => Some(Address::Tcp { host: host.clone(), port }),
        ("?", _) | ("", Address::Unix(_)) => None,
        (host, _) => Some(Address::Tcp { host: host.into(), port }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn range(first: i64, last: i64, host: Value, port: i64) -> Value {
        let server = |host, port| Value::Array(vec![host, Value::Int(port), bulk("id")]);
        Value::Array(vec![
            Value::Int(first),
            Value::Int(last),
            server(host, port),
            server(bulk("replica"), 1),
        ])
    }

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp { host: host.into(), port }
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3, "the check value of the specification");
        // As CLUSTER KEYSLOT of a server tells them.
        assert_eq!((slot_of(b"foo"), slot_of(b"bar"), slot_of(b"")), (12182, 5061, 0));
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"user1000"));
        assert_eq!(slot_of(b"foo{bar}{zap}"), slot_of(b"bar"));
        assert_eq!(slot_of(b"foo{{bar}}zap"), slot_of(b"{bar"));
        for whole in [&b"foo{}{bar}"[..], b"foo}bar{", b"{open"] {
            assert_eq!(slot_of(whole), crc16(whole) % SLOTS);
        }
    }

    #[test]
    fn epoch_keys_are_spread_evenly() {
        let slots: Vec<u16> = epoch_tags().iter().map(|tag| slot_of(tag.as_bytes())).collect();
        assert_eq!(slots, (0..64).map(|n| n * 256).collect::<Vec<_>>());
    }

    #[test]
    fn maps_are_read_and_must_be_whole() {
        let asked = tcp("seed", 7000);
        let whole = Value::Array(vec![
            range(0, 5460, bulk("a"), 7001),
            range(10923, 16383, Value::Nil, 7003),
            range(5461, 10922, bulk("a"), 7001),
        ]);
        let map = SlotMap::of(&whole, &asked).unwrap();
        let renamed = Value::Array(vec![range(0, 10922, bulk("z"), 1), range(10923, 16383, bulk("y"), 2)]);
        let moved =
            Value::Array(vec![range(0, 10921, bulk("a"), 7001), range(10922, 16383, bulk("b"), 7003)]);
        let [renamed, moved] = [renamed, moved].map(|reply| SlotMap::of(&reply, &asked).unwrap());
        assert!(map.divides_alike(&renamed) && !map.divides_alike(&moved) && !moved.divides_alike(&map));
        assert_eq!(map.without(&[(0, String::new())]), [(1, 10923)]);
        assert_eq!(map.nodes, [tcp("a", 7001), tcp("seed", 7003)]);
        assert_eq!((map.node_of(b"foo"), map.node_of(b"bar")), (1, 0));
        let holed = Value::Array(vec![range(0, 16382, bulk("a"), 7001)]);
        let failure = SlotMap::of(&holed, &asked).unwrap_err();
        assert!(failure.to_string().contains("slot 16383"), "{failure}");
        for odd in
            [Value::Nil, Value::Array(vec![Value::Int(1)]), Value::Array(vec![range(0, 16384, bulk("a"), 1)])]
        {
            assert!(SlotMap::of(&odd, &asked).is_err());
        }
    }

    #[test]
    fn a_server_without_its_name_is_found_by_its_address() {
        let asked = tcp("seed", 7000);
        for more in [
            Value::Array(vec![bulk("x"), bulk("y"), bulk("ip"), bulk("10.0.0.1")]),
            Value::Map(vec![(bulk("ip"), bulk("10.0.0.1"))]),
        ] {
            let server = Value::Array(vec![bulk("?"), Value::Int(7), bulk("id"), more]);
            let reply = Value::Array(vec![Value::Array(vec![Value::Int(0), Value::Int(16383), server])]);
            assert_eq!(SlotMap::of(&reply, &asked).unwrap().nodes, [tcp("10.0.0.1", 7)]);
        }
        assert!(SlotMap::of(&Value::Array(vec![range(0, 16383, bulk("?"), 7)]), &asked).is_err());
        assert_eq!(slot_of(tag_of(5461).as_bytes()), 5461);
    }

    #[test]
    fn redirections_are_read() {
        let asked = tcp("seed", 7000);
        assert_eq!(redirection("3999 127.0.0.1:6381", &asked), Some(tcp("127.0.0.1", 6381)));
        assert_eq!(redirection("3999 ::1:6381", &asked), Some(tcp("::1", 6381)));
        assert_eq!(redirection("3999 :6381", &asked), Some(tcp("seed", 6381)));
        assert_eq!(redirection("3999", &asked), None);
    }
}
