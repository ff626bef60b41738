//! `verify` beside a running daemon, and `repair` of what it left.

use crate::harness::{Daemon, Ran};
use serde_json::json;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::process::Command;

/// `cidctl` on a store's files.
fn files(daemon: &Daemon, args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cidctl"));
    command.env_remove("CIDSTORE_HDF5_PATH").env("CIDSTORE_DATA_PATH", daemon.path("cidstore.h5"));
    Ran::of(command.args(args), None)
}

fn import(daemon: &Daemon, name: &str, rows: u32) {
    let lines: String =
        (0..rows).map(|i| format!("<http://{name}/{i}> <http://p/{}> \"{i}\" .\n", i % 5)).collect();
    let path = daemon.write(name, lines);
    let ran = daemon.run(&["import", &path, "--quiet", "--batch", "50"]);
    assert_eq!(ran.code, 0, "{ran:?}");
}

fn flip(path: &str, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 8], at).unwrap();
}

#[test]
fn verified_while_it_works_and_repaired_when_it_is_over() {
    let mut daemon = Daemon::start();
    import(&daemon, "first", 3000);
    daemon.json(&["checkpoint"]);
    import(&daemon, "second", 2000);
    // Writing goes on while the files are looked at.
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| import(&daemon, "third", 4000));
        while !writer.is_finished() {
            let ran = files(&daemon, &["verify", "--quiet"]);
            assert_eq!(ran.code, 0, "{ran:?}");
        }
    });
    daemon.json(&["checkpoint"]);
    let sound = files(&daemon, &["verify", "--json", "--quick", "--rate", "1GiB"]);
    assert_eq!((sound.code, &sound.values()[0]["sound"]), (0, &json!(true)), "{sound:?}");
    let count = daemon.json(&["count"])[0]["count"].clone();

    let run = daemon.path("cidstore.h5.runs/000001.h5");
    // In the middle are the rows: they are most of the file.
    let at = fs::metadata(&run).unwrap().len() / 3;
    flip(&run, at);
    let ran = files(&daemon, &["verify"]);
    assert_eq!(ran.code, 7, "{ran:?}");
    for part in
        ["000001.h5: triples at byte ", "mutations 1 to 3000", "cidctl repair", "damaged: 2 run files"]
    {
        assert!(ran.out.contains(part), "{part:?} is not in {}", ran.out);
    }
    let held = files(&daemon, &["repair"]);
    assert!(held.code == 5 && held.err.contains("is held by process"), "{held:?}");

    daemon.kill();
    let dry = files(&daemon, &["repair", "--dry-run"]);
    assert!(dry.code == 0 && dry.out.contains("nothing of it is lost"), "{dry:?}");
    assert_eq!(files(&daemon, &["verify"]).code, 7);
    let ran = files(&daemon, &["repair", "--json"]);
    assert_eq!((ran.code, &ran.values()[0]["losses"]), (0, &json!([])), "{ran:?}");
    assert_eq!(files(&daemon, &["verify"]).code, 0);
    daemon.start_again();
    assert_eq!(daemon.json(&["count"])[0]["count"], count);
}

#[test]
fn what_is_lost_is_told_and_followers_notice() {
    let mut daemon = Daemon::start();
    import(&daemon, "first", 500);
    // What comes later says that the first was durable: else damage of it could pass for a torn end.
    import(&daemon, "second", 50);
    daemon.kill();
    // The log is all there is: a record in the middle of it.
    let wal = fs::read_dir(daemon.path("cidstore.h5.wal")).unwrap().next().unwrap().unwrap().path();
    let wal = wal.to_str().unwrap().to_owned();
    flip(&wal, 512 + 20_000);
    let verified = files(&daemon, &["verify", "--json"]);
    assert_eq!(verified.code, 7);
    let finding = &verified.values()[0]["findings"][0];
    assert_eq!(finding["file"], json!(wal));
    let ran = files(&daemon, &["repair"]);
    assert_eq!(ran.code, 7, "{ran:?}");
    let (first, last) = (&finding["first_seq"], &finding["last_seq"]);
    assert!(ran.out.contains(&format!("of mutations {first} to {last}")), "{}", ran.out);
    let report = fs::read_to_string(daemon.path("cidstore.h5.damaged/0001/report.txt")).unwrap();
    assert!(ran.out.starts_with(&report), "{report}");
    assert_eq!(files(&daemon, &["repair"]).out, "sound: there is nothing to do\n");
    daemon.start_again();
    let lost = last.as_u64().unwrap() - first.as_u64().unwrap() + 1;
    assert_eq!(daemon.json(&["count"])[0]["count"], json!(550 - lost));
    let missed = daemon.run(&["changes", "--since", "550"]);
    assert_ne!(missed.code, 0, "{missed:?}");
    assert_eq!(daemon.json(&["put", "E(1,1)", "E(1,2)", "E(1,3)"])[0]["seq"], json!(552));
}

#[test]
fn which_store_must_be_said() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cidctl"));
    command.env_remove("CIDSTORE_HDF5_PATH").env_remove("CIDSTORE_DATA_PATH");
    let ran = Ran::of(command.arg("verify"), None);
    assert!(ran.code == 2 && ran.err.contains("--data"), "{ran:?}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cidstore.h5");
    let ran = Ran::of(Command::new(env!("CARGO_BIN_EXE_cidctl")).args(["verify", "--data"]).arg(&path), None);
    assert!(ran.code == 5 && ran.out.contains("whether the path is right"), "{ran:?}");
}
