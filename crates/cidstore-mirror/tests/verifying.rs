//! Comparing store and Redis: what differs is found and, but for foreign keys, repaired; what is only on its
//! way is not taken for a difference.

mod common;

use cidstore_mirror::{
    DIFFERENCES_MAX, Kind, MirrorConfig, Outcome, Secret, State, VerificationReport, VerifyOptions,
};
use cidstore_types::TripleHash;
use common::cluster::Cluster;
use common::server::{Redis, available};
use common::{DEADLINE, Rig, config, triple};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const ALL: VerifyOptions = VerifyOptions { sample: None, repair: false };
const REPAIR: VerifyOptions = VerifyOptions { sample: None, repair: true };

fn hash(n: u64) -> TripleHash {
    triple(n).hash()
}

/// Waits until the verification is over.
async fn over(rig: &Rig) -> VerificationReport {
    let begin = Instant::now();
    loop {
        if !rig.state.verification.is_running() {
            return rig.state.verification.last().expect("one was begun");
        }
        assert!(begin.elapsed() < DEADLINE, "{:?}, {:?}", rig.state.verification.running(), rig.report());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn verify(rig: &Rig, options: VerifyOptions) -> VerificationReport {
    assert!(rig.state.verification.begin(options), "one is under way");
    let report = over(rig).await;
    assert_eq!(report.outcome, Some(Outcome::Complete), "{report:?}");
    report
}

fn counts(report: &VerificationReport) -> [u64; 5] {
    [report.missing, report.stale, report.foreign, report.changing, report.repaired]
}

/// Of the key, the kind that it was found to be, and what was said.
fn told(report: &VerificationReport, key: &str) -> (Kind, String) {
    let found: Vec<_> = report.differences.iter().filter(|difference| difference.key == key).collect();
    assert_eq!(found.len(), 1, "{key}: {report:?}");
    (found[0].kind, found[0].what.clone())
}

async fn each_difference_is_found_and_repaired(prefix: &str) {
    if !available() {
        return;
    }
    let server = Redis::start();
    let mut rig = Rig::new(MirrorConfig { prefix: prefix.into(), ..config(server.port) });
    rig.insert(0..1000);
    rig.delete(900..1000);
    rig.until_equal(&server).await;
    let report = verify(&rig, ALL).await;
    assert_eq!((report.checked, report.keys, counts(&report)), (900, 900, [0; 5]));
    assert_eq!(report.is_equal(), Some(true));

    let key = |n| format!("{prefix}{}", hash(n));
    let expected = rig.expected();
    server.command(&format!("DEL {}", key(1)));
    server.command(&format!("SET {} other", key(2)));
    server.command(&format!("DEL {}", key(3)));
    server.command(&format!("RPUSH {} other", key(3)));
    // A triple that was deleted, and whose deletion was lost.
    let deleted = cidstore_types::TripleRecord::new(triple(950), 1.5, None).to_json(&hash(950)).to_string();
    server.command(&format!("SET {} {deleted}", key(950)));
    // Not ours: prefix and digits, but nothing that the mirror writes.
    let foreign = format!("{prefix}{}", "ab".repeat(32));
    server.command(&format!("SET {foreign} theirs"));
    server.command(&format!("SET {prefix}something else"));

    for options in [ALL, REPAIR] {
        let report = verify(&rig, options).await;
        let repaired = if options.repair { 4 } else { 0 };
        assert_eq!(counts(&report), [1, 3, 1, 0, repaired], "{report:?}");
        assert_eq!((report.is_equal(), report.left()), (Some(false), 5 - repaired));
        assert_eq!(told(&report, &key(1)).0, Kind::Missing);
        let (kind, what) = told(&report, &key(2));
        assert!(
            kind == Kind::Stale && what.contains("from byte 0 of the JSON on") && what.contains("\"other\""),
            "{what}"
        );
        let (kind, what) = told(&report, &key(3));
        assert!(kind == Kind::Stale && what.contains("another type"), "{what}");
        let (kind, what) = told(&report, &key(950));
        assert!(kind == Kind::Stale && what.contains("does not have"), "{what}");
        assert_eq!(told(&report, &foreign).0, Kind::Foreign);
    }
    let mut found = server.contents();
    assert_eq!(found.remove(&foreign).as_deref(), Some("theirs"), "never touched");
    assert_eq!(found.remove(&format!("{prefix}something")).as_deref(), Some("else"));
    assert_eq!(found, expected);
    assert_eq!(counts(&verify(&rig, REPAIR).await), [0, 0, 1, 0, 0]);
    let counters = rig.report().counters;
    assert_eq!((counters.verifications, counters.differences, counters.repaired), (4, 11, 4));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn differences_are_found_and_repaired() {
    each_difference_is_found_and_repaired("").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn differences_are_found_and_repaired_behind_a_prefix() {
    each_difference_is_found_and_repaired("t*[x]:").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_its_way_is_no_difference() {
    if !available() {
        return;
    }
    let server = Redis::start();
    let mut rig = Rig::new(config(server.port));
    rig.insert(0..5000);
    rig.until_equal(&server).await;
    let state = std::sync::Arc::clone(&rig.state);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let begin = Instant::now();
            for options in [ALL, REPAIR, ALL] {
                assert!(state.verification.begin(options));
                while state.verification.is_running() && begin.elapsed() < DEADLINE {
                    std::thread::sleep(Duration::from_millis(5));
                }
                let report = state.verification.last().unwrap();
                assert_eq!(report.outcome, Some(Outcome::Complete));
                assert_eq!((report.missing, report.stale, report.foreign), (0, 0, 0), "{report:?}");
                assert!(report.checked > 4000 && report.keys > 4000, "{report:?}");
            }
            done.store(true, Ordering::Release);
        });
        let mut round = 0;
        let begin = Instant::now();
        while !done.load(Ordering::Acquire) && begin.elapsed() < DEADLINE {
            // Inserted, deleted and inserted anew, at another time each.
            rig.insert(0..2000);
            rig.delete(round % 1500..round % 1500 + 200);
            round += 13;
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    rig.until_equal(&server).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_is_never_older_than_what_the_log_brings() {
    if !available() {
        return;
    }
    let server = Redis::start();
    let mut rig = Rig::new(config(server.port));
    rig.insert(0..4000);
    rig.until_equal(&server).await;
    for round in 0..5 {
        let mut connection = server.connection();
        // What is there only: what the store does not have would be somebody else's.
        for n in (0..4000).step_by(3) {
            let _: redis::Value = redis::cmd("SET")
                .arg(hash(n).to_hex())
                .arg("other")
                .arg("XX")
                .query(&mut connection)
                .unwrap();
        }
        assert!(rig.state.verification.begin(REPAIR));
        while rig.state.verification.is_running() {
            rig.insert(round * 100..round * 100 + 900);
            rig.delete(round * 50..round * 50 + 300);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(over(&rig).await.outcome, Some(Outcome::Complete));
        rig.until("caught up", |report| report.lag == 0).await;
        let (expected, found) = (rig.expected(), server.contents());
        for (key, value) in &expected {
            let found = found.get(key).map(String::as_str);
            assert!(found == Some(value) || found == Some("other"), "{key}: {found:?}, not {value}");
        }
        assert!(found.keys().all(|key| expected.contains_key(key)), "what was deleted is gone");
        assert_eq!(verify(&rig, REPAIR).await.is_equal(), Some(true), "what changed was looked at again");
        rig.until_equal(&server).await;
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_for_a_redis_that_is_away_and_can_be_cancelled() {
    if !available() {
        return;
    }
    let mut server = Redis::start();
    let mut rig = Rig::new(config(server.port));
    rig.insert(0..500);
    rig.until_equal(&server).await;
    server.kill();
    rig.until("failing", |report| report.state == State::Failing).await;
    assert!(rig.state.verification.begin(ALL) && !rig.state.verification.begin(REPAIR));
    let waits = || rig.state.verification.running().is_some_and(|report| report.waiting.is_some());
    rig.until("what it waits for is told", |_| waits()).await;
    assert!(rig.state.verification.cancel());
    assert_eq!(over(&rig).await.outcome, Some(Outcome::Cancelled));
    // It comes back empty while one waits, and is filled from the log: nothing differs then.
    assert!(rig.state.verification.begin(ALL));
    rig.until("it waits", |_| waits()).await;
    server.restart();
    let report = over(&rig).await;
    assert_eq!((report.outcome.clone(), counts(&report)), (Some(Outcome::Complete), [0; 5]), "{report:?}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_is_about_as_large_as_asked_for_and_differences_are_bounded() {
    if !available() {
        return;
    }
    let server = Redis::start();
    let mut rig = Rig::new(config(server.port));
    rig.insert(0..6000);
    rig.until_equal(&server).await;
    let report = verify(&rig, VerifyOptions { sample: Some(100), repair: false }).await;
    assert_eq!((report.checked, report.rows, report.is_equal()), (100, 6000, Some(true)));
    assert!((90..=100).contains(&report.keys), "{report:?}");
    let mut connection = server.connection();
    for n in 0..6000 {
        let _: () = redis::cmd("SET").arg(hash(n).to_hex()).arg("other").query(&mut connection).unwrap();
    }
    let report = verify(&rig, REPAIR).await;
    assert_eq!((counts(&report), report.differences.len()), ([0, 6000, 0, 0, 6000], DIFFERENCES_MAX));
    assert_eq!(report.is_equal(), Some(true));
    rig.until_equal(&server).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_another_store_with_the_same_prefix_are_foreign() {
    if !available() {
        return;
    }
    let server = Redis::start();
    let mut rig = Rig::new(config(server.port));
    rig.insert(0..100);
    rig.until_equal(&server).await;
    server.command(&format!("SET cidstore:mirror:{} 7", "0f".repeat(16)));
    let theirs = cidstore_types::TripleRecord::new(triple(500), 1.5, None).to_json(&hash(500)).to_string();
    server.command(&format!("SET {} {theirs}", hash(500)));
    let report = verify(&rig, REPAIR).await;
    assert_eq!(counts(&report), [0, 0, 1, 0, 0], "{report:?}");
    assert!(server.contents().contains_key(&hash(500).to_hex()));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_verified_and_repaired() {
    if !available() {
        return;
    }
    let cluster = Cluster::start();
    let mut rig = Rig::new(MirrorConfig { url: Some(Secret::new(cluster.url())), host: None, ..config(1) });
    rig.insert(0..3000);
    rig.until_live().await;
    let report = verify(&rig, ALL).await;
    assert_eq!((report.checked, report.keys, report.is_equal()), (3000, 3000, Some(true)), "{report:?}");
    let primaries = cluster.primaries();
    let removed: Vec<String> =
        primaries.iter().flat_map(|(node, _)| node.contents().into_keys().take(40)).collect();
    for (node, _) in &primaries {
        for key in node.contents().keys().take(40) {
            node.command(&format!("DEL {key}"));
        }
    }
    assert_eq!(removed.len(), 120);
    assert_eq!(counts(&verify(&rig, REPAIR).await), [120, 0, 0, 0, 120]);
    assert_eq!(cluster.contents(), rig.expected());
    // Slots move meanwhile.
    let (from, to) = (primaries[0].1.clone(), primaries[1].1.clone());
    let host = format!("127.0.0.1:{}", cluster.nodes[0].port);
    assert!(rig.state.verification.begin(REPAIR));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut args = vec!["--cluster", "reshard", &host, "--cluster-from", &from, "--cluster-to", &to];
            args.extend(["--cluster-slots", "200", "--cluster-pipeline", "1", "--cluster-yes"]);
            Cluster::manage(&args);
        });
    });
    let report = over(&rig).await;
    assert_eq!((report.outcome.clone(), counts(&report)), (Some(Outcome::Complete), [0; 5]), "{report:?}");
    rig.until("live", |report| report.state == State::Live).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_is_made_when_asked_for_and_survives_a_restart() {
    if !available() {
        return;
    }
    let mut server = Redis::start();
    let mut rig = Rig::new(config(server.port));
    rig.insert(0..2000);
    rig.until_equal(&server).await;
    rig.until_live().await;
    server.command(&format!("DEL {}", hash(5)));
    assert!(rig.state.want_rebuild());
    let report = rig.until("a rebuild", |report| report.counters.rebuilds == 1).await;
    assert_eq!(report.rebuilt.unwrap().rows, 2000);
    assert!(report.rebuilding.is_none() && !report.rebuild_wanted);
    rig.until_equal(&server).await;
    // Asked for while Redis is away, and the daemon is started again before it is back.
    server.kill();
    rig.until("failing", |report| report.state == State::Failing).await;
    assert!(rig.state.want_rebuild() && !rig.state.want_rebuild());
    rig.stop().await;
    rig.start();
    server.restart();
    rig.until("a rebuild", |report| report.counters.rebuilds == 1).await;
    rig.until_equal(&server).await;
    rig.stop().await;
}
