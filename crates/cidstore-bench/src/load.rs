//! The loads: ingest over several connections, queries, single durable inserts.

use crate::data::Data;
use crate::encode::{self, Form};
use crate::wire;
use anyhow::{Context as _, Result, bail};
use cidstore_types::Triple;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use zeromq::{Context, SocketType};

/// What to load.
#[derive(Debug, Clone, Copy)]
pub struct Ingest {
    /// The triples.
    pub data: Data,
    /// Number of the first one.
    pub first: u64,
    /// How many.
    pub triples: u64,
    /// Triples a message.
    pub batch: u64,
    /// Sockets, each with its thread.
    pub connections: usize,
    /// How a batch is written.
    pub form: Form,
}

impl Ingest {
    fn batches(&self) -> u64 {
        self.triples.div_ceil(self.batch)
    }

    fn encode(&self, batch: u64, out: &mut Vec<u8>) {
        let start = batch * self.batch;
        let n = self.batch.min(self.triples - start) as usize;
        let triples = (0..n).map(|i| self.data.triple(self.first + start + i as u64));
        encode::batch_insert(out, self.form, triples);
    }
}

/// Runs one thread per connection from a common start; answers the time from that start to the end
/// of the last of them.
fn together<T: Send>(
    connections: usize,
    work: impl Fn(usize, &Barrier) -> Result<T> + Sync,
) -> Result<(Duration, Vec<T>)> {
    let barrier = Barrier::new(connections + 1);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..connections)
            .map(|connection| {
                let (barrier, work) = (&barrier, &work);
                scope.spawn(move || work(connection, barrier))
            })
            .collect();
        barrier.wait();
        let start = Instant::now();
        let results: Result<Vec<T>> =
            threads.into_iter().map(|thread| thread.join().expect("a load thread panicked")).collect();
        Ok((start.elapsed(), results?))
    })
}

/// Loads over REQ, each connection waiting for each reply: the time until everything is
/// acknowledged. `check` is off for the echo, whose replies mean nothing.
///
/// # Errors
/// Of libzmq; a refusal by the daemon.
pub fn over_req(load: &Ingest, endpoint: &str, check: bool) -> Result<Duration> {
    let next = AtomicU64::new(0);
    let (taken, _) = together(load.connections, |_, barrier| {
        let context = Context::new();
        let socket = wire::connect(&context, SocketType::REQ, endpoint);
        barrier.wait();
        let (socket, mut request) = (socket?, Vec::new());
        loop {
            let batch = next.fetch_add(1, Ordering::Relaxed);
            if batch >= load.batches() {
                return Ok(());
            }
            load.encode(batch, &mut request);
            let reply = wire::ask(&socket, &request)?;
            if check {
                wire::expect_ok(&reply)?;
            }
        }
    })?;
    Ok(taken)
}

/// Loads over PUSH, where nothing is acknowledged: the time until the last triple of every
/// connection can be queried. What one connection sends is stored in order, so everything is then.
///
/// # Errors
/// Of libzmq; a count at the end that shows that something was lost.
pub fn over_push(load: &Ingest, push: &str, request: &str, count_before: u64) -> Result<Duration> {
    let context = Context::new();
    let asker = wire::connect(&context, SocketType::REQ, request)?;
    let (start_sending, connections) = (Instant::now(), load.connections as u64);
    // Contexts outlive their threads: with linger 0, ending one drops what is still queued.
    let (_, senders) = together(load.connections, |connection, barrier| {
        let context = Context::new();
        let socket = wire::connect(&context, SocketType::PUSH, push);
        barrier.wait();
        let (socket, mut request, mut last) = (socket?, Vec::new(), None);
        let mut batch = connection as u64;
        while batch < load.batches() {
            load.encode(batch, &mut request);
            socket.send(&request, 0).context("sending a batch")?;
            last = Some(((batch + 1) * load.batch).min(load.triples) - 1);
            batch += connections;
        }
        Ok((context, socket, last))
    })?;
    let mut query = Vec::new();
    for last in senders.iter().filter_map(|(_, _, last)| *last) {
        let triple = load.data.triple(load.first + last);
        encode::query(&mut query, triple, "spo", 1);
        let patience = Instant::now();
        // A packed row in the reply is the triple itself.
        while !contains(&wire::ask(&asker, &query)?, &triple) {
            if patience.elapsed() > Duration::from_mins(2) {
                bail!("what was pushed does not appear: {triple:?}");
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
    let taken = start_sending.elapsed();
    let found = count(&asker)?;
    if found != count_before + load.triples {
        bail!("{found} triples after pushing {} onto {count_before}", load.triples);
    }
    Ok(taken)
}

fn contains(reply: &[u8], triple: &Triple) -> bool {
    reply.windows(Triple::BYTES).any(|window| window == triple.0)
}

/// Number of triples in the store.
///
/// # Errors
/// Of libzmq, and a reply without a count.
pub fn count(asker: &zeromq::Socket) -> Result<u64> {
    let reply = wire::ask(asker, br#"{"command":"count"}"#)?;
    let map: serde_json::Value = serde_json::from_slice(&reply)?;
    map["count"].as_u64().with_context(|| format!("no count in {map}"))
}

/// Round trips of single inserts with `triples` numbered from `first`, one connection, in
/// nanoseconds.
///
/// # Errors
/// Of libzmq; a refusal by the daemon.
pub fn inserts(data: Data, first: u64, requests: u64, endpoint: &str) -> Result<Vec<u64>> {
    let mut n = first;
    round_trips(requests, endpoint, |request| {
        encode::insert(request, data.triple(n));
        n += 1;
        None
    })
}

/// Round trips of queries for triples among the first `present`, in an order that looks random,
/// one connection, in nanoseconds. `parts` are letters of `spo`.
///
/// # Errors
/// Of libzmq; a refusal, or an answer without the triple asked for.
pub fn queries(
    data: Data,
    present: u64,
    parts: &str,
    limit: u16,
    requests: u64,
    endpoint: &str,
) -> Result<Vec<u64>> {
    let mut n = 0u64;
    let narrow = parts.contains('s');
    round_trips(requests, endpoint, |request| {
        // A step coprime to any count that is not a multiple of this prime visits all of them.
        n = (n + 2_147_483_647) % present.max(1);
        let triple = data.triple(n);
        encode::query(request, triple, parts, limit);
        narrow.then_some(triple)
    })
}

fn round_trips(
    requests: u64,
    endpoint: &str,
    mut next: impl FnMut(&mut Vec<u8>) -> Option<Triple>,
) -> Result<Vec<u64>> {
    let context = Context::new();
    let socket = wire::connect(&context, SocketType::REQ, endpoint)?;
    let (mut request, warm_up) = (Vec::new(), requests / 10);
    let mut nanos = Vec::with_capacity(requests as usize);
    for n in 0..requests + warm_up {
        let expected = next(&mut request);
        let start = Instant::now();
        let reply = wire::ask(&socket, &request)?;
        let taken = start.elapsed().as_nanos() as u64;
        wire::expect_ok(&reply)?;
        if let Some(triple) = expected
            && !contains(&reply, &triple)
        {
            bail!("the answer lacks {triple:?}");
        }
        if n >= warm_up {
            nanos.push(taken);
        }
    }
    Ok(nanos)
}
