//! How the value of a setting is read from text and shown again.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Stands where a secret is not shown.
pub const HIDDEN: &str = "***";

/// A value that a flag, a variable or a line of the file can hold.
pub trait Value: Sized {
    /// Reads it; the error says what was expected.
    fn read(text: &str) -> Result<Self, String>;
    /// Writes it in a form that [`Value::read`] takes.
    fn show(&self) -> String;
}

impl Value for String {
    fn read(text: &str) -> Result<Self, String> {
        Ok(text.into())
    }
    fn show(&self) -> String {
        self.clone()
    }
}

impl Value for PathBuf {
    fn read(text: &str) -> Result<Self, String> {
        Ok(text.into())
    }
    fn show(&self) -> String {
        self.display().to_string()
    }
}

impl Value for bool {
    fn read(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => Ok(true),
            "0" | "false" | "no" | "off" => Ok(false),
            _ => Err("expected true or false".into()),
        }
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

macro_rules! integers {
    ($($kind:ty)*) => {$(
        impl Value for $kind {
            fn read(text: &str) -> Result<Self, String> {
                let digits: String = text.chars().filter(|c| *c != '_').collect();
                digits.parse().map_err(|_| format!("expected a whole number from 0 to {}", Self::MAX))
            }
            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}
integers!(u16 u32 u64 usize);

/// A setting that may be absent: the empty text.
impl<T: Value> Value for Option<T> {
    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(None) } else { T::read(text).map(Some) }
    }
    fn show(&self) -> String {
        self.as_ref().map(T::show).unwrap_or_default()
    }
}

/// A size in bytes; read with an optional unit (`KiB`, `MiB`, `GiB`, and `k`, `M`, `G` for the same).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl Bytes {
    /// As a length in memory.
    pub fn len(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];

impl Value for Bytes {
    fn read(text: &str) -> Result<Self, String> {
        let expected = || "expected a size such as 4096, 64KiB, 32MiB or 2GiB".to_string();
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number = u64::read(number).map_err(|_| expected())?;
        let factor = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            _ => return Err(expected()),
        };
        number.checked_mul(factor).map(Self).ok_or_else(expected)
    }
    fn show(&self) -> String {
        let unit = UNITS.iter().find(|(size, _)| self.0 >= *size && self.0.is_multiple_of(*size));
        unit.map_or_else(|| self.0.to_string(), |(size, name)| format!("{}{name}", self.0 / size))
    }
}

/// When a mutation counts as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// After `fdatasync`, before the reply.
    Fsync,
    /// After it was given to the operating system: a power cut may lose it, a kill -9 may not.
    Os,
    /// As `Os`, with an `fdatasync` each interval.
    Interval(Duration),
}

impl Value for Durability {
    fn read(text: &str) -> Result<Self, String> {
        let expected = || "expected fsync, os or interval:<milliseconds, at least 1>".to_string();
        match text {
            "fsync" => Ok(Self::Fsync),
            "os" => Ok(Self::Os),
            _ => match text.strip_prefix("interval:").map(str::parse::<u32>) {
                Some(Ok(ms)) if ms > 0 => Ok(Self::Interval(Duration::from_millis(ms.into()))),
                _ => Err(expected()),
            },
        }
    }
    fn show(&self) -> String {
        match self {
            Self::Fsync => "fsync".into(),
            Self::Os => "os".into(),
            Self::Interval(every) => format!("interval:{}", every.as_millis()),
        }
    }
}

macro_rules! choices {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl Value for $name {
            fn read(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(concat!("expected one of", $(" ", $text),+).into()),
                }
            }
            fn show(&self) -> String {
                match self { $(Self::$variant => $text.into()),+ }
            }
        }
    };
}

choices! {
    /// Form of the log lines on standard error.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON map a line, for programs.
        Json = "json",
    }
}

choices! {
    /// Encoding of notifications.
    PubFormat {
        /// `MessagePack` maps.
        MsgPack = "msgpack",
        /// JSON maps.
        Json = "json",
    }
}

choices! {
    /// What is spoken to Redis.
    RedisProtocol {
        /// The older form, which all of them speak.
        Resp2 = "resp2",
        /// The newer one, asked for by `HELLO 3`.
        Resp3 = "resp3",
    }
}

choices! {
    /// What a value in Redis is.
    RedisValue {
        /// A string of JSON.
        Json = "json",
        /// A document of the RedisJSON module.
        RedisJson = "redisjson",
        /// A hash.
        Hash = "hash",
        /// A string of `MessagePack`.
        MessagePack = "messagepack",
    }
}

choices! {
    /// When the time to live of a key begins anew.
    RedisTtlRefresh {
        /// With each insert.
        Write = "write",
        /// Not at all.
        Never = "never",
    }
}

choices! {
    /// Which sets are kept in Redis.
    RedisSets {
        /// None.
        None = "none",
        /// Of subject and predicate.
        Sp = "sp",
        /// Of predicate and object.
        Po = "po",
        /// Both.
        Both = "both",
    }
}

choices! {
    /// How mutations are announced on Redis.
    RedisEvents {
        /// Not at all.
        None = "none",
        /// To whoever listens just then.
        Publish = "publish",
        /// As entries of a stream.
        Stream = "stream",
    }
}

/// An address to bind, `tcp://host:port` or `ipc://path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(pub String);

impl Value for Endpoint {
    fn read(text: &str) -> Result<Self, String> {
        let expected = || "expected tcp://<host or *>:<port or *> or ipc://<path>".to_string();
        if let Some(path) = text.strip_prefix("ipc://") {
            return if path.is_empty() { Err(expected()) } else { Ok(Self(text.into())) };
        }
        let (host, port) =
            text.strip_prefix("tcp://").and_then(|rest| rest.rsplit_once(':')).ok_or_else(expected)?;
        if host.is_empty() || (port != "*" && port.parse::<u16>().is_err()) {
            return Err(expected());
        }
        // Port 0 and * are one thing to a user: a free port. libzmq knows it as *.
        let port = if port == "0" { "*" } else { port };
        Ok(Self(format!("tcp://{host}:{port}")))
    }
    fn show(&self) -> String {
        self.0.clone()
    }
}

/// A value that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Value for Secret {
    fn read(text: &str) -> Result<Self, String> {
        Ok(Self(text.into()))
    }
    fn show(&self) -> String {
        HIDDEN.into()
    }
}

/// A URL that may hold a password, shown without it.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(pub String);

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.show())
    }
}

impl Value for Url {
    fn read(text: &str) -> Result<Self, String> {
        let is_one = text.contains("://") || text.starts_with("unix:/");
        if is_one { Ok(Self(text.into())) } else { Err("expected <scheme>://… or unix:/…".into()) }
    }
    fn show(&self) -> String {
        let Some((scheme, rest)) = self.0.split_once("://") else {
            return if self.0.contains(['@', '?']) { HIDDEN.into() } else { self.0.clone() };
        };
        let (login, rest) = rest.rsplit_once('@').map_or(("", rest), |(_, host)| ("***@", host));
        // Parameters may hold anything.
        let (host, parameters) = rest.split_once('?').map_or((rest, ""), |(host, _)| (host, "?***"));
        format!("{scheme}://{login}{host}{parameters}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_and_are_shown_with_them() {
        for (text, bytes, shown) in [
            ("0", 0, "0"),
            ("4_096", 4096, "4KiB"),
            ("64 KiB", 65536, "64KiB"),
            ("3m", 3 << 20, "3MiB"),
            ("2GiB", 2 << 30, "2GiB"),
            ("1025", 1025, "1025"),
        ] {
            let read = Bytes::read(text).unwrap();
            assert_eq!((read.0, read.show().as_str()), (bytes, shown), "{text}");
            assert_eq!(Bytes::read(&read.show()), Ok(read));
        }
        for text in ["", "KiB", "-1", "1.5MiB", "1 parsec", "99999999999GiB"] {
            assert!(Bytes::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durability_and_endpoints() {
        assert_eq!(Durability::read("interval:50"), Ok(Durability::Interval(Duration::from_millis(50))));
        for text in ["interval:0", "interval:", "interval:-1", "none", ""] {
            assert!(Durability::read(text).is_err(), "{text}");
        }
        assert_eq!(Endpoint::read("tcp://127.0.0.1:0").unwrap().0, "tcp://127.0.0.1:*");
        assert_eq!(Endpoint::read("tcp://[::1]:5555").unwrap().0, "tcp://[::1]:5555");
        for text in ["5555", "tcp://", "tcp://host", "tcp://:1", "udp://a:1", "tcp://a:70000", "ipc://"] {
            assert!(Endpoint::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn passwords_are_hidden() {
        assert_eq!(Url("redis://user:p@ss@host:1/2".into()).show(), "redis://***@host:1/2");
        assert_eq!(Url("redis://host".into()).show(), "redis://host");
        assert_eq!(Url("redis://host?password=hush".into()).show(), "redis://host?***");
        let url = Some(Url("redis://:secret@h".into()));
        assert!(!format!("{:?} {:?}", url, Secret("secret".into())).contains("secret"));
    }
}
