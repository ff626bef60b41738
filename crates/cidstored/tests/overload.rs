//! More than the daemon can hold at once: what is refused, to whom, and who is not concerned.

mod common;

use common::{Form, Place, cid};
use serde_json::{Value, json};
use std::collections::BTreeSet;

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
