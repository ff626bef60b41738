//! `cidctl compact` against the real daemon.

use crate::harness::Daemon;
use cidstore_client::{Client, CompactAction};
use cidstore_types::{Cid, Op, Triple};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Command, Stdio};

/// Three run files that wait to be merged, half of the first one deleted by the others.
fn files(daemon: &Daemon) -> Client {
    let mut client = Client::connect(&daemon.config()).unwrap();
    assert_eq!(daemon.json(&["compact", "--pause"])[0]["state"], "paused");
    let cid = |n: u64| Cid::from_two_lanes([n, n]);
    let rows = |part: u64| (0..1000).map(|n| Triple::new(cid(n), cid(part), cid(n))).collect::<Vec<_>>();
    for part in 0..3 {
        assert_eq!(client.batch(Op::Insert, &rows(part)).unwrap().count, 1000);
        client.checkpoint().unwrap();
    }
    // In memory: it is sealed by who starts a compaction.
    assert_eq!(client.batch(Op::Delete, &rows(0)[..500]).unwrap().count, 500);
    client
}

#[test]
fn it_is_started_and_watched_until_it_is_done() {
    let daemon = Daemon::start();
    let mut client = files(&daemon);
    let shown = daemon.run(&["compact", "--status"]);
    assert!(
        shown.out.contains("state       paused") && shown.out.contains("pending     3 files"),
        "{shown:?}"
    );
    assert_eq!(daemon.json(&["compact", "--rate", "50MiB"])[0]["bytes_per_second"], 50 << 20);
    assert!(daemon.run(&["compact", "--rate", "0"]).out.contains("rate        no limit"));
    let started = &daemon.json(&["compact", "--start"])[0];
    assert_eq!((&started["state"], &started["compaction"]["files_before"]), (&json!("paused"), &json!(4)));
    assert_eq!(daemon.run(&["compact", "--resume"]).code, 0);
    // Under way or done by now: watched to its end, or made once more.
    let ran = daemon.run(&["compact"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.err.contains("Ctrl-C stops watching, not the compaction"), "{ran:?}");
    assert!(ran.out.starts_with("compacted ") && ran.out.contains("run files into 1 in "), "{ran:?}");
    let status = &daemon.json(&["compact", "--status"])[0];
    assert_eq!(
        (&status["state"], &status["files"], &status["rows"]),
        (&json!("idle"), &json!(1), &json!(2500))
    );
    assert_eq!(status["pending"], json!({"files": 0, "rows": 0, "file_bytes": 0}));
    // Nothing more to gain: a compaction that writes nothing, and says so.
    let last = &daemon.json(&["compact", "--quiet"])[0];
    assert_eq!((&last["merges"], &last["bytes_written"]), (&json!(0), &json!(0)), "{last}");
    assert_eq!(client.compact(CompactAction::Status).unwrap()["last"], *last);
}

#[test]
fn who_watches_is_told_that_it_was_cancelled() {
    let daemon = Daemon::start();
    files(&daemon);
    let idle = &daemon.json(&["compact", "--cancel"])[0];
    assert_eq!((&idle["compaction"], &idle["cancelled"]), (&Value::Null, &Value::Null), "{idle}");
    // Merging waits, so that it cannot be done before.
    let (mut watching, mut said) = watcher(&daemon);
    let shown = daemon.run(&["compact", "--cancel"]);
    assert!(shown.code == 0 && shown.out.contains("cancelled   the compaction was"), "{shown:?}");
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert_eq!(watching.wait().unwrap().code(), Some(8), "{rest}");
    assert!(rest.contains("cancelled after"), "{rest}");
}

#[test]
fn where_there_is_nothing_to_cancel_it_says_so_whatever_was_cancelled_before() {
    let daemon = Daemon::start();
    files(&daemon);
    // Merging waits, so that it cannot be done before.
    assert!(daemon.json(&["compact", "--start"])[0]["compaction"].is_object());
    let (cancelled, nothing) = ("the compaction was cancelled after", "no compaction was under way");
    for (said, not_said) in [(cancelled, nothing), (nothing, cancelled)] {
        let shown = daemon.run(&["compact", "--cancel"]);
        let out = &shown.out;
        assert!(shown.code == 0 && out.contains(said) && !out.contains(not_said), "{shown:?}");
    }
    assert_eq!(daemon.json(&["compact", "--cancel"])[0]["cancelled"], Value::Null);
    // Who asks how merging is hears of it nevertheless.
    assert!(daemon.run(&["compact", "--status"]).out.contains(cancelled));
}

#[test]
fn what_does_not_go_together_is_wrong_usage() {
    let daemon = Daemon::start();
    for args in [
        &["compact", "--status", "--start"][..],
        &["compact", "--pause", "--rate", "1MiB"],
        &["compact", "--cancel", "--start"],
        &["compact", "--rate", "-1"],
        &["compact", "--rate", "fast"],
    ] {
        let ran = daemon.run(args);
        assert_eq!(ran.code, 2, "{args:?}: {ran:?}");
    }
}

/// `cidctl compact`, once it watches.
fn watcher(daemon: &Daemon) -> (Child, BufReader<ChildStderr>) {
    let mut command = daemon.cidctl();
    command.args(["compact", "--wait", "600", "--timeout", "1", "--tries", "1000"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.contains("compacting"), "{line}");
    (child, said)
}

#[test]
fn ctrl_c_ends_watching_and_a_daemon_s_end_the_compaction() {
    let mut daemon = Daemon::start();
    files(&daemon);
    // Merging waits, so that it cannot be done before.
    let (mut interrupted, _) = watcher(&daemon);
    let id = interrupted.id().to_string();
    // As Ctrl-C does, which a shell may have the tests ignore.
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert!(!interrupted.wait().unwrap().success());
    let status = &daemon.json(&["compact", "--status"])[0];
    assert_eq!(
        (&status["compaction"]["files_before"], &status["last"]),
        (&json!(4), &Value::Null),
        "{status}"
    );

    let (mut watching, mut said) = watcher(&daemon);
    daemon.kill();
    daemon.start_again();
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert_eq!(watching.wait().unwrap().code(), Some(4), "{rest}");
    assert!(rest.contains("started anew meanwhile"), "{rest}");
    let status = &daemon.json(&["compact", "--status"])[0];
    assert_eq!((&status["compaction"], &status["state"] == "paused"), (&Value::Null, false), "{status}");
    assert_eq!(daemon.json(&["count"])[0]["count"], 2500);
}
