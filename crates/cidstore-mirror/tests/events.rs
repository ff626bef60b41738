//! Announcing on Redis: every mutation once and in order for who follows a stream, whatever happens.

mod common;

use cidstore_mirror::{Announcing, Events, Form, MirrorConfig, Secret, Sets, ValueForm};
use common::cluster::Cluster;
use common::proxy::{Line, Proxy};
use common::server::{Redis, available};
use common::{DEADLINE, Rig, config, triple};
use redis::{Connection, RedisResult, Value};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const KEY: &str = "cidstore:events";

fn announcing(port: u16, announcing: Announcing) -> MirrorConfig {
    MirrorConfig { events: Events { announcing, ..Events::default() }, ..config(port) }
}

/// An entry of the stream.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    seq: u64,
    fields: BTreeMap<String, String>,
}

impl Entry {
    fn kind(&self) -> &str {
        &self.fields["type"]
    }
}

/// What XRANGE replies with.
fn entries(reply: Value) -> Vec<Entry> {
    let entries: Vec<(String, Vec<(String, String)>)> = redis::from_redis_value(reply).unwrap();
    let entry = |(id, fields): (String, Vec<(String, String)>)| {
        let seq = id.strip_suffix("-0").unwrap().parse().unwrap();
        let fields: BTreeMap<_, _> = fields.into_iter().collect();
        assert_eq!(fields["seq"], format!("{seq}"));
        Entry { seq, fields }
    };
    entries.into_iter().map(entry).collect()
}

fn all(server: &Redis) -> Vec<Entry> {
    entries(server.command(&format!("XRANGE {KEY} - +")))
}

fn seqs(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.seq).collect()
}

/// One of a group of consumers, which knows the last seq that it read.
struct Consumer {
    last: u64,
    read: Vec<Entry>,
}

impl Consumer {
    /// Reads until it has read that seq.
    fn read_to(&mut self, server: &Redis, seq: u64) {
        let begin = Instant::now();
        let mut connection = server.connection();
        while self.last < seq {
            assert!(begin.elapsed() < DEADLINE, "read {} of {seq}", self.last);
            match Self::next(&mut connection) {
                Ok(Value::Nil) => {}
                Ok(reply) => {
                    let streams: Vec<(String, Value)> = redis::from_redis_value(reply).unwrap();
                    for entry in streams.into_iter().flat_map(|(_, reply)| entries(reply)) {
                        let _: Value = redis::cmd("XACK")
                            .arg(KEY)
                            .arg("g")
                            .arg(format!("{}-0", entry.seq))
                            .query(&mut connection)
                            .unwrap();
                        assert!(entry.seq > self.last, "{entry:?} after {}", self.last);
                        self.last = entry.seq;
                        self.read.push(entry);
                    }
                }
                Err(error) if error.code() == Some("NOGROUP") => {
                    let last = format!("{}-0", self.last);
                    let create = ["CREATE", KEY, "g", &last, "MKSTREAM"];
                    let _: Value = redis::cmd("XGROUP").arg(&create).query(&mut connection).unwrap();
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn next(connection: &mut Connection) -> RedisResult<Value> {
        let words = ["GROUP", "g", "c", "COUNT", "100", "BLOCK", "100", "STREAMS", KEY, ">"];
        redis::cmd("XREADGROUP").arg(&words).query(connection)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_reads_every_mutation_once_and_in_order() {
    if !available() {
        return;
    }
    let mut server = Redis::start();
    let mut rig = Rig::new(announcing(server.port, Announcing::Stream));
    let mut consumer = Consumer { last: 0, read: Vec::new() };
    rig.insert(0..300);
    rig.delete(10..20);
    consumer.read_to(&server, 310);
    // The daemon stops, is killed, and has forgotten where it was.
    rig.stop().await;
    rig.insert(300..400);
    rig.start();
    consumer.read_to(&server, 410);
    rig.kill().await;
    std::fs::remove_file(rig.cursor_path()).unwrap();
    rig.insert(400..500);
    rig.start();
    consumer.read_to(&server, 510);
    rig.until_live().await;
    // Redis loses all, the stream and its groups too.
    server.kill();
    rig.insert(500..600);
    server.restart();
    consumer.read_to(&server, 610);
    assert_eq!(seqs(&consumer.read), (1..=610).collect::<Vec<_>>());
    assert_eq!(seqs(&all(&server)), (1..=610).collect::<Vec<_>>());
    // What an entry tells.
    let entry = &consumer.read[303];
    let deleted = triple(13);
    assert_eq!(entry.kind(), "delete");
    let told = ["s", "p", "o", "triple_hash"].map(|name| entry.fields[name].clone());
    let [s, p, o] = [deleted.s(), deleted.p(), deleted.o()].map(|cid| cid.to_string());
    assert_eq!(told, [s, p, o, deleted.hash().to_hex()]);
    assert_eq!(consumer.read[0].kind(), "insert");
    // The stream is no triple: neither a sweep nor a comparison takes it for one.
    rig.stop().await;
    rig.delete(30..40);
    rig.drop_log();
    rig.start();
    rig.until("rebuilt", |report| report.counters.rebuilds == 1 && report.lag == 0).await;
    rig.until_in_form(&server).await;
    assert!(all(&server).len() > 610);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_again_is_announced_once() {
    if !available() {
        return;
    }
    let server = Redis::start();
    let proxy = Proxy::to(server.port, Line::Breaking(Duration::from_millis(40))).await;
    let mut rig = Rig::new(announcing(proxy.port, Announcing::Stream));
    for round in 0..40 {
        rig.insert(round * 500..(round + 1) * 500);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    rig.until("all is there", |report| report.lag == 0).await;
    assert!(rig.report().counters.connects > 2);
    assert_eq!(seqs(&all(&server)), (1..=20_000).collect::<Vec<_>>());
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_full_redis_refuses_is_not_passed_over() {
    if !available() {
        return;
    }
    let server = Redis::start();
    let mut rig = Rig::new(announcing(server.port, Announcing::Stream));
    // Now it takes, now it does not, amid pipelines.
    let port = server.port;
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stop = std::sync::Arc::clone(&done);
    let flap = std::thread::spawn(move || {
        let client = redis::Client::open(format!("redis://127.0.0.1:{port}/")).unwrap();
        let mut connection = client.get_connection().unwrap();
        let mut refused = false;
        while !stop.load(std::sync::atomic::Ordering::Acquire) {
            refused = !refused;
            let limit = i32::from(refused);
            let _: Value =
                redis::cmd("CONFIG").arg(&["SET", "maxmemory"]).arg(limit).query(&mut connection).unwrap();
        }
        let _: Value = redis::cmd("CONFIG").arg(&["SET", "maxmemory", "0"]).query(&mut connection).unwrap();
    });
    for round in 0..20 {
        rig.insert(round * 500..(round + 1) * 500);
    }
    rig.until("refusals", |report| report.counters.errors.iter().sum::<u64>() > 3).await;
    done.store(true, std::sync::atomic::Ordering::Release);
    flap.join().unwrap();
    rig.until_in_form(&server).await;
    assert_eq!(seqs(&all(&server)), (1..=10_000).collect::<Vec<_>>());
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_told_any_more_is_told_as_such() {
    if !available() {
        return;
    }
    let server = Redis::start();
    let mut rig = Rig::new(announcing(server.port, Announcing::Stream));
    rig.insert(0..100);
    rig.until_live().await;
    // Another form: all is written anew, and nothing has to be read anew.
    rig.stop().await;
    rig.change_config(|config| {
        config.form = Form { value: ValueForm::Hash, sets: Sets::Sp, ..Form::default() }
    });
    rig.insert(100..150);
    rig.start();
    rig.until_in_form(&server).await;
    assert_eq!(rig.report().counters.rebuilds, 1);
    assert_eq!(seqs(&all(&server)), (1..=150).collect::<Vec<_>>());
    // The log has lost its beginning, and Redis everything.
    rig.drop_log();
    rig.until_live().await;
    server.command("FLUSHALL");
    rig.until("rebuilt", |report| report.counters.rebuilds == 2 && report.lag == 0).await;
    let before = rig.wal.last_seq();
    rig.insert(500..510);
    rig.until_in_form(&server).await;
    let found = all(&server);
    assert_eq!((found[0].kind(), found[0].seq), ("resync", before));
    assert_eq!(seqs(&found), (before..=before + 10).collect::<Vec<_>>());
    // The stream is removed amid all.
    server.command(&format!("UNLINK {KEY}"));
    rig.insert(600..610);
    rig.until_in_form(&server).await;
    let found = all(&server);
    assert_eq!((found[0].kind(), found[0].seq), ("resync", before + 10));
    assert_eq!(seqs(&found), (before + 10..=before + 20).collect::<Vec<_>>());
    // Announcing begins later, or pauses.
    for (n, way) in (0..).zip([Announcing::None, Announcing::Stream]) {
        rig.stop().await;
        rig.change_config(|config| config.events.announcing = way);
        rig.start();
        rig.insert(n * 10 + 700..n * 10 + 705);
        rig.until_in_form(&server).await;
        // The key follows a moment later; from it on all is sent, and announced, again.
        let begin = Instant::now();
        while server.epoch() != Some(rig.wal.last_seq()) {
            assert!(begin.elapsed() < DEADLINE, "the key does not follow");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let found = all(&server);
    let last = &found[found.len() - 6..];
    assert_eq!((last[0].kind(), last[0].seq), ("resync", before + 25));
    assert_eq!(seqs(last), (before + 25..=before + 30).collect::<Vec<_>>());
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_what_the_log_has_lost_begins_anew() {
    if !available() {
        return;
    }
    let server = Redis::start();
    let mut rig = Rig::new(announcing(server.port, Announcing::Stream));
    rig.insert(0..100);
    rig.until_live().await;
    // Before the epoch key tells of all of it.
    rig.kill().await;
    server.command(&format!("XGROUP CREATE {KEY} g 0"));
    // A store of the same id that has only the first 50 of them.
    let mut younger = Rig::new(announcing(1, Announcing::Stream));
    younger.stop().await;
    younger.insert(0..50);
    younger.change_config(|config| config.port = server.port);
    younger.start();
    younger.insert(200..300);
    younger.until_in_form(&server).await;
    assert_eq!(younger.report().counters.rebuilds, 1);
    // It is told a moment after all is written.
    let begin = Instant::now();
    while server.command(&format!("EXISTS {KEY}")) == Value::Int(0) {
        assert!(begin.elapsed() < DEADLINE, "nothing is told");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let found = all(&server);
    assert_eq!(found[0].kind(), "resync");
    assert_eq!(seqs(&found), (found[0].seq..=150).collect::<Vec<_>>());
    assert_eq!(server.command(&format!("XINFO GROUPS {KEY}")), Value::Array(Vec::new()));
    younger.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_kept_short() {
    if !available() {
        return;
    }
    let server = Redis::start();
    let events = Events { announcing: Announcing::Stream, stream_maxlen: 200, ..Events::default() };
    let mut rig = Rig::new(MirrorConfig { events, ..config(server.port) });
    rig.insert(0..5000);
    rig.until_live().await;
    let found = seqs(&all(&server));
    assert!((200..600).contains(&found.len()), "{}", found.len());
    assert_eq!(found, (5001 - found.len() as u64..=5000).collect::<Vec<_>>());
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_somebody_elses_is_left_alone() {
    if !available() {
        return;
    }
    let server = Redis::start();
    for (make, hint) in [
        (format!("SET {KEY} mine"), "holds something else"),
        (format!("XADD {KEY} 7-0 store other"), "not this store's"),
    ] {
        server.command("FLUSHALL");
        server.command(&make);
        let mut rig = Rig::new(announcing(server.port, Announcing::Stream));
        rig.insert(0..10);
        rig.until("the hint", |report| {
            report.last_error.as_ref().is_some_and(|error| {
                error.message.contains(hint) && error.message.contains("redis_events_key")
            })
        })
        .await;
        assert_eq!(server.command(&format!("EXISTS {KEY}")), Value::Int(1));
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_are_told_as_they_listen() {
    if !available() {
        return;
    }
    let server = Redis::start();
    let mut connection = server.connection();
    let mut subscription = connection.as_pubsub();
    subscription.subscribe(KEY).unwrap();
    subscription.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut next = || -> (String, u64) {
        let message: String = subscription.get_message().unwrap().get_payload().unwrap();
        let message: serde_json::Value = serde_json::from_str(&message).unwrap();
        assert_eq!(message["version"], "1.0");
        (message["type"].as_str().unwrap().to_owned(), message["seq"].as_u64().unwrap())
    };
    let mut rig = Rig::new(announcing(server.port, Announcing::Publish));
    rig.insert(0..100);
    rig.delete(0..10);
    for seq in 1..=110 {
        assert_eq!(next(), (if seq > 100 { "delete" } else { "insert" }.to_owned(), seq));
    }
    rig.until_live().await;
    // What was told is not told again, though it is written again.
    server.command("FLUSHALL");
    rig.until_in_form(&server).await;
    rig.insert(200..201);
    assert_eq!(next(), ("insert".to_owned(), 111));
    rig.until_live().await;
    rig.stop().await;
    // Nor by a daemon that begins anew, unless something was not told.
    rig.start();
    rig.insert(201..202);
    assert_eq!(next(), ("insert".to_owned(), 112));
    rig.until_live().await;
    rig.stop().await;
    rig.drop_log();
    let seq = rig.wal.last_seq();
    rig.start();
    assert_eq!(next(), ("resync".to_owned(), seq));
    rig.insert(300..301);
    assert_eq!(next(), ("insert".to_owned(), seq + 1));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_has_one_stream_of_all() {
    if !available() {
        return;
    }
    let cluster = Cluster::start();
    let url = Some(Secret::new(cluster.url()));
    let mut rig = Rig::new(MirrorConfig { url, host: None, ..announcing(1, Announcing::Stream) });
    for round in 0..10 {
        rig.insert(round * 300..(round + 1) * 300);
    }
    rig.delete(0..100);
    rig.until_live().await;
    let has_it = |node: &Redis| node.command("KEYS cidstore:events") != Value::Array(Vec::new());
    let primaries = cluster.primaries();
    let (node, _) = primaries.iter().find(|(node, _)| has_it(node)).expect("it is somewhere");
    let found = all(node);
    assert_eq!(seqs(&found), (1..=3100).collect::<Vec<_>>());
    assert_eq!(found.iter().filter(|entry| entry.kind() == "delete").count(), 100);
    rig.stop().await;
}
