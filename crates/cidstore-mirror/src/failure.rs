//! What goes wrong, sorted by who can mend it, with what to do.

use crate::endpoint::Address;
use crate::events::GAP;
use redis::{ErrorKind, RedisError, ServerError};
use std::fmt;

/// Who can mend a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Category {
    /// Nobody is reached, or the connection ended or stays silent.
    Network = 0,
    /// Password, user, or what the user may do.
    Auth = 1,
    /// Redis understands but refuses: a replica, a wrong database, an unknown command.
    Validation = 2,
    /// Redis is out of memory, still loading, over its connections.
    Resource = 3,
    /// This side: the log, the store or the cursor cannot be read or written.
    Store = 4,
}

impl Category {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Network, Self::Auth, Self::Validation, Self::Resource, Self::Store];

    /// Its name in metrics and on `/status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Auth => "auth",
            Self::Validation => "validation",
            Self::Resource => "resource",
            Self::Store => "store",
        }
    }
}

/// Why the mirror cannot go on for now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Failure {
    /// Who can mend it.
    pub category: Category,
    /// What happened.
    pub what: String,
    /// What to do about it.
    pub remedy: &'static str,
    /// The server does not let this user run the command, or does not have it.
    pub(crate) is_forbidden: bool,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

impl Failure {
    pub(crate) fn new(category: Category, what: impl Into<String>, remedy: &'static str) -> Self {
        Self { category, what: what.into(), remedy, is_forbidden: false }
    }

    /// Whether certificates are what is wrong.
    pub(crate) fn is_about_tls(&self) -> bool {
        self.what.starts_with("TLS: ")
    }

    /// Whether the server does not know a script by its SHA-1.
    pub(crate) fn is_about_script(&self) -> bool {
        self.what.starts_with("Redis says NOSCRIPT")
    }

    /// The same, with the server that it is about.
    pub(crate) fn at(self, address: &Address) -> Self {
        Self { what: format!("{address}: {}", self.what), ..self }
    }

    pub(crate) fn network(what: impl Into<String>) -> Self {
        Self::new(Category::Network, what, REACH)
    }

    pub(crate) fn store(what: impl Into<String>, remedy: &'static str) -> Self {
        Self::new(Category::Store, what, remedy)
    }

    /// Whether the server does not know the command.
    pub(crate) fn is_unknown_command(&self) -> bool {
        self.is_forbidden && self.what.contains(UNKNOWN)
    }

    pub(crate) fn unexpected_reply(to: &str, reply: &redis::Value) -> Self {
        let mut shown = format!("{reply:?}");
        shown.truncate(shown.floor_char_boundary(120));
        let what = format!("unexpected reply to {to}: {shown}");
        Self::new(Category::Validation, what, "check that the other end is Redis 6 or Valkey 7, or newer")
    }

    /// Sorts an error reply.
    pub(crate) fn from_server(error: &ServerError) -> Self {
        Self::from_code(error.code(), error.details().unwrap_or_default())
    }

    fn from_code(code: &str, details: &str) -> Self {
        let (category, remedy) = judge(code, details);
        // What it does not know it repeats, of a login with the password.
        let shown = details.split(", with args").next().unwrap_or_default();
        let what = format!("Redis says {code} {shown}");
        let is_forbidden = code == "NOPERM" || details.starts_with(UNKNOWN);
        Self { is_forbidden, ..Self::new(category, what.trim_end(), remedy) }
    }
}

const UNKNOWN: &str = "unknown command";
const REACH: &str =
    "check that Redis runs, that host and port are right, and whether it wants TLS; the mirror keeps trying";
const PASSWORD: &str = "set the user name and password that Redis expects (REDIS_USERNAME, REDIS_PASSWORD)";

/// Category and remedy of an error reply, by its code: the first word of the reply.
fn judge(code: &str, details: &str) -> (Category, &'static str) {
    match code {
        "NOAUTH" | "WRONGPASS" => (Category::Auth, PASSWORD),
        "NOPERM" => (
            Category::Auth,
            "let the ACL user run SET, GET, UNLINK, SCAN and SELECT (better CLIENT and INFO, too; CLUSTER and ASKING in a cluster) on the mirror's keys and on cidstore:mirror:*; what other forms of values, sets and events take is in docs/redis.md",
        ),
        "READONLY" => (Category::Validation, "point the mirror at the primary, not at a replica"),
        "MOVED" | "ASK" | "CROSSSLOT" => (
            Category::Validation,
            "a cluster is configured by some of its nodes, as redis+cluster://host,host,…; where it is, slots move, and that passes",
        ),
        "CLUSTERDOWN" | "TRYAGAIN" => (
            Category::Resource,
            "the cluster misses servers or moves slots: see CLUSTER INFO there; the mirror owes the rest until then",
        ),
        "NOPROTO" => (Category::Validation, "this server speaks RESP2 only: leave redis_protocol at resp2"),
        "LOADING" => (Category::Resource, "Redis is loading its data: nothing to do but wait"),
        "OOM" => (
            Category::Resource,
            "raise maxmemory of Redis, or free memory there; the mirror owes the rest until then",
        ),
        "MISCONF" => (Category::Resource, "Redis cannot save to its disk: make room there, see its log"),
        "MASTERDOWN" | "NOREPLICAS" => {
            (Category::Resource, "Redis misses its replication partners: see its log")
        }
        "BUSY" => (Category::Resource, "a script blocks Redis: end it with SCRIPT KILL"),
        _ if details.starts_with(UNKNOWN) => (
            Category::Validation,
            "Redis 6 or Valkey 7, or newer, is needed, with this command under its own name; where it is HELLO, leave redis_protocol at resp2",
        ),
        GAP => (
            Category::Validation,
            "entries were removed from the stream: the mirror adds one of type resync, and goes on",
        ),
        "WRONGTYPE" => (
            Category::Validation,
            "a key that the mirror needs holds something of another type: remove it, or choose another redis_prefix or redis_events_key",
        ),
        // As scripts tell it in Redis 6.
        _ if details.contains("-OOM ") => judge("OOM", ""),
        _ if details.contains("max number of clients") => {
            (Category::Resource, "raise maxclients of Redis, or close connections")
        }
        _ if details.contains("without any password configured") => {
            (Category::Auth, "Redis has no password: unset REDIS_PASSWORD, or set requirepass there")
        }
        _ if details.contains("invalid password") => (Category::Auth, PASSWORD),
        _ if details.contains("DB index is out of range") || details.contains("invalid DB index") => {
            (Category::Validation, "choose a database that Redis has (REDIS_DB)")
        }
        _ => (Category::Validation, "see what Redis says; the mirror keeps trying"),
    }
}

/// For whatever is wrong with the files themselves.
pub(crate) const CERTIFICATE_FILES: &str = "check the files of REDIS_TLS_CA_FILE, REDIS_TLS_CERT_FILE and REDIS_TLS_KEY_FILE: PEM, and the key that of the certificate";

/// What to do about what the TLS library says. It comes as text: the `redis` crate keeps the error itself.
fn tls_remedy(text: &str) -> Option<&'static str> {
    let cases = [
        ("UnknownIssuer", "name the authority that signed the server's certificate (REDIS_TLS_CA_FILE)"),
        ("NotValidForName", "connect by a name, or an address, that is in the server's certificate"),
        (
            "certificate not valid for name",
            "connect by a name, or an address, that is in the server's certificate",
        ),
        ("Expired", "renew the server's certificate, and look at the clocks of both machines"),
        ("expired", "renew the certificate, and look at the clocks of both machines"),
        ("NotValidYet", "look at the clocks of both machines: the server's certificate is of the future"),
        ("not valid yet", "look at the clocks of both machines: the certificate is of the future"),
        (
            "CertificateRequired",
            "this server wants a certificate: set REDIS_TLS_CERT_FILE and REDIS_TLS_KEY_FILE",
        ),
        (
            "corrupt message",
            "this port does not speak TLS: give the TLS port, or redis:// instead of rediss://",
        ),
        ("invalid peer certificate", "check the server's certificate, and REDIS_TLS_CA_FILE"),
        (
            "fatal alert",
            "the server refuses: check the certificate and key that are shown to it, and its log",
        ),
    ];
    cases.iter().find(|(part, _)| text.contains(part)).map(|(_, remedy)| *remedy)
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        match error.kind() {
            // What TLS makes of its files; nothing else is configured by then.
            ErrorKind::InvalidClientConfig => {
                Self::new(Category::Auth, format!("TLS: {error}"), CERTIFICATE_FILES)
            }
            ErrorKind::Io if error.is_timeout() => Self::network("no reply from Redis in time"),
            ErrorKind::Io if tls_remedy(&error.to_string()).is_some() => {
                let what = format!("TLS: {error}");
                let remedy = tls_remedy(&what).unwrap_or(REACH);
                Self::new(Category::Auth, what, remedy)
            }
            ErrorKind::Io | ErrorKind::Parse => Self::network(format!("connection to Redis: {error}")),
            _ => {
                if let Some(code) = error.code() {
                    return Self::from_code(code, error.detail().unwrap_or_default());
                }
                let what = format!("Redis: {error}");
                Self::new(Category::Validation, what, "see what Redis says; the mirror keeps trying")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_that_is_not_understood_is_not_repeated() {
        let details =
            "unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `default`, `hunter2`, ";
        let failure = Failure::from_code("ERR", details);
        assert!(failure.is_forbidden && failure.remedy.contains("resp2"), "{failure}");
        assert!(!format!("{failure:?} {failure}").contains("hunter2"), "{failure}");
    }

    #[test]
    fn replies_are_sorted_by_who_can_mend_them() {
        let cases = [
            ("NOAUTH", "Authentication required.", Category::Auth, "password"),
            ("WRONGPASS", "invalid username-password pair", Category::Auth, "REDIS_PASSWORD"),
            ("NOPERM", "this user has no permissions", Category::Auth, "ACL"),
            ("READONLY", "You can't write against a read only replica.", Category::Validation, "primary"),
            ("MOVED", "3999 127.0.0.1:6381", Category::Validation, "redis+cluster"),
            ("CLUSTERDOWN", "The cluster is down", Category::Resource, "CLUSTER INFO"),
            ("LOADING", "Redis is loading the dataset in memory", Category::Resource, "wait"),
            ("OOM", "command not allowed when used memory > 'maxmemory'.", Category::Resource, "maxmemory"),
            ("MISCONF", "Redis is configured to save RDB snapshots", Category::Resource, "disk"),
            (
                "ERR",
                "Error running script (call to f_1): @user_script:1: -OOM command not allowed",
                Category::Resource,
                "maxmemory",
            ),
            ("WRONGTYPE", "Operation against a key", Category::Validation, "redis_events_key"),
            ("ERR", "max number of clients reached", Category::Resource, "maxclients"),
            ("ERR", "DB index is out of range", Category::Validation, "REDIS_DB"),
            ("ERR", "something new", Category::Validation, "keeps trying"),
        ];
        for (code, details, category, hint) in cases {
            let failure = Failure::from_code(code, details);
            assert_eq!(failure.category, category, "{code}");
            let text = failure.to_string();
            assert!(text.contains(hint) && text.contains(details), "{text}");
        }
    }
}
