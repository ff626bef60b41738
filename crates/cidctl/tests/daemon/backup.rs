//! `cidctl backup` and `restore` beside a daemon that goes on, and killed at any moment.

use crate::harness::{Daemon, Ran};
use cidstore_client::{Client, Config, QueryOptions};
use cidstore_types::{Cid, Op, Pattern, Triple};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Triples of a batch: so many numbers does each mutation take.
const BATCH: u64 = 100;

fn batch(number: u64) -> Vec<Triple> {
    let cid = |n| Cid::from_lanes([n, 7, number, n]);
    (0..BATCH).map(|n| Triple::new(cid(n), Cid::from_lanes([0, 0, 0, 1]), cid(number % 10))).collect()
}

/// The n-th mutation: every fifth deletes what an earlier one has inserted.
fn mutation(number: u64) -> (Op, Vec<Triple>) {
    if number % 5 == 4 { (Op::Delete, batch(number - 3)) } else { (Op::Insert, batch(number)) }
}

/// What is there after so many mutations.
fn model(mutations: u64) -> BTreeSet<Triple> {
    let mut there = BTreeSet::new();
    for number in 0..mutations {
        match mutation(number) {
            (Op::Insert, rows) => there.extend(rows),
            (Op::Delete, rows) => there.retain(|triple| !rows.contains(triple)),
        }
    }
    there
}

fn fill(daemon: &Daemon, numbers: std::ops::Range<u64>) {
    // Sent once, however slow the machine is: a batch that is sent again takes numbers again.
    let patient = Config { timeout: Duration::from_mins(10), tries: 1, ..daemon.config() };
    let mut client = Client::connect(&patient).unwrap();
    for number in numbers {
        let (op, rows) = mutation(number);
        assert_eq!(client.batch(op, &rows).unwrap().seq, (number + 1) * BATCH);
    }
}

fn content(daemon: &Daemon) -> BTreeSet<Triple> {
    let mut client = Client::connect(&daemon.config()).unwrap();
    let mut options = QueryOptions { limit: 100_000, cursor: None };
    let mut all = BTreeSet::new();
    loop {
        let page = client.query(&Pattern::ALL, &options).unwrap();
        all.extend(page.rows);
        options.cursor = page.cursor;
        if options.cursor.is_none() {
            return all;
        }
    }
}

fn data(folder: &TempDir) -> String {
    folder.path().join("cidstore.h5").to_str().unwrap().to_owned()
}

/// `cidctl` that asks no daemon.
fn cidctl(args: &[&str]) -> Ran {
    Ran::of(Command::new(env!("CARGO_BIN_EXE_cidctl")).args(args), None)
}

/// A daemon on the store that `args` of `restore` make.
fn restored(dir: &str, args: &[&str]) -> (Daemon, Value) {
    let folder = tempfile::tempdir().unwrap();
    let ran = cidctl(&[&["restore", dir, "--data", &data(&folder), "--json"], args].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    (Daemon::start_in(folder, &[]), ran.values()[0].clone())
}

fn seq(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

/// Whether anything below the folder has the name of something half made.
fn debris(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.display().to_string();
        if [".new", ".gone", ".restoring"].iter().any(|end| name.ends_with(end)) {
            found.push(name);
        } else if path.is_dir() {
            found.extend(debris(&path));
        }
    }
    found
}

struct Enough<'a>(&'a AtomicBool);

impl Drop for Enough<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn backups_during_ingest_and_merging_hold_exactly_the_mutations_up_to_their_seq() {
    // Sealed often, so that run files are merged and removed all the time.
    let settings = [("CIDSTORE_PROMOTION_THRESHOLD", "2000"), ("CIDSTORE_WAL_SEGMENT_BYTES", "1MiB")];
    let daemon = Daemon::start_in(tempfile::tempdir().unwrap(), &settings);
    let (store, dir) = (data(&daemon.folder), daemon.path("backup"));
    let enough = AtomicBool::new(false);
    let made: Vec<Value> = thread::scope(|scope| {
        let ingest = scope.spawn(|| {
            let mut number = 0;
            while !enough.load(Ordering::Relaxed) {
                fill(&daemon, number..number + 1);
                number += 1;
            }
            number
        });
        // Ends what the other thread waits for, also where a backup fails.
        let enough = Enough(&enough);
        let made = (0..6).map(|i| {
            let how: &[&str] = if i % 2 == 0 { &["--copy"] } else { &[] };
            let how = if i == 5 { &["--no-checkpoint"] } else { how };
            daemon.json(&[&["backup", &dir, "--data", &store], how].concat())[0].clone()
        });
        let made = made.collect();
        drop(enough);
        assert!(ingest.join().unwrap() > 0);
        made
    });
    for (backup, generation) in made.iter().zip(1..) {
        assert_eq!(backup["generation"], generation);
        // Whole batches, each to its end.
        assert_eq!(seq(&backup["seq"]) % BATCH, 0, "{backup}");
        let (again, report) = restored(&dir, &["--generation", &generation.to_string()]);
        assert_eq!(report["seq"], backup["seq"]);
        assert_eq!(content(&again), model(seq(&backup["seq"]) / BATCH), "generation {generation}");
    }
    let seqs: Vec<u64> = made.iter().map(|backup| seq(&backup["seq"])).collect();
    assert!(seqs.is_sorted() && seqs[4] > 0, "{seqs:?}");
    assert_eq!(cidctl(&["backup", &dir, "--list", "--verify"]).code, 0);
    let listed = cidctl(&["backup", &dir, "--list", "--json"]).values();
    assert_eq!(listed.iter().map(|one| seq(&one["seq"])).collect::<Vec<_>>(), seqs);
}

#[test]
fn followers_of_the_former_store_learn_that_they_must_read_anew() {
    let mut daemon = Daemon::start();
    let (store, dir) = (data(&daemon.folder), daemon.path("backup"));
    fill(&daemon, 0..10);
    daemon.json(&["backup", &dir, "--data", &store]);
    fill(&daemon, 10..12);
    daemon.kill();
    let (again, report) = restored(&dir, &[]);
    let after = seq(&report["resumes_after"]);
    // One that has seen more than the backup has, and one that has seen just that.
    for since in ["1200", "1000", "0"] {
        let gone = again.run(&["changes", "--since", since]);
        assert!(gone.code == 3 && gone.err.contains("410"), "{gone:?}");
    }
    let put = &again.json(&["put", "E(1,2)", "E(3,4)", "E(5,6)"])[0];
    assert_eq!(seq(&put["seq"]), after + 1);
    for since in ["1200", "1000", "0"] {
        assert_eq!(again.run(&["changes", "--since", since]).code, 3);
        assert_eq!(again.run(&["watch", "--since", since, "--limit", "1"]).code, 6);
    }
    assert_eq!(again.json(&["changes", "--since", &after.to_string()]).len(), 1);
    assert_eq!(again.json(&["count"])[0]["count"], model(10).len() + 1);
}

#[test]
fn a_closed_store_is_backed_up_as_it_was_left_and_a_silent_daemon_is_no_closed_store() {
    let mut daemon = Daemon::start();
    let (store, dir) = (data(&daemon.folder), daemon.path("backup"));
    fill(&daemon, 0..3);
    let nowhere = ["--endpoint", "tcp://127.0.0.1:1"];
    let refused = cidctl(&[&["backup", &dir, "--data", &store][..], &nowhere].concat());
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(refused.err.contains("--no-checkpoint") && refused.err.contains(&store), "{refused:?}");
    // A daemon that has another store open.
    let other = Daemon::start();
    fill(&other, 0..5);
    let refused = other.run(&["backup", &dir, "--data", &store]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.err.contains("another store"), "{refused:?}");
    daemon.stop();
    let ran = cidctl(&[&["backup", &dir, "--data", &store, "--json"][..], &nowhere].concat());
    assert_eq!((ran.code, &ran.values()[0]["seq"]), (0, &300.into()), "{ran:?}");
    assert!(ran.err.contains("no checkpoint was made"), "{ran:?}");
    // Nothing is restored over it, nor while a daemon is there.
    let refused = cidctl(&["restore", &dir, "--data", &store]);
    assert_eq!(refused.code, 5, "{refused:?}");
    assert!(refused.err.contains("is there already"), "{refused:?}");
    let ran = cidctl(&["backup", &dir]);
    assert_eq!(ran.code, 2, "without --data: {ran:?}");
}

#[test]
fn a_daemon_that_has_another_store_is_not_taken_for_the_store_s_own() {
    let (mut daemon, other) = (Daemon::start(), Daemon::start());
    let (store, dir) = (data(&daemon.folder), daemon.path("backup"));
    let file = daemon.path("all.h5");
    let refused = |how: &str| {
        for args in [["backup", &dir, "--data", &store], ["export", &file, "--data", &store]] {
            let ran = other.run(&args);
            assert_eq!(ran.code, 2, "{how}: {ran:?}");
            assert!(ran.err.contains("another store") && ran.err.contains(&store), "{how}: {ran:?}");
        }
        assert!(!Path::new(&dir).exists() && !Path::new(&file).exists(), "{how}");
    };
    // Nothing is sealed in either: both end at 0.
    fill(&daemon, 0..3);
    refused("one that has nothing");
    // Both have begun with the same mutations.
    fill(&other, 0..3);
    daemon.json(&["checkpoint"]);
    fill(&daemon, 3..5);
    daemon.json(&["checkpoint"]);
    refused("one that has less");
    fill(&other, 3..5);
    daemon.kill();
    refused("one that has as much, while nobody has the store open");
    let ran = other.run(&["backup", &dir, "--data", &store, "--no-checkpoint"]);
    assert_eq!(ran.code, 0, "{ran:?}");
}

/// Runs a command and kills it at a moment of its life, chosen at random. Returns whether it was alive.
fn kill_within(command: &mut Command, life: Duration, random: &mut u64) -> bool {
    *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let part = (*random >> 40) as f64 / (1_u64 << 24) as f64;
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    thread::sleep(life.mul_f64(part));
    child.kill().unwrap();
    !child.wait().unwrap().success()
}

#[test]
fn killed_at_any_moment_they_are_finished_by_the_next_run() {
    let mut random = std::process::id().into();
    eprintln!("seed {random}");
    let settings = [("CIDSTORE_PROMOTION_THRESHOLD", "20000")];
    let mut daemon = Daemon::start_in(tempfile::tempdir().unwrap(), &settings);
    fill(&daemon, 0..1000);
    daemon.stop();
    let expected = model(1000);
    let store = data(&daemon.folder);
    let work = tempfile::tempdir().unwrap();
    let (dir, target) = (work.path().join("backup"), work.path().join("restored/cidstore.h5"));
    let (dir_text, target_text) = (dir.to_str().unwrap(), target.to_str().unwrap());
    let args = ["backup", dir_text, "--data", &store, "--copy", "--no-checkpoint", "--keep", "2"];
    let restore = ["restore", dir_text, "--data", target_text];
    let backup = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cidctl"));
        command.args(args);
        command
    };
    let (mut killed, rounds) = (0, 20);
    for round in 0..rounds {
        // From nothing, and beside what is there.
        if round % 2 == 0 {
            let _ = fs::remove_dir_all(&dir);
        }
        let start = Instant::now();
        assert_eq!(cidctl(&args).code, 0);
        let life = start.elapsed();
        let _ = fs::remove_dir_all(dir.join("runs"));
        let _ = fs::remove_dir_all(dir.join("generations"));
        killed += u32::from(kill_within(&mut backup(&args), life, &mut random));
        let listed = cidctl(&["backup", dir_text, "--list", "--verify"]);
        assert_eq!(listed.code, 0, "what the killed one has named is whole: {listed:?}");
        let ran = cidctl(&args);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert_eq!(debris(&dir), Vec::<String>::new());
        assert_eq!(cidctl(&["backup", dir_text, "--list", "--verify"]).code, 0);

        let _ = fs::remove_dir_all(target.parent().unwrap());
        let was_killed = kill_within(&mut backup(&restore), life, &mut random);
        killed += u32::from(was_killed);
        if !target.exists() {
            let ran = cidctl(&restore);
            assert_eq!(ran.code, 0, "{ran:?}");
        }
        assert_eq!(debris(work.path()), Vec::<String>::new());
    }
    // Whichever came last.
    let folder = tempfile::tempdir().unwrap();
    fs::remove_dir_all(folder.path()).unwrap();
    fs::rename(target.parent().unwrap(), folder.path()).unwrap();
    assert_eq!(content(&Daemon::start_in(folder, &[])), expected);
    assert!(killed > 0, "no process was killed in {} attempts", 2 * rounds);
}
