//! Opening sockets, and one request on a REQ socket that survives a daemon that restarts.

use crate::{Config, Error};
use std::time::Duration;
use zeromq::{Context, Message, Socket, SocketType};

pub(crate) fn millis(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX).max(1)
}

pub(crate) fn failed(endpoint: &str, what: &'static str) -> impl FnOnce(zeromq::Error) -> Error {
    let endpoint = endpoint.to_owned();
    move |source| Error::Socket { endpoint, what, source }
}

/// A socket connected to `endpoint`, which drops what it has not sent when it is closed unless
/// `options` says otherwise. Options come before the connection: most have no effect after it.
pub(crate) fn open(
    context: &Context,
    kind: SocketType,
    endpoint: &str,
    options: impl FnOnce(&Socket) -> Result<(), zeromq::Error>,
) -> Result<Socket, Error> {
    let set_up = || {
        let socket = context.socket(kind)?;
        socket.set_linger(0)?;
        socket.set_ipv6(endpoint.contains('['))?;
        // A peer that vanished without a word (power cut, cable) is noticed; the daemon does the same.
        socket.set_heartbeat_ivl(10_000)?;
        socket.set_heartbeat_timeout(30_000)?;
        socket.set_reconnect_ivl(50)?;
        socket.set_reconnect_ivl_max(1_000)?;
        options(&socket)?;
        Ok(socket)
    };
    let socket = set_up().map_err(failed(endpoint, "cannot make a socket"))?;
    socket.connect(endpoint).map_err(failed(endpoint, "cannot connect"))?;
    Ok(socket)
}

/// A REQ socket by the lazy-pirate pattern of the `ZeroMQ` Guide: without a reply in time the socket,
/// which cannot send again, is closed, and the request is sent anew on a fresh one.
pub(crate) struct Requester {
    context: Context,
    endpoint: String,
    timeout: Duration,
    tries: u32,
    socket: Option<Socket>,
}

impl Requester {
    pub(crate) fn new(context: Context, config: &Config) -> Result<Self, Error> {
        let mut requester = Self {
            context,
            endpoint: config.request.clone(),
            timeout: config.timeout,
            tries: config.tries.max(1),
            socket: None,
        };
        requester.socket = Some(requester.fresh()?);
        Ok(requester)
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    fn fresh(&self) -> Result<Socket, Error> {
        let timeout = millis(self.timeout);
        open(&self.context, SocketType::REQ, &self.endpoint, |socket| {
            socket.set_rcvtimeo(timeout)?;
            socket.set_sndtimeo(timeout)
        })
    }

    /// Sends and waits for the reply's payload.
    pub(crate) fn round_trip(&mut self, request: &[u8]) -> Result<Message, Error> {
        for _ in 0..self.tries {
            let socket = match self.socket.take() {
                Some(socket) => socket,
                None => self.fresh()?,
            };
            match socket.send(request, 0).and_then(|()| socket.recv_msg(0)) {
                Ok(reply) => {
                    let more = socket.get_rcvmore().map_err(failed(&self.endpoint, "cannot receive"))?;
                    if more {
                        let what = "a reply of several frames".into();
                        return Err(Error::Protocol { endpoint: self.endpoint.clone(), what });
                    }
                    self.socket = Some(socket);
                    return Ok(reply);
                }
                Err(zeromq::Error::EAGAIN) => {}
                Err(source) => return Err(failed(&self.endpoint, "cannot send or receive")(source)),
            }
        }
        Err(Error::NoReply { endpoint: self.endpoint.clone(), timeout: self.timeout, tries: self.tries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn config(server: &Socket, timeout: Duration, tries: u32) -> Config {
        let request = server.get_last_endpoint().unwrap().unwrap();
        Config { request, timeout, tries, ..Config::default() }
    }

    fn router(context: &Context) -> Socket {
        let socket = context.socket(SocketType::ROUTER).unwrap();
        socket.set_linger(0).unwrap();
        socket.bind("tcp://127.0.0.1:*").unwrap();
        socket
    }

    #[test]
    fn a_lost_request_is_sent_again_and_late_replies_are_not_mistaken() {
        let context = Context::new();
        let server = router(&context);
        // Many tries: however slow the machine is, the server decides what happens, not the clock.
        let mut requester =
            Requester::new(context.clone(), &config(&server, Duration::from_millis(200), 1000)).unwrap();
        let peer = thread::spawn(move || {
            let first = server.recv_multipart(0).unwrap();
            let second = server.recv_multipart(0).unwrap();
            assert_eq!((&first[2][..], &second[2][..]), (&b"one"[..], &b"one"[..]), "the same again");
            assert_ne!(first[0], second[0], "on another connection");
            // A late reply to the socket that has gone; then one to whatever comes, until the end.
            server.send_multipart([&first[0][..], b"", b"late"], 0).unwrap();
            server.send_multipart([&second[0][..], b"", b"reply to one"], 0).unwrap();
            loop {
                let frames = server.recv_multipart(0).unwrap();
                let reply = [b"reply to ", &frames[2][..]].concat();
                server.send_multipart([&frames[0][..], b"", &reply], 0).unwrap();
                if frames[2] == b"end" {
                    return server;
                }
            }
        });
        for request in ["one", "two", "end"] {
            let reply = requester.round_trip(request.as_bytes()).unwrap();
            assert_eq!(reply.as_str(), Some(&*format!("reply to {request}")));
        }
        peer.join().unwrap();
    }

    #[test]
    fn silence_ends_with_who_was_asked_and_how_often() {
        let context = Context::new();
        let server = router(&context);
        let mut requester =
            Requester::new(context.clone(), &config(&server, Duration::from_millis(20), 2)).unwrap();
        match requester.round_trip(b"x").unwrap_err() {
            Error::NoReply { endpoint, tries: 2, .. } => assert_eq!(endpoint, requester.endpoint()),
            other => panic!("{other}"),
        }
        assert!(matches!(
            Requester::new(context, &Config { request: "nonsense".into(), ..Config::default() }),
            Err(Error::Socket { .. })
        ));
    }
}
