//! The thread that every request and every reply goes through.
//!
//! Small reads are answered right here, since an index lookup costs microseconds and a change of
//! threads costs tens. Mutations go to the writer, large reads and large messages to the pool; what
//! they make of them comes back through the mailbox, many at each wake-up. The writer sends a few
//! replies itself, which spares them that way ([`Replies`]).
//!
//! **Invariants**
//! - Every request that is received gets exactly one reply, unless its client has left or does not
//!   read: then the reply is dropped and counted.
//! - What one client may have under way is bounded: requests, bytes of requests that wait, bytes of
//!   replies that it has not taken.
//! - Mutations of one client reach the writer in the order in which they came.

mod clients;
mod held;
mod replies;

use crate::pool::Pool;
use crate::pulse::Organ;
use crate::queue::{Refused, Side};
use crate::sealing::Requests;
use crate::service::{self, Service};
use crate::shared::{Shared, now};
use crate::transport::{Incoming, Mailbox, Result, Route, Router};
use crate::writer::{Failure, Job, Recipient};
use cidstore_engine::Outcome;
use cidstore_proto::{Command, Encoding, ErrorCode, MutateKind, Rejection, Request, RequestId};
use cidstore_types::TripleHash;
use clients::{Clients, Place};
use held::Bounds;
pub use replies::Replies;
use replies::SMALL_REPLY_BYTES;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A message larger than this is decoded in the pool.
const INLINE_BYTES_MAX: usize = 256 << 10;
/// Requests taken from the socket before the mailbox is looked at again.
const BURST: usize = 128;
/// Longest wait without anything.
const TICK: Duration = Duration::from_millis(500);
/// At the end: how long requests that had arrived may take. What then still waits is answered that it
/// is over, which may take as long again.
const DRAIN: Duration = Duration::from_secs(1);
/// How often it is looked at who takes the replies that it holds.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where a reply goes and what it must carry.
#[derive(Debug)]
pub struct Addressee {
    /// The client.
    pub route: Route,
    /// As the request.
    pub encoding: Encoding,
    /// As the request.
    pub request_id: Option<RequestId>,
    /// When the request was taken from the socket.
    pub received: Instant,
    /// Its place among the client's requests under way, while it is with another thread.
    pub place: Option<Place>,
    /// The connection, where a large reply may come.
    pub connection: Option<RawFd>,
}

/// A mutation's reply to be.
#[derive(Debug)]
pub struct Ticket {
    /// Where it goes.
    pub to: Addressee,
    /// Its shape.
    pub kind: MutateKind,
    /// For the reply to an insert of one triple.
    pub hash: Option<TripleHash>,
}

/// A request as it came, with the time.
pub struct Raw {
    /// The message.
    pub incoming: Incoming,
    /// For latency.
    pub received: Instant,
    /// Seconds since the epoch, for `created_at`.
    pub received_at: f64,
}

/// What other threads have for this one.
pub enum Event {
    /// The writer: a mutation was committed or not.
    Written(Box<Ticket>, std::result::Result<Outcome, Failure>),
    /// The pool: a large message was decoded.
    Decoded(Box<Raw>, std::result::Result<Request, Rejection>),
    /// The pool or the thread that seals: an encoded reply.
    Answered {
        /// Where it goes.
        to: Addressee,
        /// The reply.
        bytes: Vec<u8>,
        /// Whether it is an error.
        refused: bool,
    },
    /// Writer and sealing have ended: refuse what needs them, end when all replies are out.
    Finish,
}

/// The thread's own state.
pub struct Req {
    shared: Arc<Shared>,
    service: Arc<Service>,
    router: Router,
    mailbox: Arc<Mailbox<Event>>,
    replies: Arc<Replies>,
    pool: Pool,
    sealing: Arc<Requests>,
    clients: Clients,
    bounds: Bounds,
    looked: Instant,
    /// Reused for each reply.
    buffer: Vec<u8>,
    /// Set when nobody takes work any more: until when what is under way is waited for.
    finish_until: Option<Instant>,
    /// The pool answers without working.
    given_up: bool,
}

impl Req {
    /// The loop of a socket.
    pub fn new(
        shared: Arc<Shared>,
        service: Arc<Service>,
        router: Router,
        mailbox: Arc<Mailbox<Event>>,
        replies: Arc<Replies>,
        pool: Pool,
        sealing: Arc<Requests>,
    ) -> Self {
        let clients = Clients::default();
        Self {
            bounds: Bounds::new(&shared.config),
            shared,
            service,
            router,
            mailbox,
            replies,
            pool,
            sealing,
            clients,
            looked: Instant::now(),
            buffer: Vec::new(),
            finish_until: None,
            given_up: false,
        }
    }

    /// Works until [`Event::Finish`], and what was under way then is answered.
    ///
    /// # Errors
    /// When the socket is no more.
    pub fn run(mut self) -> Result<()> {
        let mut events = Vec::new();
        // The socket had nothing more when it was last asked, and this thread has not used it since.
        let mut drained = false;
        let spin = Duration::from_micros(self.shared.config.spin_us.into());
        let mut single = false;
        loop {
            let idle_since = Instant::now();
            let look = if single { spin } else { Duration::ZERO };
            let ready = self.router.wait(self.mailbox.wake(), drained, look, TICK)?;
            let soon = idle_since.elapsed() < spin;
            self.shared.pulses.beat(Organ::Req);
            if ready.woken {
                self.mailbox.take(&mut events);
                for event in events.drain(..) {
                    self.event(event)?;
                }
            }
            let mut received = 0;
            drained = false;
            for _ in 0..BURST {
                let Some(incoming) = self.router.receive()? else {
                    drained = true;
                    break;
                };
                received += 1;
                self.incoming(incoming)?;
                if self.mailbox.wake().is_pending() {
                    break;
                }
            }
            // One request soon after the other: most likely the next one is on its way.
            single = received == 1 && soon;
            if let Some(until) = self.finish_until
                && (Instant::now() >= until || (received == 0 && self.clients.nothing_under_way()))
            {
                if self.given_up || self.clients.nothing_under_way() {
                    return Ok(());
                }
                self.pool.give_up();
                self.given_up = true;
                self.finish_until = Some(Instant::now() + DRAIN);
            }
            if !ready.socket && !ready.woken {
                self.clients.sweep();
            }
            self.end_stalled();
        }
    }

    /// Ends the connections of clients that hold replies and take nothing, where others are refused
    /// theirs for it. A peer that does not read answers heartbeats all the same.
    fn end_stalled(&mut self) {
        let now = Instant::now();
        let after = Duration::from_secs(self.shared.config.reply_stall_s.into());
        if after.is_zero() || now - self.looked < LOOK_EVERY {
            return;
        }
        self.looked = now;
        let Some(connections) = self.shared.connections.get() else { return };
        let strained = self.bounds.are_strained(self.shared.outstanding.bytes());
        let stalled = self.clients.stalled(now, if strained { after } else { Duration::MAX / 2 });
        if strained {
            for fd in stalled.into_iter().filter(|fd| connections.end(*fd)) {
                self.shared.metrics.stalled_clients_ended_total.one();
                tracing::warn!(fd, ?after, "a client has not read any of its replies: disconnected");
            }
        }
    }

    fn incoming(&mut self, incoming: Incoming) -> Result<()> {
        let metrics = &self.shared.metrics;
        metrics.requests_total.one();
        metrics.request_bytes_total.add(incoming.payload.len() as u64);
        let raw = Raw { incoming, received: Instant::now(), received_at: now() };
        if raw.incoming.frames != 1 {
            let message = format!("a message of {} payload frames: expected one", raw.incoming.frames);
            return self.refuse_raw(raw, ErrorCode::Malformed, &message);
        }
        let client = &raw.incoming.route.client;
        let bytes = raw.incoming.payload.len();
        let large = bytes > INLINE_BYTES_MAX;
        if large || self.clients.is_decoding(client) {
            if self.clients.in_flight(client) >= self.shared.config.requests_per_client_max {
                return self.refuse_raw(
                    raw,
                    ErrorCode::Overloaded,
                    "too many requests of this client under way",
                );
            }
            if self.clients.waiting_bytes() + bytes > self.shared.config.writer_queue_bytes_max.len() {
                return self.refuse_raw(raw, ErrorCode::Overloaded, "too many large requests under way");
            }
            let Some(raw) = self.clients.wait_in_line(raw) else { return Ok(()) };
            return self.decode_in_pool(raw);
        }
        let decoded = self.service.decode(&raw.incoming.payload, raw.received_at);
        self.decoded(raw, decoded)
    }

    fn decode_in_pool(&mut self, raw: Raw) -> Result<()> {
        match self.pool.decode(Box::new(raw)) {
            Ok(()) => Ok(()),
            Err(raw) => {
                let client = raw.incoming.route.client.clone();
                let bytes = raw.incoming.payload.len();
                self.refuse_raw(*raw, ErrorCode::Overloaded, "too many large requests under way")?;
                self.next_in_line(&client, bytes)
            }
        }
    }

    /// After a message was decoded in the pool, or not: the client's later ones, up to the next
    /// large one.
    fn next_in_line(&mut self, client: &[u8], bytes: usize) -> Result<()> {
        let mut done = bytes;
        while let Some(raw) = self.clients.next_in_line(client, done) {
            if raw.incoming.payload.len() > INLINE_BYTES_MAX {
                return self.decode_in_pool(raw);
            }
            done = raw.incoming.payload.len();
            let decoded = self.service.decode(&raw.incoming.payload, raw.received_at);
            self.decoded(raw, decoded)?;
        }
        Ok(())
    }

    fn decoded(&mut self, raw: Raw, decoded: std::result::Result<Request, Rejection>) -> Result<()> {
        let bytes = raw.incoming.payload.len();
        let Raw { incoming: Incoming { route, mut payload, .. }, received, .. } = raw;
        match decoded {
            Ok(Request { encoding, request_id, command }) => {
                // Replies to mutations are small.
                let is_read = !matches!(command, Command::Mutate { .. });
                let connection = is_read.then(|| payload.connection()).flatten();
                drop(payload);
                let to = Addressee { route, encoding, request_id, received, place: None, connection };
                self.dispatch(to, command, bytes)
            }
            Err(Rejection { encoding, request_id, code, message }) => {
                let to = Addressee { route, encoding, request_id, received, place: None, connection: None };
                self.refuse(&to, code, &message)
            }
        }
    }

    fn dispatch(&mut self, mut to: Addressee, command: Command, bytes: usize) -> Result<()> {
        match command {
            Command::Mutate { mutation, kind } => self.mutate(to, mutation, kind, bytes),
            Command::Checkpoint => {
                if !self.enter(&mut to)? {
                    return Ok(());
                }
                if let Err(mut to) = self.sealing.checkpoint(to) {
                    to.place = None;
                    return self.refuse(&to, ErrorCode::Unavailable, service::OVER);
                }
                self.shared.sealing.ring();
                Ok(())
            }
            Command::Compact { .. } | Command::Mirror { .. } if self.shared.stop.is_wanted() => {
                self.refuse(&to, ErrorCode::Unavailable, service::OVER)
            }
            Command::Compact { action } => {
                let mut buffer = std::mem::take(&mut self.buffer);
                buffer.clear();
                self.service.compact(&to, action, &mut buffer);
                self.reply(&to, buffer, false)
            }
            Command::Mirror { action } => {
                let mut buffer = std::mem::take(&mut self.buffer);
                buffer.clear();
                let refused = self.service.mirror(&to, action, &mut buffer);
                self.reply(&to, buffer, refused)
            }
            command => {
                let snapshot = self.shared.engine().reader.snapshot();
                let mut buffer = std::mem::take(&mut self.buffer);
                buffer.clear();
                let small = self.service.read_small(&to, &command, &snapshot, &mut buffer);
                if let Some(refused) = small {
                    return self.reply(&to, buffer, refused);
                }
                self.buffer = buffer;
                if let Err(why) = self.clients.enter_read(&to.route.client, self.shared.config.read_queue_max)
                {
                    return self.refuse(&to, ErrorCode::Overloaded, why);
                }
                if !self.enter(&mut to)? {
                    self.clients.leave_read(&to.route.client);
                    return Ok(());
                }
                self.shared.metrics.reads_pooled_total.one();
                match self.pool.read(to, command, snapshot) {
                    Ok(()) => Ok(()),
                    Err(mut to) => {
                        self.clients.leave_read(&to.route.client);
                        to.place = None;
                        self.refuse(&to, ErrorCode::Overloaded, "too many large reads under way")
                    }
                }
            }
        }
    }

    fn mutate(
        &mut self,
        mut to: Addressee,
        mutation: cidstore_types::Mutation,
        kind: MutateKind,
        bytes: usize,
    ) -> Result<()> {
        if let Some(why) = self.shared.health.latched() {
            return self.refuse(&to, ErrorCode::Unavailable, &format!("read-only: {why}"));
        }
        if !self.enter(&mut to)? {
            return Ok(());
        }
        let hash = service::hash_of(&mutation, kind);
        let ticket = Box::new(Ticket { to, kind, hash });
        let job = Job { mutation, to: Recipient::Client(ticket) };
        let cost = job.cost(bytes);
        match self.shared.queue.try_push(job, cost, Side::Request) {
            Ok(()) => Ok(()),
            Err((refused, job)) => {
                let Recipient::Client(mut ticket) = job.to else { return Ok(()) };
                ticket.to.place = None;
                match refused {
                    Refused::Full => {
                        self.refuse(&ticket.to, ErrorCode::Overloaded, "the writer's queue is full")
                    }
                    Refused::Closed => self.refuse(&ticket.to, ErrorCode::Unavailable, "shutting down"),
                }
            }
        }
    }

    /// Counts a request as under way, or refuses it.
    fn enter(&mut self, to: &mut Addressee) -> Result<bool> {
        to.place = self.clients.enter(&to.route.client, self.shared.config.requests_per_client_max);
        if to.place.is_some() {
            return Ok(true);
        }
        self.refuse(to, ErrorCode::Overloaded, "too many requests of this client under way")?;
        Ok(false)
    }

    fn event(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Written(mut ticket, result) => {
                ticket.to.place = None;
                let mut buffer = std::mem::take(&mut self.buffer);
                buffer.clear();
                service::mutation_reply(&ticket, result.as_ref(), &mut buffer);
                let replied = self.reply(&ticket.to, buffer, result.is_err());
                self.replies.dequeued();
                replied
            }
            Event::Decoded(raw, decoded) => {
                let (client, bytes) = (raw.incoming.route.client.clone(), raw.incoming.payload.len());
                self.decoded(*raw, decoded)?;
                self.next_in_line(&client, bytes)
            }
            Event::Answered { mut to, bytes, refused } => {
                to.place = None;
                self.clients.leave_read(&to.route.client);
                self.reply(&to, bytes, refused)
            }
            Event::Finish => {
                self.finish_until = Some(Instant::now() + DRAIN);
                // The loop must come by again although nothing else may happen.
                self.mailbox.wake().notify();
                Ok(())
            }
        }
    }

    fn refuse_raw(&mut self, raw: Raw, code: ErrorCode, message: &str) -> Result<()> {
        let to = Addressee {
            encoding: Encoding::of(&raw.incoming.payload),
            request_id: self.service.name_of(&raw.incoming.payload),
            route: raw.incoming.route,
            received: raw.received,
            place: None,
            connection: None,
        };
        self.refuse(&to, code, message)
    }

    fn refuse(&mut self, to: &Addressee, code: ErrorCode, message: &str) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        service::error(to, code, message, &mut buffer);
        if code == ErrorCode::Overloaded {
            self.shared.metrics.requests_overload_total.one();
        }
        self.reply(to, buffer, true)
    }

    /// Sends an encoded reply, unless the client has too many bytes not taken.
    fn reply(&mut self, to: &Addressee, mut bytes: Vec<u8>, refused: bool) -> Result<()> {
        if bytes.len() <= SMALL_REPLY_BYTES {
            let replied = self.replies.small(to, &bytes, refused);
            self.buffer = bytes;
            return replied;
        }
        let held = self.clients.held(&to.route.client, to.connection, to.received);
        let (mine, all) = (Arc::clone(&held.outstanding), &self.shared.outstanding);
        if !self.bounds.admit(bytes.len(), mine.bytes(), all.bytes()) {
            self.shared.metrics.requests_overload_total.one();
            return self.replies.small(to, &service::overloaded_reply(to).bytes, true);
        }
        // A buffer keeps what it grew to; the reply must not keep more than it counts.
        bytes.shrink_to_fit();
        let sent = self.router.send_tracked(&to.route, bytes, [mine, Arc::clone(all)])?;
        self.replies.count(to, sent, refused);
        Ok(())
    }
}
