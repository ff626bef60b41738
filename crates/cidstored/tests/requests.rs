//! Requests over the socket, in every shape that a client may give them.

mod common;

use common::{Client, Form, Place, cid, insert};
use serde_json::{Value, json};

#[test]
fn every_kind_of_client_and_both_encodings_are_served() {
    let place = Place::new();
    let daemon = place.start(&["--router-dealer-endpoint", "tcp://127.0.0.1:0"]);
    let second = daemon.endpoints.router_dealer.clone().unwrap();
    let mut n = 10;
    for form in [Form::Json, Form::MsgPack] {
        for client in [daemon.req(), daemon.dealer(), Client::connect(zeromq::REQ, &second)] {
            n += 10;
            let reply = client.ask_in(form, &insert(n));
            assert_eq!((&reply["status"], &reply["inserted"]), (&json!("ok"), &json!(1)), "{reply}");
            assert_eq!(reply["triple_hash"].as_str().unwrap().len(), 64);
            let reply = client.ask_in(form, &json!({"op_code": "QUERY", "s": cid(n)}));
            assert_eq!(reply["results"], json!([{"s": cid(n), "p": cid(1), "o": cid(n + 1)}]));
            assert_eq!(reply["more"], json!(false));
        }
        // A DEALER that sends the delimiter gets it back.
        let dealer = daemon.dealer();
        let ping = form.encode(&json!({"command": "ping", "request_id": "r"}));
        dealer.socket.send_multipart([&b""[..], &ping], 0).unwrap();
        let frames = dealer.socket.recv_multipart(0).unwrap();
        assert_eq!((frames.len(), frames[0].len()), (2, 0));
        let reply = form.decode(&frames[1]);
        assert_eq!((&reply["status"], &reply["request_id"]), (&json!("ok"), &json!("r")));
    }
    assert_eq!(daemon.req().count(), 6);
}

#[test]
fn commands_do_what_they_say() {
    let place = Place::new();
    let daemon = place.start(&[]);
    let client = daemon.req();
    let triples: Vec<Value> =
        (0..3000).map(|n| json!({"s": cid(n % 3), "p": cid(n % 2), "o": cid(n)})).collect();
    let reply = client.ok(&json!({"command": "batch_insert", "triples": triples}));
    assert_eq!((&reply["inserted"], &reply["seq"]), (&json!(3000), &json!(3000)));
    let count = |s: Option<u64>, p: Option<u64>| {
        let mut request = json!({"command": "count"});
        for (part, bound) in [("s", s), ("p", p)] {
            if let Some(n) = bound {
                request[part] = cid(n).into();
            }
        }
        client.ok(&request)["count"].as_u64().unwrap()
    };
    assert_eq!((count(None, None), count(Some(0), None), count(Some(0), Some(1))), (3000, 1000, 500));

    // Pages: small ones are answered on one thread, large ones on another; both are the same pages.
    for limit in [7, 999, 5000] {
        let (mut seen, mut cursor) = (Vec::new(), None::<Value>);
        loop {
            let mut request = json!({"command": "query", "s": cid(1), "limit": limit});
            if let Some(cursor) = cursor.take() {
                request["cursor"] = cursor;
            }
            // JSON, since a cursor in MessagePack is binary, which a JSON value cannot hold.
            let reply = client.ask_in(Form::Json, &request);
            seen.extend(reply["results"].as_array().unwrap().iter().map(Value::to_string));
            if reply["more"] == json!(false) {
                break;
            }
            cursor = Some(reply["cursor"].clone());
        }
        assert_eq!(seen.len(), 1000, "limit {limit}");
        let mut unique = seen.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), 1000, "limit {limit}");
    }

    let hash = client.ok(&insert(77))["triple_hash"].clone();
    let triple = client.ok(&json!({"command": "get", "triple_hash": hash}))["triple"].clone();
    assert_eq!(triple["object"]["low"], json!(78));
    assert_eq!(client.code(&json!({"command": "get", "triple_hash": "00".repeat(32)})), 404);

    client.ok(&json!({"command": "insert", "key": "E(1,2)", "value": "E(3,4)"}));
    let reply = client.ok(&json!({"op": "LOOKUP", "key": "E(1,2)"}));
    assert_eq!(reply["results"], json!([[0, 0, 3, 4]]));

    let seq = client.ok(&json!({"command": "delete", "s": cid(0)}))["seq"].as_u64().unwrap();
    assert_eq!(seq, 4002);
    assert_eq!(count(Some(0), None), 0);
    let reply = client.ok(&json!({"command": "changes", "since": 3000, "limit": 3}));
    let changes = reply["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 3);
    assert_eq!((&changes[0]["seq"], &changes[0]["op"]), (&json!(3001), &json!("insert")));
    assert_eq!(changes[2]["op"], json!("delete"));
    assert_eq!(reply["next"], json!(3003));
    assert_eq!(client.ok(&json!({"command": "changes", "since": 4002}))["changes"], json!([]));
    assert_eq!(client.code(&json!({"command": "changes", "since": 4003})), 410);
    assert_eq!(client.code(&json!({"command": "changes", "since": u64::MAX})), 410);

    assert_eq!(client.ok(&json!({"command": "checkpoint"}))["seq"], json!(4002));
    assert_eq!(count(None, None), 2002);
    for name in [
        "latency_p99",
        "throughput_ops",
        "buffer_occupancy",
        "flush_duration",
        "lock_contention_ratio",
        "error_rate",
    ] {
        let reply = client.ok(&json!({"op_code": "METRICS"}));
        assert!(reply.to_string().contains(name), "{name} is not in {reply}");
    }
    assert!(client.ok(&json!({"command": "stats"})).to_string().contains("4002"));
}

#[test]
fn what_is_no_request_gets_its_one_reply() {
    let place = Place::new();
    let daemon = place.start(&[]);
    let req = daemon.req();
    let mut deep = b"{\"command\":\"insert\",\"provenance\":".to_vec();
    deep.extend(std::iter::repeat_n(b'[', 10_000));
    let bad: [&[u8]; 9] = [
        b"",
        b"{",
        b"not a request",
        b"\xc1",
        b"\x81\xa7command",
        b"\xdf\xff\xff\xff\xff",
        b"{\"command\":17}",
        &[0x91; 10_000],
        &deep,
    ];
    for request in bad {
        let form = if request.first() == Some(&b'{') { Form::Json } else { Form::MsgPack };
        let reply = form.decode(&req.ask_bytes(request));
        let code = reply["error_code"].as_u64().unwrap();
        assert!(code == 400 || code == 413, "{reply}");
        assert_eq!(reply["version"], "1.0");
    }
    assert_eq!(req.code(&json!({"command": "dance"})), 501);
    for lane in [json!(-1), json!(1.5), json!("x"), json!(null)] {
        let request = json!({"command": "batch_insert", "triples": [
            {"s": cid(1), "p": cid(2), "o": cid(3)}, {"s": cid(1), "p": cid(2), "o": [0, 0, 0, lane]}]});
        let reply = req.ask(&request);
        assert_eq!(reply["error_code"], json!(400), "{reply}");
        assert!(reply["error_msg"].as_str().unwrap().contains("triples[1].o"), "{reply}");
    }
    assert_eq!(req.count(), 0, "nothing of a refused batch is stored");

    // Frames that are no request.
    let dealer = daemon.dealer();
    dealer.socket.send_multipart([&b"{}"[..], b"{}", b"{}"], 0).unwrap();
    let frames = dealer.socket.recv_multipart(0).unwrap();
    assert_eq!((frames.len(), Form::Json.decode(&frames[0])["error_code"].clone()), (1, json!(400)));
    dealer.socket.send_multipart([&b""[..], b"x", b"y"], 0).unwrap();
    let frames = dealer.socket.recv_multipart(0).unwrap();
    assert_eq!((frames.len(), Form::MsgPack.decode(&frames[1])["error_code"].clone()), (2, json!(400)));
}

#[test]
fn messages_over_the_limit_are_told_and_far_over_it_cut_off() {
    let place = Place::new();
    let daemon = place.start(&["--message-bytes-max", "100KiB", "--metadata-bytes-max", "1KiB"]);
    let req = daemon.req();
    let mut large = vec![b' '; 110 * 1024];
    large[0] = b'{';
    assert_eq!(Form::Json.decode(&req.ask_bytes(&large))["error_code"], json!(413));
    let packed = json!({"command": "insert", "s": cid(1), "p": cid(1), "o": cid(1),
        "provenance": {"x": "y".repeat(2000)}});
    assert_eq!(req.code(&packed), 413);
    let other = daemon.req();
    other.socket.set_rcvtimeo(500).unwrap();
    other.socket.send(vec![b' '; 200 * 1024], 0).unwrap();
    assert!(other.socket.recv_bytes(0).is_err(), "no reply comes over a connection that was ended");
    assert_eq!(req.count(), 0);
}

#[test]
fn a_dealer_may_pipeline_and_its_mutations_keep_their_order() {
    let place = Place::new();
    let daemon = place.start(&[]);
    let dealer = daemon.dealer();
    // A large batch takes its time to decode; the delete right behind it must still come after it.
    let triples: Vec<Value> = (0..20_000).map(|n| json!({"s": cid(n), "p": cid(1), "o": cid(2)})).collect();
    for round in 0..5 {
        let send = |request: &Value| dealer.socket.send(Form::MsgPack.encode(request), 0).unwrap();
        send(&json!({"command": "batch_insert", "triples": triples, "request_id": format!("{round}i")}));
        send(&json!({"command": "delete", "p": cid(1), "request_id": format!("{round}d")}));
        for n in 0..200 {
            send(&json!({"command": "ping", "request_id": format!("{round}p{n}")}));
        }
    }
    let mut ids = Vec::new();
    for _ in 0..5 * 202 {
        let reply = Form::MsgPack.decode(&dealer.socket.recv_bytes(0).unwrap());
        assert!(reply.get("error_code").is_none(), "{reply}");
        if reply["request_id"].as_str().unwrap().ends_with('d') {
            assert_eq!(reply["deleted"], json!(20_000));
        }
        ids.push(reply["request_id"].as_str().unwrap().to_owned());
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 5 * 202, "each request has one reply");
    assert_eq!(daemon.req().count(), 0);
}

#[test]
fn too_many_requests_of_one_client_are_refused_and_all_answered() {
    let place = Place::new();
    // A linger makes mutations stay under way for a while.
    let daemon = place.start(&["--requests-per-client-max", "10", "--linger-us", "300000"]);
    let dealer = daemon.dealer();
    for n in 0..100 {
        dealer.socket.send(Form::MsgPack.encode(&insert(n)), 0).unwrap();
    }
    let mut codes = std::collections::BTreeMap::new();
    for _ in 0..100 {
        let reply = Form::MsgPack.decode(&dealer.socket.recv_bytes(0).unwrap());
        *codes.entry(reply["error_code"].as_u64()).or_insert(0) += 1;
    }
    let stored = codes.remove(&None).unwrap();
    assert!((10..100).contains(&stored), "{stored} stored, refused {codes:?}");
    assert_eq!(codes.keys().collect::<Vec<_>>(), [&Some(429)]);
    assert_eq!(daemon.req().count(), stored);
}

#[test]
fn random_bytes_each_get_exactly_one_reply() {
    let seed: u64 = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64 | 1
    });
    eprintln!("SEED={seed}");
    let mut state = seed;
    let mut random = move || {
        // xorshift64 (Marsaglia 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let place = Place::new();
    let daemon = place.start(&[]);
    let dealer = daemon.dealer();
    let good = Form::MsgPack.encode(&insert(1));
    let json = Form::Json.encode(&insert(2));
    let (rounds, burst) = (40, 100);
    for _ in 0..rounds {
        for _ in 0..burst {
            // Bytes of a request with some of them changed or cut, or bytes without any sense.
            let mut bytes = match random() % 3 {
                0 => good.clone(),
                1 => json.clone(),
                _ => (0..random() % 200).map(|_| random() as u8).collect(),
            };
            for _ in 0..random() % 4 {
                if !bytes.is_empty() {
                    let at = random() as usize % bytes.len();
                    bytes[at] = random() as u8;
                }
            }
            bytes.truncate(bytes.len() - (random() as usize % 3).min(bytes.len()));
            // As a DEALER sends them: an empty first frame is the delimiter.
            if random() % 2 == 0 {
                dealer.socket.send_multipart([&b""[..], &bytes], 0).unwrap();
            } else {
                dealer.socket.send(bytes, 0).unwrap();
            }
        }
        for _ in 0..burst {
            let frames = dealer.socket.recv_multipart(0).unwrap();
            assert!(!frames.last().unwrap().is_empty());
        }
    }
    dealer.socket.set_rcvtimeo(200).unwrap();
    assert!(dealer.socket.recv_multipart(0).is_err(), "a second reply to something");
    assert!(daemon.metric("cidstore_requests_total") >= f64::from(rounds * burst));
}

#[test]
fn a_small_read_that_passes_over_much_that_was_deleted_is_none_for_the_thread_of_requests() {
    let place = Place::new();
    let daemon = place.start(&[]);
    let client = daemon.req();
    let triples: Vec<Value> = (0..5000).map(|n| json!([cid(n), cid(1), cid(n)])).collect();
    client.ok(&json!({"command": "batch_insert", "triples": triples}));
    // One range of one run is counted by its ends, and a page of few rows is read at once.
    assert_eq!(client.ok(&json!({"command": "count", "p": cid(1)}))["count"], json!(5000));
    // In JSON, since a JSON value cannot hold the cursor of MessagePack.
    let ask = |request: &Value| client.ask_in(Form::Json, request);
    assert_eq!(ask(&json!({"command": "query", "p": cid(1), "limit": 100}))["more"], json!(true));
    assert_eq!(daemon.metric("cidstore_reads_pooled_total"), 0.0);
    client.ok(&json!({"command": "batch_delete", "triples": triples[1..]}));
    for (pooled, read) in [
        json!({"command": "query", "p": cid(1), "limit": 2}),
        json!({"command": "query", "limit": 2}),
        json!({"command": "count", "p": cid(1)}),
    ]
    .into_iter()
    .enumerate()
    {
        let reply = ask(&read);
        assert!(reply["count"] == json!(1) || reply["results"].as_array().unwrap().len() == 1, "{reply}");
        assert_eq!(daemon.metric("cidstore_reads_pooled_total"), pooled as f64 + 1.0, "{read}");
    }
    // What is left is still found at once where it is asked for.
    assert_eq!(ask(&json!({"command": "query", "s": cid(0)}))["results"].as_array().unwrap().len(), 1);
    assert_eq!(daemon.metric("cidstore_reads_pooled_total"), 3.0);
}

#[test]
fn a_page_has_a_bound_in_bytes_and_says_where_to_go_on() {
    let place = Place::new();
    let daemon = place.start(&["--page-bytes-max", "256KiB"]);
    let client = daemon.req();
    let text = "x".repeat(20_000);
    let triples: Vec<Value> = (0..100)
        .map(|n| json!({"s": cid(1), "p": cid(2), "o": cid(n), "provenance": {"text": text}}))
        .collect();
    client.ok(&json!({"command": "batch_insert", "triples": triples}));
    let bounded = |reply: &Value, rows: usize| {
        let bytes = reply.to_string().len();
        assert!((1..20).contains(&rows) && bytes < 300 << 10, "{rows} rows, {bytes} bytes");
    };

    let mut seen = std::collections::BTreeSet::new();
    let mut request = json!({"command": "query", "s": cid(1), "metadata": true, "limit": 1000});
    loop {
        let reply = client.ask_in(Form::Json, &request);
        let rows = reply["results"].as_array().unwrap_or_else(|| panic!("{reply}"));
        bounded(&reply, rows.len());
        seen.extend(rows.iter().map(|row| row["o"].to_string()));
        if reply["more"] == json!(false) {
            break;
        }
        request["cursor"] = reply["cursor"].clone();
    }
    assert_eq!(seen.len(), 100);

    let mut since = 0;
    while since < 100 {
        let reply = client.ok(&json!({"command": "changes", "since": since, "limit": 1000}));
        let rows = reply["changes"].as_array().unwrap().len();
        bounded(&reply, rows);
        assert_eq!(reply["next"], json!(since + rows));
        since += rows;
    }
}
