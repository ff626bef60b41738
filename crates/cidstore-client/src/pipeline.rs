//! Batches one after the other without waiting for each reply: what an import needs.

use crate::client::Stored;
use crate::socket::{failed, millis, open};
use crate::wire::{Answer, Ask, decode, encode};
use crate::{Config, Error, Refusal};
use cidstore_types::{Metadata, Op, Triple};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use zeromq::{Context, Message, Socket, SocketType};

/// Patience and bounds of a pipeline.
#[derive(Debug, Clone, Copy)]
pub struct PipelineOptions {
    /// Batches on their way at a time.
    pub in_flight_max: usize,
    /// How long a batch is offered again to a daemon that is overloaded or not ready, before its
    /// refusal is handed out.
    pub overload_patience: Duration,
}

impl Default for PipelineOptions {
    fn default() -> Self {
        Self { in_flight_max: 16, overload_patience: Duration::from_mins(1) }
    }
}

/// The outcome of one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// What [`Pipeline::submit`] answered for it.
    pub tag: u64,
    /// Durable, or refused.
    pub outcome: Result<Stored, Refusal>,
}

/// A triple with all that is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The triple.
    pub triple: Triple,
    /// Seconds since the epoch.
    pub created_at: f64,
    /// The rest.
    pub metadata: Metadata,
}

/// A batch on its way, with its bytes, so that it can be sent again.
struct InFlight {
    message: Vec<u8>,
    first_sent: Instant,
    state: State,
    /// How long to wait after the next refusal that asks for patience.
    pause: Duration,
}

#[derive(Clone, Copy)]
enum State {
    /// Sent at this moment; a reply is due.
    Sent(Instant),
    /// The daemon asked for patience: to be sent again at this moment.
    Paused(Instant),
}

/// A DEALER socket with a window of batches. Batches may take effect in another order than they were
/// submitted in when one is sent again: submit only what commutes (inserts alone, or deletes alone).
pub struct Pipeline {
    context: Context,
    config: Config,
    options: PipelineOptions,
    socket: Socket,
    in_flight: BTreeMap<u64, InFlight>,
    next_tag: u64,
    /// Connections tried since the daemon was last heard.
    tries: u32,
}

/// The first pause after a 429; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

impl Pipeline {
    /// Connects.
    ///
    /// # Errors
    /// [`Error::Socket`] when the endpoint is not one.
    pub fn connect(config: &Config, options: PipelineOptions) -> Result<Self, Error> {
        let context = Context::new();
        let socket = fresh(&context, config, options)?;
        Ok(Self {
            context,
            config: config.clone(),
            options,
            socket,
            in_flight: BTreeMap::new(),
            next_tag: 1,
            tries: 1,
        })
    }

    /// Whether another batch may be submitted.
    pub fn has_room(&self) -> bool {
        self.in_flight.len() < self.options.in_flight_max.max(1)
    }

    /// Batches on their way.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Sends a batch and answers its tag: 1, 2, 3, …
    ///
    /// # Errors
    /// [`Error::Socket`] when libzmq fails.
    ///
    /// # Panics
    /// Without room: see [`Pipeline::has_room`].
    pub fn submit(&mut self, op: Op, triples: &[Triple]) -> Result<u64, Error> {
        self.submit_ask(&Ask::Batch { op, triples })
    }

    /// As [`Pipeline::submit`], of inserts with times and metadata.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// As there.
    pub fn submit_records(&mut self, records: &[Record]) -> Result<u64, Error> {
        self.submit_ask(&Ask::Records(records))
    }

    fn submit_ask(&mut self, ask: &Ask<'_>) -> Result<u64, Error> {
        assert!(self.has_room(), "a batch was submitted to a full pipeline");
        let tag = self.next_tag;
        self.next_tag += 1;
        let mut message = Vec::new();
        encode(ask, Some(tag), &mut message);
        self.send(&message)?;
        let now = Instant::now();
        let batch = InFlight { message, first_sent: now, state: State::Sent(now), pause: PAUSE_MIN };
        self.in_flight.insert(tag, batch);
        Ok(tag)
    }

    fn send(&self, message: &[u8]) -> Result<(), Error> {
        // An empty delimiter first, as a REQ socket would. The high-water mark is above the window,
        // so this never waits.
        self.socket
            .send(&b""[..], zeromq::SNDMORE)
            .and_then(|()| self.socket.send(message, zeromq::DONTWAIT))
            .map_err(failed(&self.config.request, "cannot send"))
    }

    /// The next outcome that is there already.
    ///
    /// # Errors
    /// As [`Pipeline::wait`].
    pub fn poll(&mut self) -> Result<Option<Ack>, Error> {
        self.receive(Duration::ZERO)
    }

    /// The next outcome; `None` if nothing is on its way.
    ///
    /// # Errors
    /// [`Error::NoReply`] when the daemon stays silent for all tries; what is on its way may or may
    /// not have taken effect.
    pub fn wait(&mut self) -> Result<Option<Ack>, Error> {
        while !self.in_flight.is_empty() {
            let now = Instant::now();
            // The next moment at which something must be done though nothing arrives.
            let due = |batch: &InFlight| match batch.state {
                State::Sent(at) => at + self.config.timeout,
                State::Paused(until) => until,
            };
            let next = self.in_flight.values().map(due).min().unwrap_or(now);
            let wait = next.saturating_duration_since(now).max(Duration::from_millis(1));
            if let Some(ack) = self.receive(wait)? {
                return Ok(Some(ack));
            }
            self.send_paused()?;
            let timeout = self.config.timeout;
            let overdue =
                |batch: &InFlight| matches!(batch.state, State::Sent(at) if at.elapsed() >= timeout);
            if self.in_flight.values().any(overdue) {
                self.reconnect()?;
            }
        }
        Ok(None)
    }

    fn receive(&mut self, wait: Duration) -> Result<Option<Ack>, Error> {
        loop {
            let millis = if wait.is_zero() { 0 } else { i64::from(millis(wait)) };
            let ready = self.socket.poll(zeromq::POLLIN, millis);
            if ready.map_err(failed(&self.config.request, "cannot wait"))? == 0 {
                return Ok(None);
            }
            let frames = self.frames()?;
            self.tries = 1;
            if let Some(ack) = self.settle(frames.last().map_or(&[], |frame| &**frame))? {
                return Ok(Some(ack));
            }
        }
    }

    fn frames(&self) -> Result<Vec<Message>, Error> {
        let mut frames = Vec::new();
        loop {
            let frame = self.socket.recv_msg(0).map_err(failed(&self.config.request, "cannot receive"))?;
            let more = frame.get_more();
            frames.push(frame);
            if !more {
                return Ok(frames);
            }
        }
    }

    /// Matches a reply to its batch. One for a batch that is settled (it was sent twice) is passed
    /// over; one that asks for patience leaves the batch on its way.
    fn settle(&mut self, reply: &[u8]) -> Result<Option<Ack>, Error> {
        let protocol = |what| Error::Protocol { endpoint: self.config.request.clone(), what };
        let ask = Ask::Batch { op: Op::Insert, triples: &[] };
        let (tag, answer) = decode(reply, &ask).map_err(protocol)?;
        let Some(tag) = tag else {
            return Err(protocol(format!("a reply without request_id: {answer:?}")));
        };
        let Some(batch) = self.in_flight.get_mut(&tag) else { return Ok(None) };
        let outcome = match answer {
            Ok(Answer::Stored(stored)) => Ok(stored),
            Ok(other) => return Err(protocol(format!("{other:?} in reply to a batch"))),
            Err(refusal)
                if refusal.is_transient() && batch.first_sent.elapsed() < self.options.overload_patience =>
            {
                batch.state = State::Paused(Instant::now() + batch.pause);
                batch.pause = (batch.pause * 2).min(PAUSE_MAX);
                return Ok(None);
            }
            Err(refusal) => Err(refusal),
        };
        self.in_flight.remove(&tag);
        Ok(Some(Ack { tag, outcome }))
    }

    fn send_paused(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        let due = |batch: &InFlight| matches!(batch.state, State::Paused(until) if until <= now);
        let tags: Vec<u64> =
            self.in_flight.iter().filter(|(_, batch)| due(batch)).map(|(tag, _)| *tag).collect();
        for tag in tags {
            self.send(&self.in_flight[&tag].message)?;
            if let Some(batch) = self.in_flight.get_mut(&tag) {
                batch.state = State::Sent(now);
            }
        }
        Ok(())
    }

    /// A fresh socket, and everything that is on its way once more.
    fn reconnect(&mut self) -> Result<(), Error> {
        if self.tries >= self.config.tries.max(1) {
            return Err(Error::NoReply {
                endpoint: self.config.request.clone(),
                timeout: self.config.timeout,
                tries: self.tries,
            });
        }
        self.tries += 1;
        self.socket = fresh(&self.context, &self.config, self.options)?;
        for batch in self.in_flight.values() {
            self.send(&batch.message)?;
        }
        let now = Instant::now();
        for batch in self.in_flight.values_mut() {
            batch.state = State::Sent(now);
        }
        Ok(())
    }
}

fn fresh(context: &Context, config: &Config, options: PipelineOptions) -> Result<Socket, Error> {
    let frames = i32::try_from(options.in_flight_max).unwrap_or(i32::MAX / 4).saturating_mul(4);
    open(context, SocketType::DEALER, &config.request, |socket| socket.set_sndhwm(frames.max(16)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cidstore_types::Cid;
    use serde_json::{Value, json};
    use std::thread;

    fn router() -> (Context, Socket, Config) {
        let context = Context::new();
        let socket = context.socket(SocketType::ROUTER).unwrap();
        socket.set_linger(0).unwrap();
        socket.bind("tcp://127.0.0.1:*").unwrap();
        let request = socket.get_last_endpoint().unwrap().unwrap();
        let timeout = Duration::from_millis(200);
        // Many tries: the server of the test decides what happens, however slow the machine is.
        (context, socket, Config { request, timeout, tries: 1000, ..Config::default() })
    }

    #[derive(serde::Deserialize)]
    struct Tagged {
        request_id: u64,
    }

    fn tag_of(frames: &[Vec<u8>]) -> u64 {
        let [_, delimiter, payload] = frames else { panic!("{} frames", frames.len()) };
        assert!(delimiter.is_empty());
        let request: Tagged = rmp_serde::from_slice(payload).unwrap();
        request.request_id
    }

    fn reply(socket: &Socket, to: &[u8], map: &Value) {
        let payload = rmp_serde::to_vec_named(map).unwrap();
        socket.send_multipart([to, b"", &payload], 0).unwrap();
    }

    fn stored(tag: u64) -> Value {
        json!({"status": "ok", "request_id": tag, "inserted": 1, "seq": tag, "version": "1.0"})
    }

    fn triple() -> Triple {
        Triple::new(Cid::ZERO, Cid::ZERO, Cid::ZERO)
    }

    fn drain(pipeline: &mut Pipeline) -> Vec<(u64, Result<u64, u16>)> {
        let mut acks = Vec::new();
        while let Some(ack) = pipeline.wait().unwrap() {
            acks.push((ack.tag, ack.outcome.map(|stored| stored.seq).map_err(|refusal| refusal.code)));
        }
        acks
    }

    #[test]
    fn lost_replies_bring_the_batches_again_and_double_replies_count_once() {
        let (_context, server, config) = router();
        let mut pipeline = Pipeline::connect(&config, PipelineOptions::default()).unwrap();
        for tag in 1..=3 {
            assert_eq!(pipeline.submit(Op::Insert, &[triple()]).unwrap(), tag);
        }
        let peer = thread::spawn(move || {
            let first: Vec<_> = (0..3).map(|_| server.recv_multipart(0).unwrap()).collect();
            assert_eq!(first.iter().map(|frames| tag_of(frames)).collect::<Vec<_>>(), [1, 2, 3]);
            // One reply is sent, twice; the others are lost.
            reply(&server, &first[0][0], &stored(2));
            reply(&server, &first[0][0], &stored(2));
            let mut left = vec![1, 3];
            while !left.is_empty() {
                let again = server.recv_multipart(0).unwrap();
                if again[0] != first[0][0] {
                    let tag = tag_of(&again);
                    left.retain(|waiting| *waiting != tag);
                    reply(&server, &again[0], &stored(tag));
                }
            }
            server
        });
        let mut acks = drain(&mut pipeline);
        assert_eq!(acks[0], (2, Ok(2)));
        acks.sort_unstable();
        assert_eq!(acks, [(1, Ok(1)), (2, Ok(2)), (3, Ok(3))]);
        peer.join().unwrap();
    }

    #[test]
    fn an_overloaded_daemon_is_asked_again_and_a_refusal_is_handed_out() {
        let (_context, server, config) = router();
        let mut pipeline = Pipeline::connect(&config, PipelineOptions::default()).unwrap();
        pipeline.submit(Op::Insert, &[triple()]).unwrap();
        pipeline.submit(Op::Insert, &[triple()]).unwrap();
        let peer = thread::spawn(move || {
            let mut busy = 3;
            loop {
                let frames = server.recv_multipart(0).unwrap();
                let tag = tag_of(&frames);
                let refuse = |code: u16| json!({"request_id": tag, "error_code": code, "error_msg": "x", "version": "1.0"});
                if tag == 2 {
                    reply(&server, &frames[0], &refuse(413));
                } else if busy > 0 {
                    busy -= 1;
                    reply(&server, &frames[0], &refuse(429));
                } else {
                    reply(&server, &frames[0], &stored(tag));
                    return server;
                }
            }
        });
        assert_eq!(drain(&mut pipeline), [(2, Err(413)), (1, Ok(1))]);
        peer.join().unwrap();
    }

    #[test]
    fn without_patience_overload_is_a_refusal_and_silence_ends() {
        let (_context, server, config) = router();
        let config = Config { timeout: Duration::from_millis(20), tries: 2, ..config };
        let options = PipelineOptions { in_flight_max: 1, overload_patience: Duration::ZERO };
        let mut pipeline = Pipeline::connect(&config, options).unwrap();
        pipeline.submit(Op::Insert, &[triple()]).unwrap();
        assert!(!pipeline.has_room());
        let frames = server.recv_multipart(0).unwrap();
        reply(&server, &frames[0], &json!({"request_id": 1, "error_code": 503, "error_msg": "x"}));
        // It may have been sent again before; the reply to the first sending is then lost with its
        // connection, and only silence is left.
        match pipeline.wait() {
            Ok(Some(ack)) => assert_eq!(ack.outcome.unwrap_err().code, 503),
            other => assert!(matches!(other, Err(Error::NoReply { .. })), "{other:?}"),
        }
        if pipeline.in_flight() == 0 {
            pipeline.submit(Op::Insert, &[triple()]).unwrap();
        }
        assert!(matches!(pipeline.wait(), Err(Error::NoReply { tries: 2, .. })));
    }
}
