//! One connection to Redis: greeting, the fence against its predecessors, the epoch key.
//!
//! The `redis` crate's connection manager would reconnect behind our back. The mirror must know of
//! each new connection, because the server at its other end may have lost data: so it makes plain
//! connections, and the loop in `follower` is the manager.

use crate::config::{MirrorConfig, Target};
use crate::failure::{Category, Failure};
use cidstore_types::Seq;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ConnectionInfo, Pipeline, RedisConnectionInfo, Value};
use std::future::Future;

/// What the keys and the name of a connection are made of.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    /// Key that tells how far this Redis is.
    pub epoch_key: String,
    /// Beginning of the epoch keys of all stores.
    pub epoch_keys: &'static str,
    /// Name of the mirror's connections, the same for all of one store, database and prefix.
    connection: String,
}

const EPOCH_KEYS: &str = "cidstore:mirror:";

impl Names {
    pub fn new(store_id: [u8; 16], db: i64, prefix: &str) -> Self {
        let id = format!("{:032x}", u128::from_be_bytes(store_id));
        // No colon at the end without a prefix: that is the form for the default.
        let epoch_key = if prefix.is_empty() {
            format!("{EPOCH_KEYS}{id}")
        } else {
            format!("{EPOCH_KEYS}{id}:{prefix}")
        };
        let connection = format!("cidstore-mirror:{id}:{db}:{:08x}", crc32c::crc32c(prefix.as_bytes()));
        Self { epoch_key, epoch_keys: EPOCH_KEYS, connection }
    }

    /// Whether `key` is the epoch key of another store that writes under the same prefix.
    pub fn is_other_store(&self, key: &[u8], prefix: &str) -> bool {
        let Some(rest) = key.strip_prefix(EPOCH_KEYS.as_bytes()) else { return false };
        let Some((id, rest)) = rest.split_at_checked(32) else { return false };
        let same_prefix = if prefix.is_empty() {
            rest.is_empty()
        } else {
            rest.strip_prefix(b":") == Some(prefix.as_bytes())
        };
        same_prefix && id.iter().all(u8::is_ascii_hexdigit) && key != self.epoch_key.as_bytes()
    }
}

/// A connection that is greeted and alone.
pub(crate) struct Link {
    connection: MultiplexedConnection,
}

/// The same server without user, password and database.
fn anonymous(connection: &ConnectionInfo) -> ConnectionInfo {
    connection.clone().set_redis_settings(RedisConnectionInfo::default().set_skip_set_lib_name())
}

/// Fails with the error reply, if it is one.
fn checked(value: Value) -> Result<Value, Failure> {
    match value {
        Value::ServerError(error) => Err(Failure::from_server(&error)),
        value => Ok(value),
    }
}

impl Link {
    /// Connects, logs in, and ends older connections of the same mirror.
    pub async fn connect(target: &Target, config: &MirrorConfig, names: &Names) -> Result<Self, Failure> {
        let client = Client::open(anonymous(&target.connection))?;
        let options = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(config.connect_timeout))
            .set_response_timeout(Some(config.response_timeout));
        let connecting = client.get_multiplexed_async_connection_with_config(&options);
        let connection = tokio::time::timeout(config.connect_timeout, connecting).await;
        let silent = |_| {
            Failure::network(format!(
                "no greeting from {} within {:?}",
                target.name(),
                config.connect_timeout
            ))
        };
        let mut link = Self { connection: connection.map_err(silent)?? };
        link.log_in(target).await?;
        link.fence(&names.connection).await?;
        Ok(link)
    }

    /// Logs in and chooses the database. The `redis` crate can do that while it connects, but keeps
    /// what Redis says when it refuses to itself.
    async fn log_in(&mut self, target: &Target) -> Result<(), Failure> {
        let settings = target.connection.redis_settings();
        if let Some(password) = settings.password() {
            let mut command = redis::cmd("AUTH");
            if let Some(username) = settings.username() {
                command.arg(username);
            }
            self.run(command.arg(password)).await?;
        }
        if settings.db() != 0 {
            self.run(redis::cmd("SELECT").arg(settings.db())).await?;
        }
        Ok(())
    }

    /// Ends the connections of the same name.
    ///
    /// When Redis hangs (stopped, swapping, cut off), commands of a connection given up long ago may
    /// wait in its sockets, to run when it wakes: after newer ones of this connection. Ending the old
    /// connection on the server drops them. The name is set before anything is written, so that no
    /// connection that ever wrote is missed.
    async fn fence(&mut self, name: &str) -> Result<(), Failure> {
        let run = async |link: &mut Self, command: &mut Cmd| {
            checked(link.connection.send_packed_command(command).await?)
        };
        let ended: Result<(), Failure> = async {
            run(self, redis::cmd("CLIENT").arg("SETNAME").arg(name)).await?;
            let own = match run(self, redis::cmd("CLIENT").arg("ID")).await? {
                Value::Int(id) => id.to_string(),
                other => return Err(Failure::unexpected_reply("CLIENT ID", &other)),
            };
            let list = run(self, redis::cmd("CLIENT").arg("LIST")).await?;
            let list: String =
                redis::from_redis_value(list).map_err(|e| Failure::from(redis::RedisError::from(e)))?;
            for id in named(&list, name).filter(|id| *id != own) {
                run(self, redis::cmd("CLIENT").arg("KILL").arg("ID").arg(id)).await?;
            }
            Ok(())
        }
        .await;
        match ended {
            // A user without these rights can mirror; only the rare overtaking is not excluded.
            Err(failure) if failure.category == Category::Auth => {
                tracing::debug!("mirror: cannot end older connections of its own: {}", failure.what);
                Ok(())
            }
            other => other,
        }
    }

    /// Names the history of the data in this Redis: it changes with each restart and each change of
    /// the primary, so the same name means that what was confirmed is still there, unless it was
    /// flushed. `None`: the user may not ask.
    pub async fn history(&mut self) -> Result<Option<String>, Failure> {
        match self.run(redis::cmd("INFO").arg("replication")).await {
            Ok(Value::BulkString(text)) => {
                let text = String::from_utf8_lossy(&text);
                Ok(text.lines().find_map(|line| line.strip_prefix("master_replid:")).map(str::to_owned))
            }
            Ok(other) => Err(Failure::unexpected_reply("INFO", &other)),
            Err(failure) if failure.category == Category::Auth => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Runs one command.
    pub async fn run(&mut self, command: &Cmd) -> Result<Value, Failure> {
        checked(self.connection.send_packed_command(command).await?)
    }

    /// Sends a pipeline; the replies come one for each command, errors among them.
    pub fn send(
        &self,
        pipeline: Pipeline,
    ) -> impl Future<Output = Result<Vec<Value>, Failure>> + Send + use<> {
        let mut connection = self.connection.clone();
        async move {
            let replies = connection.send_packed_commands(&pipeline, 0, pipeline.len()).await?;
            if replies.len() == pipeline.len() {
                Ok(replies)
            } else {
                Err(Failure::network("the connection ended amid the replies"))
            }
        }
    }

    /// What the epoch key says: everything up to this seq is in this Redis. `None`: no such key.
    pub async fn epoch(&mut self, names: &Names) -> Result<Option<Seq>, Failure> {
        match self.run(redis::cmd("GET").arg(&names.epoch_key)).await? {
            Value::Nil => Ok(None),
            Value::BulkString(text) => {
                let seq = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
                if seq.is_none() {
                    tracing::warn!(
                        key = names.epoch_key,
                        "mirror: the epoch key holds no number: taken as missing"
                    );
                }
                Ok(seq)
            }
            other => Err(Failure::unexpected_reply("GET", &other)),
        }
    }

    /// Makes the epoch key.
    pub async fn create_epoch(&mut self, names: &Names, seq: Seq) -> Result<(), Failure> {
        self.run(redis::cmd("SET").arg(&names.epoch_key).arg(seq)).await.map(drop)
    }
}

/// Moves the epoch key, if it is still there: the reply is nil in a Redis that lost its data.
pub(crate) fn move_epoch(names: &Names, seq: Seq) -> Cmd {
    let mut command = Cmd::new();
    command.arg("SET").arg(&names.epoch_key).arg(seq).arg("XX");
    command
}

/// The ids of the connections of that name in a reply to `CLIENT LIST`: a line for each, of fields
/// `key=value`; names have no spaces in them.
fn named<'a>(list: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    list.lines().filter_map(move |line| {
        let field = |wanted: &str| line.split(' ').find_map(|field| field.strip_prefix(wanted));
        (field("name=") == Some(name)).then(|| field("id=")).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_connections_by_their_whole_name() {
        let list = "id=3 addr=127.0.0.1:1 laddr=127.0.0.1:2 fd=8 name=a:b age=1\n\
                    id=4 addr=127.0.0.1:3 laddr=127.0.0.1:2 fd=9 name=a:bc age=1\nid=5 name= age=0\nid=6 name=a:b db=0\n";
        assert_eq!(named(list, "a:b").collect::<Vec<_>>(), ["3", "6"]);
    }

    #[test]
    fn keys_of_other_stores_are_told_apart() {
        let plain = Names::new([1; 16], 0, "");
        let prefixed = Names::new([1; 16], 0, "t:");
        assert_eq!(plain.epoch_key, format!("cidstore:mirror:{}", "01".repeat(16)));
        assert_eq!(prefixed.epoch_key, format!("cidstore:mirror:{}:t:", "01".repeat(16)));
        let other = Names::new([2; 16], 0, "");
        let other_prefixed = Names::new([2; 16], 0, "t:");
        assert!(plain.is_other_store(other.epoch_key.as_bytes(), ""));
        assert!(!plain.is_other_store(plain.epoch_key.as_bytes(), ""));
        assert!(!plain.is_other_store(other_prefixed.epoch_key.as_bytes(), ""));
        assert!(prefixed.is_other_store(other_prefixed.epoch_key.as_bytes(), "t:"));
        assert!(!prefixed.is_other_store(other.epoch_key.as_bytes(), "t:"));
        for key in [&b"cidstore:mirror:"[..], b"cidstore:mirror:zz", &[0xff; 60]] {
            assert!(!plain.is_other_store(key, ""));
        }
    }
}
