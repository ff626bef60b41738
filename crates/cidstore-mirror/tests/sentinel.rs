//! Redis behind Sentinel: a failover in the middle of a load.

mod common;

use cidstore_mirror::{Category, MirrorConfig, Secret, State};
use common::server::{Redis, available};
use common::{DEADLINE, Rig, config};
use std::time::{Duration, Instant};

/// A primary with two replicas, and three sentinels.
struct Watched {
    servers: Vec<Redis>,
    sentinels: Vec<Redis>,
}

impl Watched {
    fn start() -> Self {
        let servers: Vec<_> = (0..3).map(|_| Redis::start()).collect();
        for replica in &servers[1..] {
            replica.command(&format!("REPLICAOF 127.0.0.1 {}", servers[0].port));
        }
        let sentinels: Vec<_> = (0..3).map(|_| Redis::start_sentinel("watched", servers[0].port)).collect();
        let watched = Self { servers, sentinels };
        let begin = Instant::now();
        let knows = |sentinel: &Redis| {
            let text = format!("{:?}", sentinel.command("SENTINEL MASTER watched"));
            // Each pair of name and value, one behind the other.
            let after = |name: &str| {
                text.split(name)
                    .nth(1)
                    .map(|rest| rest.chars().filter(char::is_ascii_digit).take(1).collect::<String>())
            };
            after("num-slaves") == Some("2".into()) && after("num-other-sentinels") == Some("2".into())
        };
        while !watched.sentinels.iter().all(knows) {
            assert!(begin.elapsed() < DEADLINE, "the sentinels do not find each other");
            std::thread::sleep(Duration::from_millis(50));
        }
        watched
    }

    fn url(&self, name: &str) -> String {
        let hosts: Vec<_> = self.sentinels.iter().map(|one| format!("127.0.0.1:{}", one.port)).collect();
        format!("redis+sentinel://{}/{name}", hosts.join(","))
    }
}

fn by_url(url: String) -> MirrorConfig {
    MirrorConfig { url: Some(Secret::new(url)), host: None, ..config(1) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_in_the_middle_of_a_load_loses_nothing() {
    if !available() {
        return;
    }
    let mut watched = Watched::start();
    let mut rig = Rig::new(by_url(watched.url("watched")));
    rig.insert(0..2000);
    rig.until_equal(&watched.servers[0]).await;
    // One of the sentinels is gone, too.
    watched.sentinels[0].kill();
    rig.insert(2000..4000);
    watched.servers[0].kill();
    let begin = Instant::now();
    let mut next = 4000;
    let is_primary = |server: &&Redis| format!("{:?}", server.command("ROLE")).contains("master");
    let port = loop {
        rig.insert(next..next + 50);
        rig.delete(next - 2000..next - 1990);
        next += 50;
        if let Some(server) = watched.servers[1..].iter().find(is_primary) {
            break server.port;
        }
        assert!(begin.elapsed() < DEADLINE, "no failover");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let primary = watched.servers.iter().find(|server| server.port == port).unwrap();
    rig.insert(0..100);
    rig.until_equal(primary).await;
    rig.until("live", |report| report.state == State::Live).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_no_sentinel_knows_is_told() {
    if !available() {
        return;
    }
    let server = Redis::start();
    let sentinel = Redis::start_sentinel("watched", server.port);
    let mut rig = Rig::new(by_url(format!("redis+sentinel://127.0.0.1:{}/other", sentinel.port)));
    rig.insert(0..5);
    rig.until("the hint", |report| {
        let fits = |e: &cidstore_mirror::LastError| {
            e.category == Category::Validation && e.message.contains("sentinel monitor")
        };
        report.last_error.as_ref().is_some_and(fits)
    })
    .await;
    rig.stop().await;
}
