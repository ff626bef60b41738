//! Start, end, restart, and what is refused at the start.

mod common;

use common::{Form, Place, cid, insert, repository, until};
use serde_json::json;
use std::collections::BTreeSet;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

fn refused(place: &Place, args: &[&str], env: &[(&str, &str)]) -> (i32, String) {
    let Output { status, stderr, .. } = place.command(args).envs(env.iter().copied()).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stderr).unwrap())
}

/// Asks the clients to end; the numbers that were acknowledged; the clients.
type Load = (Arc<AtomicBool>, Arc<Mutex<BTreeSet<u64>>>, Vec<std::thread::JoinHandle<()>>);

fn join(threads: Vec<std::thread::JoinHandle<()>>) {
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Clients that insert as fast as they can, until the daemon is gone; what was acknowledged.
fn load(daemon: &common::Daemon, clients: u64) -> Load {
    let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(BTreeSet::new())));
    let threads = (0..clients).map(|from| {
        let client = daemon.req();
        client.socket.set_rcvtimeo(3000).unwrap();
        let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
        std::thread::spawn(move || {
            for n in (from..).step_by(clients as usize) {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                client.socket.send(Form::MsgPack.encode(&insert(n)), 0).unwrap();
                let Ok(reply) = client.socket.recv_bytes(0) else { return };
                if Form::MsgPack.decode(&reply)["status"] != json!("ok") {
                    return;
                }
                acknowledged.lock().unwrap().insert(n);
            }
        })
    });
    let threads = threads.collect();
    (stop, acknowledged, threads)
}

fn has_all(daemon: &common::Daemon, acknowledged: &BTreeSet<u64>) {
    let client = daemon.req();
    for n in acknowledged {
        let reply = client.ok(&json!({"command": "count", "s": cid(*n), "p": cid(1), "o": cid(n + 1)}));
        assert_eq!(reply["count"], json!(1), "{n} was acknowledged and is not there");
    }
}

#[test]
fn sigterm_under_load_loses_nothing_acknowledged_and_seals_everything() {
    let place = Place::new();
    let daemon = place.start(&[]);
    let (_, acknowledged, threads) = load(&daemon, 4);
    until("some are acknowledged", || (acknowledged.lock().unwrap().len() > 500).then_some(()));
    let status = daemon.stop();
    assert_eq!(status.code(), Some(0));
    join(threads);
    let acknowledged = acknowledged.lock().unwrap().clone();

    let daemon = place.start(&[]);
    has_all(&daemon, &acknowledged);
    let stats = daemon.req().ok(&json!({"command": "stats"}));
    assert_eq!(stats["seq"], stats["sealed_seq"], "the orderly end sealed everything");
    assert!(daemon.log().contains("replayed=0"));
}

#[test]
fn kill_9_under_load_loses_nothing_acknowledged() {
    let place = Place::new();
    let mut all = BTreeSet::new();
    for round in 0..5 {
        let daemon = place.start(&["--promotion-threshold", "300"]);
        has_all(&daemon, &all);
        let (stop, acknowledged, threads) = load(&daemon, 3);
        until("some are acknowledged", || {
            (acknowledged.lock().unwrap().len() > 200 + 150 * round).then_some(())
        });
        daemon.kill();
        stop.store(true, Ordering::SeqCst);
        join(threads);
        all.extend(acknowledged.lock().unwrap().iter());
    }
    has_all(&place.start(&[]), &all);
}

#[test]
fn pushed_mutations_that_arrived_survive_an_orderly_end() {
    let place = Place::new();
    let daemon = place.start(&[]);
    let pusher = daemon.pusher();
    for n in 0..3000 {
        pusher.socket.send(Form::MsgPack.encode(&insert(n)), 0).unwrap();
    }
    until("all are received", || (daemon.metric("cidstore_pushes_total") >= 3000.0).then_some(()));
    assert_eq!(daemon.stop().code(), Some(0));
    assert_eq!(place.start(&[]).req().count(), 3000);
}

#[test]
fn a_second_daemon_is_refused_and_a_dead_one_does_not_count() {
    let place = Place::new();
    let daemon = place.start(&[]);
    let (code, message) = refused(&place, &[], &[]);
    assert_eq!(code, 73, "{message}");
    assert!(message.contains(&daemon.endpoints.pid.to_string()), "the holder is named: {message}");
    daemon.req().ok(&insert(1));
    daemon.kill();
    assert_eq!(place.start(&[]).req().count(), 1);
}

#[test]
fn wrong_settings_and_taken_ports_are_refused_by_name() {
    let place = Place::new();
    let (code, message) = refused(&place, &["--linger-us", "soon"], &[]);
    assert_eq!(code, 64);
    assert!(message.contains("linger_us") && message.contains("soon"), "{message}");
    let (code, message) = refused(&place, &["--no-such-flag"], &[]);
    assert_eq!(code, 64);
    assert!(message.contains("no-such-flag"), "{message}");
    let (code, message) = refused(&place, &[], &[("CIDSTORE_DURABILITY", "hope")]);
    assert_eq!(code, 64);
    assert!(message.contains("CIDSTORE_DURABILITY"), "{message}");
    let (code, message) = refused(&place, &[], &[("CIDSTORE_DURABILTY", "os")]);
    assert_eq!(code, 64);
    assert!(message.contains("CIDSTORE_DURABILTY") && message.contains("CIDSTORE_DURABILITY"), "{message}");
    let nameless = [("REDIS_URL", "redis+sentinel://:hunter2@127.0.0.1:1")];
    let (code, message) = refused(&place, &[], &nameless);
    assert_eq!(code, 64);
    assert!(message.contains("redis_url") && message.contains("name of a primary"), "{message}");
    assert!(!message.contains("hunter2"), "{message}");
    assert!(!place.data_path().exists(), "settings are refused before anything is made");
    let (code, message) = refused(&place, &["--log-level", "=="], &[]);
    assert_eq!(code, 64, "{message}");
    let (code, message) = refused(&place, &["--connections-max", "1000000000"], &[]);
    assert_eq!(code, 64);
    assert!(message.contains("connections_max") && message.contains("hard limit"), "{message}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for flag in ["--pub-port", "--http-port"] {
        // The later of two equal flags is a mistake that clap names; so the flag stands alone here.
        let mut command = Command::new(env!("CARGO_BIN_EXE_cidstored"));
        command.env_clear().arg("--data-path").arg(place.data_path()).args([flag, &port]);
        for other in ["--req-port", "--push-port", "--pub-port", "--http-port"] {
            if other != flag {
                command.args([other, "0"]);
            }
        }
        let Output { status, stderr, .. } = command.output().unwrap();
        let message = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(69), "{message}");
        assert!(message.contains(&port), "{message}");
    }
    let unwritable = place.command(&[]).args(["--data-path", "/proc/nowhere/cidstore.h5"]).output().unwrap();
    assert_ne!(unwritable.status.code(), Some(0));
}

#[test]
fn the_effective_settings_are_shown_without_secrets() {
    let place = Place::new();
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_cidstored"))
            .env_clear()
            .env("CIDSTORE_JWT_SECRET", "hunter2")
            .env("CIDSTORE_PORT", "8123")
            .args(args)
            .current_dir(place.dir.path())
            .output()
            .unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let text = run(&["config"]);
    assert!(!text.contains("hunter2"));
    let line = text.lines().find(|line| line.starts_with("http_port")).unwrap();
    assert!(line.contains("8123") && line.contains("environment CIDSTORE_PORT"), "{line}");
    assert!(run(&["--batch-size", "7", "config"]).contains("batch_size = 7"));
    assert!(run(&["config", "--table"]).contains("| `data_path` | `CIDSTORE_DATA_PATH`"));
}

#[test]
fn what_kubernetes_injects_for_a_service_of_our_name_does_not_keep_it_from_starting() {
    let place = Place::new();
    let mut command = place.command(&[]);
    command.arg("--endpoints-file").arg(place.endpoints_file()).env("CIDSTORE_PORT", "tcp://10.0.0.1:5555");
    command.env("CIDSTORE_SERVICE_HOST", "10.0.0.1").env("CIDSTORE_PORT_5555_TCP_ADDR", "10.0.0.1");
    let daemon = place.start_command(&mut command);
    daemon.req().ok(&insert(1));
    let line = daemon.log().lines().find(|line| line.contains("WARN")).map(str::to_owned).unwrap();
    for name in ["CIDSTORE_PORT,", "CIDSTORE_SERVICE_HOST", "CIDSTORE_PORT_5555_TCP_ADDR"] {
        assert!(line.contains(name), "{line}");
    }
}

#[test]
fn the_compose_project_sets_what_exists() {
    let compose = std::fs::read_to_string(repository("docker-compose.yml")).unwrap();
    let (_, rest) = compose.split_once("\n    environment:\n").unwrap();
    let names: Vec<&str> = rest
        .lines()
        .map_while(|line| line.strip_prefix("      ")?.split_once(':'))
        .map(|(name, _)| name)
        .collect();
    assert!(names.len() > 8, "{names:?}");
    let output = Command::new(env!("CARGO_BIN_EXE_cidstored")).args(["config", "--table"]).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    for name in names {
        assert!(table.contains(&format!("`{name}`")), "{name} is no variable of cidstored");
    }
}

#[test]
fn the_readme_has_every_setting() {
    let readme = std::fs::read_to_string(repository("README.md")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_cidstored")).args(["config", "--table"]).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    let (_, rest) = readme.split_once("<!-- settings:begin -->\n").expect("README.md has a place for it");
    let (found, _) = rest.split_once("<!-- settings:end -->").expect("and an end of it");
    assert!(found == table, "README.md: put the output of `cidstored config --table` between the marks");
}

#[test]
fn http_tells_how_it_is() {
    let place = Place::new();
    let daemon = place.start(&[]);
    let (code, _, body) = daemon.http("GET", "/health", "");
    assert_eq!((code, body.as_str()), (200, "ok"));
    let (code, _, body) = daemon.http("GET", "/ready", "");
    assert_eq!((code, body.as_str()), (200, "ready"));
    let reply = daemon.req().ok(&insert(5));
    let hash = reply["triple_hash"].as_str().unwrap();
    let (code, head, body) = daemon.http("GET", &format!("/triples/{hash}"), "");
    assert!(code == 200 && head.contains("x-cache-status: miss"), "{head}");
    let triple: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(triple["provenance"]["triple_hash"], json!(hash));
    assert_eq!(daemon.http("GET", &format!("/triples/{}", "0".repeat(64)), "").0, 404);
    assert_eq!(daemon.http("GET", "/triples/xyz", "").0, 400);
    let (_, _, body) = daemon.http("GET", "/status", "");
    let status: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status["status"], json!("ok"), "{status}");
    let names: Vec<&str> =
        status["checks"].as_array().unwrap().iter().map(|check| check["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["storage", "merging", "wal", "redis-connection", "sockets"]);
    let (_, head, text) = daemon.http("GET", "/metrics/prometheus", "");
    assert!(head.contains("text/plain; version=0.0.4"));
    assert!(text.contains("cidstore_triples_inserted_total 1"));
    assert!(daemon.metric("cidstore_seq") > 0.0);
    // Control is off without a secret, and not there yet with one.
    assert_eq!(daemon.http("PUT", "/config/batch_size", "").0, 403);
    assert_eq!(daemon.http("GET", "/debug/get?high=1&low=2", "").0, 403);
    assert_eq!(daemon.http("GET", "/config/batch_size", "").0, 501);
    drop(daemon);
    let daemon = place.start(&["--jwt-secret", "s"]);
    assert_eq!(daemon.http("PUT", "/config/batch_size", "").0, 401);
    assert_eq!(daemon.http("PUT", "/config/batch_size", "Authorization: Bearer a.b.c\r\n").0, 501);
}

#[test]
fn durability_may_be_traded() {
    for durability in ["os", "interval:20"] {
        let place = Place::new();
        let daemon = place.start(&["--durability", durability]);
        let client = daemon.req();
        (0..100).for_each(|n| drop(client.ok(&insert(n))));
        // A kill of the process loses nothing that the system was given.
        daemon.kill();
        assert_eq!(place.start(&[]).req().count(), 100, "{durability}");
    }
}

#[test]
fn the_log_is_json_where_asked_for() {
    let place = Place::new();
    let daemon = place.start(&["--log-format", "json"]);
    let log = daemon.log();
    assert!(log.lines().count() >= 3);
    for line in log.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(value["level"].is_string() && value["message"].is_string(), "{line}");
    }
    assert!(log.contains("libzmq") && log.contains("hdf5"));
}

/// Runs a command line in a mount namespace of its own with a small file system at `dir`; `None`
/// where the system does not allow that.
fn on_small_disk(dir: &std::path::Path, bytes: &str, command: &Command) -> Option<Command> {
    let allowed = Command::new("unshare").args(["-Urm", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        return None;
    }
    let mut inner = Command::new("unshare");
    inner.env_clear().arg("-Urm").args([
        "sh",
        "-c",
        "mount -t tmpfs -o size=$0 none \"$1\" && shift && exec \"$@\"",
    ]);
    inner.arg(bytes).arg(dir).arg(command.get_program()).args(command.get_args());
    Some(inner)
}

#[test]
fn a_full_disk_refuses_mutations_until_there_is_room() {
    let place = Place::new();
    let data = place.dir.path().join("small");
    std::fs::create_dir(&data).unwrap();
    let mut plain = Command::new(env!("CARGO_BIN_EXE_cidstored"));
    plain.arg("--data-path").arg(data.join("cidstore.h5")).args(["--wal-segment-bytes", "1MiB"]);
    plain.arg("--endpoints-file").arg(place.endpoints_file());
    for flag in ["--req-port", "--push-port", "--pub-port", "--http-port"] {
        plain.args([flag, "0"]);
    }
    let Some(mut command) = on_small_disk(&data, "24m", &plain) else {
        eprintln!("not tested here: this system gives no mount namespace to its users");
        return;
    };
    let daemon = place.start_command(&mut command);
    let client = daemon.req();
    let batch = |from: u64| {
        let triples: Vec<serde_json::Value> =
            (from..from + 5000).map(|n| json!([cid(n), cid(1), cid(n)])).collect();
        json!({"command": "batch_insert", "triples": triples})
    };
    // Something that takes room and can be taken away: seen through the daemon's own view.
    let ballast =
        std::path::PathBuf::from(format!("/proc/{}/root{}/ballast", daemon.endpoints.pid, data.display()));
    std::fs::write(&ballast, vec![1; 16 << 20]).unwrap();
    let mut stored = 0;
    let refused = loop {
        let reply = client.ask(&batch(stored));
        if reply.get("error_code").is_some() {
            break reply;
        }
        stored += 5000;
        assert!(stored < 1_000_000, "a disk of 24 MB is never full");
    };
    assert_eq!(refused["error_code"], json!(507), "{refused}");
    assert_eq!(client.count(), stored, "reads go on, and nothing of the refused batch is there");
    assert_eq!(client.code(&batch(stored)), 507);
    assert_eq!(daemon.http("GET", "/ready", "").0, 200);
    let status: serde_json::Value = serde_json::from_str(&daemon.http("GET", "/status", "").2).unwrap();
    assert_eq!(status["status"], json!("degraded"), "{status}");
    std::fs::remove_file(&ballast).unwrap();
    until("writes resume by themselves", || {
        client.ask(&batch(stored)).get("error_code").is_none().then_some(())
    });
    assert_eq!(client.count(), stored + 5000);
    let status: serde_json::Value = serde_json::from_str(&daemon.http("GET", "/status", "").2).unwrap();
    assert_eq!(status["status"], json!("ok"), "{status}");
}

#[test]
fn the_limit_of_descriptors_is_raised_to_what_the_settings_need() {
    let place = Place::new();
    let plain = place.command(&["--connections-max", "3000"]);
    let mut command = Command::new("sh");
    command.env_clear().args(["-c", "ulimit -Sn 256; exec \"$0\" \"$@\""]);
    command.arg(plain.get_program()).args(plain.get_args());
    command.arg("--endpoints-file").arg(place.endpoints_file());
    let daemon = place.start_command(&mut command);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.endpoints.pid)).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let soft: u64 = line.split_whitespace().nth(3).unwrap().parse().unwrap();
    assert!(soft >= 4000, "{line}");
}

#[test]
fn a_write_that_fails_stops_writes_for_good_and_says_why() {
    let place = Place::new();
    // A limit of the size of files fails a write in its middle, as a broken disk does.
    let plain = place.command(&["--wal-segment-bytes", "1MiB"]);
    let mut command = Command::new("sh");
    command.env_clear().args(["-c", "trap '' XFSZ; ulimit -f 4096; exec \"$0\" \"$@\""]);
    command.arg(plain.get_program()).args(plain.get_args());
    command.arg("--endpoints-file").arg(place.endpoints_file());
    let mut daemon = place.start_command(&mut command);
    let client = daemon.req();
    client.ok(&insert(1));
    let triples: Vec<serde_json::Value> = (0..50_000).map(|n| json!([cid(n), cid(2), cid(3)])).collect();
    let large = json!({"command": "batch_insert", "triples": triples});
    assert_eq!(client.code(&large), 503);
    assert_eq!(client.code(&insert(2)), 503, "a later one could succeed, and must not be tried");
    assert_eq!(client.count(), 1, "reads go on");
    let (code, _, why) = daemon.http("GET", "/ready", "");
    assert!(code == 503 && why.contains("read-only"), "{code} {why}");
    let status: serde_json::Value = serde_json::from_str(&daemon.http("GET", "/status", "").2).unwrap();
    assert_eq!(status["status"], json!("unavailable"), "{status}");
    assert_eq!(daemon.http("GET", "/health", "").2, "ok");
    daemon.signal("-TERM");
    assert_eq!(daemon.wait().code(), Some(74));
    drop(daemon);
    // Nothing of the batch was kept by half.
    let daemon = place.start(&[]);
    let count = daemon.req().count();
    assert!(count == 1 || count == 50_001, "{count}");
}
