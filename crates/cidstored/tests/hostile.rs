//! Clients that lie, stall and flood, while another client notices nothing.

mod common;

use common::{Client, Daemon, Form, Place, cid, frame, insert, is_closed, shake_hands, until};
use serde_json::{Value, json};
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

/// What the daemon may grow by under any of these; far below what the attack would cost unbounded.
const GROWTH_MAX: u64 = 150 << 20;

/// An ordinary client at work while something else happens.
fn served(client: &Client, n: u64) {
    client.ok(&insert(n));
    let reply = client.ok(&json!({"command": "query", "s": cid(n)}));
    assert_eq!(reply["results"].as_array().unwrap().len(), 1);
}

/// Whether the other side ends the connection, or sends the reply to a garbage request.
fn ends_or_answers(stream: &mut TcpStream) -> bool {
    let mut seen = Vec::new();
    let mut bytes = [0; 4096];
    loop {
        match std::io::Read::read(stream, &mut bytes) {
            Ok(0) => return true,
            Ok(n) => seen.extend_from_slice(&bytes[..n]),
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
        if seen.windows(10).any(|window| window == b"error_code") {
            return true;
        }
    }
}

#[test]
fn garbage_on_the_wire_ends_that_connection_only() {
    let place = Place::new();
    let daemon = place.start(&["--handshake-ms", "300"]);
    let good = daemon.req();
    served(&good, 1);
    let sockets = [&daemon.endpoints.req, &daemon.endpoints.push, &daemon.endpoints.publish];
    let announces_2_62: &[u8] = &[2, 0x40, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3];
    let before: [&[u8]; 4] =
        [announces_2_62, b"GET / HTTP/1.1\r\n\r\n", &[0xff; 200], &[0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3]];
    for endpoint in sockets {
        for bytes in before {
            let mut stream = Daemon::raw(endpoint);
            stream.write_all(bytes).unwrap();
            assert!(is_closed(&mut stream), "{bytes:?} to {endpoint}");
        }
        let kind = match endpoint {
            e if e == sockets[0] => "DEALER",
            e if e == sockets[1] => "PUSH",
            _ => "SUB",
        };
        let mut stream = shake_hands(endpoint, kind);
        stream.write_all(announces_2_62).unwrap();
        assert!(is_closed(&mut stream), "2^62 after the handshake to {endpoint}");
        served(&good, 2);
    }
    // Everything at once, without waiting for the other side: served or ended, but not kept.
    let mut eager = Daemon::raw(sockets[0]);
    let mut bytes = vec![0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0];
    bytes.extend_from_slice(b"NULL");
    bytes.resize(64, 0);
    bytes.extend_from_slice(b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER");
    bytes.extend(frame(false, b"garbage"));
    eager.write_all(&bytes).unwrap();
    assert!(ends_or_answers(&mut eager), "a connection is kept without a handshake");
    // An orphan "more" frame, then silence: nothing is received, nothing is stuck.
    let mut half = shake_hands(sockets[0], "DEALER");
    half.write_all(&frame(true, b"half a message")).unwrap();
    served(&good, 3);
    assert!(daemon.metric("cidstore_handshakes_failed_total") >= 9.0);
}

#[test]
fn two_thousand_idle_connections_cost_little_and_disturb_nobody() {
    let place = Place::new();
    let daemon = place.start(&["--handshake-ms", "60000"]);
    let good = daemon.req();
    served(&good, 1);
    let before = daemon.resident();
    let idle: Vec<TcpStream> = (0..2000).map(|_| Daemon::raw(&daemon.endpoints.req)).collect();
    until("all are accepted", || (daemon.metric("cidstore_connections") >= 2001.0).then_some(()));
    (2..50).for_each(|n| served(&good, n));
    let grown = daemon.resident().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} bytes for {} connections", idle.len());
    drop(idle);
    until("they are gone", || (daemon.metric("cidstore_connections") <= 1.0).then_some(()));
}

#[test]
fn connections_are_limited_and_those_that_are_there_stay() {
    let place = Place::new();
    let daemon = place.start(&["--connections-max", "20"]);
    let good = daemon.req();
    served(&good, 1);
    let many: Vec<TcpStream> = (0..200).map(|_| Daemon::raw(&daemon.endpoints.req)).collect();
    until("the rest is refused", || {
        (daemon.metric("cidstore_connections_refused_total") >= 181.0).then_some(())
    });
    served(&good, 2);
    drop(many);
    until("places are free again", || (daemon.metric("cidstore_connections") <= 1.0).then_some(()));
    served(&daemon.req(), 3);
}

#[test]
fn a_client_that_never_reads_is_bounded() {
    let place = Place::new();
    let daemon = place.start(&["--reply-bytes-per-client-max", "4MiB", "--req-sndhwm", "1000"]);
    let good = daemon.req();
    let triples: Vec<Value> = (0..20_000).map(|n| json!([cid(1), cid(2), cid(n)])).collect();
    good.ok(&json!({"command": "batch_insert", "triples": triples}));
    let before = daemon.resident();

    // It asks for some 4 GB of replies, small ones and large ones, and reads none.
    let mut never = shake_hands(&daemon.endpoints.req, "DEALER");
    never.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let large = Form::Json.encode(&json!({"op": "query", "s": cid(1), "limit": 20_000}));
    let small = Form::Json.encode(&json!({"op": "ping"}));
    for n in 0..1000 {
        let mut batch = frame(false, &large);
        (0..20).for_each(|_| batch.extend(frame(false, &small)));
        if never.write_all(&batch).is_err() {
            break;
        }
        if n % 50 == 0 {
            served(&good, n);
        }
    }
    until("large replies are refused", || {
        (daemon.metric("cidstore_requests_overload_total") >= 100.0).then_some(())
    });
    until("small replies are dropped", || {
        (daemon.metric("cidstore_replies_dropped_total") >= 100.0).then_some(())
    });
    served(&good, 5000);
    let grown = daemon.resident().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} bytes");
    drop(never);
    until("what it did not read is freed", || {
        (daemon.metric("cidstore_reply_bytes_outstanding") == 0.0).then_some(())
    });
}

#[test]
fn a_subscriber_that_never_reads_is_bounded_and_others_miss_nothing() {
    let place = Place::new();
    let daemon = place.start(&["--pub-sndhwm", "200"]);
    let good = daemon.subscriber(b"");
    good.notification_of("heartbeat");
    let mut never = shake_hands(&daemon.endpoints.publish, "SUB");
    never.write_all(&frame(false, b"\x01")).unwrap();
    let client = daemon.req();
    let before = daemon.resident();
    // Some 60 MB of notifications; the good one reads along.
    let reader = std::thread::spawn(move || {
        let mut seq = 0;
        while seq < 300_000 {
            let notification = good.notification();
            if notification["type"] == json!("heartbeat") {
                continue;
            }
            let first = notification.get("first_seq").unwrap_or(&notification["seq"]).as_u64().unwrap();
            assert_eq!(first, seq + 1, "the good subscriber has a hole");
            seq = notification["seq"].as_u64().unwrap();
        }
    });
    for round in 0..60 {
        let triples: Vec<Value> =
            (0..5000).map(|n| json!([cid(round), cid(2), cid(round * 5000 + n)])).collect();
        client.ok(&json!({"command": "batch_insert", "triples": triples}));
    }
    reader.join().unwrap();
    assert!(daemon.metric("cidstore_slow_subscribers_total") >= 1.0);
    let grown = daemon.resident().saturating_sub(before);
    assert!(grown < GROWTH_MAX + (100 << 20), "{grown} bytes");
}

#[test]
fn a_flood_of_pushes_neither_stops_requests_nor_grows_the_daemon() {
    let place = Place::new();
    let daemon = place.start(&["--writer-queue-bytes-max", "8MiB", "--message-bytes-max", "4MiB"]);
    let good = daemon.req();
    served(&good, 1);
    let before = daemon.resident();
    let (stop, push) = (std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)), daemon.pusher());
    let stopped = std::sync::Arc::clone(&stop);
    // The same triples again and again, so that only what waits could grow.
    let triples: Vec<Value> = (0..1000).map(|n| json!([cid(1 << 40), cid(2), cid(n)])).collect();
    let message = Form::MsgPack.encode(&json!({"command": "batch_insert", "triples": triples}));
    let flood = std::thread::spawn(move || {
        while !stopped.load(std::sync::atomic::Ordering::SeqCst) {
            push.socket.send(&message[..], 0).unwrap();
        }
    });
    for n in 2..200 {
        served(&good, n);
    }
    let grown = daemon.resident().saturating_sub(before);
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    flood.join().unwrap();
    assert!(grown < GROWTH_MAX + (300 << 20), "{grown} bytes");
    assert!(daemon.metric("cidstore_pushes_refused_total") == 0.0, "pushes wait, they are not refused");
}
