//! `cidctl export` from one daemon and `import` into another.

use crate::harness::{Daemon, Ran};
use cidstore_admin::export::{ExportFile, ExportRow};
use cidstore_client::Client;
use cidstore_types::{Cid, Metadata, Op, Triple};
use serde_json::{Value, json};
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

fn triple(n: u64) -> Triple {
    let cid = |n: u64| Cid::from_lanes([n.wrapping_mul(0x9e37_79b9_7f4a_7c15), n, 0, 1]);
    Triple::new(cid(n / 3), cid(n % 4), cid(n))
}

/// Triples with and without metadata, some deleted again, some inserted twice.
fn fill(daemon: &Daemon, batches: u64) {
    let mut client = Client::connect(&daemon.config()).unwrap();
    for batch in 0..batches {
        let rows: Vec<_> = (200 * batch..200 * batch + 200).map(triple).collect();
        client.batch(Op::Insert, &rows).unwrap();
        client.batch(Op::Delete, &rows[..batch as usize % 50]).unwrap();
        let mut map = json!({"n": batch, "float": 1.0, "text": "ü\n\"", "z": null, "a": [1, {"b": -0.5e-7}]});
        if batch == 3 {
            // As deep as the daemon takes it in a request of its own.
            map = (0..12).fold(json!({"end": 1}), |inside, _| json!({ "in": inside }));
        }
        let provenance = map.as_object().cloned();
        let metadata = Metadata { provenance, schema_version: Some("v2".into()), confidence: Some(0.1) };
        let created_at = 1_730_505_600.123_456_7 + batch as f64;
        client.insert(&rows[100], &metadata, Some(created_at)).unwrap();
    }
}

fn export(daemon: &Daemon, name: &str) -> (String, Value) {
    let (file, store) = (daemon.path(name), daemon.path("cidstore.h5"));
    let report = daemon.json(&["export", &file, "--data", &store])[0].clone();
    (file, report)
}

fn rows(path: &str) -> Vec<ExportRow> {
    let file = ExportFile::open(Path::new(path)).unwrap();
    file.verify(&mut |_| ControlFlow::Continue(())).unwrap();
    let mut rows = file.rows_from(0).unwrap();
    let mut found = Vec::new();
    while let Some(row) = rows.next_row().unwrap() {
        found.push(row);
    }
    found
}

/// The columns of both files are the same bytes; heads differ, since they name store and seq.
fn same_columns(one: &str, other: &str) {
    let columns = |path: &str| {
        let bytes = fs::read(path).unwrap();
        let places = ExportFile::open(Path::new(path)).unwrap().places();
        let columns =
            places[..5].iter().map(|place| bytes[place.start as usize..place.end as usize].to_vec());
        columns.collect::<Vec<_>>()
    };
    let (one, other) = (columns(one), columns(other));
    for (name, (one, other)) in
        ["triples", "created_at", "row", "end", "text"].iter().zip(one.iter().zip(&other))
    {
        assert!(!one.is_empty() && one == other, "{name}");
    }
}

#[test]
fn what_was_exported_and_imported_is_the_same_to_the_last_bit() {
    let (from, to) = (Daemon::start(), Daemon::start());
    fill(&from, 30);
    let (file, report) = export(&from, "all.h5");
    let count = from.json(&["count"])[0]["count"].clone();
    assert_eq!((&report["triples"], &report["with_metadata"]), (&count, &json!(30)));
    let done = &to.json(&["import", &file, "--batch", "70"])[0];
    assert_eq!((&done["triples"], &done["lines"]), (&count, &count));
    let (again, report) = export(&to, "again.h5");
    assert_eq!(report["triples"], count);
    same_columns(&file, &again);
    // Importing it again changes nothing.
    to.json(&["import", &file]);
    same_columns(&file, &export(&to, "third.h5").0);
    assert_eq!(rows(&file), rows(&again));
}

#[test]
fn nothing_of_a_damaged_export_is_imported() {
    let (from, to) = (Daemon::start(), Daemon::start());
    fill(&from, 3);
    let file = export(&from, "all.h5").0;
    let original = fs::read(&file).unwrap();
    for place in ExportFile::open(Path::new(&file)).unwrap().places() {
        let mut bytes = original.clone();
        bytes[(place.start + (place.end - place.start) / 3) as usize] ^= 4;
        let bad = from.write("bad.h5", bytes);
        let refused = to.run(&["import", &bad]);
        assert_eq!(refused.code, 5, "{refused:?}");
        assert!(refused.err.contains("bad.h5"), "{refused:?}");
    }
    let refused = to.run(&["import", &file, "--skip-bad"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    // A store's own files are HDF5, too.
    let refused = to.run(&["import", &from.path("cidstore.h5")]);
    assert!(refused.code == 5 && refused.err.contains("is it an export"), "{refused:?}");
    assert_eq!(to.json(&["count"])[0]["count"], 0);
}

#[test]
fn an_import_that_is_killed_goes_on_where_it_was() {
    let (from, to) = (Daemon::start(), Daemon::start());
    fill(&from, 100);
    let (file, report) = export(&from, "all.h5");
    let state = to.path("state");
    let args = ["import", &file, "--resume", &state, "--batch", "1", "--in-flight", "2", "--quiet"];
    let mut import = to.cidctl().args(args).stdout(Stdio::null()).spawn().unwrap();
    // Until the state says that something is stored.
    let stored = || {
        let text = fs::read_to_string(&state).ok()?;
        serde_json::from_str::<Value>(&text).ok()?["triples"].as_u64().filter(|triples| *triples > 0)
    };
    while stored().is_none() && import.try_wait().unwrap().is_none() {
        thread::sleep(Duration::from_millis(5));
    }
    import.kill().unwrap();
    import.wait().unwrap();
    let before = stored().unwrap();
    let done = &to.json(&["import", &file, "--resume", &state])[0];
    let total = done["triples_total"].as_u64().unwrap();
    assert_eq!((done["triples"].as_u64().unwrap() + before, &json!(total)), (total, &report["triples"]));
    same_columns(&file, &export(&to, "again.h5").0);
    // The state belongs to this export, and to no other of its length.
    let (again, _) = export(&from, "all.h5");
    assert!(to.run(&["import", &again, "--resume", &state]).err.contains("imported already"));
    Client::connect(&from.config()).unwrap().batch(Op::Delete, &[triple(150)]).unwrap();
    Client::connect(&from.config()).unwrap().batch(Op::Insert, &[triple(1 << 40)]).unwrap();
    export(&from, "all.h5");
    let refused = to.run(&["import", &file, "--resume", &state]);
    assert!(refused.code == 5 && refused.err.contains("belongs to"), "{refused:?}");
}

#[test]
fn an_export_that_is_killed_starts_over() {
    let mut daemon = Daemon::start();
    fill(&daemon, 200);
    let (file, _) = export(&daemon, "all.h5");
    daemon.stop();
    let whole = fs::read(&file).unwrap();
    let store = daemon.path("cidstore.h5");
    let args = ["export", &file, "--data", &store, "--no-checkpoint"];
    let command = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cidctl"));
        command.args(args).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let start = Instant::now();
    assert_eq!(Ran::of(&mut command(), None).code, 0);
    let life = start.elapsed();
    for part in 0..12 {
        fs::remove_file(&file).unwrap();
        let mut export = command().spawn().unwrap();
        thread::sleep(life.mul_f64(f64::from(part) / 12.0));
        export.kill().unwrap();
        export.wait().unwrap();
        assert!(!Path::new(&file).exists() || fs::read(&file).unwrap() == whole);
        assert_eq!(Ran::of(&mut command(), None).code, 0);
        assert!(fs::read(&file).unwrap() == whole, "part {part}");
        assert!(!Path::new(&format!("{file}.exporting")).exists());
    }
}
