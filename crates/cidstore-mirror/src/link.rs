//! Redis as the mirror sees it while connections stand: the fence against their predecessors, the epoch
//! keys, and pipelines, wherever their keys are.
//!
//! The `redis` crate's connection manager would reconnect behind our back. The mirror must know of each new
//! connection, because the server at its other end may have lost data: so it makes plain connections, and
//! the loop in `follower` is the manager. Its cluster client follows redirections by itself, and what it
//! sends again may overtake what was sent since: so the mirror knows of slots, and follows them in order.

use crate::chunk::Part;
use crate::config::Target;
use crate::connect::{Connection, Purpose};
use crate::endpoint::Address;
use crate::failure::{Category, Failure};
use crate::servers::Servers;
use crate::slots::{SlotMap, epoch_tags, redirection};
use cidstore_types::Seq;
use futures_util::future::try_join_all;
use redis::{Cmd, Pipeline, Value};
use std::future::Future;
use std::sync::Arc;

/// What the keys and the name of a connection are made of.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    /// What follows [`EPOCH_KEYS`] in the epoch keys.
    epoch: String,
    /// Name of the mirror's connections, the same for all of one store, database and prefix.
    connection: String,
}

/// Beginning of the epoch keys of all stores.
pub(crate) const EPOCH_KEYS: &str = "cidstore:mirror:";
/// Servers that a command is sent on to, at most.
const REDIRECTIONS_MAX: usize = 5;

impl Names {
    pub fn new(store_id: [u8; 16], db: u32, prefix: &str) -> Self {
        let id = format!("{:032x}", u128::from_be_bytes(store_id));
        // No colon at the end without a prefix: that is the form for the default.
        let epoch = if prefix.is_empty() { id.clone() } else { format!("{id}:{prefix}") };
        let connection = format!("cidstore-mirror:{id}:{db}:{:08x}", crc32c::crc32c(prefix.as_bytes()));
        Self { epoch, connection }
    }

    /// The keys that tell how far this Redis is: by the place of its server, the one key or, in a cluster,
    /// those of its tags that the server has.
    fn epoch_keys(&self, slots: Option<&SlotMap>) -> Vec<(usize, String)> {
        let Some(slots) = slots else { return vec![(0, format!("{EPOCH_KEYS}{}", self.epoch))] };
        let key = |tag: &String| format!("{EPOCH_KEYS}{{{tag}}}{}", self.epoch);
        epoch_tags().iter().map(key).map(|key| (slots.node_of(key.as_bytes()), key)).collect()
    }

    /// Whether `key` is the epoch key of another store that writes under the same prefix.
    pub fn is_other_store(&self, key: &[u8], prefix: &str) -> bool {
        let Some(mut rest) = key.strip_prefix(EPOCH_KEYS.as_bytes()) else { return false };
        if rest.first() == Some(&b'{') {
            let Some(end) = rest.iter().position(|byte| *byte == b'}') else { return false };
            rest = &rest[end + 1..];
        }
        let Some((id, after)) = rest.split_at_checked(32) else { return false };
        let same_prefix = if prefix.is_empty() {
            after.is_empty()
        } else {
            after.strip_prefix(b":") == Some(prefix.as_bytes())
        };
        same_prefix && id.iter().all(u8::is_ascii_hexdigit) && rest != self.epoch.as_bytes()
    }
}

/// Connections that are greeted and alone, to each server that keys are on.
pub(crate) struct Link {
    connections: Vec<Connection>,
    slots: Option<Arc<SlotMap>>,
    epoch_keys: Vec<(usize, String)>,
    /// To servers that commands were sent on to.
    others: Vec<Connection>,
}

impl Link {
    /// Connects, logs in, and ends older connections of the same mirror. `known`: where servers of a cluster
    /// were last.
    pub async fn connect(target: &Target, names: &Names, known: &[Address]) -> Result<Self, Failure> {
        let Servers { connections, slots } = Servers::connect(target, known).await?;
        for connection in &connections {
            fence(connection, &names.connection).await.map_err(|failure| failure.at(&connection.address))?;
        }
        let epoch_keys = names.epoch_keys(slots.as_deref());
        Ok(Self { connections, slots, epoch_keys, others: Vec::new() })
    }

    /// Which server has which key, where there are several.
    pub fn slots(&self) -> Option<&Arc<SlotMap>> {
        self.slots.as_ref()
    }

    /// The servers that it is connected to.
    pub fn connections(&self) -> &[Connection] {
        &self.connections
    }

    /// Names the history of the data in this Redis: it changes with each restart and each change of
    /// a primary, so the same name means that what was confirmed is still there, unless it was
    /// flushed. `None`: the user may not ask.
    pub async fn history(&self) -> Result<Option<String>, Failure> {
        let asked = try_join_all(self.connections.iter().map(replication_id)).await?;
        let Some(mut ids) = asked.into_iter().collect::<Option<Vec<_>>>() else { return Ok(None) };
        ids.sort_unstable();
        Ok(Some(ids.join(" ")))
    }

    /// Sends what belongs together, to each server its part. The replies come in the order of the parts.
    pub fn send(
        &self,
        parts: Arc<[Part]>,
    ) -> impl Future<Output = Result<Vec<Vec<Value>>, Failure>> + Send + use<> {
        let connections: Vec<_> = parts.iter().map(|part| self.connections[part.server].clone()).collect();
        async move {
            let send = async |(connection, part): (&Connection, &Part)| {
                connection.send(&part.pipeline).await.map_err(|failure| failure.at(&connection.address))
            };
            try_join_all(connections.iter().zip(&*parts).map(send)).await
        }
    }

    /// Sends one command, wherever its key has been moved to; `server` had it, as far as was known.
    pub async fn send_after(
        &mut self,
        target: &Target,
        server: usize,
        command: &Cmd,
    ) -> Result<Value, Failure> {
        let mut connection = self.connections[server].clone();
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.add_command(command.clone());
        for _ in 0..REDIRECTIONS_MAX {
            let reply = connection.send(&pipeline).await?.pop();
            let Some(Value::ServerError(error)) = reply else { return Ok(reply.unwrap_or(Value::Nil)) };
            let details = error.details().unwrap_or_default();
            let Some(address) = redirection(details, &connection.address).filter(|_| is_redirection(error.code()))
            else {
                return Err(Failure::from_server(&error).at(&connection.address));
            };
            pipeline.clear();
            if error.code() == "ASK" {
                pipeline.cmd("ASKING");
            }
            pipeline.add_command(command.clone());
            connection = self.other(target, &address).await?;
        }
        Err(Failure {
            category: Category::Resource,
            what: format!("a key was sent on by {REDIRECTIONS_MAX} servers of the cluster, one after the other"),
            remedy: "see CLUSTER NODES of each: they do not agree; the mirror keeps trying",
        })
    }

    async fn other(&mut self, target: &Target, address: &Address) -> Result<Connection, Failure> {
        let mut known = self.connections.iter().chain(&self.others);
        if let Some(connection) = known.find(|connection| connection.address == *address) {
            return Ok(connection.clone());
        }
        let connection = Connection::open(target, address, Purpose::Write).await?;
        self.others.push(connection.clone());
        Ok(connection)
    }

    /// What the epoch keys say: everything up to this seq is in this Redis. `None`: some key is not there.
    pub async fn epoch(&self) -> Result<Option<Seq>, Failure> {
        let mut least = None;
        for (server, key) in &self.epoch_keys {
            let connection = &self.connections[*server];
            let asked = connection.run(redis::cmd("GET").arg(key)).await;
            let seq = match asked.map_err(|failure| failure.at(&connection.address))? {
                Value::Nil => return Ok(None),
                Value::BulkString(text) => std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok()),
                other => return Err(Failure::unexpected_reply("GET", &other)),
            };
            let Some(seq) = seq else {
                tracing::warn!(key, "mirror: the epoch key holds no number: taken as missing");
                return Ok(None);
            };
            least = Some(least.map_or(seq, |least: Seq| least.min(seq)));
        }
        Ok(least)
    }

    /// Makes the epoch keys.
    pub async fn create_epoch(&self, seq: Seq) -> Result<(), Failure> {
        let set = |key: &str| redis::cmd("SET").arg(key).arg(seq).take();
        let replies = self.send(self.epoch_parts(set).into()).await?;
        match replies.iter().flatten().find(|reply| matches!(reply, Value::ServerError(_))) {
            Some(Value::ServerError(error)) => Err(Failure::from_server(error)),
            _ => Ok(()),
        }
    }

    /// Moves the epoch keys, those that are still there: the reply is nil from a server that lost its data.
    pub fn move_epoch(&self, seq: Seq) -> Vec<Part> {
        self.epoch_parts(|key| redis::cmd("SET").arg(key).arg(seq).arg("XX").take())
    }

    fn epoch_parts(&self, command: impl Fn(&str) -> Cmd) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        for (server, key) in &self.epoch_keys {
            Part::of(&mut parts, *server).add(0, command(key));
        }
        parts
    }
}

/// Whether an error reply says that another server has the key.
pub(crate) fn is_redirection(code: &str) -> bool {
    matches!(code, "MOVED" | "ASK")
}

async fn replication_id(connection: &Connection) -> Result<Option<String>, Failure> {
    let reply = match connection.run(redis::cmd("INFO").arg("replication")).await {
        Err(failure) if failure.category == Category::Auth => return Ok(None),
        other => other.map_err(|failure| failure.at(&connection.address))?,
    };
    let text = match &reply {
        Value::BulkString(text) => String::from_utf8_lossy(text),
        Value::VerbatimString { text, .. } => text.into(),
        other => return Err(Failure::unexpected_reply("INFO", other)),
    };
    Ok(text.lines().find_map(|line| line.strip_prefix("master_replid:")).map(str::to_owned))
}

/// Ends the connections of the same name.
///
/// When Redis hangs (stopped, swapping, cut off), commands of a connection given up long ago may
/// wait in its sockets, to run when it wakes: after newer ones of this connection. Ending the old
/// connection on the server drops them. The name is set before anything is written, so that no
/// connection that ever wrote is missed.
async fn fence(connection: &Connection, name: &str) -> Result<(), Failure> {
    let ended: Result<(), Failure> = async {
        connection.run(redis::cmd("CLIENT").arg("SETNAME").arg(name)).await?;
        let own = match connection.run(redis::cmd("CLIENT").arg("ID")).await? {
            Value::Int(id) => id.to_string(),
            other => return Err(Failure::unexpected_reply("CLIENT ID", &other)),
        };
        let list = connection.run(redis::cmd("CLIENT").arg("LIST")).await?;
        let list: String =
            redis::from_redis_value(list).map_err(|e| Failure::from(redis::RedisError::from(e)))?;
        for id in named(&list, name).filter(|id| *id != own) {
            connection.run(redis::cmd("CLIENT").arg("KILL").arg("ID").arg(id)).await?;
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
        let of = |id, prefix| Names::new([id; 16], 0, prefix);
        let key = |names: &Names| names.epoch_keys(None)[0].1.clone().into_bytes();
        let in_cluster = |names: &Names| format!("{EPOCH_KEYS}{{17}}{}", names.epoch).into_bytes();
        let (plain, prefixed) = (of(1, ""), of(1, "t:"));
        assert_eq!(key(&plain), format!("cidstore:mirror:{}", "01".repeat(16)).into_bytes());
        assert_eq!(key(&prefixed), format!("cidstore:mirror:{}:t:", "01".repeat(16)).into_bytes());
        let (other, other_prefixed) = (of(2, ""), of(2, "t:"));
        for key in [key, in_cluster] {
            assert!(plain.is_other_store(&key(&other), ""));
            assert!(!plain.is_other_store(&key(&plain), ""));
            assert!(!plain.is_other_store(&key(&other_prefixed), ""));
            assert!(prefixed.is_other_store(&key(&other_prefixed), "t:"));
            assert!(!prefixed.is_other_store(&key(&other), "t:"));
        }
        for key in [&b"cidstore:mirror:"[..], b"cidstore:mirror:zz", b"cidstore:mirror:{1", &[0xff; 60]] {
            assert!(!plain.is_other_store(key, ""));
        }
    }
}
