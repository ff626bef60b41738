//! Where Redis is, as one text. The forms, of which each that begins with `redis` may begin with
//! `rediss` (TLS), and with `valkey` or `valkeys` as well:
//!
//! | form | what is meant |
//! |---|---|
//! | `redis://[[user]:password@]host[:port][/db]` | one server |
//! | several of these, separated by commas or spaces | the first of them that is a primary |
//! | `redis://…@n1[:port],n2[:port],…[/0]`, `redis+cluster://…` | a cluster; these nodes are asked for its layout |
//! | `redis+sentinel://…@s1[:port],s2[:port]/name[/db]` | the primary that one of these sentinels names |
//! | `unix:/path`, `redis+unix://…@/path[?db=n]` | a server on this machine |
//!
//! User, password and names are percent-encoded where they hold one of `:/?#@,` or a space (RFC 3986,
//! section 2.1). `?protocol=resp3` (or `resp2`) says what is spoken. What is not understood is refused: no
//! message shows any part of the text but its scheme, since a password may be anywhere in a wrong one.

use crate::config::{DEFAULT_PORT, Protocol, Secret};
use std::fmt;
use std::path::PathBuf;

/// Port of a sentinel.
const SENTINEL_PORT: u16 = 26379;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Address {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// How servers belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Layout {
    /// The first of these that is a primary.
    Servers(Vec<Address>),
    /// The primary of this name.
    Sentinel { sentinels: Vec<Address>, name: String },
    /// A cluster that has these nodes, among others.
    Cluster(Vec<Address>),
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, addresses) = match self {
            Self::Servers(addresses) => (String::new(), addresses),
            Self::Sentinel { sentinels, name } => (format!("{name} of sentinel "), sentinels),
            Self::Cluster(nodes) => ("cluster ".into(), nodes),
        };
        f.write_str(&kind)?;
        for (i, address) in addresses.iter().enumerate() {
            write!(f, "{}{address}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// What such a text says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parsed {
    pub layout: Layout,
    pub tls: bool,
    pub username: Option<String>,
    pub password: Option<Secret>,
    pub db: Option<u32>,
    pub protocol: Option<Protocol>,
}

/// Reads one or several.
///
/// # Errors
/// What is wrong with the text, without any of it.
pub(crate) fn parse(text: &str) -> Result<Parsed, String> {
    let mut urls: Vec<String> = Vec::new();
    for piece in text.split(|c: char| c == ',' || c.is_whitespace()).filter(|piece| !piece.is_empty()) {
        match urls.last_mut() {
            // Another host of the same cluster, or of its sentinels.
            Some(url) if !begins_one(piece) => {
                url.push(',');
                url.push_str(piece);
            }
            _ => urls.push(piece.into()),
        }
    }
    let mut all = Vec::with_capacity(urls.len());
    for url in &urls {
        all.push(one(url)?);
    }
    let Some(mut first) = all.pop() else { return Err("an empty text".into()) };
    // From the back, so that the order stays.
    while let Some(mut other) = all.pop() {
        let (Layout::Servers(servers), Layout::Servers(before)) = (&mut first.layout, &mut other.layout)
        else {
            return Err(
                "several URLs of which one is a cluster, or of sentinels: expected single servers".into()
            );
        };
        before.append(servers);
        std::mem::swap(servers, before);
        other.layout = first.layout.clone();
        if other != first {
            return Err("several URLs that differ in more than the server: expected one user, password, \
                        database and scheme for all"
                .into());
        }
    }
    Ok(first)
}

fn begins_one(piece: &str) -> bool {
    piece.contains("://") || piece.starts_with("unix:")
}

/// What a scheme stands for.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Server,
    Cluster,
    Sentinel,
    Unix,
}

fn scheme(name: &str) -> Option<(Kind, bool)> {
    let (base, kind) = match name.split_once('+') {
        None if name == "unix" => return Some((Kind::Unix, false)),
        None => (name, Kind::Server),
        Some((base, "cluster")) => (base, Kind::Cluster),
        Some((base, "sentinel")) => (base, Kind::Sentinel),
        Some((base, "unix")) => (base, Kind::Unix),
        Some(_) => return None,
    };
    match base {
        "redis" | "valkey" => Some((kind, false)),
        // A socket file has no TLS.
        "rediss" | "valkeys" if kind != Kind::Unix => Some((kind, true)),
        _ => None,
    }
}

fn one(url: &str) -> Result<Parsed, String> {
    let Some((name, rest)) = url.split_once(':').filter(|_| begins_one(url)) else {
        return Err("a text without scheme".into());
    };
    let Some((mut kind, tls)) = scheme(name) else {
        let is_scheme =
            name.len() <= 20 && name.chars().all(|c| c.is_ascii_alphabetic() || "+-.".contains(c));
        let shown = if is_scheme { format!("{name:?}") } else { "that it has".into() };
        return Err(format!("a URL of the scheme {shown}, which is not spoken here"));
    };
    if rest.contains('#') {
        return Err("a URL with a fragment ('#'; in a password it is written %23)".into());
    }
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    // `unix:/path` has no authority.
    let (authority, path) = match rest.strip_prefix("//") {
        None => ("", rest),
        Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
    };
    let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (username, password) = self::login(login)?;
    let mut parsed =
        Parsed { layout: Layout::Servers(Vec::new()), tls, username, password, db: None, protocol: None };
    parameters(query, kind, &mut parsed)?;
    if kind == Kind::Unix {
        if !hosts.is_empty() || !path.starts_with('/') || path.len() < 2 {
            return Err("a socket's URL without an absolute path (or with a host)".into());
        }
        parsed.layout = Layout::Servers(vec![Address::Unix(decoded(path)?.into())]);
        return Ok(parsed);
    }
    let default = if kind == Kind::Sentinel { SENTINEL_PORT } else { DEFAULT_PORT };
    let mut addresses = Vec::new();
    for host in hosts.split(',') {
        addresses.push(address(host, default)?);
    }
    if kind == Kind::Server && addresses.len() > 1 {
        kind = Kind::Cluster;
    }
    let mut path = path.trim_matches('/').split('/').filter(|part| !part.is_empty());
    let sentinel_name = if kind == Kind::Sentinel { path.next().map(decoded).transpose()? } else { None };
    parsed.db = path.next().map(database).transpose()?;
    if path.next().is_some() {
        return Err("a URL with more in its path than it has a meaning for ('/' in a password is %2F)".into());
    }
    parsed.layout = match (kind, sentinel_name) {
        (Kind::Sentinel, Some(name)) => Layout::Sentinel { sentinels: addresses, name },
        (Kind::Sentinel, None) => return Err("a URL of sentinels without the name of a primary".into()),
        (Kind::Cluster, _) => Layout::Cluster(addresses),
        _ => Layout::Servers(addresses),
    };
    Ok(parsed)
}

fn login(text: &str) -> Result<(Option<String>, Option<Secret>), String> {
    if text.is_empty() {
        return Ok((None, None));
    }
    match text.split_once(':') {
        Some((_, "")) | None => {
            Err("a URL with a user and no password (a password alone is written :password@)".into())
        }
        Some((user, password)) => {
            let user = if user.is_empty() { None } else { Some(decoded(user)?) };
            Ok((user, Some(Secret::new(decoded(password)?))))
        }
    }
}

fn parameters(query: &str, kind: Kind, parsed: &mut Parsed) -> Result<(), String> {
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        match parameter.split_once('=') {
            Some(("db", number)) if kind == Kind::Unix => parsed.db = Some(database(number)?),
            Some(("protocol", "resp2")) => parsed.protocol = Some(Protocol::Resp2),
            Some(("protocol", "resp3")) => parsed.protocol = Some(Protocol::Resp3),
            // What asks for TLS elsewhere (`ssl=true`) must not be passed over.
            _ => {
                return Err(
                    "a URL with a parameter that has no meaning here ('?' in a password is %3F)".into()
                );
            }
        }
    }
    Ok(())
}

fn database(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "a URL whose database is no number".into())
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
pub(crate) fn address(text: &str, default_port: u16) -> Result<Address, String> {
    let wrong = || "a host that is none: expected host, host:port or [address]:port".to_string();
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(wrong)?;
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(wrong)?) })
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let is_name =
        |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_') || (c == ':' && text.starts_with('['));
    if host.is_empty() || !host.chars().all(is_name) {
        return Err(wrong());
    }
    let port = match port {
        None => default_port,
        Some(port) => {
            port.parse().ok().filter(|port| *port > 0).ok_or("a port that is none: expected 1 to 65535")?
        }
    };
    Ok(Address::Tcp { host: host.into(), port })
}

fn decoded(text: &str) -> Result<String, String> {
    let bytes = percent_encoding::percent_decode_str(text);
    bytes
        .decode_utf8()
        .map(Into::into)
        .map_err(|_| "a URL with percent-encoded bytes that are no UTF-8".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp { host: host.into(), port }
    }

    fn layout(text: &str) -> Layout {
        parse(text).unwrap_or_else(|e| panic!("{text}: {e}")).layout
    }

    #[test]
    fn one_server() {
        let parsed = parse("redis://joe:p%40ss@example.org:7000/3").unwrap();
        assert_eq!(parsed.layout, Layout::Servers(vec![tcp("example.org", 7000)]));
        assert_eq!((parsed.username.as_deref(), parsed.db, parsed.tls), (Some("joe"), Some(3), false));
        assert_eq!(parsed.password.unwrap().expose(), "p@ss");
        assert!(parse("rediss://h").unwrap().tls && parse("valkeys://h").unwrap().tls);
        assert_eq!(layout("redis://[::1]:7/"), Layout::Servers(vec![tcp("::1", 7)]));
        assert_eq!(layout("redis://[::1]:7").to_string(), "[::1]:7");
        assert_eq!(layout("valkey://h"), Layout::Servers(vec![tcp("h", 6379)]));
        assert_eq!(parse("redis://h?protocol=resp3").unwrap().protocol, Some(Protocol::Resp3));
        let password = parse("redis://:a%2Cb%2Fc@h").unwrap().password.unwrap();
        assert_eq!(password.expose(), "a,b/c");
    }

    #[test]
    fn several_servers_in_their_order() {
        let expected = Layout::Servers(vec![tcp("a", 6379), tcp("b", 7), tcp("c", 8)]);
        assert_eq!(layout("redis://a,redis://b:7 redis://c:8"), expected);
        assert_eq!(expected.to_string(), "a:6379,b:7,c:8");
        for bad in [
            "redis://a redis://b/2",
            "redis://a rediss://b",
            "redis://:x@a,redis://b",
            "redis://a,redis://b,c",
        ] {
            assert!(parse(bad).unwrap_err().starts_with("several"), "{bad}");
        }
    }

    #[test]
    fn clusters_sentinels_and_sockets() {
        let nodes = vec![tcp("n1", 7000), tcp("n2", 7001), tcp("n3", 6379)];
        assert_eq!(layout("redis://:p@n1:7000,n2:7001,n3/0"), Layout::Cluster(nodes));
        assert_eq!(layout("rediss+cluster://n1"), Layout::Cluster(vec![tcp("n1", 6379)]));
        let parsed = parse("redis+sentinel://u:p@s1,s2:7/mymaster/4").unwrap();
        let sentinels = vec![tcp("s1", 26379), tcp("s2", 7)];
        assert_eq!(parsed.layout, Layout::Sentinel { sentinels, name: "mymaster".into() });
        assert_eq!(parsed.layout.to_string(), "mymaster of sentinel s1:26379,s2:7");
        assert_eq!(parsed.db, Some(4));
        let socket = || Layout::Servers(vec![Address::Unix("/run/redis.sock".into())]);
        assert_eq!(layout("unix:/run/redis.sock"), socket());
        assert_eq!(layout("unix:///run/redis.sock"), socket());
        let parsed = parse("redis+unix://:pw@/run/redis.sock?db=2").unwrap();
        assert_eq!((parsed.layout, parsed.db), (socket(), Some(2)));
    }

    #[test]
    fn what_is_not_understood_is_refused_and_not_shown() {
        for bad in [
            "",
            "hunter2",
            "http://joe:hunter2@h",
            "redis+ssh://:hunter2@h",
            "redis://joe:hunter2@h:notaport",
            "redis://joe:hunter2@h:0",
            "redis://:hunter2@h?ssl=true",
            "redis://:hunter2@h#insecure",
            "redis://:hun?ter2hunter2@h",
            "redis://:hun/ter2hunter2@h",
            "redis://hunter2@h",
            "redis://:hunter2@",
            "redis://:hunter2@h/hunter2",
            "redis://:hunter2@h/1/hunter2",
            "redis://:hunter2@h,/0",
            "redis+sentinel://:hunter2@h",
            "rediss+unix://:hunter2@/path",
            "unix:hunter2",
            "redis://:%FFhunter2@h",
            "redis://[::1hunter2",
        ] {
            let error = parse(bad).expect_err(bad);
            assert!(!error.contains("hunter2"), "{bad}: {error}");
        }
    }
}
