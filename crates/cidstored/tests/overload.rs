//! More than the daemon can hold at once: what is refused, to whom, and who is not concerned.

mod common;

use common::{Client, Daemon, Form, Place, cid, frame, insert, shake_hands, until};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpStream;

#[test]
fn a_large_request_that_is_refused_unread_keeps_its_name() {
    let place = Place::new();
    // A linger makes the first mutation stay under way while the others come.
    let daemon = place.start(&["--requests-per-client-max", "1", "--linger-us", "300000"]);
    for (form, rows) in [(Form::MsgPack, 4000), (Form::Json, 3000)] {
        let dealer = daemon.dealer();
        let triples: Vec<Value> = (0..rows).map(|n| json!({"s": cid(n), "p": cid(1), "o": cid(2)})).collect();
        let rows = form.encode(&json!(triples));
        assert!(rows.len() > 300 << 10, "small enough to be decoded at once");
        let mut sent = BTreeSet::new();
        for n in 0..40 {
            let id = format!("request {n}");
            dealer.socket.send(batch(form, &id, n % 2 == 0, &rows), 0).unwrap();
            sent.insert(id);
        }
        let mut refused = 0;
        for _ in 0..40 {
            let reply = form.decode(&dealer.socket.recv_bytes(0).unwrap());
            refused += u64::from(reply["error_code"] == json!(429));
            let id = reply["request_id"].as_str().unwrap_or_else(|| panic!("no request_id in {reply}"));
            assert!(sent.remove(id), "{reply}");
        }
        assert!(refused > 0 && sent.is_empty());
    }
}

/// A `batch_insert` with its name before its rows, or behind them.
fn batch(form: Form, id: &str, id_first: bool, rows: &[u8]) -> Vec<u8> {
    let encoded = |text: &str| form.encode(&json!(text));
    let mut fields = [
        (encoded("request_id"), encoded(id)),
        (encoded("command"), encoded("batch_insert")),
        (encoded("triples"), rows.to_vec()),
    ];
    if !id_first {
        fields.reverse();
    }
    match form {
        Form::MsgPack => {
            let mut bytes = vec![0x83];
            for (name, value) in fields {
                bytes.extend([name, value].concat());
            }
            bytes
        }
        Form::Json => {
            let fields = fields.map(|(name, value)| [&name[..], b":", &value].concat());
            [b"{", &fields.join(&b","[..])[..], b"}"].concat()
        }
    }
}

/// Rows of a query that never ends in one page.
const ROWS: u64 = 6000;

fn filled(place: &Place, args: &[&str]) -> (Daemon, Client) {
    let daemon = place.start(args);
    let good = daemon.req();
    let triples: Vec<Value> = (0..ROWS).map(|n| json!([cid(1), cid(2), cid(n)])).collect();
    good.ok(&json!({"command": "batch_insert", "triples": triples}));
    (daemon, good)
}

/// Asks for large replies and for smaller ones, far more than the connection itself holds.
fn ask_and_never_read(stream: &mut TcpStream) -> u32 {
    let mut asked = 0;
    for (limit, times) in [(ROWS, 25), (600, 25), (60, 25)] {
        let request = Form::Json.encode(&json!({"op": "query", "s": cid(1), "limit": limit}));
        for _ in 0..times {
            if stream.write_all(&frame(false, &request)).is_err() {
                return asked;
            }
            asked += 1;
        }
    }
    asked
}

#[test]
fn clients_that_never_read_lock_nobody_out() {
    let place = Place::new();
    let args = ["--reply-bytes-max", "16MiB", "--reply-bytes-per-client-max", "4MiB"];
    let (daemon, good) = filled(&place, &args);
    let mut deaf: Vec<TcpStream> = (0..8).map(|_| shake_hands(&daemon.endpoints.req, "DEALER")).collect();
    let mut again: Vec<TcpStream> = deaf.iter().map(|stream| stream.try_clone().unwrap()).collect();
    let mut asked = daemon.metric("cidstore_requests_total");
    // One after the other, so that it is their replies that there are too many of; and once more, when
    // the connections themselves are full.
    for stream in deaf.iter_mut().chain(&mut again) {
        asked += f64::from(ask_and_never_read(stream));
        until("all are answered", || {
            let done = ["replies_total", "replies_dropped_total"]
                .map(|name| daemon.metric(&format!("cidstore_{name}")));
            (done[0] + done[1] >= asked).then_some(())
        });
    }
    let held = daemon.metric("cidstore_reply_bytes_outstanding");
    assert!(held > f64::from(12 << 20), "only {held} bytes are held");
    assert!(held < f64::from(17 << 20), "{held} bytes are held");
    for _ in 0..3 {
        // JSON: the cursor is bytes in MessagePack.
        let reply = good.ask_in(Form::Json, &json!({"command": "query", "s": cid(1), "limit": 100}));
        assert_eq!(reply["results"].as_array().map(Vec::len), Some(100), "{reply}");
        good.ok(&json!({"command": "stats"}));
        good.ok(&json!({"command": "metrics"}));
    }
}

#[test]
fn clients_that_never_read_are_disconnected_where_they_are_in_the_way() {
    let place = Place::new();
    let args = ["--reply-bytes-max", "8MiB", "--reply-bytes-per-client-max", "4MiB", "--reply-stall-s", "1"];
    let (daemon, good) = filled(&place, &args);
    let mut deaf: Vec<TcpStream> = (0..6).map(|_| shake_hands(&daemon.endpoints.req, "DEALER")).collect();
    for stream in &mut deaf {
        ask_and_never_read(stream);
    }
    until("it is ended", || (daemon.metric("cidstore_stalled_clients_ended_total") >= 1.0).then_some(()));
    until("what it held is freed", || {
        (daemon.metric("cidstore_reply_bytes_outstanding") <= f64::from(4 << 20)).then_some(())
    });
    // Who reads stays, and has the large replies, too.
    good.ok(&insert(1));
    let reply = good.ask_in(Form::Json, &json!({"command": "query", "s": cid(1), "limit": 2000}));
    assert_eq!(reply["results"].as_array().map(Vec::len), Some(2000), "{reply}");
}
