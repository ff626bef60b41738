//! Where Redis is and how the mirror uses it: plain values in, a checked [`Target`] out.

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};
use std::fmt;
use std::time::Duration;

/// Most bytes of a key prefix.
pub const PREFIX_BYTES_MAX: usize = 256;
/// Redis's own port.
pub const DEFAULT_PORT: u16 = 6379;

/// A text that never shows: [`fmt::Debug`] and [`fmt::Display`] print `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself. What comes from here must not reach a log, a message or a reply.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// How to reach Redis and what to write there. [`MirrorConfig::target`] checks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorConfig {
    /// `redis://[user[:password]@]host[:port][/db]`; wins over the single fields. Secret, because a
    /// password may be in it.
    pub url: Option<Secret>,
    /// Host name or address. Neither this nor `url` set: no mirror.
    pub host: Option<String>,
    /// TCP port, 6379 by default.
    pub port: u16,
    /// ACL user; without one Redis takes the password as that of the user `default`.
    pub username: Option<String>,
    /// Password.
    pub password: Option<Secret>,
    /// Number of the database, 0 by default.
    pub db: u32,
    /// Written before each hash to make a key; empty by default, at most [`PREFIX_BYTES_MAX`] bytes.
    pub prefix: String,
    /// Longest wait for TCP connect and greeting, 5 s by default.
    pub connect_timeout: Duration,
    /// Longest wait for the replies to a pipeline, 10 s by default.
    pub response_timeout: Duration,
    /// Time between two looks at an idle Redis, 5 s by default. It bounds how long a death of the
    /// connection or a loss of its data (`FLUSHALL`) stays unnoticed.
    pub health_interval: Duration,
    /// Longest pause between two attempts to connect, 2 s by default.
    pub backoff_max: Duration,
}

impl Default for MirrorConfig {
    fn default() -> Self {
        Self {
            url: None,
            host: None,
            port: DEFAULT_PORT,
            username: None,
            password: None,
            db: 0,
            prefix: String::new(),
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(10),
            health_interval: Duration::from_secs(5),
            backoff_max: Duration::from_secs(2),
        }
    }
}

/// A setting that cannot be used. Never holds a secret's text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("mirror setting `{field}` is {found}: expected {expected}")]
pub struct ConfigError {
    /// Field of [`MirrorConfig`].
    pub field: &'static str,
    /// What is there, or what is wrong with it where it is a secret.
    pub found: String,
    /// What would do.
    pub expected: String,
}

/// A checked place to write to.
#[derive(Clone)]
pub struct Target {
    pub(crate) connection: ConnectionInfo,
    /// `host:port/db`, for messages.
    name: String,
}

impl Target {
    /// `host:port/db`, without user or password.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Target").field(&self.name).finish()
    }
}

impl MirrorConfig {
    /// Whether a mirror is asked for at all.
    pub fn is_configured(&self) -> bool {
        self.url.is_some() || self.host.is_some()
    }

    /// Checks every field; `None` when no mirror is asked for.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that cannot be used.
    pub fn target(&self) -> Result<Option<Target>, ConfigError> {
        let wrong = |field, found: &dyn fmt::Display, expected: &str| {
            Err(ConfigError { field, found: found.to_string(), expected: expected.into() })
        };
        if self.prefix.len() > PREFIX_BYTES_MAX || self.prefix.chars().any(|c| c.is_control() || c == ' ') {
            let expected = format!("at most {PREFIX_BYTES_MAX} bytes without spaces or control characters");
            return wrong("prefix", &format!("{:?}", self.prefix), &expected);
        }
        let times = [
            ("connect_timeout", self.connect_timeout),
            ("response_timeout", self.response_timeout),
            ("health_interval", self.health_interval),
            ("backoff_max", self.backoff_max),
        ];
        for (field, time) in times {
            if time < Duration::from_millis(1) || time > Duration::from_hours(1) {
                return wrong(field, &format!("{time:?}"), "1 ms to 1 h");
            }
        }
        let connection = match (&self.url, &self.host) {
            (Some(url), _) => Self::parse_url(url)?,
            (None, Some(host)) => self.by_fields(host)?,
            (None, None) => return Ok(None),
        };
        let name = format!("{}/{}", connection.addr(), connection.redis_settings().db());
        Ok(Some(Target { connection, name }))
    }

    fn parse_url(url: &Secret) -> Result<ConnectionInfo, ConfigError> {
        const EXPECTED: &str = "redis://[user[:password]@]host[:port][/db]";
        let wrong = |found: String| ConfigError { field: "url", found, expected: EXPECTED.into() };
        let Some((scheme, _)) = url.expose().split_once("://") else {
            return Err(wrong("a text without scheme".into()));
        };
        if scheme != "redis" {
            let shown: String = scheme.chars().take(20).collect();
            return Err(wrong(format!("a URL of the scheme {shown:?}, which this version does not speak")));
        }
        // What is not understood must not be passed over: `?ssl=true` asks for TLS elsewhere.
        if url.expose().contains(['?', '#']) {
            let found = "a URL with parameters ('?' or '#'; in a password these are %3F and %23)";
            return Err(wrong(found.into()));
        }
        // The parser's own message has no text of the URL in it.
        let info = url.expose().into_connection_info();
        let info = info.map_err(|e| wrong(format!("not a usable URL ({e})")))?;
        let login = info.redis_settings();
        if login.username().is_some() && login.password().is_none() {
            return Err(wrong(
                "a URL with a user and no password (a password alone is written :password@)".into(),
            ));
        }
        Ok(info)
    }

    fn by_fields(&self, host: &str) -> Result<ConnectionInfo, ConfigError> {
        let wrong = |field, found: String, expected: &str| {
            Err(ConfigError { field, found, expected: expected.into() })
        };
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || matches!(c, '/' | '@' | ',')) {
            return wrong("host", format!("{host:?}"), "a host name or an address");
        }
        if self.port == 0 {
            return wrong("port", "0".into(), "1 to 65535");
        }
        if self.username.is_some() && self.password.is_none() {
            return wrong("username", "set without a password".into(), "both or none");
        }
        let mut redis = RedisConnectionInfo::default().set_db(i64::from(self.db));
        if let Some(username) = &self.username {
            redis = redis.set_username(username);
        }
        if let Some(password) = &self.password {
            redis = redis.set_password(password.expose());
        }
        let addr = ConnectionAddr::Tcp(host.into(), self.port);
        match addr.into_connection_info() {
            Ok(connection) => Ok(connection.set_redis_settings(redis)),
            Err(e) => wrong("host", format!("{host:?} ({e})"), "a host name or an address"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_never_show() {
        let config = MirrorConfig {
            url: Some(Secret::new("redis://joe:hunter2@example.org:7000/3")),
            password: Some(Secret::new("hunter2")),
            ..MirrorConfig::default()
        };
        let target = config.target().unwrap().unwrap();
        let shown = format!("{config:?} {target:?} {} {}", target.name(), Secret::new("hunter2"));
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(target.name(), "example.org:7000/3");
        assert_eq!(target.connection.redis_settings().password(), Some("hunter2"));
        for bad in [
            "hunter2",
            "http://joe:hunter2@h",
            "redis://joe:hunter2@h:notaport",
            "rediss://:hunter2@h",
            "redis+sentinel://:hunter2@h/mymaster",
            "redis://:hunter2@h:1,i:2/0",
            "redis://:hunter2@h?ssl=true",
            "redis://:hunter2@h#insecure",
            "redis://:hun?ter2hunter2@h",
            "redis://hunter2@h",
        ] {
            let config = MirrorConfig { url: Some(Secret::new(bad)), ..MirrorConfig::default() };
            let error = config.target().unwrap_err();
            assert_eq!(error.field, "url");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn fields_are_checked_and_named() {
        let host = || MirrorConfig { host: Some("h".into()), ..MirrorConfig::default() };
        let bad = [
            ("host", MirrorConfig { host: Some("a b".into()), ..host() }),
            ("host", MirrorConfig { host: Some("a:1,b:2".into()), ..host() }),
            ("port", MirrorConfig { port: 0, ..host() }),
            ("username", MirrorConfig { username: Some("u".into()), ..host() }),
            ("prefix", MirrorConfig { prefix: "a b".into(), ..host() }),
            ("prefix", MirrorConfig { prefix: "x".repeat(PREFIX_BYTES_MAX + 1), ..host() }),
            ("response_timeout", MirrorConfig { response_timeout: Duration::ZERO, ..host() }),
        ];
        for (field, config) in bad {
            assert_eq!(config.target().unwrap_err().field, field);
        }
        assert!(MirrorConfig::default().target().unwrap().is_none());
        let config = MirrorConfig { db: 2, password: Some(Secret::new("p")), ..host() };
        assert_eq!(config.target().unwrap().unwrap().name(), "h:6379/2");
    }

    #[test]
    fn url_wins_over_the_fields() {
        let url = Some(Secret::new("redis://a:1/0"));
        let config = MirrorConfig { url, host: Some("b".into()), ..MirrorConfig::default() };
        assert_eq!(config.target().unwrap().unwrap().name(), "a:1/0");
    }
}
