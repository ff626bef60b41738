//! A cluster of six servers: three primaries, each with a replica.

use super::DEADLINE;
use super::server::{Redis, free_port_of_a_cluster};
use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Instant;

pub struct Cluster {
    pub nodes: Vec<Redis>,
}

impl Cluster {
    pub fn start() -> Self {
        let start = |_| {
            Redis::start_on(free_port_of_a_cluster, |_| {
                ["--cluster-enabled", "yes", "--cluster-node-timeout", "5000"].map(Into::into).to_vec()
            })
        };
        let cluster = Self { nodes: (0..6).map(start).collect() };
        let hosts: Vec<_> = cluster.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        let mut args = vec!["--cluster", "create"];
        args.extend(hosts.iter().map(String::as_str));
        args.extend(["--cluster-replicas", "1", "--cluster-yes"]);
        Self::manage(&args);
        cluster.until_whole();
        cluster
    }

    /// `redis-cli --cluster …`.
    pub fn manage(args: &[&str]) {
        let mut command = Command::new("redis-cli");
        let done = command.args(args).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(
            done.status.success(),
            "redis-cli {args:?}: {said} {}",
            String::from_utf8_lossy(&done.stderr)
        );
    }

    /// Those that live.
    fn living(&self) -> impl Iterator<Item = &Redis> {
        self.nodes.iter().filter(|node| node.lives())
    }

    pub fn until_whole(&self) {
        let begin = Instant::now();
        let is_whole = |node: &Redis| {
            let info: String = redis::from_redis_value(node.command("CLUSTER INFO")).unwrap();
            let replication: String = redis::from_redis_value(node.command("INFO replication")).unwrap();
            let has_data =
                replication.contains("role:master") || replication.contains("master_link_status:up");
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:6") && has_data
        };
        while !self.living().all(is_whole) {
            assert!(begin.elapsed() < DEADLINE, "the cluster does not become whole");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// The primaries that live, with what they call themselves.
    pub fn primaries(&self) -> Vec<(&Redis, String)> {
        let myself = |node: &Redis| -> Option<String> {
            let nodes: String = redis::from_redis_value(node.command("CLUSTER NODES")).unwrap();
            let line = nodes.lines().find(|line| line.contains("myself"))?;
            line.contains("master").then(|| line.split(' ').next().unwrap().to_string())
        };
        self.living().filter_map(|node| Some((node, myself(node)?))).collect()
    }

    pub fn contents(&self) -> BTreeMap<String, String> {
        self.primaries().iter().flat_map(|(node, _)| node.contents()).collect()
    }

    /// Of some of the servers, as a user would give them.
    pub fn url(&self) -> String {
        let [a, b] = [self.nodes[4].port, self.nodes[1].port];
        format!("redis://127.0.0.1:{a},127.0.0.1:{b}/0")
    }
}
