//! Ingest over several connections.

use crate::encode::{self, Form};
use crate::probe::contains;
use crate::wire;
use anyhow::{Context as _, Result, bail};
use cidstore_bench::data::Data;
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

    /// Writes the batch of this number.
    pub fn encode(&self, batch: u64, out: &mut Vec<u8>) {
        let start = batch * self.batch;
        let n = self.batch.min(self.triples - start) as usize;
        let triples = (0..n).map(|i| self.data.triple(self.first + start + i as u64));
        encode::batch_insert(out, self.form, triples);
    }
}

/// When a load began, and how long it took.
#[derive(Debug, Clone, Copy)]
pub struct Taken {
    /// The common start of all connections.
    pub start: Instant,
    /// To the end of the last of them.
    pub elapsed: Duration,
}

/// Runs one thread per connection from a common start to the end of the last of them.
pub fn together<T: Send>(
    connections: usize,
    work: impl Fn(usize, &Barrier) -> Result<T> + Sync,
) -> Result<(Taken, Vec<T>)> {
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
        Ok((Taken { start, elapsed: start.elapsed() }, results?))
    })
}

/// Loads over REQ, each connection waiting for each reply: the time until everything is
/// acknowledged. `check` is off for the echo, whose replies mean nothing.
///
/// # Errors
/// Of libzmq; a refusal by the daemon.
pub fn over_req(load: &Ingest, endpoint: &str, check: bool) -> Result<Taken> {
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
/// Of libzmq; what was pushed and does not appear.
pub fn over_push(load: &Ingest, push: &str, request: &str) -> Result<Taken> {
    let context = Context::new();
    let asker = wire::connect(&context, SocketType::REQ, request)?;
    let connections = load.connections as u64;
    // Contexts outlive their threads: with linger 0, ending one drops what is still queued.
    let (sent, senders) = together(load.connections, |connection, barrier| {
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
    Ok(Taken { elapsed: sent.start.elapsed(), ..sent })
}
