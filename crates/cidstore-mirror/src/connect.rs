//! One connection to one server: files, TCP or socket file, TLS, greeting.

use crate::config::{Login, Password, Protocol, Target, Tls};
use crate::endpoint::Address;
use crate::failure::{CERTIFICATE_FILES, Category, Failure};
use redis::aio::MultiplexedConnection;
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    Pipeline, RedisConnectionInfo, TlsCertificates, Value,
};
use std::path::Path;
use std::time::Duration;

/// A connection that says nothing is asked by TCP whether the other end lives: after so long, so often.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

const REACH_TLS: &str = "check that Redis runs, that host and port are right, that it speaks TLS there, and whether it wants a certificate (REDIS_TLS_CERT_FILE); the mirror keeps trying";
const SENTINEL_LOGIN: &str = "set the user name and password that the sentinels expect (REDIS_SENTINEL_USERNAME, REDIS_SENTINEL_PASSWORD), which are not those of Redis";

/// As whom to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To write, into the database that is configured.
    Write,
    /// To ask a sentinel.
    AskSentinel,
}

/// A connection that is logged in. Clones use the same one.
#[derive(Clone)]
pub(crate) struct Connection {
    inner: MultiplexedConnection,
    pub address: Address,
}

/// Fails with the error reply, if it is one.
fn checked(value: Value) -> Result<Value, Failure> {
    match value {
        Value::ServerError(error) => Err(Failure::from_server(&error)),
        value => Ok(value),
    }
}

impl Connection {
    /// Connects and logs in.
    ///
    /// # Errors
    /// [`Failure`], which names the server.
    pub async fn open(target: &Target, address: &Address, purpose: Purpose) -> Result<Self, Failure> {
        let opened = tokio::time::timeout(target.connect_timeout, Self::greeted(target, address, purpose));
        let silent = |_| Failure::network(format!("no greeting within {:?}", target.connect_timeout));
        opened.await.map_err(silent).flatten().map_err(|failure| {
            let remedy = match (failure.category, purpose) {
                // A server that wants a certificate may close the connection without a word.
                (Category::Network, _) if target.tls.is_some() => REACH_TLS,
                (Category::Auth, Purpose::AskSentinel) if !failure.is_about_tls() => SENTINEL_LOGIN,
                _ => failure.remedy,
            };
            Failure { remedy, ..failure }.at(address)
        })
    }

    async fn greeted(target: &Target, address: &Address, purpose: Purpose) -> Result<Self, Failure> {
        let login = match purpose {
            Purpose::Write => &target.login,
            Purpose::AskSentinel => &target.sentinel_login,
        };
        let Files { password, certificates } = Files::read(login, target.tls.as_ref()).await?;
        let client = client(address, certificates)?;
        let options = AsyncConnectionConfig::new()
            // The time for all of it is bounded above.
            .set_connection_timeout(None)
            .set_response_timeout(Some(target.response_timeout));
        let inner = client.get_multiplexed_async_connection_with_config(&options).await?;
        let connection = Self { inner, address: address.clone() };
        connection.log_in(login.username.as_deref(), password.as_deref(), target.protocol).await?;
        if purpose == Purpose::Write && target.db != 0 {
            connection.run(redis::cmd("SELECT").arg(target.db)).await?;
        }
        Ok(connection)
    }

    /// Logs in. The `redis` crate can do that while it connects, but keeps what Redis says when it refuses to
    /// itself.
    async fn log_in(
        &self,
        username: Option<&str>,
        password: Option<&str>,
        protocol: Protocol,
    ) -> Result<(), Failure> {
        let mut command = Cmd::new();
        match (protocol, password) {
            (Protocol::Resp2, None) => return Ok(()),
            (Protocol::Resp2, Some(password)) => {
                command.arg("AUTH").arg(username).arg(password);
            }
            (Protocol::Resp3, password) => {
                command.arg("HELLO").arg(3);
                if let Some(password) = password {
                    command.arg("AUTH").arg(username.unwrap_or("default")).arg(password);
                }
            }
        }
        self.run(&command).await.map(drop)
    }

    /// Runs one command.
    pub async fn run(&self, command: &Cmd) -> Result<Value, Failure> {
        checked(self.inner.clone().send_packed_command(command).await?)
    }

    /// Sends a pipeline; the replies come one for each command, errors among them.
    pub async fn send(&self, pipeline: &Pipeline) -> Result<Vec<Value>, Failure> {
        let replies = self.inner.clone().send_packed_commands(pipeline, 0, pipeline.len()).await?;
        if replies.len() == pipeline.len() {
            Ok(replies)
        } else {
            Err(Failure::network("the connection ended amid the replies"))
        }
    }

    /// What the server is to its replicas, or to its primary. `None`: the user may not ask.
    ///
    /// # Errors
    /// [`Failure`], which names the server.
    pub async fn replication(&self) -> Result<Option<Replication>, Failure> {
        let reply = match self.run(redis::cmd("INFO").arg("replication")).await {
            Err(failure) if failure.is_forbidden => return Ok(None),
            other => other.map_err(|failure| failure.at(&self.address))?,
        };
        let text = match &reply {
            Value::BulkString(text) => String::from_utf8_lossy(text),
            Value::VerbatimString { text, .. } => text.into(),
            other => return Err(Failure::unexpected_reply("INFO", other).at(&self.address)),
        };
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let is_primary = field("role:") == Some("master");
        Ok(Some(Replication { is_primary, history: field("master_replid:").map(str::to_owned) }))
    }
}

/// What a server says of its replication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Replication {
    /// It takes writes.
    pub is_primary: bool,
    /// Names the history of its data: another one with each restart, and each change of the primary.
    pub history: Option<String>,
}

/// A text, in whichever form of the protocol it came.
pub(crate) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

/// The way to a server, without user, password and database.
fn client(address: &Address, certificates: Option<TlsCertificates>) -> Result<Client, Failure> {
    let address = match (address, &certificates) {
        (Address::Unix(path), _) => ConnectionAddr::Unix(path.clone()),
        (Address::Tcp { host, port }, None) => ConnectionAddr::Tcp(host.clone(), *port),
        (Address::Tcp { host, port }, Some(_)) => {
            ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None }
        }
    };
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    let info: ConnectionInfo = address.into_connection_info()?;
    let info = info
        .set_tcp_settings(TcpSettings::default().set_nodelay(true).set_keepalive(keepalive))
        .set_redis_settings(RedisConnectionInfo::default().set_skip_set_lib_name());
    match certificates {
        None => Ok(Client::open(info)?),
        Some(certificates) => Client::build_with_tls(info, certificates)
            .map_err(|e| Failure::new(Category::Auth, format!("TLS: certificates: {e}"), CERTIFICATE_FILES)),
    }
}

/// How a certificate begins (RFC 7468).
const PEM_CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// What is read from files at each connect, so that passwords and certificates can be changed while the
/// daemon runs.
struct Files {
    password: Option<String>,
    certificates: Option<TlsCertificates>,
}

impl Files {
    async fn read(login: &Login, tls: Option<&Tls>) -> Result<Self, Failure> {
        if let (None | Some(Password::Text(_)), None) = (&login.password, tls) {
            return Self::read_now(login, None);
        }
        let (login, tls) = (login.clone(), tls.cloned());
        let read = tokio::task::spawn_blocking(move || Self::read_now(&login, tls.as_ref()));
        read.await.unwrap_or_else(|e| Err(Failure::network(format!("reading files ended badly: {e}"))))
    }

    fn read_now(login: &Login, tls: Option<&Tls>) -> Result<Self, Failure> {
        let password = match &login.password {
            None => None,
            Some(Password::Text(text)) => Some(text.expose().to_owned()),
            Some(Password::File(path)) => {
                let text = String::from_utf8(file(path)?).map_err(|_| unreadable(path, "it is no UTF-8"))?;
                // Editors and `echo` end a file with a line end that is no part of the password.
                let text = text.trim_end_matches(['\r', '\n']);
                if text.is_empty() {
                    return Err(unreadable(path, "it is empty"));
                }
                Some(text.to_owned())
            }
        };
        let Some(tls) = tls else { return Ok(Self { password, certificates: None }) };
        let client_tls = match &tls.client {
            None => None,
            Some((cert, key)) => Some(ClientTlsConfig { client_cert: file(cert)?, client_key: file(key)? }),
        };
        let root_cert = tls.ca.as_deref().map(file).transpose()?;
        if let (Some(path), Some(pem)) = (&tls.ca, &root_cert)
            && !pem.windows(PEM_CERTIFICATE.len()).any(|part| part == PEM_CERTIFICATE)
        {
            return Err(unreadable(path, "there is no certificate in it (PEM)"));
        }
        Ok(Self { password, certificates: Some(TlsCertificates { client_tls, root_cert }) })
    }
}

fn file(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|e| unreadable(path, &e.to_string()))
}

fn unreadable(path: &Path, why: &str) -> Failure {
    let remedy = "let the daemon read what belongs there; the file is read again at each attempt";
    Failure::new(Category::Auth, format!("{}: {why}", path.display()), remedy)
}
