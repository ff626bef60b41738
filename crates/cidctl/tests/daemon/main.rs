//! `cidctl` and the client against the real daemon.

mod backup;
mod compact;
mod damage;
mod export;
mod harness;
mod import;
mod watch;

use cidstore_client::{Client, Pusher};
use cidstore_types::{Cid, Op, Pattern, Triple};
use harness::{Daemon, Ran};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::TcpListener;
use std::process::Command;
use std::thread;
use std::time::Duration;

#[test]
fn one_triple_there_and_back() {
    let daemon = Daemon::start();
    assert!(daemon.run(&["ping"]).out.starts_with("ok"));
    let triple = ["E(1,2,3,4)", "E(5,6)", "text:chat"];
    let put = &daemon.json(&[
        "put",
        triple[0],
        triple[1],
        triple[2],
        "--provenance",
        "{\"by\":\"me\"}",
        "--confidence",
        "0.5",
        "--created-at",
        "12.5",
    ])[0];
    assert_eq!((&put["inserted"], &put["seq"]), (&json!(1), &json!(1)));
    let hash = put["triple_hash"].as_str().unwrap();
    assert_eq!(daemon.json(&["hash", triple[0], triple[1], triple[2]])[0]["triple_hash"], hash);

    let record = &daemon.json(&["get", hash])[0];
    assert_eq!(record, &daemon.json(&["get", triple[0], triple[1], triple[2]])[0]);
    assert_eq!(record["subject"], json!({"high": 1, "high_mid": 2, "low_mid": 3, "low": 4}));
    assert_eq!(record["provenance"]["by"], "me");
    assert_eq!((&record["confidence"], &record["created_at"]), (&json!(0.5), &json!(12.5)));

    let rows = daemon.json(&["query", "_", "E(5,6)"]);
    assert_eq!((&rows[0]["s"], &rows[0]["p"]), (&json!("E(1,2,3,4)"), &json!("E(0,0,5,6)")));
    assert_eq!(
        (&rows[1]["rows"], &rows[1]["more"], &rows[1]["as_of"]),
        (&json!(1), &json!(false), &json!(1))
    );
    assert_eq!(daemon.json(&["count"])[0]["count"], 1);
    assert_eq!(
        daemon.run(&["query", "_", "_", "text:chat"]).out.split_whitespace().next(),
        Some("E(1,2,3,4)")
    );

    assert_eq!(daemon.json(&["delete", "_", "_", "text:chat"])[0]["deleted"], 1);
    assert_eq!(daemon.json(&["delete", "_", "_", "text:chat"])[0]["deleted"], 0);
    assert_eq!(daemon.json(&["count"])[0]["count"], 0);
    let log: Vec<_> = daemon.json(&["changes"]).iter().map(|c| (c["seq"].clone(), c["op"].clone())).collect();
    assert_eq!(log, [(json!(1), json!("insert")), (json!(2), json!("delete"))]);
    assert_eq!(daemon.json(&["checkpoint"])[0]["seq"], 2);
    assert!(daemon.json(&["stats"])[0].is_object());
    assert!(daemon.json(&["stats", "--metrics"])[0]["latency_p99"].is_number());
}

#[test]
fn exit_codes() {
    let daemon = Daemon::start();
    let code = |args: &[&str]| {
        let ran = daemon.run(args);
        assert_eq!(ran.err.is_empty(), ran.code <= 1, "whoever fails says why: {args:?} {ran:?}");
        assert!(ran.out.is_empty() || ran.code == 0, "{args:?} {ran:?}");
        ran.code
    };
    assert_eq!(code(&["ping"]), 0);
    assert_eq!(code(&["query", "E(1,2)"]), 1);
    assert_eq!(code(&["get", "E(1,2)", "E(1,2)", "E(1,2)"]), 1);
    assert_eq!(code(&["get", "E(1,2)"]), 2);
    assert_eq!(code(&["query", "E(1,2,3)"]), 2);
    assert_eq!(code(&["delete", "_", "_", "_"]), 2);
    assert_eq!(code(&["put", "E(1,2)", "E(1,2)", "E(1,2)", "--provenance", "[]"]), 2);
    assert_eq!(code(&["put", "E(1,2)", "E(1,2)", "E(1,2)", "--confidence", "7"]), 3);
    assert_eq!(code(&["import", &daemon.path("absent.nt")]), 5);
    // A port that was free a moment ago: nothing listens there.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nobody = format!("tcp://127.0.0.1:{port}");
    assert_eq!(code(&["ping", "--endpoint", &nobody]), 4);
    // Somebody who listens and says nothing.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let mute = format!("tcp://{}", mute.local_addr().unwrap());
    assert_eq!(code(&["ping", "--endpoint", &mute, "--timeout", "0.05"]), 4);
}

#[test]
fn pages_join_to_the_whole() {
    let daemon = Daemon::start();
    let mut client = Client::connect(&daemon.config()).unwrap();
    let cid = |n: u64| Cid::from_two_lanes([0, n]);
    let triples: Vec<_> = (0..25).map(|n| Triple::new(cid(1), cid(n % 3), cid(n))).collect();
    assert_eq!(client.batch(Op::Insert, &triples).unwrap().count, 25);

    let row = |value: &Value| (value["s"].to_string(), value["p"].to_string(), value["o"].to_string());
    let whole: Vec<_> = daemon.json(&["query", "E(0,1)", "--all"]).iter().take(25).map(row).collect();
    assert_eq!(whole.iter().collect::<BTreeSet<_>>().len(), 25);
    let mut pages = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let mut args = vec!["query", "E(0,1)", "-n", "10"];
        if let Some(cursor) = &cursor {
            args.extend(["--cursor", cursor]);
        }
        let mut lines = daemon.json(&args);
        let end = lines.pop().unwrap();
        pages.push(lines.iter().map(row).collect::<Vec<_>>());
        assert_eq!(end["more"], end["cursor"].is_string());
        match end["cursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => break,
        }
    }
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 5]);
    assert_eq!(pages.concat(), whole);
    assert!(daemon.run(&["query", "-n", "10"]).err.contains("there is more"));
    // A page that is full and the last says so.
    assert_eq!(daemon.json(&["query", "-n", "25"]).pop().unwrap()["more"], false);
}

#[test]
fn a_daemon_that_comes_later_is_waited_for() {
    let mut daemon = Daemon::start();
    daemon.kill();
    let mut ping = daemon.cidctl();
    let ping = thread::spawn(move || Ran::of(ping.args(["ping", "--wait", "600"]), None));
    daemon.start_again();
    assert_eq!(ping.join().unwrap().code, 0);
}

#[test]
fn pushes_arrive_in_order() {
    let daemon = Daemon::start();
    let cid = |n: u64| Cid::from_two_lanes([7, n]);
    let triples: Vec<_> = (0..1000).map(|n| Triple::new(cid(n), cid(n), cid(n))).collect();
    let mut pusher = Pusher::connect(&daemon.config()).unwrap();
    pusher.batch(Op::Insert, &triples).unwrap();
    pusher.batch(Op::Delete, &triples[..400]).unwrap();
    drop(pusher);
    let mut client = Client::connect(&daemon.config()).unwrap();
    // Delivered in order on one connection: when the delete is there, so is the insert.
    while client.last_seq().unwrap() < 1400 {
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(client.count(&Pattern::ALL).unwrap(), (600, 1400));
}

#[test]
fn output_to_a_reader_that_leaves_is_no_failure() {
    let daemon = Daemon::start();
    let mut client = Client::connect(&daemon.config()).unwrap();
    let cid = |n: u64| Cid::from_two_lanes([0, n]);
    let triples: Vec<_> = (0..20_000).map(|n| Triple::new(cid(1), cid(2), cid(n))).collect();
    client.batch(Op::Insert, &triples).unwrap();
    let endpoint = daemon.config().request;
    let script = format!(
        "set -o pipefail; '{}' --endpoint '{endpoint}' query --all | head -n 1",
        env!("CARGO_BIN_EXE_cidctl")
    );
    let ran = Ran::of(Command::new("bash").args(["-c", &script]), None);
    assert_eq!((ran.code, ran.out.lines().count(), &*ran.err), (0, 1, ""), "{ran:?}");
}
