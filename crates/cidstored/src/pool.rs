//! Threads for what is too large for the thread that everybody's requests go through: reading many
//! rows, decoding large messages. Each kind has threads and a queue of its own, so that no number of
//! scans keeps a batch from being decoded.

use crate::fair::Fair;
use crate::req::{Addressee, Event, Raw};
use crate::service::{self, Service};
use crate::transport::Mailbox;
use cidstore_engine::Snapshot;
use cidstore_proto::{Command, Encoding, ErrorCode, Rejection};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// A read, as of the snapshot.
struct Read {
    to: Addressee,
    command: Command,
    snapshot: Arc<Snapshot>,
}

/// What the pool's threads have in common.
struct Work {
    reads: Fair<Read>,
    decodes: Fair<Box<Raw>>,
    service: Arc<Service>,
    replies: Arc<Mailbox<Event>>,
    given_up: AtomicBool,
}

/// The pool; its threads end when it is dropped, soon, and whatever is in the queues.
pub struct Pool(Arc<Work>);

impl Pool {
    /// Starts `threads` threads for either kind of work, behind a queue of `queue_max` for either.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        threads: usize,
        queue_max: usize,
        service: &Arc<Service>,
        replies: &Arc<Mailbox<Event>>,
    ) -> std::io::Result<(Self, Vec<JoinHandle<()>>)> {
        let work = Arc::new(Work {
            reads: Fair::new(queue_max),
            decodes: Fair::new(queue_max),
            service: Arc::clone(service),
            replies: Arc::clone(replies),
            given_up: AtomicBool::new(false),
        });
        let start = |name: String, run: fn(&Work)| {
            let work = Arc::clone(&work);
            std::thread::Builder::new().name(name).spawn(move || run(&work))
        };
        let mut handles = Vec::new();
        for i in 0..threads {
            handles.push(start(format!("read-{i}"), Work::read)?);
            handles.push(start(format!("decode-{i}"), Work::decode)?);
        }
        Ok((Self(work), handles))
    }

    /// Has a large read answered, as of the snapshot.
    ///
    /// # Errors
    /// Who asked, when the queue is full.
    pub fn read(&self, to: Addressee, command: Command, snapshot: Arc<Snapshot>) -> Result<(), Addressee> {
        let client = to.route.client.clone();
        self.0.reads.push(&client, Read { to, command, snapshot }).map_err(|read| read.to)
    }

    /// Has a large request decoded.
    ///
    /// # Errors
    /// The request, when the queue is full.
    pub fn decode(&self, raw: Box<Raw>) -> Result<(), Box<Raw>> {
        let client = raw.incoming.route.client.clone();
        self.0.decodes.push(&client, raw)
    }

    /// From now on everything is answered with the news that it is over, also what is being read.
    pub fn give_up(&self) {
        self.0.given_up.store(true, Ordering::Release);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.give_up();
        self.0.reads.close();
        self.0.decodes.close();
    }
}

impl Work {
    fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }

    fn read(&self) {
        while let Some(Read { to, command, snapshot }) = self.reads.take() {
            let go_on = || !self.is_given_up();
            let service::Answer { bytes, refused } = if go_on() {
                self.service.read_all(&to, &command, &snapshot, &go_on)
            } else {
                service::over_reply(&to)
            };
            self.replies.push(Event::Answered { to, bytes, refused });
        }
    }

    fn decode(&self) {
        while let Some(raw) = self.decodes.take() {
            let payload = &raw.incoming.payload;
            let decoded = if self.is_given_up() {
                Err(Rejection {
                    encoding: Encoding::of(payload),
                    request_id: self.service.name_of(payload),
                    code: ErrorCode::Unavailable,
                    message: service::OVER.into(),
                })
            } else {
                self.service.decode(payload, raw.received_at)
            };
            self.replies.push(Event::Decoded(raw, decoded));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::shared::Shared;
    use crate::transport::{Envelope, Incoming, Payload, Route};
    use cidstore_proto::RequestId;
    use std::time::Instant;

    fn raw(text: &str) -> Box<Raw> {
        let route = Route { client: b"a"[..].into(), envelope: Envelope::Bare };
        let incoming = Incoming { route, payload: Payload::from(text.as_bytes()), frames: 1 };
        Box::new(Raw { incoming, received: Instant::now(), received_at: 0.0 })
    }

    #[test]
    fn what_is_given_up_undecoded_is_answered_under_its_name() {
        let service = Arc::new(Service::new(Arc::new(Shared::new(Config::default()))));
        let replies = Arc::new(Mailbox::new().unwrap());
        let (pool, threads) = Pool::start(1, 4, &service, &replies).unwrap();
        pool.give_up();
        assert!(pool.decode(raw(r#"{"command": "ping", "request_id": "mine"}"#)).is_ok());
        let mut events = Vec::new();
        while events.is_empty() {
            std::thread::yield_now();
            replies.take(&mut events);
        }
        let Some(Event::Decoded(_, Err(rejection))) = events.pop() else { panic!("it was decoded") };
        assert_eq!(rejection.code, ErrorCode::Unavailable);
        assert_eq!(rejection.request_id, Some(RequestId::Str("mine".into())));
        drop(pool);
        for thread in threads {
            thread.join().unwrap();
        }
    }
}
