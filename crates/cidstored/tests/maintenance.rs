//! Sealing that fails: how often it is tried, and what is said of it.

mod common;

use common::{Place, cid, insert};
use serde_json::{Value, json};

#[test]
fn sealing_that_fails_is_not_tried_again_for_every_commit() {
    let place = Place::new();
    let daemon = place.start(&["--promotion-threshold", "200", "--log-level", "info"]);
    let client = daemon.req();
    // Where run files are written there is no folder, but the log is as well as ever.
    let runs = place.dir.path().join("cidstore.h5.runs");
    std::fs::remove_dir_all(&runs).unwrap();
    std::fs::write(&runs, b"no folder").unwrap();
    let triples: Vec<Value> = (0..250).map(|n| json!([cid(n), cid(1), cid(n)])).collect();
    client.ok(&json!({"command": "batch_insert", "triples": triples}));
    // Each of these tells the thread that seals that there is much in memory.
    for n in 0..140 {
        client.ok(&insert(1000 + n));
    }
    // After a quarter of a second, half a second, …: this many would be most of a minute.
    let failures = daemon.metric("cidstore_maintenance_errors_total");
    assert!((1.0..11.0).contains(&failures), "{failures} attempts for 141 commits");
    // Who asks for it gets it tried at once.
    for n in 1..4 {
        assert_eq!(client.code(&json!({"command": "checkpoint"})), 500);
        assert!(daemon.metric("cidstore_maintenance_errors_total") >= failures + f64::from(n));
    }
    assert_eq!(daemon.log().matches("sealing rows into a run file failed").count(), 1, "{}", daemon.log());
    std::fs::remove_file(&runs).unwrap();
    std::fs::create_dir(&runs).unwrap();
    assert_eq!(client.ok(&json!({"command": "checkpoint"}))["seq"], json!(390));
    assert!(daemon.log().contains("works again"));
}

#[test]
fn mutations_that_wait_for_sealing_are_told_why_it_fails() {
    let place = Place::new();
    let daemon = place.start(&["--promotion-threshold", "200"]);
    let client = daemon.req();
    let runs = place.dir.path().join("cidstore.h5.runs");
    std::fs::remove_dir_all(&runs).unwrap();
    std::fs::write(&runs, b"no folder").unwrap();
    let refused = (0..1000).find_map(|round| {
        let triples: Vec<Value> = (0..500).map(|n| json!([cid(n), cid(round), cid(n)])).collect();
        let reply = client.ask(&json!({"command": "batch_insert", "triples": triples}));
        reply.get("error_code").is_some().then_some(reply)
    });
    let refused = refused.expect("memory is bounded");
    // There is room enough: 507 would send somebody to look for what to delete.
    assert_eq!(refused["error_code"], json!(503), "{refused}");
    assert!(refused["error_msg"].as_str().unwrap().contains("cidstore.h5.runs"), "{refused}");
}
