//! From what is configured to connections with those who take writes: one server of several, the primary
//! that a sentinel names, the primaries of a cluster.

use crate::config::Target;
use crate::connect::{Connection, Purpose, text};
use crate::endpoint::{Address, Layout};
use crate::failure::{Category, Failure};
use crate::slots::SlotMap;
use redis::Value;
use std::sync::Arc;

/// Connections to all that is written to.
pub(crate) struct Servers {
    /// One, or the primaries of a cluster in the order of its map.
    pub connections: Vec<Connection>,
    /// `None`: there is one server, which has all keys.
    pub slots: Option<Arc<SlotMap>>,
}

impl Servers {
    /// Connects to all that are to be written to. `known` are servers that were part of the cluster when it
    /// was last seen, which is asked of them, too. After so many `failures` another of them is asked first,
    /// since one that was cut off from the others tells an old layout.
    ///
    /// # Errors
    /// [`Failure`], which names what was tried.
    pub async fn connect(target: &Target, known: &[Address], failures: u32) -> Result<Self, Failure> {
        let one = match &target.layout {
            Layout::Servers(servers) => first_primary(target, servers).await?,
            Layout::Sentinel { sentinels, name } => by_sentinel(target, sentinels, name).await?,
            Layout::Cluster(nodes) => return cluster(target, nodes, known, failures).await,
        };
        Ok(Self { connections: vec![one], slots: None })
    }
}

/// What was tried in vain, told as one. A server that answered says more about what to do than one that
/// did not.
fn in_vain(failures: Vec<Failure>) -> Failure {
    let what: Vec<_> = failures.iter().map(|failure| failure.what.as_str()).collect();
    let what = what.join("; ");
    let answered = failures.iter().position(|failure| failure.category != Category::Network);
    match failures.into_iter().nth(answered.unwrap_or_default()) {
        Some(telling) => Failure { what, ..telling },
        None => Failure::network("no server is configured"),
    }
}

async fn first_primary(target: &Target, servers: &[Address]) -> Result<Connection, Failure> {
    if let [only] = servers {
        // Whether it takes writes is seen when something is written.
        return Connection::open(target, only, Purpose::Write).await;
    }
    let mut failures = Vec::new();
    for address in servers {
        match primary(target, address).await {
            Ok(connection) => return Ok(connection),
            Err(failure) => failures.push(failure),
        }
    }
    Err(in_vain(failures))
}

async fn primary(target: &Target, address: &Address) -> Result<Connection, Failure> {
    let connection = Connection::open(target, address, Purpose::Write).await?;
    match connection.replication().await? {
        Some(found) if !found.is_primary => Err(Failure::new(
            Category::Validation,
            format!("{address} is a replica"),
            "point the mirror at the primary, not at a replica; after a failover it is found by itself where it is among the servers that are configured, or by Sentinel",
        )),
        // Who may not ask sees it when something is written.
        _ => Ok(connection),
    }
}

async fn by_sentinel(target: &Target, sentinels: &[Address], name: &str) -> Result<Connection, Failure> {
    let mut failures = Vec::new();
    for sentinel in sentinels {
        let found = async {
            let connection = Connection::open(target, sentinel, Purpose::AskSentinel).await?;
            let address = named(&connection, name).await.map_err(|failure| failure.at(sentinel))?;
            // A sentinel that was cut off may name one that is primary no more.
            primary(target, &address).await
        };
        match found.await {
            Ok(connection) => return Ok(connection),
            Err(failure) => failures.push(failure),
        }
    }
    Err(in_vain(failures))
}

/// Where the sentinel has the primary of that name.
async fn named(sentinel: &Connection, name: &str) -> Result<Address, Failure> {
    let reply = sentinel.run(redis::cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(name)).await?;
    let Value::Array(parts) = &reply else {
        return match reply {
            Value::Nil => Err(Failure::new(
                Category::Validation,
                format!("the sentinel knows no primary named {name:?}"),
                "give the name that its `sentinel monitor` line has",
            )),
            other => Err(Failure::unexpected_reply("SENTINEL", &other)),
        };
    };
    let address = || {
        let [host, port] = &**parts else { return None };
        Some(Address::Tcp { host: text(host)?.into(), port: text(port)?.parse().ok()? })
    };
    address().ok_or_else(|| Failure::unexpected_reply("SENTINEL", &reply))
}

async fn cluster(
    target: &Target,
    nodes: &[Address],
    known: &[Address],
    failures: u32,
) -> Result<Servers, Failure> {
    // Those that are known come first: they are not older than what is configured.
    let asked = known.iter().chain(nodes.iter().filter(|node| !known.contains(node)));
    let mut asked: Vec<_> = asked.collect();
    let first = failures as usize % asked.len().max(1);
    asked.rotate_left(first);
    let mut in_vain_by = Vec::new();
    for address in asked {
        match whole(target, address).await {
            Ok(servers) => return Ok(servers),
            Err(failure) => in_vain_by.push(failure),
        }
    }
    Err(in_vain(in_vain_by))
}

/// Connections to all primaries that this server knows.
async fn whole(target: &Target, address: &Address) -> Result<Servers, Failure> {
    let map = layout(&Connection::open(target, address, Purpose::Write).await?).await?;
    let opened = map.nodes.iter().map(|node| Connection::open(target, node, Purpose::Write));
    // At once, since a cluster may have hundreds.
    let connections = futures_util::future::try_join_all(opened).await?;
    Ok(Servers { connections, slots: Some(Arc::new(map)) })
}

/// Which primary has which slot, as this server sees it.
///
/// # Errors
/// [`Failure`], which names the server.
pub(crate) async fn layout(asked: &Connection) -> Result<SlotMap, Failure> {
    let map = async {
        let reply = asked.run(redis::cmd("CLUSTER").arg("SLOTS")).await?;
        SlotMap::of(&reply, &asked.address)
    };
    map.await.map_err(|failure| failure.at(&asked.address))
}
