//! Clients that name themselves.

mod common;

use common::{Client, Form, Place, frame, insert, shake_hands_as};
use serde_json::json;
use std::io::{Read, Write};

#[test]
fn a_client_that_is_back_under_its_name_gets_its_replies() {
    let place = Place::new();
    let daemon = place.start(&[]);
    let ping = json!({"command": "ping", "request_id": "first"});
    for kind in [zeromq::REQ, zeromq::DEALER] {
        // Of this connection the client's host forgot everything when it went down.
        let mut lost = shake_hands_as(&daemon.endpoints.req, "DEALER", b"worker");
        lost.write_all(&frame(false, &Form::Json.encode(&ping))).unwrap();
        let mut head = [0; 2];
        lost.read_exact(&mut head).unwrap();
        let mut reply = vec![0; head[1].into()];
        lost.read_exact(&mut reply).unwrap();
        assert_eq!(Form::Json.decode(&reply)["request_id"], "first");

        let back = Client::unconnected(kind);
        back.socket.set_identity(b"worker").unwrap();
        back.socket.connect(&daemon.endpoints.req).unwrap();
        for n in 0..10 {
            back.ok(&insert(n));
        }
    }
    assert_eq!(daemon.req().count(), 10);
}
