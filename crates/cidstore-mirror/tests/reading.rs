//! Reading what the mirror has written: never older than what is asked for, and never waited for.

mod common;

use cidstore_mirror::{MirrorConfig, NoAnswer, Reader, Secret, Verdict};
use cidstore_types::{Seq, TripleHash, TripleRecord};
use common::cluster::Cluster;
use common::server::{Redis, available};
use common::{DEADLINE, Rig, STORE_ID, config, triple};
use std::time::{Duration, Instant};

/// Far more than an answer takes, also on a loaded machine.
const PATIENT: Duration = Duration::from_secs(5);

fn reader(config: &MirrorConfig, deadline: Duration) -> Reader {
    Reader::new(config, STORE_ID, deadline).unwrap().expect("a mirror is configured")
}

fn hashes(numbers: impl IntoIterator<Item = u64>) -> Vec<TripleHash> {
    numbers.into_iter().map(|n| triple(n).hash()).collect()
}

/// Asks until there is an answer: connections are made meanwhile, and epoch keys moved.
async fn got(reader: &Reader, hashes: &[TripleHash], needed: Seq) -> Vec<Option<TripleRecord>> {
    let begin = Instant::now();
    loop {
        match reader.get(hashes, needed).await {
            Ok(found) => return found,
            Err(why) => assert!(begin.elapsed() < DEADLINE, "no answer: {why:?}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn reads(config: MirrorConfig) {
    let mut rig = Rig::new(config.clone());
    rig.insert(0..50);
    rig.delete([7]);
    let seq = rig.until_live().await.cursor;
    let reader = reader(&config, PATIENT);
    let found = got(&reader, &hashes(0..60), seq).await;
    for (n, found) in found.into_iter().enumerate() {
        let expected = (n < 50 && n != 7).then(|| triple(n as u64));
        assert_eq!(found.map(|record| record.triple), expected, "{n}");
    }
    let held = rig.state.holds(seq).expect("it is live");
    assert!(rig.state.still_holds(held));
    // What is not there yet is not guessed at.
    assert_eq!(rig.state.holds(seq + 1), None);
    assert_eq!(reader.get(&hashes(0..3), seq + 1).await, Err(NoAnswer::Behind));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_answers_with_what_it_has_been_told() {
    if available() {
        let server = Redis::start();
        reads(MirrorConfig { prefix: "p:".into(), ..config(server.port) }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_server_of_a_cluster_answers_for_its_own() {
    if available() {
        let cluster = Cluster::start();
        let url = Some(Secret::new(cluster.url()));
        let config = MirrorConfig { url, host: None, ..config(1) };
        reads(config.clone()).await;
        let reader = reader(&config, PATIENT);
        got(&reader, &[], 0).await;
        for n in 0..20 {
            let client = format!("10.0.0.{n}");
            assert_eq!(reader.count(&client, 1, Duration::from_mins(10)).await, Ok(Verdict::Allowed));
            let refused = reader.count(&client, 1, Duration::from_mins(10)).await;
            assert!(matches!(refused, Ok(Verdict::TryAfter(_))), "{refused:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lost_its_data_is_not_believed() {
    if !available() {
        return;
    }
    let server = Redis::start();
    let config = MirrorConfig { health_interval: Duration::from_mins(1), ..config(server.port) };
    let mut rig = Rig::new(config.clone());
    rig.insert(0..5);
    let seq = rig.until_live().await.cursor;
    let reader = reader(&config, PATIENT);
    assert!(got(&reader, &hashes([1]), seq).await[0].is_some());
    // The mirror does not know yet.
    server.command("FLUSHALL");
    assert!(rig.state.holds(seq).is_some());
    assert_eq!(reader.get(&hashes([1]), seq).await, Err(NoAnswer::Behind));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_is_waited_for_once() {
    if !available() {
        return;
    }
    let server = Redis::start();
    let config = MirrorConfig { backoff_max: Duration::from_secs(10), ..config(server.port) };
    let mut rig = Rig::new(config.clone());
    rig.insert(0..5);
    let seq = rig.until_live().await.cursor;
    let reader = reader(&config, Duration::from_millis(500));
    got(&reader, &hashes([1]), seq).await;
    server.freeze();
    assert_eq!(reader.get(&hashes([1]), seq).await, Err(NoAnswer::Failed));
    // It accepts connections still: they count only when they have answered.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(2) {
        assert_eq!(reader.get(&hashes([1]), seq).await, Err(NoAnswer::NotConnected));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.thaw();
    got(&reader, &hashes([1]), seq).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_share_what_a_client_may_ask() {
    if !available() {
        return;
    }
    let mut server = Redis::start();
    let config = config(server.port);
    let readers = [reader(&config, PATIENT), reader(&config, PATIENT)];
    for reader in &readers {
        got(reader, &[], 0).await;
    }
    // So long that none ends while this runs; where it began does not matter to a client that is new.
    let window = Duration::from_mins(10);
    for n in 0..10 {
        assert_eq!(readers[n % 2].count("a", 10, window).await, Ok(Verdict::Allowed), "{n}");
    }
    for reader in &readers {
        let Ok(Verdict::TryAfter(after)) = reader.count("a", 10, window).await else {
            panic!("it is allowed")
        };
        assert!(after > Duration::ZERO && after <= 2 * window, "{after:?}");
        assert_eq!(reader.count("b", 10, window).await, Ok(Verdict::Allowed));
    }
    // What is counted ends by itself.
    assert!(matches!(server.command("PTTL cidstore:rate:a"), redis::Value::Int(1..=1_200_000)));
    // A server that knows nothing of the script is told again.
    server.command("SCRIPT FLUSH");
    assert_eq!(readers[0].count("c", 10, window).await, Ok(Verdict::Allowed));
    // A request counts for as long as the window, and then for less and less.
    let window = Duration::from_millis(200);
    assert_eq!(readers[0].count("d", 1, window).await, Ok(Verdict::Allowed));
    let begin = Instant::now();
    while readers[1].count("d", 1, window).await != Ok(Verdict::Allowed) {
        assert!(begin.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.kill();
    assert_eq!(readers[0].count("e", 1, window).await, Err(NoAnswer::Failed));
    server.restart();
    got(&readers[0], &[], 0).await;
    assert_eq!(readers[0].count("e", 1, window).await, Ok(Verdict::Allowed));
}

#[test]
fn the_scripts_name_is_its_sha_1() {
    if available() {
        let server = Redis::start();
        let script = include_str!("../src/limit.lua");
        let name: String =
            redis::cmd("SCRIPT").arg("LOAD").arg(script).query(&mut server.connection()).unwrap();
        assert!(
            include_str!("../src/limit.rs").contains(&format!("\"{name}\"")),
            "sha1sum limit.lua: {name}"
        );
    }
}
