//! The thread of notifications: a follower of the log that tells what it reads.
//!
//! With no subscriber it reads nothing and encodes nothing. A subscriber that does not keep up is
//! given a moment; then the others go on without it, and it loses what is beyond its high-water mark.

use crate::config::PubFormat;
use crate::pulse::Organ;
use crate::push::Rejected;
use crate::shared::{Shared, now};
use crate::transport::{Publisher as Socket, Result, Sent, Subscription, Wake};
use cidstore_mirror::State;
use cidstore_proto::{Encoding, NOTIFICATION_TRIPLES_MAX, Notification, encode_notification};
use cidstore_types::{BatchRef, Seq, Triple};
use cidstore_wal::{Tail, WalError};
use std::collections::HashMap;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Time between heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Most bytes of one triple's text in a notification: three CIDs of four lanes of 20 digits each.
const TRIPLE_TEXT_BYTES: usize = 3 * (2 + 4 * 20 + 3 + 1 + 3);
/// Records told before subscriptions and the clock are looked at again.
const RECORDS_AT_ONCE: usize = 256;
/// How long a subscriber at its high-water mark is waited for, and in which steps.
const PATIENCE: Duration = Duration::from_millis(50);
const PATIENCE_STEP: Duration = Duration::from_micros(200);
/// How long it is not waited for again.
const IMPATIENCE: Duration = Duration::from_secs(2);
/// Pause after a share of the high-water mark while nobody is waited for, so that good readers are
/// not overrun.
const PACE: Duration = Duration::from_millis(1);
/// Subscriptions handled at once.
const SUBSCRIPTIONS_AT_ONCE: usize = 1024;

/// The thread's own state.
pub struct Publisher {
    shared: Arc<Shared>,
    socket: Socket,
    wake: Arc<Wake>,
    rejected: Rejected,
    mirror: watch::Receiver<State>,
    topics: Topics,
    tail: Option<Tail>,
    announced: Seq,
    /// The log could not be read for lack of something: it is tried again at the next wake.
    stalled: bool,
    heartbeat: Instant,
    impatient_until: Option<Instant>,
    unpaced: u32,
}

/// Who asked for which topic first. libzmq tells only that and when the last one left.
#[derive(Default)]
struct Topics {
    owners: HashMap<Vec<u8>, Option<RawFd>>,
    counts: HashMap<RawFd, usize>,
}

impl Topics {
    /// Whether the connection may have this topic as well.
    fn add(&mut self, topic: Vec<u8>, from: Option<RawFd>, max: usize) -> bool {
        let Some(fd) = from else {
            self.owners.insert(topic, None);
            return true;
        };
        let count = self.counts.entry(fd).or_default();
        *count += 1;
        let within = *count <= max;
        self.owners.insert(topic, Some(fd));
        within
    }

    fn remove(&mut self, topic: &[u8]) {
        if let Some(Some(fd)) = self.owners.remove(topic)
            && let Some(count) = self.counts.get_mut(&fd)
        {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&fd);
            }
        }
    }
}

impl Publisher {
    /// The loop of a socket. Everything up to now counts as announced.
    pub fn new(shared: Arc<Shared>, socket: Socket, wake: Arc<Wake>, rejected: Rejected) -> Self {
        let (announced, mirror) = (shared.visible.seq(), shared.mirror.subscribe());
        Self {
            shared,
            socket,
            wake,
            rejected,
            mirror,
            topics: Topics::default(),
            tail: None,
            announced,
            stalled: false,
            heartbeat: Instant::now() + HEARTBEAT,
            impatient_until: None,
            unpaced: 0,
        }
    }

    /// Works until the end is wanted, and once more after that when `finished` says that the writer
    /// has ended, so that the last mutations are told.
    ///
    /// # Errors
    /// When the socket is no more.
    pub fn run(mut self, finished: &dyn Fn() -> bool) -> Result<()> {
        loop {
            let last_round = finished();
            let left = self.heartbeat.saturating_duration_since(Instant::now());
            let behind = self.announced < self.shared.visible.seq() && !self.stalled;
            // Rounded up, or the last millisecond would be spent spinning.
            let wait = if behind || last_round { 0 } else { left.as_millis() as u32 + 1 };
            self.socket.wait(&self.wake, wait)?;
            self.shared.pulses.beat(Organ::Publisher);
            if self.wake.is_pending() {
                self.wake.clear();
            }
            self.subscriptions()?;
            for rejection in self.rejected.take() {
                let notification = Notification::Rejected {
                    request_id: rejection.request_id.as_ref(),
                    code: rejection.code,
                    message: &rejection.message,
                };
                self.send(&notification)?;
            }
            self.mirror_state()?;
            self.log(last_round)?;
            if Instant::now() >= self.heartbeat {
                self.heartbeat = Instant::now() + HEARTBEAT;
                self.send(&Notification::Heartbeat { seq: self.announced, time: now() })?;
            }
            if last_round && self.announced >= self.shared.visible.seq() {
                return Ok(());
            }
        }
    }

    fn subscriptions(&mut self) -> Result<()> {
        for _ in 0..SUBSCRIPTIONS_AT_ONCE {
            match self.socket.receive()? {
                None => break,
                Some(Subscription::Added { topic, from }) => {
                    if self.nobody_listens() {
                        // Before `announced` catches up, so that nothing from now on is left out.
                        self.shared.visible.listen(true);
                        self.announced = self.shared.visible.seq();
                    }
                    let max = self.shared.config.pub_topics_max;
                    if !self.topics.add(topic, from, max)
                        && let (Some(fd), Some(connections)) = (from, self.shared.connections.get())
                        && connections.end(fd)
                    {
                        self.shared.metrics.subscribers_ended_total.one();
                        tracing::warn!(limit = max, "subscriber disconnected: too many topics");
                    }
                }
                Some(Subscription::Removed { topic }) => {
                    self.topics.remove(&topic);
                    if self.nobody_listens() {
                        self.shared.visible.listen(false);
                    }
                }
                Some(Subscription::Garbage) => self.shared.metrics.subscriber_garbage_total.one(),
            }
        }
        Ok(())
    }

    fn nobody_listens(&self) -> bool {
        self.topics.owners.is_empty()
    }

    fn mirror_state(&mut self) -> Result<()> {
        if self.mirror.has_changed().unwrap_or(false) {
            let state = *self.mirror.borrow_and_update();
            let lag = self.shared.mirror.report(self.shared.visible.seq(), now()).lag;
            self.send(&Notification::Mirror { state: state.as_str(), lag: Some(lag) })?;
        }
        Ok(())
    }

    /// Tells what has become visible in the log. In the last round nothing is put off.
    fn log(&mut self, last_round: bool) -> Result<()> {
        let visible = self.shared.visible.seq();
        if self.announced >= visible {
            return Ok(());
        }
        if self.nobody_listens() {
            (self.tail, self.stalled) = (None, false);
            self.announced = visible;
            self.shared.published.store(Seq::MAX, Ordering::Release);
            return Ok(());
        }
        // The log must stay from here on while it is read.
        self.shared.published.store(self.announced + 1, Ordering::Release);
        let mut tail = match self.tail.take() {
            Some(tail) => tail,
            None => match self.shared.engine().log.tail(self.announced + 1) {
                Ok(tail) => tail,
                Err(error) => {
                    self.cannot_read(visible, &error, last_round);
                    return Ok(());
                }
            },
        };
        for _ in 0..RECORDS_AT_ONCE {
            // The log may show a record a moment before queries see it.
            if tail.next_seq() > visible {
                break;
            }
            let entry = match tail.next() {
                Ok(Some(entry)) => entry,
                Ok(None) => break,
                Err(error) => {
                    self.cannot_read(visible, &error, last_round);
                    if self.stalled {
                        self.tail = Some(tail);
                    }
                    return Ok(());
                }
            };
            let (first, count) = (entry.first_seq, u64::from(entry.count));
            match BatchRef::decode(entry.payload) {
                Ok(batch) => self.batch(first, &batch)?,
                Err(error) => tracing::error!(seq = first, %error, "a log record cannot be announced"),
            }
            self.announced = first + count - 1;
        }
        (self.tail, self.stalled) = (Some(tail), false);
        Ok(())
    }

    /// What the system lacks for now is waited for, as long as the log has room. Else gives up announcing what cannot be read;
    /// subscribers see the hole and ask for `changes`.
    fn cannot_read(&mut self, visible: Seq, error: &WalError, last_round: bool) {
        let from = self.announced + 1;
        let has_room = self.shared.engine().log.bytes() <= self.shared.config.wal_retain_bytes_max.0;
        let stalls = error.is_transient() && !last_round && has_room;
        if !stalls {
            tracing::error!(from, to = visible, %error, "mutations not announced");
            self.announced = visible;
        } else if !self.stalled {
            tracing::warn!(from, %error, "mutations are announced later");
        }
        self.stalled = stalls;
    }

    fn batch(&mut self, first_seq: Seq, batch: &BatchRef<'_>) -> Result<()> {
        let op = batch.op;
        let triples: Vec<Triple> = batch.raw_rows().iter().map(|row| Triple(*row)).collect();
        if let [triple] = triples[..] {
            return self.send(&Notification::One { op, triple, seq: first_seq });
        }
        let fit = self.shared.config.pub_message_bytes_max.len() / TRIPLE_TEXT_BYTES;
        let fit = fit.clamp(1, NOTIFICATION_TRIPLES_MAX);
        for (triples, first_seq) in triples.chunks(fit).zip((first_seq..).step_by(fit)) {
            self.send(&Notification::Many { op, triples, first_seq })?;
        }
        Ok(())
    }

    fn send(&mut self, notification: &Notification<'_>) -> Result<()> {
        if self.nobody_listens() {
            return Ok(());
        }
        let encoding = match self.shared.config.pub_format {
            PubFormat::MsgPack => Encoding::MsgPack,
            PubFormat::Json => Encoding::Json,
        };
        let payload = encode_notification(notification, encoding);
        self.be_patient()?;
        let start = Instant::now();
        while self.socket.send(&payload)? == Sent::Full {
            if start.elapsed() < PATIENCE {
                std::thread::sleep(PATIENCE_STEP);
                continue;
            }
            self.shared.metrics.slow_subscribers_total.one();
            self.impatient_until = Some(Instant::now() + IMPATIENCE);
            self.socket.set_lossy(true)?;
        }
        self.shared.metrics.notifications_total.one();
        Ok(())
    }

    /// Waits for slow subscribers again after a time; keeps a pace while nobody is waited for.
    fn be_patient(&mut self) -> Result<()> {
        let Some(until) = self.impatient_until else { return Ok(()) };
        if Instant::now() >= until {
            self.impatient_until = None;
            return self.socket.set_lossy(false);
        }
        self.unpaced += 1;
        if self.unpaced > self.shared.config.pub_sndhwm / 4 {
            self.unpaced = 0;
            std::thread::sleep(PACE);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::shared::Engine;
    use crate::sockets;
    use crate::transport::Transport;
    use cidstore_disk::sim::{ReadFault, SimDisk};
    use cidstore_engine::{Durability, Store, StoreOptions};
    use cidstore_types::{Batch, Cid, Mutation, Op};
    use std::path::Path;

    #[test]
    fn what_cannot_be_read_for_lack_of_something_is_announced_later() {
        let config = Config { req_port: 0, push_port: 0, pub_port: 0, ..Config::default() };
        let transport = Transport::new(1, 10).unwrap();
        let (.., socket, _) = sockets::bind(&transport, &config).unwrap();
        let (shared, wake) = (Arc::new(Shared::new(config)), Arc::new(Wake::new().unwrap()));
        let disk = SimDisk::new();
        let path = Path::new("/data/store.h5");
        let (mut store, _) = Store::open(Arc::new(disk.clone()), path, StoreOptions::default()).unwrap();
        assert!(shared.engine.set(Engine { reader: store.reader(), log: store.log() }).is_ok());
        let rejected = Rejected::new(Arc::clone(&shared), Arc::clone(&wake));
        let mut publisher = Publisher::new(Arc::clone(&shared), socket, wake, rejected);
        assert!(publisher.topics.add(Vec::new(), None, 1));
        let mut commit = |n| {
            let cid = Cid::from_two_lanes([0, n]);
            let batch = Mutation::Batch(Batch::new(Op::Insert, 1.0, vec![Triple::new(cid, cid, cid)]));
            store.commit(&[batch], Durability::Os).unwrap().remove(0).unwrap();
            shared.visible.advance(n);
        };
        let told = || shared.metrics.notifications_total.get();
        // First no descriptor for the segment, then no memory for what it says.
        for n in 1..=2 {
            commit(n);
            disk.fail_nth_read(0, ReadFault::NoMemory);
            publisher.log(false).unwrap();
            assert_eq!((publisher.announced, publisher.stalled, told()), (n - 1, true, n - 1));
            publisher.log(false).unwrap();
            assert_eq!((publisher.announced, publisher.stalled, told()), (n, false, n));
        }
        // What is wrong with the log is given up, and so is everything in the last round.
        for (n, fault, last_round) in [(3, ReadFault::Error, false), (4, ReadFault::NoMemory, true)] {
            commit(n);
            disk.fail_nth_read(0, fault);
            publisher.log(last_round).unwrap();
            assert_eq!((publisher.announced, publisher.stalled, told()), (n, false, 2));
        }
    }

    #[test]
    fn topics_are_counted_for_the_connection_that_brought_them() {
        let mut topics = Topics::default();
        assert!(topics.add(b"a".into(), Some(7), 2) && topics.add(b"b".into(), Some(7), 2));
        assert!(topics.add(b"c".into(), Some(8), 2));
        assert!(!topics.add(b"d".into(), Some(7), 2));
        for topic in [b"a", b"b", b"c", b"d"] {
            topics.remove(topic);
        }
        topics.remove(b"never");
        assert!(topics.owners.is_empty() && topics.counts.is_empty());
    }
}
