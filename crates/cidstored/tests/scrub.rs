//! Damage in a run file of a running daemon is found by itself, and told; what is none any more, too.

mod common;

use common::{LONG, Place, cid, until};
use serde_json::{Value, json};
use std::os::unix::fs::FileExt;
use std::time::Instant;

fn status(daemon: &common::Daemon) -> Value {
    let (code, _, body) = daemon.http("GET", "/status", "");
    assert_eq!(code, 200);
    serde_json::from_str(&body).unwrap()
}

#[test]
fn a_flipped_byte_is_found_and_shown_and_logged_once() {
    let place = Place::new();
    // A round a second.
    let mut daemon = place.start(&["--scrub-bytes-per-second", "1GiB", "--scrub-pause-s", "1"]);
    let client = daemon.req();
    let triples: Vec<Value> = (0..5000).map(|n| json!([cid(n), cid(n % 7), cid(n / 3)])).collect();
    client.ok(&json!({"command": "batch_insert", "triples": triples}));
    client.ok(&json!({"command": "checkpoint"}));
    let rounds = || daemon.metric("cidstore_scrub_rounds_total");
    // Two whole ones after the file is there.
    let begin = rounds();
    until("it is read", || (rounds() > begin + 1.0).then_some(()));
    assert_eq!(daemon.metric("cidstore_damaged_run_files"), 0.0);
    assert!(daemon.metric("cidstore_scrubbed_bytes_total") > 100_000.0);
    assert_eq!(status(&daemon)["status"], "ok");

    let path = place.dir.path().join("cidstore.h5.runs/000001.h5");
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    // Somewhere in the rows, which begin behind the head and are most of the file.
    let at = file.metadata().unwrap().len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
    until("it is found", || (daemon.metric("cidstore_damaged_run_files") == 1.0).then_some(()));
    let shown = status(&daemon);
    assert_eq!(shown["status"], "degraded");
    let text = shown.to_string();
    for part in ["000001.h5", "triples", "mutations 1 to 5000", "cidctl repair"] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    let found = rounds();
    until("another round", || (rounds() > found + 1.0).then_some(()));
    assert_eq!(daemon.log().matches("a run file is damaged").count(), 1, "{}", daemon.log());
    // It goes on to answer, and ends without waiting for a round.
    client.ok(&json!({"command": "query", "p": cid(3)}));
    let start = Instant::now();
    daemon.signal("-TERM");
    assert!(daemon.wait().success() && start.elapsed() < LONG / 6);
}

#[test]
fn no_rate_means_no_scrub() {
    let place = Place::new();
    let daemon = place.start(&["--scrub-bytes-per-second", "0"]);
    let client = daemon.req();
    client.ok(&common::insert(1));
    client.ok(&json!({"command": "checkpoint"}));
    let threads = std::fs::read_dir(format!("/proc/{}/task", daemon.endpoints.pid)).unwrap();
    let names = threads.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap());
    assert!(names.into_iter().all(|name| name.trim() != "scrub"));
}

#[test]
fn a_file_that_can_be_read_again_is_in_service_again() {
    let place = Place::new();
    let daemon = place.start(&["--scrub-bytes-per-second", "0"]);
    let client = daemon.req();
    let triples: Vec<Value> = (0..5000).map(|n| json!([cid(n), cid(n % 7), cid(n / 3)])).collect();
    client.ok(&json!({"command": "batch_insert", "triples": triples}));
    client.ok(&json!({"command": "checkpoint"}));
    let path = place.dir.path().join("cidstore.h5.runs/000001.h5");
    let bytes = std::fs::read(&path).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    // Behind the end of a file its pages are as unreadable as those of a bad sector.
    file.set_len(64 << 10).unwrap();
    let ask = json!({"command": "query", "s": cid(4321)});
    assert_eq!(client.code(&ask), 500);
    assert_eq!(status(&daemon)["status"], "degraded");
    // It is tried at once, and in vain.
    let stays = "a run file that could not be read stays out of service";
    until("it is tried", || daemon.log().contains(stays).then_some(()));
    assert_eq!(client.code(&ask), 500);
    file.write_all_at(&bytes, 0).unwrap();
    until("it is answered", || client.ask(&ask).get("results").map(drop));
    assert_eq!(daemon.metric("cidstore_damaged_run_files"), 0.0);
    assert_eq!(status(&daemon)["status"], "ok");
    until("it is told", || daemon.log().contains("in service again").then_some(()));
}
