//! Compaction of a running daemon: started, watched, paused, slowed down, killed.

mod common;

use common::{Client, Daemon, LONG, Place, cid, insert, until};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

const ROWS: u64 = 2000;

fn compact(client: &Client, action: &str) -> Value {
    client.ok(&json!({"command": "compact", "action": action}))
}

fn rate(client: &Client, bytes_per_second: u64) {
    let request = json!({"command": "compact", "action": "rate", "bytes_per_second": bytes_per_second});
    assert_eq!(client.ok(&request)["bytes_per_second"], bytes_per_second);
}

/// A file of rows that nobody else has, and that half of the file before is deleted.
fn file(client: &Client, number: u64) {
    let row = |n: u64| json!([cid(n), cid(n % 7), cid(number)]);
    let triples: Vec<Value> = (number * ROWS..(number + 1) * ROWS).map(row).collect();
    client.ok(&json!({"command": "batch_insert", "triples": triples}));
    if number > 0 {
        let row = |n: u64| json!([cid(n), cid(n % 7), cid(number - 1)]);
        let triples: Vec<Value> = ((number - 1) * ROWS..number * ROWS).step_by(2).map(row).collect();
        client.ok(&json!({"command": "batch_delete", "triples": triples}));
    }
    client.ok(&json!({"command": "checkpoint"}));
}

/// Some files, and merging that waits, so that none is merged but by what a test does.
fn files(client: &Client, count: u64) {
    compact(client, "pause");
    for number in 0..count {
        file(client, number);
    }
    let shown = compact(client, "status");
    assert_eq!((&shown["state"], &shown["files"]), (&json!("paused"), &json!(count)), "{shown}");
}

fn rows_of(count: u64) -> u64 {
    count * ROWS - (count - 1) * ROWS / 2
}

fn done(client: &Client) -> Value {
    until("it is done", || {
        let shown = compact(client, "status");
        (shown["compaction"].is_null() && !shown["last"].is_null()).then_some(shown)
    })
}

/// The check of that name on `/status`: its status, and its text.
fn check(daemon: &Daemon, name: &str) -> (String, String) {
    let (code, _, body) = daemon.http("GET", "/status", "");
    assert_eq!(code, 200);
    let body: Value = serde_json::from_str(&body).unwrap();
    let check =
        body["checks"].as_array().unwrap().iter().find(|check| check["name"] == name).unwrap().clone();
    let text = |field: &str| check[field].as_str().unwrap().to_owned();
    (text("status"), text("output"))
}

/// Names of the run files there are, and of those that the last catalog names.
fn names(place: &Place) -> (BTreeSet<String>, BTreeSet<String>) {
    let path = place.data_path();
    let there = std::fs::read_dir(path.with_file_name("cidstore.h5.runs")).unwrap();
    let there = there.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let catalog = cidstore_engine::hdf5::read_catalog("the catalog", &std::fs::read(&path).unwrap()).unwrap();
    let file = |name: &str| name.rsplit('/').next().unwrap().to_owned();
    (there, catalog.runs.iter().map(|run| file(&run.file)).collect())
}

#[test]
fn it_is_started_and_watched_and_tells_what_it_did() {
    let place = Place::new();
    let daemon = place.start(&[]);
    let client = daemon.req();
    files(&client, 5);
    let pending = until("what is pending is known", || {
        let shown = compact(&client, "status");
        (!shown["pending"].is_null()).then(|| shown["pending"].clone())
    });
    assert_eq!(pending["files"], 5);
    // Started while all waits, it waits, too.
    let shown = compact(&client, "start");
    assert_eq!(
        (&shown["state"], &shown["compaction"]["files_before"]),
        (&json!("paused"), &json!(5)),
        "{shown}"
    );
    assert_eq!(daemon.metric("cidstore_compaction_running"), 1.0);
    assert_eq!(daemon.metric("cidstore_merging_paused"), 1.0);
    assert_eq!(check(&daemon, "merging").0, "ok");
    compact(&client, "resume");
    let shown = done(&client);
    let last = &shown["last"];
    for (name, value) in [
        ("files_before", 5),
        ("files_after", 1),
        ("merges", 1),
        ("rows_before", 5 * ROWS + 4 * ROWS / 2),
        ("rows_after", rows_of(5)),
    ] {
        assert_eq!(last[name], value, "{name}: {shown}");
    }
    assert_eq!((&shown["state"], &shown["files"]), (&json!("idle"), &json!(1)), "{shown}");
    assert_eq!(shown["pending"]["files"], 0, "{shown}");
    for (name, metric) in
        [("bytes_read", "merge_read_bytes_total"), ("bytes_written", "merge_written_bytes_total")]
    {
        let moved = last[name].as_f64().unwrap();
        assert!(moved > 100.0 * ROWS as f64, "{name}: {shown}");
        assert_eq!(daemon.metric(&format!("cidstore_{metric}")), moved);
    }
    assert_eq!(daemon.metric("cidstore_compactions_total"), 1.0);
    assert_eq!(client.count(), rows_of(5));
    // There is nothing more to gain.
    compact(&client, "start");
    until("the second is done", || (daemon.metric("cidstore_compactions_total") == 2.0).then_some(()));
    let shown = compact(&client, "status");
    assert_eq!(
        (&shown["last"]["merges"], &shown["last"]["bytes_written"]),
        (&json!(0), &json!(0)),
        "{shown}"
    );
    assert_eq!(names(&place).0, names(&place).1);
}

#[test]
fn it_waits_in_the_middle_of_a_file_and_goes_on_and_mutations_do_not_wait() {
    let place = Place::new();
    let mut daemon = place.start(&["--compaction-bytes-per-second", "1"]);
    let client = daemon.req();
    files(&client, 4);
    compact(&client, "start");
    compact(&client, "resume");
    let shown = until("it has begun", || {
        let shown = compact(&client, "status");
        (shown["merge"]["bytes_done"].as_u64() > Some(0)).then_some(shown)
    });
    assert_eq!(
        (&shown["state"], &shown["merge"]["cause"]),
        (&json!("running"), &json!("compaction")),
        "{shown}"
    );
    assert!(shown["merge"]["bytes_total"].as_u64() > shown["merge"]["bytes_done"].as_u64(), "{shown}");
    assert!(check(&daemon, "merging").1.contains("merging 4 files (compaction)"));
    // Years, at this rate; meanwhile rows come, and are sealed.
    file(&client, 4);
    assert_eq!(client.count(), rows_of(5));
    assert_eq!(compact(&client, "pause")["state"], "paused");
    rate(&client, 0);
    file(&client, 5);
    assert_eq!(compact(&client, "status")["files"], 6);
    assert_eq!(daemon.metric("cidstore_merges_total"), 0.0);
    compact(&client, "resume");
    let shown = done(&client);
    // What was sealed after it began was not its affair.
    assert!(shown["last"]["merges"].as_u64() >= Some(1), "{shown}");
    assert_eq!(client.count(), rows_of(6));
    // The end does not wait for a rate.
    rate(&client, 1);
    file(&client, 6);
    compact(&client, "start");
    until("it has begun", || {
        (compact(&client, "status")["merge"]["bytes_done"].as_u64() > Some(0)).then_some(())
    });
    let start = Instant::now();
    daemon.signal("-TERM");
    assert!(daemon.wait().success() && start.elapsed() < LONG / 6);
    let daemon = place.start(&[]);
    let client = daemon.req();
    assert_eq!(client.count(), rows_of(7));
    // Nothing of all that was asked is remembered.
    let shown = compact(&client, "status");
    assert_eq!((&shown["bytes_per_second"], &shown["compaction"]), (&json!(0), &Value::Null), "{shown}");
}

#[test]
fn it_is_cancelled_where_it_waits_and_started_anew() {
    let place = Place::new();
    let daemon = place.start(&[]);
    let client = daemon.req();
    // None is going on.
    let shown = compact(&client, "cancel");
    assert_eq!((&shown["state"], &shown["cancelled"]), (&json!("idle"), &Value::Null), "{shown}");
    files(&client, 4);
    let files = names(&place);
    // Before it has begun.
    let started = compact(&client, "start");
    let shown = compact(&client, "cancel");
    assert_eq!(shown["cancelled"]["started_at"], started["compaction"]["started_at"], "{shown}");
    // In the middle of a file, which takes years at this rate. It pauses, since else the daemon would merge the
    // same files by itself.
    rate(&client, 1);
    let started = compact(&client, "start");
    compact(&client, "resume");
    until("it has begun", || {
        (compact(&client, "status")["merge"]["bytes_done"].as_u64() > Some(0)).then_some(())
    });
    compact(&client, "pause");
    let shown = compact(&client, "cancel");
    let cancelled = &shown["cancelled"];
    assert_eq!(
        (&shown["compaction"], &cancelled["started_at"]),
        (&Value::Null, &started["compaction"]["started_at"]),
        "{shown}"
    );
    assert!(cancelled["bytes_read"].as_u64() > Some(0), "{shown}");
    until("it has ended", || compact(&client, "status")["merge"].is_null().then_some(()));
    assert_eq!(names(&place), files);
    assert_eq!(daemon.metric("cidstore_compaction_running"), 0.0);
    assert_eq!(check(&daemon, "merging").0, "ok");
    rate(&client, 0);
    compact(&client, "start");
    compact(&client, "resume");
    let shown = done(&client);
    assert_eq!((&shown["last"]["files_after"], &shown["last"]["merges"]), (&json!(1), &json!(1)), "{shown}");
    assert_eq!(client.count(), rows_of(4));
}

#[test]
fn a_pause_does_not_let_small_files_gather_without_end() {
    let place = Place::new();
    let daemon = place.start(&[]);
    let client = daemon.req();
    compact(&client, "pause");
    for n in 0..161 {
        client.ok(&insert(n));
        client.ok(&json!({"command": "checkpoint"}));
    }
    until("some are merged", || (daemon.metric("cidstore_merges_total") >= 1.0).then_some(()));
    let files = daemon.metric("cidstore_file_runs");
    assert!((90.0..161.0).contains(&files), "{files} files: no more were merged than had to be");
    let (status, output) = check(&daemon, "merging");
    assert_eq!(status, "degraded", "{output}");
    assert!(output.contains("resume"), "{output}");
    assert_eq!(daemon.log().matches("merging is paused").count(), 1, "{}", daemon.log());
    assert_eq!(client.count(), 161);
    compact(&client, "resume");
    assert_eq!(check(&daemon, "merging").0, "ok");
    until("they are merged", || (daemon.metric("cidstore_file_runs") < 41.0).then_some(()));
}

/// Kills a daemon in the middle of writing a merged file. Returns how many files' rows there are.
fn killed_while_it_writes(place: &Place, mut count: u64) -> u64 {
    for attempt in 1..10 {
        let (files, bytes) = (count, 600 << 10);
        // Some seconds for reading and for writing, and more at each attempt.
        let daemon = place.start(&["--compaction-bytes-per-second", &(bytes / attempt).to_string()]);
        let client = daemon.req();
        compact(&client, "pause");
        file(&client, files);
        count += 1;
        compact(&client, "start");
        compact(&client, "resume");
        let is_new = |name: &String| Path::new(name).extension().is_some_and(|extension| extension == "new");
        let writes = || names(place).0.iter().any(is_new);
        until("it writes, or is done", || {
            (writes() || !compact(&client, "status")["last"].is_null()).then_some(())
        });
        // From here on, hours.
        rate(&client, 1);
        daemon.kill();
        if writes() {
            return count;
        }
    }
    panic!("it was done before it could be killed, each time");
}

#[test]
fn one_that_was_killed_leaves_nothing_and_loses_nothing() {
    let place = Place::new();
    // So slow that it cannot be done: one piece of a file takes hours.
    let daemon = place.start(&["--compaction-bytes-per-second", "1"]);
    let client = daemon.req();
    files(&client, 4);
    compact(&client, "start");
    compact(&client, "resume");
    until("it reads", || {
        (compact(&client, "status")["merge"]["bytes_done"].as_u64() > Some(0)).then_some(())
    });
    let files = names(&place);
    daemon.kill();
    assert_eq!(names(&place), files, "nothing was written yet");
    let count = killed_while_it_writes(&place, 4);

    let daemon = place.start(&["--compaction-bytes-per-second", "1"]);
    let (there, named) = names(&place);
    assert_eq!(there, named, "debris");
    assert!(daemon.log().contains("removed what an interrupted merge had left"), "{}", daemon.log());
    let client = daemon.req();
    assert_eq!(client.count(), rows_of(count));
    for n in (0..count * ROWS).step_by(97) {
        let gone = n / ROWS + 1 < count && n.is_multiple_of(2);
        let found = client.ok(&json!({"command": "count", "s": cid(n)}))["count"].as_u64().unwrap();
        assert_eq!(found, u64::from(!gone), "{n} of {count} times {ROWS}");
    }
    // It does not go on by itself.
    assert_eq!(compact(&client, "status")["compaction"], Value::Null);
    assert_eq!(daemon.metric("cidstore_compaction_running"), 0.0);
}
