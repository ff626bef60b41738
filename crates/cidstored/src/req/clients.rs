//! What each client has under way.

use super::Raw;
use super::held::Held;
use std::collections::{HashMap, VecDeque};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Entries at which idle ones are looked for; later at twice as many as were left.
const SWEEP_AT: usize = 1024;

/// One client may have so many large reads under way that this many times as many places are free.
const READ_SHARE: usize = 8;

/// One of the places that a client has for requests under way; free again when it is dropped, by
/// whichever thread answers.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// One client.
#[derive(Default)]
struct Client {
    /// Requests with the writer, the pool or the thread that seals.
    under_way: Arc<AtomicUsize>,
    /// Those of them that wait for the pool to read.
    reading: usize,
    /// A message of it is being decoded in the pool.
    decoding: bool,
    /// Messages that came after that one.
    line: VecDeque<Raw>,
    /// Large replies that it has not taken.
    held: Option<Held>,
}

impl Client {
    fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Acquire)
    }

    fn is_idle(&self) -> bool {
        self.under_way() == 0
            && self.reading == 0
            && !self.decoding
            && self.held.as_ref().is_none_or(|held| held.outstanding.bytes() == 0)
    }
}

/// All clients that have something under way, and some that had.
pub struct Clients {
    entries: HashMap<Box<[u8]>, Client>,
    /// What connections hold whose name a newer one has.
    taken_over: Vec<Held>,
    sweep_at: usize,
    /// Large reads under way, of all clients.
    reading: usize,
    /// Bytes of the messages that are being decoded or wait in line.
    waiting_bytes: usize,
}

impl Default for Clients {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            taken_over: Vec::new(),
            sweep_at: SWEEP_AT,
            reading: 0,
            waiting_bytes: 0,
        }
    }
}

impl Clients {
    fn get(&mut self, id: &[u8]) -> &mut Client {
        if !self.entries.contains_key(id) {
            if self.entries.len() >= self.sweep_at {
                self.sweep();
                self.sweep_at = SWEEP_AT.max(2 * self.entries.len());
            }
            self.entries.insert(id.into(), Client::default());
        }
        self.entries.get_mut(id).expect("inserted above")
    }

    fn forget_if_idle(&mut self, id: &[u8]) {
        if self.entries.get(id).is_some_and(Client::is_idle) {
            self.entries.remove(id);
        }
    }

    /// A place for a request of the client, unless `max` are taken.
    pub fn enter(&mut self, id: &[u8], max: usize) -> Option<Place> {
        let taken = &self.get(id).under_way;
        // Only this thread takes places.
        if taken.load(Ordering::Acquire) >= max {
            return None;
        }
        taken.fetch_add(1, Ordering::Relaxed);
        Some(Place(Arc::clone(taken)))
    }

    /// Counts a read as waiting for the pool, of whose `max` places all clients share. The fewer are
    /// free the fewer a client may have, so that no number of them fills the queue by having much:
    /// who has nothing under way finds a place as long as there is one.
    ///
    /// # Errors
    /// Why it may not wait.
    pub fn enter_read(&mut self, id: &[u8], max: usize) -> Result<(), &'static str> {
        let free = max.saturating_sub(self.reading);
        if free == 0 {
            return Err("too many large reads under way");
        }
        let client = self.get(id);
        let room = client.reading < (free / READ_SHARE).max(1);
        if room {
            client.reading += 1;
            self.reading += 1;
        }
        self.forget_if_idle(id);
        if room { Ok(()) } else { Err("too many large reads of this client under way") }
    }

    /// A read is answered, or was not taken after all. (The answer to a checkpoint may come here,
    /// too, and make a place free early; that does no harm.)
    pub fn leave_read(&mut self, id: &[u8]) {
        if let Some(client) = self.entries.get_mut(id) {
            if client.reading > 0 {
                client.reading -= 1;
                self.reading -= 1;
            }
            self.forget_if_idle(id);
        }
    }

    /// Requests of the client that are not answered.
    pub fn in_flight(&self, id: &[u8]) -> usize {
        self.entries
            .get(id)
            .map_or(0, |client| client.under_way() + client.line.len() + usize::from(client.decoding))
    }

    /// Whether a message of the client is being decoded, so that later ones must wait.
    pub fn is_decoding(&self, id: &[u8]) -> bool {
        self.entries.get(id).is_some_and(|client| client.decoding)
    }

    /// Bytes of messages that are being decoded or wait in line, of all clients.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Takes a message in: into the client's line (`None`), or back at once for being decoded.
    pub fn wait_in_line(&mut self, raw: Raw) -> Option<Raw> {
        self.waiting_bytes += raw.incoming.payload.len();
        let client = self.get(&raw.incoming.route.client);
        if client.decoding {
            client.line.push_back(raw);
            return None;
        }
        client.decoding = true;
        Some(raw)
    }

    /// The client's message of `bytes` bytes was decoded: the next one of its line.
    pub fn next_in_line(&mut self, id: &[u8], bytes: usize) -> Option<Raw> {
        self.waiting_bytes -= bytes;
        let client = self.get(id);
        let next = client.line.pop_front();
        if next.is_none() {
            client.decoding = false;
            self.forget_if_idle(id);
        }
        next
    }

    /// The large replies that the client has not taken, on the connection of a request if that is
    /// known.
    pub fn held(&mut self, id: &[u8], connection: Option<RawFd>, received: Instant) -> &mut Held {
        let older = connection.and_then(|connection| {
            let held = self.get(id).held.get_or_insert_with(|| Held::new(Instant::now()));
            held.learn(connection, received).map(|newer| std::mem::replace(held, newer))
        });
        self.taken_over.extend(older.filter(|older| older.outstanding.bytes() > 0));
        self.get(id).held.get_or_insert_with(|| Held::new(Instant::now()))
    }

    /// Looks at who takes what it holds. Returns the connections of those that have not taken
    /// anything for so long.
    pub fn stalled(&mut self, now: Instant, at_least: Duration) -> Vec<RawFd> {
        self.taken_over.retain(|held| held.outstanding.bytes() > 0);
        let held = self.entries.values_mut().filter_map(|client| client.held.as_mut());
        held.chain(&mut self.taken_over).filter_map(|held| held.stalled(now, at_least)).collect()
    }

    /// Whether no request is with another thread.
    pub fn nothing_under_way(&self) -> bool {
        self.entries.values().all(|client| client.under_way() == 0 && !client.decoding)
    }

    /// Forgets clients that have taken their last large reply.
    pub fn sweep(&mut self) {
        self.entries.retain(|_, client| !client.is_idle());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{Envelope, Incoming, Payload, Route};

    fn raw(client: &[u8], text: &str) -> Raw {
        let route = Route { client: client.into(), envelope: Envelope::Bare };
        let incoming = Incoming { route, payload: Payload::from(text.as_bytes()), frames: 1 };
        Raw { incoming, received: Instant::now(), received_at: 0.0 }
    }

    #[test]
    fn a_line_keeps_its_order_and_leaves_nothing_behind() {
        let mut clients = Clients::default();
        assert!(clients.wait_in_line(raw(b"a", "first")).is_some());
        assert!(clients.is_decoding(b"a") && !clients.is_decoding(b"b"));
        assert!(clients.wait_in_line(raw(b"a", "second")).is_none());
        assert!(clients.wait_in_line(raw(b"a", "third")).is_none());
        assert_eq!((clients.in_flight(b"a"), clients.waiting_bytes()), (3, 16));
        let mut next = |bytes| clients.next_in_line(b"a", bytes).map(|raw| raw.incoming.payload.to_vec());
        assert_eq!(next(5).unwrap(), b"second");
        assert_eq!(next(6).unwrap(), b"third");
        assert_eq!(next(5), None);
        assert_eq!((clients.entries.len(), clients.waiting_bytes()), (0, 0));
    }

    #[test]
    fn requests_under_way_are_bounded_for_each_client() {
        let mut clients = Clients::default();
        let places = [clients.enter(b"a", 2).unwrap(), clients.enter(b"a", 2).unwrap()];
        assert!(clients.enter(b"a", 2).is_none());
        let other = clients.enter(b"b", 2).unwrap();
        // Another thread answers.
        std::thread::spawn(move || drop(places)).join().unwrap();
        assert!(!clients.nothing_under_way());
        drop((clients.enter(b"a", 2).unwrap(), other));
        assert!(clients.nothing_under_way());
        clients.sweep();
        assert!(clients.entries.is_empty());
        // A reply that nobody holds any more leaves an entry for the next sweep at most.
        drop(Arc::clone(&clients.held(b"a", None, Instant::now()).outstanding));
        clients.sweep();
        assert!(clients.entries.is_empty());
    }

    #[test]
    fn clients_with_much_to_read_leave_places_for_those_with_little() {
        let mut clients = Clients::default();
        let mut enter = |id: u64| clients.enter_read(&id.to_be_bytes(), 256).is_ok();
        // Each as many as it may, again and again.
        let greedy: usize = (0..32).flat_map(|_| 0..8).map(|id| usize::from(enter(id))).sum();
        assert!((100..200).contains(&greedy), "{greedy}");
        let modest = (8..1000).take_while(|id| enter(*id)).count();
        assert_eq!(greedy + modest, 256, "a place for each that comes, down to the last one");
        for id in 0..1000u64 {
            (0..32).for_each(|_| clients.leave_read(&id.to_be_bytes()));
        }
        assert_eq!((clients.reading, clients.entries.len()), (0, 0));
        // Where there are few places at all, everybody may have one.
        assert!(clients.enter_read(b"a", 2).is_ok() && clients.enter_read(b"a", 2).is_err());
        assert!(clients.enter_read(b"b", 2).is_ok() && clients.enter_read(b"c", 2).is_err());
    }

    #[test]
    fn clients_that_come_and_go_leave_a_bounded_number_of_entries() {
        let mut clients = Clients::default();
        let stays = clients.enter(b"stays", 1).unwrap();
        for i in 0..10 * SWEEP_AT {
            drop(clients.enter(&i.to_be_bytes(), 1).unwrap());
        }
        assert!(clients.entries.len() <= SWEEP_AT + 1, "{}", clients.entries.len());
        assert_eq!(clients.in_flight(b"stays"), 1);
        drop(stays);
    }
}
