//! Large reads, many of them: what they must not hold up.

mod common;

use common::{Client, Daemon, Form, Place, cid};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};

/// A batch of so many triples, too large to be decoded on the thread of requests from 4000 on.
fn batch(from: u64, rows: u64) -> Value {
    let triples: Vec<Value> = (from..from + rows).map(|n| json!([cid(n), cid(1), cid(n)])).collect();
    json!({"command": "batch_insert", "triples": triples})
}

/// A daemon in which a count looks at so many rows.
fn with_long_counts(place: &Place, rows: u64, args: &[&str]) -> Daemon {
    let daemon = place.start(args);
    let client = daemon.req();
    for from in (0..rows).step_by(50_000) {
        client.ok(&batch(from, 50_000));
    }
    client.ok(&json!({"command": "checkpoint"}));
    // A second run, so that the ends of a range do not tell how many it has.
    client.ok(&json!({"command": "delete", "s": cid(0), "p": cid(1), "o": cid(0)}));
    daemon
}

fn send_count(client: &Client) {
    client.socket.send(Form::MsgPack.encode(&json!({"command": "count"})), 0).unwrap();
}

fn code(client: &Client) -> Option<u64> {
    Form::MsgPack.decode(&client.socket.recv_bytes(0).unwrap())["error_code"].as_u64()
}

#[test]
fn a_queue_full_of_scans_refuses_no_batch() {
    let place = Place::new();
    let daemon = with_long_counts(&place, 50_000, &["--read-queue-max", "4"]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let (client, done) = (daemon.dealer(), &done);
            scope.spawn(move || {
                (0..4).for_each(|_| send_count(&client));
                while !done.load(Ordering::Relaxed) {
                    code(&client);
                    send_count(&client);
                }
                for _ in 0..4 {
                    code(&client);
                }
            });
        }
        let writer = daemon.req();
        let replies: Vec<Value> = (0..20).map(|n| writer.ask(&batch(1_000_000 + n * 5000, 5000))).collect();
        done.store(true, Ordering::Relaxed);
        for reply in replies {
            assert_eq!(reply["inserted"], json!(5000), "{reply}");
        }
    });
}

#[test]
fn the_end_waits_for_no_queue_of_scans_and_all_are_answered() {
    let place = Place::new();
    // Together these take much longer than the orderly end may.
    let mut daemon = with_long_counts(&place, 400_000, &["--read-queue-max", "8192", "--log-level", "info"]);
    let clients: Vec<Client> = (0..8).map(|_| daemon.dealer()).collect();
    let each = 400;
    for client in &clients {
        (0..each).for_each(|_| send_count(client));
    }
    // The first answer of one says that its requests are there; the others' are as good as.
    assert_eq!(code(&clients[0]), None);
    daemon.signal("-TERM");
    let mut given_up = 0;
    for (i, client) in clients.iter().enumerate() {
        for _ in usize::from(i == 0)..each {
            match code(client) {
                None => {}
                Some(503) => given_up += 1,
                Some(other) => panic!("error {other}"),
            }
        }
    }
    assert!(given_up > 0);
    assert_eq!(daemon.wait().code(), Some(0));
}
