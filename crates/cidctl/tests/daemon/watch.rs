//! `watch` misses nothing.

use crate::harness::{Daemon, Ran};
use cidstore_client::{Client, Config};
use cidstore_types::{Cid, Op, Triple};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

fn triples(numbers: std::ops::Range<u64>) -> Vec<Triple> {
    let cid = |n: u64| Cid::from_two_lanes([9, n]);
    numbers.map(|n| Triple::new(cid(n), cid(n), cid(n))).collect()
}

#[test]
fn every_change_once_and_in_order_across_a_crash() {
    let mut daemon = Daemon::start();
    let config = Config { timeout: Duration::from_secs(1), tries: 1000, ..daemon.config() };
    let mut client = Client::connect(&config).unwrap();
    // Before the watch starts: from the log.
    client.batch(Op::Insert, &triples(0..1500)).unwrap();
    let mut watch = daemon.cidctl();
    watch.args(["watch", "--since", "0", "-n", "5001", "--json", "--timeout", "1", "--tries", "1000"]);
    // It may come to ask for the first time while the daemon is away.
    watch.args(["--wait", "600"]);
    let watch = thread::spawn(move || Ran::of(&mut watch, None));
    client.batch(Op::Insert, &triples(1500..4000)).unwrap();
    daemon.kill();
    daemon.start_again();
    client.batch(Op::Delete, &triples(0..1000)).unwrap();
    client.batch(Op::Insert, &triples(4000..4001)).unwrap();

    let ran = watch.join().unwrap();
    assert_eq!(ran.code, 0, "{}", ran.err);
    let changes: Vec<Value> = ran.values().into_iter().filter(|value| value["seq"].is_number()).collect();
    // A batch that was asked for twice because of the crash has taken numbers twice.
    for (change, seq) in changes.iter().zip(1u64..) {
        assert_eq!(change["seq"], seq);
    }
    assert_eq!(changes.len(), 5001);
    let wanted = triples(0..4000);
    for (change, triple) in changes.iter().zip(&wanted) {
        assert_eq!((&change["op"], &change["s"]), (&json!("insert"), &json!(triple.s().to_string())));
    }
    let deletes = changes.iter().filter(|change| change["op"] == "delete").count();
    assert!(deletes >= 1000, "{deletes}");
}

#[test]
fn from_now_on_without_a_start() {
    let daemon = Daemon::start();
    let mut client = Client::connect(&daemon.config()).unwrap();
    client.batch(Op::Insert, &triples(0..10)).unwrap();
    let mut watch = daemon.cidctl();
    watch.args(["watch", "-n", "3"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut watch = watch.spawn().unwrap();
    // It says from where on it watches once that is settled.
    let mut said = String::new();
    let mut err = BufReader::new(watch.stderr.take().unwrap());
    err.read_line(&mut said).unwrap();
    assert!(said.trim_end().ends_with("after seq 10"), "{said}");
    client.batch(Op::Insert, &triples(10..12)).unwrap();
    client.batch(Op::Delete, &triples(0..1)).unwrap();
    let output = watch.wait_with_output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    let words: Vec<Vec<_>> = out.lines().map(|line| line.split(' ').take(2).collect()).collect();
    assert_eq!(words, [["11", "insert"], ["12", "insert"], ["13", "delete"]]);
    assert!(output.status.success());
}
