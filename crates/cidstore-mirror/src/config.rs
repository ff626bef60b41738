//! Where Redis is and how the mirror uses it: plain values in, a checked [`Target`] out.

use crate::endpoint::{self, Address, Layout};
use crate::events::Events;
use crate::form::Form;
use crate::sets::Kind;
use crate::sweep::hash_of_key;
use std::fmt;
use std::path::PathBuf;
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

/// What is spoken: versions of the Redis serialization protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// What a server speaks to whom does not ask for more.
    #[default]
    Resp2,
    /// Asked for by `HELLO 3`; Redis 6 and newer, Valkey.
    Resp3,
}

/// How to reach Redis and what to write there. [`MirrorConfig::target`] checks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorConfig {
    /// One or several URLs; of the single fields only those count that it says nothing of. Secret, because a
    /// password may be in it.
    ///
    /// `redis://[[user]:password@]host[:port][/db]`, with `rediss` for TLS; several of these, of which the
    /// first primary is taken; `redis://n1,n2,…` for a cluster; `redis+sentinel://s1,s2,…/name[/db]`;
    /// `unix:/path`.
    pub url: Option<Secret>,
    /// Host names or addresses, `host[:port]` with commas between: the first primary among them is taken.
    /// Neither this nor `url` set: no mirror.
    pub host: Option<String>,
    /// TCP port of hosts that come without one, 6379 by default.
    pub port: u16,
    /// ACL user; without one Redis takes the password as that of the user `default`.
    pub username: Option<String>,
    /// Password.
    pub password: Option<Secret>,
    /// A file with the password, instead; it is read at each connect, so that the password can be changed.
    pub password_file: Option<PathBuf>,
    /// ACL user of the sentinels.
    pub sentinel_username: Option<String>,
    /// Password of the sentinels.
    pub sentinel_password: Option<Secret>,
    /// A file with it, instead.
    pub sentinel_password_file: Option<PathBuf>,
    /// Number of the database, 0 by default.
    pub db: u32,
    /// Whether to speak TLS, whatever the URL begins with.
    pub tls: bool,
    /// PEM file of the authorities that may have signed the server's certificate; by default those that the
    /// system trusts. This and the next two are read at each connect.
    pub tls_ca_file: Option<PathBuf>,
    /// PEM file of the certificate, and its chain, that is shown to the server.
    pub tls_cert_file: Option<PathBuf>,
    /// PEM file of its private key.
    pub tls_key_file: Option<PathBuf>,
    /// What is spoken, where the URL does not say.
    pub protocol: Protocol,
    /// Written before each hash to make a key; empty by default, at most [`PREFIX_BYTES_MAX`] bytes.
    pub prefix: String,
    /// How triples are written.
    pub form: Form,
    /// What is announced of them.
    pub events: Events,
    /// Longest wait for TCP connect, TLS and greeting of one server, 5 s by default.
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
            password_file: None,
            sentinel_username: None,
            sentinel_password: None,
            sentinel_password_file: None,
            db: 0,
            tls: false,
            tls_ca_file: None,
            tls_cert_file: None,
            tls_key_file: None,
            protocol: Protocol::Resp2,
            prefix: String::new(),
            form: Form::default(),
            events: Events::default(),
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
    /// Field of [`MirrorConfig`], or of its form or events.
    pub field: &'static str,
    /// What is there, or what is wrong with it where it is a secret.
    pub found: String,
    /// What would do.
    pub expected: String,
}

impl ConfigError {
    pub(crate) fn new(field: &'static str, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { field, found: found.into(), expected: expected.into() }
    }
}

/// Who the mirror is to a server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Login {
    pub username: Option<String>,
    pub password: Option<Password>,
}

/// Where a password is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Password {
    Text(Secret),
    File(PathBuf),
}

/// What TLS needs beside the name of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tls {
    pub ca: Option<PathBuf>,
    /// Certificate and key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// A checked place to write to.
#[derive(Debug, Clone)]
pub struct Target {
    pub(crate) layout: Layout,
    pub(crate) login: Login,
    pub(crate) sentinel_login: Login,
    pub(crate) tls: Option<Tls>,
    pub(crate) db: u32,
    pub(crate) protocol: Protocol,
    pub(crate) connect_timeout: Duration,
    pub(crate) response_timeout: Duration,
    /// `host:port/db` or the like, for messages.
    name: String,
}

impl Target {
    /// `host:port/db`, or the servers of a cluster or of Sentinel; without user or password.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl MirrorConfig {
    /// Whether a mirror is asked for at all.
    pub fn is_configured(&self) -> bool {
        self.url.is_some() || self.host.is_some()
    }

    /// Checks every field; `None` when no mirror is asked for. Files are not looked at: they may come later.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that cannot be used.
    pub fn target(&self) -> Result<Option<Target>, ConfigError> {
        self.check_prefix_and_times()?;
        self.form.check()?;
        let prefix = &self.prefix;
        let is_triples =
            |key: &[u8]| hash_of_key(key, prefix).is_some() || Kind::of_key(key, prefix).is_some();
        self.events.check(is_triples)?;
        let given = match (&self.url, &self.host) {
            (Some(url), _) => endpoint::parse(url.expose()).map_err(|found| {
                let expected = "redis://[user:password@]host[:port][/db], rediss://…, redis://host,host,… \
                                (cluster), redis+sentinel://host,…/name or unix:/path";
                ConfigError::new("url", found, expected)
            })?,
            (None, Some(hosts)) => self.by_hosts(hosts)?,
            (None, None) => return Ok(None),
        };
        let login = match (given.username, given.password) {
            (None, None) => {
                let Self { username, password, password_file, .. } = self;
                let fields = ["username", "password_file"];
                login(fields, username.as_ref(), password.as_ref(), password_file.as_ref())?
            }
            (username, password) => Login { username, password: password.map(Password::Text) },
        };
        let sentinel_login = login_of_sentinels(self)?;
        let db = given.db.unwrap_or(self.db);
        if matches!(given.layout, Layout::Cluster(_)) && db != 0 {
            return Err(ConfigError::new("db", db.to_string(), "0, which is all that a cluster has"));
        }
        let tls = self.tls(given.tls)?;
        let is_socket = |address: &Address| matches!(address, Address::Unix(_));
        if tls.is_some() && matches!(&given.layout, Layout::Servers(servers) if servers.iter().any(is_socket))
        {
            return Err(ConfigError::new("tls", "true", "false, since a socket file has no TLS"));
        }
        let name = format!("{}/{db}", given.layout);
        let protocol = given.protocol.unwrap_or(self.protocol);
        let (connect_timeout, response_timeout) = (self.connect_timeout, self.response_timeout);
        let layout = given.layout;
        Ok(Some(Target {
            layout,
            login,
            sentinel_login,
            tls,
            db,
            protocol,
            connect_timeout,
            response_timeout,
            name,
        }))
    }

    fn check_prefix_and_times(&self) -> Result<(), ConfigError> {
        if self.prefix.len() > PREFIX_BYTES_MAX || self.prefix.chars().any(|c| c.is_control() || c == ' ') {
            let expected = format!("at most {PREFIX_BYTES_MAX} bytes without spaces or control characters");
            return Err(ConfigError::new("prefix", format!("{:?}", self.prefix), expected));
        }
        let times = [
            ("connect_timeout", self.connect_timeout),
            ("response_timeout", self.response_timeout),
            ("health_interval", self.health_interval),
            ("backoff_max", self.backoff_max),
        ];
        for (field, time) in times {
            if time < Duration::from_millis(1) || time > Duration::from_hours(1) {
                return Err(ConfigError::new(field, format!("{time:?}"), "1 ms to 1 h"));
            }
        }
        Ok(())
    }

    fn by_hosts(&self, hosts: &str) -> Result<endpoint::Parsed, ConfigError> {
        if self.port == 0 {
            return Err(ConfigError::new("port", "0", "1 to 65535"));
        }
        let address = |host: &str| endpoint::address(host.trim(), self.port);
        let servers: Result<Vec<_>, _> = hosts.split(',').map(address).collect();
        let wrong = |_| {
            // A URL in the wrong place may have a password.
            let is_plain = !hosts.contains(['@', '/']);
            let shown = if is_plain { format!("{hosts:?}") } else { "a text that is no host".into() };
            ConfigError::new(
                "host",
                shown,
                "host[:port], several with commas between; a URL belongs into `url`",
            )
        };
        Ok(endpoint::Parsed {
            layout: Layout::Servers(servers.map_err(wrong)?),
            tls: false,
            username: None,
            password: None,
            db: None,
            protocol: None,
        })
    }

    fn tls(&self, by_url: bool) -> Result<Option<Tls>, ConfigError> {
        let client = match (&self.tls_cert_file, &self.tls_key_file) {
            (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
            (None, None) => None,
            (Some(_), None) => {
                return Err(ConfigError::new("tls_key_file", "not set", "the key of tls_cert_file"));
            }
            (None, Some(_)) => {
                return Err(ConfigError::new("tls_cert_file", "not set", "the certificate of tls_key_file"));
            }
        };
        if self.tls || by_url {
            return Ok(Some(Tls { ca: self.tls_ca_file.clone(), client }));
        }
        // Who names certificates means TLS; to go on without it would send the password in the clear.
        if client.is_some() || self.tls_ca_file.is_some() {
            let expected = "true (or a URL of rediss), since certificates are set";
            return Err(ConfigError::new("tls", "false", expected));
        }
        Ok(None)
    }
}

fn login(
    [user_field, file_field]: [&'static str; 2],
    username: Option<&String>,
    password: Option<&Secret>,
    file: Option<&PathBuf>,
) -> Result<Login, ConfigError> {
    let password = match (password, file) {
        (Some(_), Some(_)) => {
            return Err(ConfigError::new(file_field, "set beside the password itself", "one of the two"));
        }
        (Some(text), None) => Some(Password::Text(text.clone())),
        (None, Some(file)) => Some(Password::File(file.clone())),
        (None, None) if username.is_some() => {
            return Err(ConfigError::new(user_field, "set without a password", "both or none"));
        }
        (None, None) => None,
    };
    Ok(Login { username: username.cloned(), password })
}

fn login_of_sentinels(config: &MirrorConfig) -> Result<Login, ConfigError> {
    let MirrorConfig { sentinel_username, sentinel_password, sentinel_password_file, .. } = config;
    let fields = ["sentinel_username", "sentinel_password_file"];
    login(fields, sentinel_username.as_ref(), sentinel_password.as_ref(), sentinel_password_file.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_url(url: &str) -> MirrorConfig {
        MirrorConfig { url: Some(Secret::new(url)), ..MirrorConfig::default() }
    }

    fn host() -> MirrorConfig {
        MirrorConfig { host: Some("h".into()), ..MirrorConfig::default() }
    }

    fn target(config: &MirrorConfig) -> Target {
        config.target().unwrap().expect("a mirror is configured")
    }

    #[test]
    fn secrets_never_show() {
        let password = || Some(Secret::new("hunter2"));
        let config = MirrorConfig {
            password: password(),
            sentinel_password: password(),
            ..by_url("redis://joe:hunter2@example.org:7000/3")
        };
        let target = target(&config);
        let shown = format!("{config:?} {target:?} {} {}", target.name(), Secret::new("hunter2"));
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(target.name(), "example.org:7000/3");
        assert_eq!(target.login.password, Some(Password::Text(Secret::new("hunter2"))));
        for bad in ["hunter2", "http://joe:hunter2@h", "redis://:hunter2@h?ssl=true", "redis://hunter2@h"] {
            let error = by_url(bad).target().unwrap_err();
            assert_eq!(error.field, "url");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn fields_are_checked_and_named() {
        let file = || Some(PathBuf::from("/f"));
        let bad = [
            ("host", MirrorConfig { host: Some("a b".into()), ..host() }),
            ("host", MirrorConfig { host: Some("a,,b".into()), ..host() }),
            ("host", MirrorConfig { host: Some("a:b".into()), ..host() }),
            ("host", MirrorConfig { host: Some("redis://:hunter2@h".into()), ..host() }),
            ("port", MirrorConfig { port: 0, ..host() }),
            ("username", MirrorConfig { username: Some("u".into()), ..host() }),
            (
                "password_file",
                MirrorConfig { password: Some(Secret::new("p")), password_file: file(), ..host() },
            ),
            ("sentinel_username", MirrorConfig { sentinel_username: Some("u".into()), ..host() }),
            ("prefix", MirrorConfig { prefix: "a b".into(), ..host() }),
            ("prefix", MirrorConfig { prefix: "x".repeat(PREFIX_BYTES_MAX + 1), ..host() }),
            ("response_timeout", MirrorConfig { response_timeout: Duration::ZERO, ..host() }),
            ("tls", MirrorConfig { tls_ca_file: file(), ..host() }),
            ("tls_key_file", MirrorConfig { tls: true, tls_cert_file: file(), ..host() }),
            ("tls_cert_file", MirrorConfig { tls: true, tls_key_file: file(), ..host() }),
            ("tls", MirrorConfig { tls: true, ..by_url("unix:/path") }),
            ("db", MirrorConfig { db: 1, ..by_url("redis+cluster://n") }),
        ];
        for (field, config) in bad {
            let error = config.target().unwrap_err();
            assert_eq!(error.field, field);
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        assert!(MirrorConfig::default().target().unwrap().is_none());
        let config = MirrorConfig { db: 2, password: Some(Secret::new("p")), ..host() };
        assert_eq!(target(&config).name(), "h:6379/2");
        let config = MirrorConfig { host: Some("a, b:1".into()), port: 7, ..host() };
        assert_eq!(target(&config).name(), "a:7,b:1/0");
    }

    #[test]
    fn url_wins_over_the_fields_where_it_says_something() {
        let fields = || MirrorConfig {
            host: Some("b".into()),
            username: Some("joe".into()),
            password_file: Some("/f".into()),
            db: 4,
            ..MirrorConfig::default()
        };
        let with = |url: &str| target(&MirrorConfig { url: Some(Secret::new(url)), ..fields() });
        let silent = with("redis://a:1");
        assert_eq!(silent.name(), "a:1/4");
        assert_eq!(
            silent.login,
            Login { username: Some("joe".into()), password: Some(Password::File("/f".into())) }
        );
        let telling = with("redis://:x@a:1/0");
        assert_eq!(telling.name(), "a:1/0");
        assert_eq!(telling.login, Login { username: None, password: Some(Password::Text(Secret::new("x"))) });
        assert!(with("rediss://a").tls.is_some() && with("redis://a").tls.is_none());
        assert!(target(&MirrorConfig { tls: true, ..by_url("redis://a") }).tls.is_some());
    }
}
