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
    /// was last seen, which is asked of them, too.
    ///
    /// # Errors
    /// [`Failure`], which names what was tried.
    pub async fn connect(target: &Target, known: &[Address]) -> Result<Self, Failure> {
        let one = match &target.layout {
            Layout::Servers(servers) => first_primary(target, servers).await?,
            Layout::Sentinel { sentinels, name } => by_sentinel(target, sentinels, name).await?,
            Layout::Cluster(nodes) => return cluster(target, nodes, known).await,
        };
        Ok(Self { connections: vec![one], slots: None })
    }
}

/// What was tried in vain, told as one. Who can mend the first of them is asked first.
fn in_vain(failures: Vec<Failure>) -> Failure {
    let what: Vec<_> = failures.iter().map(|failure| failure.what.as_str()).collect();
    let what = what.join("; ");
    match failures.into_iter().next() {
        Some(first) => Failure { what, ..first },
        None => Failure::network("no server is configured"),
    }
}

fn no_primary(address: &Address) -> Failure {
    Failure {
        category: Category::Validation,
        what: format!("{address} is a replica"),
        remedy: "point the mirror at the primary, not at a replica; after a failover it is found by itself where it is among the servers that are configured, or by Sentinel",
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
    match connection.is_primary().await.map_err(|failure| failure.at(address))? {
        Some(false) => Err(no_primary(address)),
        // Who may not ask sees it when something is written.
        Some(true) | None => Ok(connection),
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
            Value::Nil => Err(Failure {
                category: Category::Validation,
                what: format!("the sentinel knows no primary named {name:?}"),
                remedy: "give the name that its `sentinel monitor` line has",
            }),
            other => Err(Failure::unexpected_reply("SENTINEL", &other)),
        };
    };
    let address = || {
        let [host, port] = &**parts else { return None };
        Some(Address::Tcp { host: text(host)?.into(), port: text(port)?.parse().ok()? })
    };
    address().ok_or_else(|| Failure::unexpected_reply("SENTINEL", &reply))
}

async fn cluster(target: &Target, nodes: &[Address], known: &[Address]) -> Result<Servers, Failure> {
    let mut failures = Vec::new();
    // Those that are known come first: they are not older than what is configured.
    let asked = known.iter().chain(nodes.iter().filter(|node| !known.contains(node)));
    for address in asked {
        match layout(target, address).await {
            Ok(map) => {
                let mut connections = Vec::with_capacity(map.nodes.len());
                let opened = map.nodes.iter().map(|node| Connection::open(target, node, Purpose::Write));
                // At once, since a cluster may have hundreds.
                for connection in futures_util::future::join_all(opened).await {
                    connections.push(connection?);
                }
                return Ok(Servers { connections, slots: Some(Arc::new(map)) });
            }
            Err(failure) => failures.push(failure),
        }
    }
    Err(in_vain(failures))
}

async fn layout(target: &Target, address: &Address) -> Result<SlotMap, Failure> {
    let connection = Connection::open(target, address, Purpose::Write).await?;
    let asked = async { SlotMap::of(&connection.run(redis::cmd("CLUSTER").arg("SLOTS")).await?, address) };
    asked.await.map_err(|failure| failure.at(address))
}
