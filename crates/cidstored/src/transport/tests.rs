use super::*;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

fn options() -> SocketOptions {
    SocketOptions {
        handshake_ms: 300,
        heartbeat_ms: 0,
        heartbeat_timeout_ms: 0,
        linger_ms: 0,
        backlog: 100,
        keepalive_idle_s: 60,
        ipv6: false,
    }
}

type Frames<'a> = &'a [&'a [u8]];

const SIZES: Sizes = Sizes { frame_bytes_max: 1000, sndhwm: 100, rcvhwm: 100 };
const ANY: &str = "tcp://127.0.0.1:*";

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(30), "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn client(kind: zeromq::SocketType, at: &str) -> zeromq::Socket {
    let socket = zeromq::Context::new().socket(kind).unwrap();
    socket.set_linger(0).unwrap();
    socket.set_rcvtimeo(30_000).unwrap();
    socket.connect(at).unwrap();
    socket
}

/// A connection after its handshake: ZMTP 3.0, mechanism NULL.
fn shake_hands(address: &str, kind: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut greeting = vec![0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0];
    greeting.extend_from_slice(b"NULL");
    greeting.resize(64, 0);
    stream.write_all(&greeting).unwrap();
    stream.read_exact(&mut greeting).unwrap();
    let mut ready = vec![4, 22 + kind.len() as u8];
    ready.extend_from_slice(b"\x05READY\x0bSocket-Type\x00\x00\x00");
    ready.push(kind.len() as u8);
    ready.extend_from_slice(kind.as_bytes());
    stream.write_all(&ready).unwrap();
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    let mut body = vec![0; head[1].into()];
    stream.read_exact(&mut body).unwrap();
    stream
}

fn next(router: &Router, wake: &Wake) -> Incoming {
    loop {
        if let Some(incoming) = router.receive().unwrap() {
            return incoming;
        }
        assert!(
            router.wait(wake, true, Duration::ZERO, Duration::from_secs(30)).unwrap().socket,
            "no request came"
        );
    }
}

#[test]
fn a_reply_mirrors_the_envelope_of_its_request() {
    let transport = Transport::new(1, 100).unwrap();
    let (router, at) = transport.router(&options(), SIZES, &[ANY]).unwrap();
    let wake = Wake::new().unwrap();
    let dealer = client(zeromq::DEALER, &at[0]);
    let cases: [(Frames<'_>, usize, &[u8], Frames<'_>); 8] = [
        (&[b"x"], 1, b"x", &[]),
        (&[b"", b"x"], 1, b"x", &[b""]),
        (&[b"broker", b"", b"x"], 1, b"x", &[b"broker", b""]),
        (&[b""], 1, b"", &[]),
        (&[b"", b"x", b"y"], 2, b"x", &[b""]),
        (&[b"x", b"y", b"z"], 3, b"x", &[]),
        (&[b"x", b"y", b""], 3, b"x", &[]),
        (&[b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"8", b"9", b"", b"x"], 11, b"1", &[]),
    ];
    for (sent, frames, payload, envelope) in cases {
        dealer.send_multipart(sent, 0).unwrap();
        let incoming = next(&router, &wake);
        assert_eq!((incoming.frames, &incoming.payload[..]), (frames, payload), "{sent:?}");
        assert_eq!(router.send(&incoming.route, b"reply").unwrap(), Sent::Done);
        let mut expected: Vec<&[u8]> = envelope.to_vec();
        expected.push(b"reply");
        assert_eq!(dealer.recv_multipart(0).unwrap(), expected, "{sent:?}");
    }
    let many = vec![&b"x"[..]; 10_000];
    dealer.send_multipart(many, 0).unwrap();
    assert_eq!(next(&router, &wake).frames, 10_000);
    let route = Route { client: (*b"nobody").into(), envelope: Envelope::Delimited };
    assert_eq!(router.send(&route, b"reply").unwrap(), Sent::Gone);
    transport.connections().stop();
}

#[test]
fn connections_beyond_the_limit_are_closed_and_places_come_free_again() {
    let transport = Transport::new(1, 5).unwrap();
    let (router, at) = transport.router(&options(), SIZES, &[ANY]).unwrap();
    let connections = transport.connections();
    let req = client(zeromq::REQ, &at[0]);
    let wake = Wake::new().unwrap();
    let echo = |router: &Router, req: &zeromq::Socket| {
        req.send("x", 0).unwrap();
        let incoming = next(router, &wake);
        router.send(&incoming.route, b"y").unwrap();
        assert_eq!(req.recv_bytes(0).unwrap(), b"y");
    };
    echo(&router, &req);
    let address = at[0].strip_prefix("tcp://").unwrap();
    let raw: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(address).unwrap()).collect();
    until("46 refused", || connections.refused() == 46);
    // The one that was there before is served as ever.
    echo(&router, &req);
    drop(raw);
    until("places free", || connections.open() == 1);
    let other = client(zeromq::REQ, &at[0]);
    echo(&router, &other);
    connections.stop();
}

#[test]
fn a_lying_frame_header_and_a_silent_handshake_end_the_connection() {
    let transport = Transport::new(1, 100).unwrap();
    let (router, at) = transport.router(&options(), SIZES, &[ANY]).unwrap();
    let address = at[0].strip_prefix("tcp://").unwrap();
    let closed = |mut stream: TcpStream| {
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut rest = Vec::new();
        // Either way it is over: an orderly end, or a reset since we had sent more.
        let _ = stream.read_to_end(&mut rest);
    };
    // Silence.
    closed(TcpStream::connect(address).unwrap());
    // A long frame of 2^62 bytes instead of a greeting.
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(&[2, 0x40, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3]).unwrap();
    closed(stream);
    // The same after a handshake (ZMTP 3.0, NULL mechanism, a DEALER).
    let mut stream = shake_hands(address, "DEALER");
    stream.write_all(b"\x00\x02hi").unwrap();
    let wake = Wake::new().unwrap();
    assert_eq!(&next(&router, &wake).payload[..], b"hi");
    stream.write_all(&[2, 0x40, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3]).unwrap();
    closed(stream);
    assert!(router.receive().unwrap().is_none());
    transport.connections().stop();
}

#[test]
fn a_publisher_tells_topics_their_connection_and_who_does_not_read() {
    let transport = Transport::new(1, 100).unwrap();
    let sizes = Sizes { sndhwm: 10, ..SIZES };
    let (mut publisher, at) = transport.publisher(&options(), sizes, ANY).unwrap();
    let wake = Wake::new().unwrap();
    let subscriber = client(zeromq::XSUB, &at);
    let told = |publisher: &mut Publisher| loop {
        if let Some(subscription) = publisher.receive().unwrap() {
            return subscription;
        }
        assert!(publisher.wait(&wake, 30_000).unwrap().socket);
    };
    subscriber.send(&b"\x01topic"[..], 0).unwrap();
    let Subscription::Added { topic, from: Some(fd) } = told(&mut publisher) else { panic!("no descriptor") };
    assert_eq!(topic, b"topic");
    assert_eq!(publisher.send(b"topic 1").unwrap(), Sent::Done);
    assert_eq!(subscriber.recv_bytes(0).unwrap(), b"topic 1");
    subscriber.send(&b"\x00topic"[..], 0).unwrap();
    assert_eq!(told(&mut publisher), Subscription::Removed { topic: b"topic".into() });
    subscriber.send(&b"\x07junk"[..], 0).unwrap();
    assert_eq!(told(&mut publisher), Subscription::Garbage);

    // A raw subscriber that never reads.
    let mut raw = shake_hands(at.strip_prefix("tcp://").unwrap(), "SUB");
    raw.write_all(b"\x00\x01\x01").unwrap();
    assert!(matches!(told(&mut publisher), Subscription::Added { .. }));
    let mut full = false;
    for _ in 0..1_000_000 {
        full = publisher.send(&[0; 900]).unwrap() == Sent::Full;
        if full {
            break;
        }
    }
    assert!(full, "a stuck subscriber is not noticed");
    publisher.set_lossy(true).unwrap();
    assert_eq!(publisher.send(&[0; 900]).unwrap(), Sent::Done);

    assert!(transport.connections().end(fd), "the connection is ours to end");
    assert!(!transport.connections().end(0), "standard input is not");
    transport.connections().stop();
}

#[test]
fn replies_from_another_thread_cost_no_request() {
    const CLIENTS: usize = 4;
    const REQUESTS: usize = 3_000;
    // While one thread receives, another one sends every reply: it takes libzmq's signals away, and
    // a request that came meanwhile must not stay unseen.
    let transport = Transport::new(1, 100).unwrap();
    let (router, at) = transport.router(&options(), SIZES, &[ANY]).unwrap();
    let wake = Arc::new(Wake::new().unwrap());
    let (routes, replies) = std::sync::mpsc::channel::<Route>();
    let sender = {
        let (router, wake) = (router.clone(), Arc::clone(&wake));
        std::thread::spawn(move || {
            for route in replies {
                assert_eq!(router.send(&route, b"reply").unwrap(), Sent::Done);
                router.nudge(&wake).unwrap();
            }
        })
    };
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let at = at[0].clone();
            std::thread::spawn(move || {
                let req = client(zeromq::REQ, &at);
                for _ in 0..REQUESTS {
                    req.send("x", 0).unwrap();
                    assert_eq!(req.recv_bytes(0).unwrap(), b"reply");
                }
            })
        })
        .collect();
    let (mut received, mut drained) = (0, false);
    let look = Duration::from_micros(100);
    while received < CLIENTS * REQUESTS {
        let ready = router.wait(&wake, drained, look, Duration::from_mins(1)).unwrap();
        assert!(ready.socket || ready.woken, "slept through a request after {received}");
        if ready.woken {
            wake.clear();
        }
        while let Some(incoming) = router.receive().unwrap() {
            received += 1;
            routes.send(incoming.route).unwrap();
        }
        drained = true;
    }
    drop(routes);
    sender.join().unwrap();
    for client in clients {
        client.join().unwrap();
    }
    transport.connections().stop();
}
