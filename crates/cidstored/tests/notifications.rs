//! Pushed mutations and what subscribers hear.

mod common;

use common::{Client, Form, Place, cid, insert, until};
use serde_json::{Value, json};

#[test]
fn what_is_pushed_is_stored_and_announced_in_order_without_a_hole() {
    let place = Place::new();
    let daemon = place.start(&[]);
    let subscriber = daemon.subscriber(b"");
    assert_eq!(subscriber.notification_of("heartbeat")["seq"], json!(0));
    let pusher = daemon.pusher();
    let singles = 2000;
    for n in 0..singles {
        let form = if n % 2 == 0 { Form::Json } else { Form::MsgPack };
        pusher.socket.send(form.encode(&insert(n)), 0).unwrap();
    }
    let triples: Vec<Value> = (0..2500).map(|n| json!([cid(n), cid(2), cid(3)])).collect();
    pusher.socket.send(Form::MsgPack.encode(&json!({"op": "BATCH_INSERT", "triples": triples})), 0).unwrap();
    let client = daemon.req();
    until("all pushed are stored", || (client.count() == singles + 2500).then_some(()));
    client.ok(&json!({"command": "delete", "p": cid(2)}));
    let last = singles + 5000;
    let mut seq = 0;
    let mut kinds = std::collections::BTreeSet::new();
    while seq < last {
        let notification = subscriber.notification();
        let kind = notification["type"].as_str().unwrap().to_owned();
        if kind == "heartbeat" {
            assert_eq!(notification["seq"], json!(seq), "a heartbeat tells what was announced");
            continue;
        }
        let args = notification["args"].as_array().unwrap();
        let (first, n) = if kind.starts_with("batch_") {
            assert!(args.len() <= 1000);
            (notification["first_seq"].as_u64().unwrap(), args.len() as u64)
        } else {
            assert_eq!(notification["triple_hash"].as_str().unwrap().len(), 64);
            (notification["seq"].as_u64().unwrap(), 1)
        };
        assert_eq!(first, seq + 1, "{kind}");
        seq = notification["seq"].as_u64().unwrap();
        assert_eq!(seq, first + n - 1);
        kinds.insert(kind);
    }
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["batch_delete", "batch_insert", "insert"]);
}

#[test]
fn a_byte_prefix_selects_a_type() {
    let place = Place::new();
    let daemon = place.start(&["--pub-format", "json"]);
    let subscriber = daemon.subscriber(b"{\"type\":\"insert\"");
    let client = daemon.req();
    // Until the subscription has arrived, there is nobody to tell.
    let mut n = 0;
    subscriber.socket.set_rcvtimeo(100).unwrap();
    let bytes = until("an insert is announced", || {
        n += 1;
        client.ok(&insert(n));
        subscriber.socket.recv_bytes(0).ok()
    });
    let notification = Form::Json.decode(&bytes);
    assert_eq!(notification["type"], json!("insert"));
    assert_eq!(notification["args"].as_array().unwrap().len(), 3);
}

#[test]
fn what_is_refused_on_the_push_socket_is_announced() {
    let place = Place::new();
    let daemon = place.start(&[]);
    let subscriber = daemon.subscriber(b"");
    subscriber.notification_of("heartbeat");
    let pusher = daemon.pusher();
    let push = |bytes: &[u8]| pusher.socket.send(bytes, 0).unwrap();
    push(
        &Form::Json
            .encode(&json!({"command": "insert", "s": "no", "p": cid(1), "o": cid(1), "request_id": "a"})),
    );
    let rejected = subscriber.notification_of("rejected");
    assert_eq!((&rejected["request_id"], &rejected["error_code"]), (&json!("a"), &json!(400)));
    assert!(rejected["error_msg"].as_str().unwrap().contains('s'));
    push(&Form::MsgPack.encode(&json!({"command": "query", "request_id": 7})));
    assert_eq!(subscriber.notification_of("rejected")["request_id"], json!(7));
    push(b"garbage");
    assert_eq!(subscriber.notification_of("rejected")["error_code"], json!(400));
    pusher.socket.send_multipart([&b"{}"[..], b"{}"], 0).unwrap();
    assert_eq!(subscriber.notification_of("rejected")["error_code"], json!(400));
    assert!(daemon.metric("cidstore_pushes_refused_total") >= 4.0);
    assert!(daemon.log().contains("pushed mutation refused"));
}

#[test]
fn a_subscriber_with_too_many_topics_is_disconnected_and_others_go_on() {
    let place = Place::new();
    let daemon = place.start(&["--pub-topics-max", "5"]);
    let good = daemon.subscriber(b"");
    good.notification_of("heartbeat");
    let bad = Client::connect(zeromq::XSUB, &daemon.endpoints.publish);
    for topic in 0..100u8 {
        bad.socket.send(&[1, b'x', topic][..], 0).unwrap();
    }
    until("the greedy one is disconnected", || {
        (daemon.metric("cidstore_subscribers_ended_total") >= 1.0).then_some(())
    });
    daemon.req().ok(&insert(1));
    assert_eq!(good.notification_of("insert")["seq"], json!(1));
}
