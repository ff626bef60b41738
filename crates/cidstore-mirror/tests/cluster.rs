//! Redis as a cluster: keys are where they belong, also while servers change places and slots move.

mod common;

use cidstore_mirror::{MirrorConfig, Secret, State};
use common::cluster::Cluster;
use common::server::available;
use common::{DEADLINE, Rig, config};
use std::time::{Duration, Instant};

fn rig(cluster: &Cluster) -> Rig {
    Rig::new(MirrorConfig { url: Some(Secret::new(cluster.url())), host: None, ..config(1) })
}

async fn until_equal(rig: &Rig, cluster: &Cluster) {
    let begin = Instant::now();
    let expected = rig.expected();
    loop {
        rig.until("nothing owed", |report| report.lag == 0).await;
        let found = cluster.contents();
        if found == expected {
            return;
        }
        let missing = expected.iter().filter(|(key, value)| found.get(*key) != Some(*value)).count();
        let foreign = found.keys().filter(|key| !expected.contains_key(*key)).count();
        assert!(
            begin.elapsed() < DEADLINE,
            "{missing} missing or stale, {foreign} foreign; {:?}",
            rig.report()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_to_all_primaries_and_survives_a_failover() {
    if !available() {
        return;
    }
    let mut cluster = Cluster::start();
    let mut rig = rig(&cluster);
    rig.insert(0..3000);
    rig.delete(0..500);
    until_equal(&rig, &cluster).await;
    rig.until_live().await;
    let spread: Vec<usize> = cluster.primaries().iter().map(|(node, _)| node.contents().len()).collect();
    assert_eq!(spread.len(), 3);
    assert!(spread.iter().all(|keys| *keys > 500), "{spread:?}");
    // One primary dies; its replica takes over, with what it had.
    let port = cluster.primaries()[1].0.port;
    rig.insert(3000..4000);
    let dies = cluster.nodes.iter_mut().find(|node| node.port == port).unwrap();
    dies.kill();
    rig.insert(4000..6000);
    rig.delete(500..700);
    rig.until("a failure", |report| report.counters.errors.iter().sum::<u64>() > 0).await;
    let begin = Instant::now();
    while cluster.primaries().len() < 3 {
        assert!(begin.elapsed() < DEADLINE, "no replica takes over");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    until_equal(&rig, &cluster).await;
    rig.until_live().await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_follow_slots_that_move_while_they_are_written() {
    if !available() {
        return;
    }
    let cluster = Cluster::start();
    let mut rig = rig(&cluster);
    rig.insert(0..4000);
    // What is taken for lost cannot come from the log.
    rig.drop_log();
    until_equal(&rig, &cluster).await;
    let rebuilds = rig.report().counters.rebuilds;
    let [from, to] = [0, 1].map(|n| cluster.primaries()[n].1.clone());
    let host = format!("127.0.0.1:{}", cluster.nodes[0].port);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let moving = scope.spawn(|| {
            let slots = ["--cluster-slots", "400", "--cluster-pipeline", "1", "--cluster-yes"];
            let mut args = vec!["--cluster", "reshard", &host, "--cluster-from", &from, "--cluster-to", &to];
            args.extend(slots);
            Cluster::manage(&args);
            done.store(true, std::sync::atomic::Ordering::Release);
        });
        // Every triple again and again, so that keys are written before, while and after they move.
        let mut round = 0;
        while !done.load(std::sync::atomic::Ordering::Acquire) {
            rig.insert(0..4000);
            rig.delete(round % 50..round % 50 + 10);
            round += 1;
            std::thread::sleep(Duration::from_millis(20));
        }
        moving.join().unwrap();
    });
    rig.insert(10..20);
    until_equal(&rig, &cluster).await;
    let report = rig.until_live().await;
    assert_eq!(report.counters.rebuilds, rebuilds, "what moved was not taken for lost");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_lost_its_data_is_noticed_and_filled_again() {
    if !available() {
        return;
    }
    let cluster = Cluster::start();
    let mut rig = rig(&cluster);
    rig.insert(0..1500);
    until_equal(&rig, &cluster).await;
    cluster.primaries()[2].0.command("FLUSHALL");
    until_equal(&rig, &cluster).await;
    // And with the log gone: anew from the store, without what is no more.
    rig.drop_log();
    until_equal(&rig, &cluster).await;
    let rebuilds = rig.report().counters.rebuilds;
    cluster.primaries()[0].0.command("FLUSHALL");
    rig.delete(0..100);
    rig.until("a rebuild", |report| report.counters.rebuilds > rebuilds).await;
    until_equal(&rig, &cluster).await;
    rig.until("live", |report| report.state == State::Live).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_lost_its_data_is_filled_again_though_another_takes_nothing() {
    if !available() {
        return;
    }
    let cluster = Cluster::start();
    let mut rig = rig(&cluster);
    rig.insert(0..1500);
    until_equal(&rig, &cluster).await;
    let full = cluster.primaries()[0].0;
    full.command("CONFIG SET maxmemory 1");
    cluster.primaries()[2].0.command("FLUSHALL");
    rig.until("a refusal", |report| {
        report.last_error.as_ref().is_some_and(|error| error.message.contains("maxmemory"))
    })
    .await;
    full.command("CONFIG SET maxmemory 0");
    until_equal(&rig, &cluster).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_server_that_is_of_a_cluster_is_told() {
    if !available() {
        return;
    }
    let cluster = Cluster::start();
    // The epoch key belongs to one of them.
    for (node, _) in cluster.primaries() {
        let mut rig = Rig::new(config(node.port));
        rig.insert(0..100);
        rig.until("the hint", |report| {
            report.last_error.as_ref().is_some_and(|error| error.message.contains("redis+cluster://"))
        })
        .await;
        rig.stop().await;
    }
}
