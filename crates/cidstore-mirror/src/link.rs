//! Redis as the mirror sees it while connections stand: the fence against their predecessors, the epoch
//! keys, and pipelines, wherever their keys are.
//!
//! The `redis` crate's connection manager would reconnect behind our back. The mirror must know of each new
//! connection, because the server at its other end may have lost data: so it makes plain connections, and
//! the loop in `follower` is the manager. Its cluster client follows redirections by itself, and what it
//! sends again may overtake what was sent since: so the mirror knows of slots, and follows them in order.

use crate::chunk::Part;
use crate::config::Target;
use crate::connect::{Connection, Purpose, text};
use crate::endpoint::Address;
use crate::failure::{Category, Failure};
use crate::form::ValueForm;
use crate::names::{Names, move_epoch};
use crate::plan::Epoch;
use crate::servers::{Servers, layout};
use crate::slots::{SlotMap, epoch_tags, redirection};
use cidstore_types::Seq;
use futures_util::future::try_join_all;
use redis::{Arg, Cmd, Pipeline, RedisError, ServerError, Value};
use std::future::Future;
use std::sync::Arc;

/// Servers that a command is sent on to, at most.
const REDIRECTIONS_MAX: usize = 5;

/// What the data in Redis is a continuation of: of each server, its address and what it calls the history
/// of its data.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct History(Option<Vec<(Address, String)>>);

impl History {
    /// Whether what was there then is there now, unless it was flushed: no server has gone, or begun anew.
    /// There may be more of them.
    pub fn continues(&self, before: &Self) -> bool {
        match (&self.0, &before.0) {
            (Some(now), Some(before)) => before.iter().all(|server| now.contains(server)),
            // Who may not ask does not know.
            _ => false,
        }
    }
}

/// Connections that are greeted and alone, to each server that keys are on.
pub(crate) struct Link {
    target: Target,
    names: Names,
    connections: Vec<Connection>,
    slots: Option<Arc<SlotMap>>,
    epoch_keys: Vec<(usize, String)>,
    /// To servers that commands were sent on to.
    others: Vec<Connection>,
    /// Some key has another server than the map says.
    has_moved: bool,
    /// It ends older connections of the same mirror, also on servers that it comes to later.
    fences: bool,
    /// What is there is not all of one form.
    pub is_mixed: bool,
}

impl Link {
    /// Connects, logs in, and ends older connections of the same mirror. `known`: where servers of a cluster
    /// were last; `failures`: how often it failed since.
    pub async fn connect(
        target: &Target,
        names: &Names,
        known: &[Address],
        failures: u32,
    ) -> Result<Self, Failure> {
        let mut link = Self::beside(target, names, known, failures).await?;
        try_join_all(link.connections.iter().map(|connection| fence(connection, &names.connection))).await?;
        link.fences = true;
        Ok(link)
    }

    /// Connects and logs in, to read beside the mirror's own connections, which stay.
    pub async fn beside(
        target: &Target,
        names: &Names,
        known: &[Address],
        failures: u32,
    ) -> Result<Self, Failure> {
        let Servers { connections, slots } = Servers::connect(target, known, failures).await?;
        let epoch_keys = names.epoch_keys(slots.as_deref());
        Ok(Self {
            target: target.clone(),
            names: names.clone(),
            connections,
            slots,
            epoch_keys,
            others: Vec::new(),
            has_moved: false,
            fences: false,
            is_mixed: false,
        })
    }

    /// Which server has which key, where there are several.
    pub fn slots(&self) -> Option<&Arc<SlotMap>> {
        self.slots.as_ref()
    }

    /// The servers that it is connected to.
    pub fn connections(&self) -> &[Connection] {
        &self.connections
    }

    /// The place of the server that has this key.
    pub fn server_of(&self, key: &[u8]) -> usize {
        self.slots.as_ref().map_or(0, |slots| slots.node_of(key))
    }

    /// Whether every server can keep values of this form, which is asked with the name of a triple's key.
    pub async fn check_form(&self, value: ValueForm, key: &[u8]) -> Result<(), Failure> {
        if value != ValueForm::RedisJson {
            return Ok(());
        }
        for connection in &self.connections {
            match connection.run(&value.read(key)).await {
                Err(failure) if failure.is_unknown_command() => {
                    return Err(Failure::new(
                        Category::Validation,
                        "redis_value is redisjson, and this server knows no JSON.GET",
                        "load the module RedisJSON there, or choose another redis_value",
                    )
                    .at(&connection.address));
                }
                // A slot that moves is answered with where it is, which is an answer.
                Err(failure)
                    if failure.category == Category::Auth || failure.category == Category::Network =>
                {
                    return Err(failure.at(&connection.address));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether some key was found on another server than the map says.
    pub fn has_moved(&self) -> bool {
        self.has_moved
    }

    /// Which data is there.
    pub async fn history(&self) -> Result<History, Failure> {
        let asked = try_join_all(self.connections.iter().map(Connection::replication)).await?;
        let servers = self.connections.iter().zip(asked).map(|(connection, found)| {
            // A replica's history is that of its primary, of which it may have less.
            let id = found.filter(|found| found.is_primary)?.history?;
            Some((connection.address.clone(), id))
        });
        Ok(History(servers.collect()))
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
    pub async fn send_after(&mut self, server: usize, command: &Cmd) -> Result<Value, Failure> {
        let mut connection = self.connections[server].clone();
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.add_command(command.clone());
        for _ in 0..REDIRECTIONS_MAX {
            let sent = connection.send(&pipeline).await.map_err(|failure| failure.at(&connection.address));
            let reply = sent?.pop().unwrap_or(Value::Nil);
            let Value::ServerError(error) = reply else { return Ok(reply) };
            let refused = || Failure::from_server(&error).at(&connection.address);
            if let Some(remove) = replaceable(&error, command) {
                Box::pin(self.send_after(server, &remove)).await?;
                continue;
            }
            if !is_redirection(error.code()) {
                return Err(refused());
            }
            let next = redirection(error.details().unwrap_or_default(), &connection.address);
            let next = next.ok_or_else(refused)?;
            pipeline.clear();
            if error.code() == "ASK" {
                pipeline.cmd("ASKING");
            } else {
                self.has_moved = true;
            }
            pipeline.add_command(command.clone());
            connection = self.other(&next).await?;
        }
        Err(Failure::new(
            Category::Resource,
            format!("a key was sent on by {REDIRECTIONS_MAX} servers of the cluster, one after the other"),
            "see CLUSTER NODES of each: they do not agree; the mirror keeps trying",
        ))
    }

    async fn other(&mut self, address: &Address) -> Result<Connection, Failure> {
        let mut known = self.connections.iter().chain(&self.others);
        if let Some(connection) = known.find(|connection| connection.address == *address) {
            return Ok(connection.clone());
        }
        let connection = Connection::open(&self.target, address, Purpose::Write).await?;
        if self.fences {
            fence(&connection, &self.names.connection).await?;
        }
        self.others.push(connection.clone());
        Ok(connection)
    }

    /// Runs a command for each epoch key, wherever that is; the replies are in the order of the keys.
    async fn for_each_epoch_key(&mut self, command: impl Fn(&str) -> Cmd) -> Result<Vec<Value>, Failure> {
        let commands: Vec<_> = self.epoch_keys.iter().map(|(server, key)| (*server, command(key))).collect();
        let replies = self.ask_all(&commands).await?;
        for ((server, _), reply) in commands.iter().zip(&replies) {
            if let Value::ServerError(error) = reply {
                return Err(Failure::from_server(error).at(&self.connections[*server].address));
            }
        }
        Ok(replies)
    }

    /// The value of each key, wherever it is, in the order of the keys; what a server says against it is
    /// among them.
    pub async fn values(&mut self, form: ValueForm, keys: &[Vec<u8>]) -> Result<Vec<Value>, Failure> {
        let commands: Vec<_> = keys.iter().map(|key| (self.server_of(key), form.read(key))).collect();
        self.ask_all(&commands).await
    }

    /// Runs commands of which each server has its own, or had, as far as was known; the replies are in the
    /// order of the commands.
    async fn ask_all(&mut self, commands: &[(usize, Cmd)]) -> Result<Vec<Value>, Failure> {
        let mut parts = Vec::new();
        for (n, (server, command)) in commands.iter().enumerate() {
            Part::of(&mut parts, *server).add(n as u32, command.clone());
        }
        let parts: Arc<[Part]> = parts.into();
        let mut replies = vec![Value::Nil; commands.len()];
        for (part, answers) in parts.iter().zip(self.send(Arc::clone(&parts)).await?) {
            for (n, reply) in part.rows.iter().zip(answers) {
                let n = *n as usize;
                replies[n] = match reply {
                    Value::ServerError(error) if self.slots.is_some() && is_redirection(error.code()) => {
                        self.send_after(part.server, &commands[n].1).await?
                    }
                    reply => reply,
                };
            }
        }
        Ok(replies)
    }

    /// What the epoch keys say: everything up to this seq is in this Redis. `None`: some key is not there.
    /// That of a primary which has none of the tags may be made now, if the data `continues` what was there:
    /// the primary is new, and what it has came from others.
    pub async fn epoch(&mut self, continues: bool) -> Result<Option<Epoch>, Failure> {
        let (mut least, mut to_make) = (None::<Epoch>, Vec::new());
        let replies = self.for_each_epoch_key(|key| redis::cmd("GET").arg(key).take()).await?;
        for (n, ((server, key), reply)) in self.epoch_keys.iter().zip(replies).enumerate() {
            let epoch = match &reply {
                Value::Nil if continues && n >= epoch_tags().len() => {
                    to_make.push((*server, key.clone()));
                    continue;
                }
                Value::Nil => return Ok(None),
                Value::BulkString(_) => text(&reply).and_then(|text| self.names.read_epoch(text)),
                other => return Err(Failure::unexpected_reply("GET", other)),
            };
            let Some(Epoch { seq, form_fits }) = epoch else {
                tracing::warn!(key, "mirror: the epoch key holds no number: taken as missing");
                return Ok(None);
            };
            least = Some(match least {
                None => Epoch { seq, form_fits },
                Some(least) => Epoch { seq: least.seq.min(seq), form_fits: least.form_fits && form_fits },
            });
        }
        if let Some(least) = least {
            for (server, key) in to_make {
                let value = self.names.epoch_value(least.seq, !least.form_fits);
                self.send_after(server, redis::cmd("SET").arg(key).arg(value)).await?;
            }
        }
        Ok(least)
    }

    /// Makes the epoch keys.
    pub async fn create_epoch(&mut self, seq: Seq) -> Result<(), Failure> {
        let value = self.names.epoch_value(seq, self.is_mixed);
        self.for_each_epoch_key(|key| redis::cmd("SET").arg(key).arg(&value).take()).await.map(drop)
    }

    /// Moves the epoch keys. `false`: some server lost its data.
    pub async fn move_epoch(&mut self, seq: Seq) -> Result<bool, Failure> {
        let value = self.names.epoch_value(seq, self.is_mixed);
        let replies = self.for_each_epoch_key(|key| move_epoch(key, &value)).await?;
        Ok(!replies.contains(&Value::Nil))
    }

    /// Looks at the epoch keys, and moves those that are still there: of each, row 0 is what it was and row
    /// 1 is nil where the server lost its data.
    pub fn epoch_parts(&self, seq: Seq) -> Vec<Part> {
        let value = self.names.epoch_value(seq, self.is_mixed);
        let mut parts = Vec::new();
        for (row, (server, key)) in (0..2).flat_map(|row| self.epoch_keys.iter().map(move |key| (row, key))) {
            let command = if row == 0 { redis::cmd("GET").arg(key).take() } else { move_epoch(key, &value) };
            Part::of(&mut parts, *server).add(row, command);
        }
        parts
    }

    /// Whether the slots are where the map says, and stay there.
    pub async fn is_settled(&self) -> Result<bool, Failure> {
        let (Some(slots), Some(asked)) = (&self.slots, self.connections.first()) else { return Ok(true) };
        if !layout(asked).await?.divides_alike(slots) {
            return Ok(false);
        }
        // Each server tells of its own slots only that they are on their way: `[slot->-node]`.
        for connection in &self.connections {
            let reply = connection.run(redis::cmd("CLUSTER").arg("NODES")).await;
            let reply = reply.map_err(|failure| failure.at(&connection.address))?;
            let nodes: String =
                redis::from_redis_value(reply).map_err(|e| Failure::from(RedisError::from(e)))?;
            if nodes.contains("->-") || nodes.contains("-<-") {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Whether an error reply says that a key holds something of another type. RedisJSON has words of its own.
pub(crate) fn is_wrong_type(error: &ServerError) -> bool {
    error.code() == "WRONGTYPE" || error.details().is_some_and(|details| details.contains("wrong Redis type"))
}

/// What removes the key that holds something of another type, as SET does by itself: where the command was
/// to write a triple or a set, the key's name is the mirror's.
fn replaceable(error: &ServerError, command: &Cmd) -> Option<Cmd> {
    let mut words = command.args_iter().map(|word| match word {
        Arg::Simple(word) => word,
        _ => &[],
    });
    let is_own = matches!(words.next()?, b"HSET" | b"JSON.SET" | b"SADD" | b"SREM");
    (is_own && is_wrong_type(error)).then(|| redis::cmd("UNLINK").arg(words.next()).take())
}

/// Whether an error reply says that another server has the key.
pub(crate) fn is_redirection(code: &str) -> bool {
    matches!(code, "MOVED" | "ASK")
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
        let list: String = redis::from_redis_value(list).map_err(|e| Failure::from(RedisError::from(e)))?;
        for id in ids_of(&list, name).filter(|id| *id != own) {
            connection.run(redis::cmd("CLIENT").arg("KILL").arg("ID").arg(id)).await?;
        }
        Ok(())
    }
    .await;
    match ended {
        // A user without these rights can mirror; only the rare overtaking is not excluded.
        Err(failure) if failure.is_forbidden => {
            tracing::debug!("mirror: cannot end older connections of its own: {}", failure.what);
            Ok(())
        }
        other => other.map_err(|failure| failure.at(&connection.address)),
    }
}

/// The ids of the connections of that name in a reply to `CLIENT LIST`: a line for each, of fields
/// `key=value`; names have no spaces in them.
fn ids_of<'a>(list: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
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
        assert_eq!(ids_of(list, "a:b").collect::<Vec<_>>(), ["3", "6"]);
    }

    #[test]
    fn data_continues_where_no_server_has_gone() {
        let of = |servers: &[(u16, &str)]| {
            let server = |(port, id): &(u16, &str)| {
                (Address::Tcp { host: "h".into(), port: *port }, (*id).to_string())
            };
            History(Some(servers.iter().map(server).collect()))
        };
        let before = of(&[(1, "a"), (2, "b")]);
        assert!(
            of(&[(2, "b"), (1, "a")]).continues(&before)
                && of(&[(1, "a"), (2, "b"), (3, "c")]).continues(&before)
        );
        assert!(!of(&[(1, "a"), (2, "c")]).continues(&before) && !of(&[(1, "a")]).continues(&before));
        assert!(!before.continues(&History(None)) && !History(None).continues(&before));
    }
}
