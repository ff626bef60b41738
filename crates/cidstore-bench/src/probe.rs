//! Round trips on one connection: queries, single durable inserts, scans in pages.

use crate::ask::Page;
use crate::encode;
use crate::wire;
use anyhow::{Result, bail};
use cidstore_bench::data::Data;
use cidstore_types::Triple;
use std::time::{Duration, Instant};
use zeromq::{Context, Socket, SocketType};

/// Whether a reply with packed rows holds this one.
pub fn contains(reply: &[u8], triple: &Triple) -> bool {
    reply.windows(Triple::BYTES).any(|window| window == triple.0)
}

/// Queries for triples among the first `present`, all over the place.
#[derive(Debug, Clone, Copy)]
pub struct Queries<'a> {
    /// The triples.
    pub data: Data,
    /// How many of them are there.
    pub present: u64,
    /// Letters of `spo`: what is bound.
    pub parts: &'a str,
    /// Most rows of an answer.
    pub limit: u16,
}

impl Queries<'_> {
    /// Writes the `i`-th one; answers the triple that must be among the results.
    pub fn write(&self, i: u64, request: &mut Vec<u8>) -> Option<Triple> {
        let triple = self.data.triple(self.data.scattered(self.present, i));
        encode::query(request, triple, self.parts, self.limit);
        // Without the subject there may be more answers than the limit.
        self.parts.contains('s').then_some(triple)
    }
}

/// One query on a connected REQ socket, and its answer looked at; nanoseconds of the round trip.
///
/// # Errors
/// Of libzmq; a refusal, or an answer without the triple asked for.
pub fn query(socket: &Socket, queries: &Queries<'_>, i: u64, request: &mut Vec<u8>) -> Result<u64> {
    let expected = queries.write(i, request);
    let start = Instant::now();
    let reply = wire::ask(socket, request)?;
    let nanos = start.elapsed().as_nanos() as u64;
    wire::expect_ok(&reply)?;
    if let Some(triple) = expected
        && !contains(&reply, &triple)
    {
        bail!("the answer to a query by {} lacks {triple:?}", queries.parts);
    }
    Ok(nanos)
}

/// Round trips of so many queries, one connection, in nanoseconds.
///
/// # Errors
/// As [`query`].
pub fn queries(queries: &Queries<'_>, requests: u64, endpoint: &str) -> Result<Vec<u64>> {
    let socket = wire::connect(&Context::new(), SocketType::REQ, endpoint)?;
    let mut request = Vec::new();
    round_trips(requests, |i| query(&socket, queries, i, &mut request))
}

/// Round trips of single inserts with triples numbered from `first`, one connection, in nanoseconds.
///
/// # Errors
/// Of libzmq; a refusal by the daemon.
pub fn inserts(data: Data, first: u64, requests: u64, endpoint: &str) -> Result<Vec<u64>> {
    let socket = wire::connect(&Context::new(), SocketType::REQ, endpoint)?;
    let mut request = Vec::new();
    round_trips(requests, |i| {
        encode::insert(&mut request, data.triple(first + i));
        let start = Instant::now();
        let reply = wire::ask(&socket, &request)?;
        let nanos = start.elapsed().as_nanos() as u64;
        wire::expect_ok(&reply)?;
        Ok(nanos)
    })
}

/// How many triples [`inserts`] adds: those of the warm-up, too.
pub fn with_warm_up(requests: u64) -> u64 {
    requests + requests / 10
}

/// Values of round trips after a warm-up of a tenth.
fn round_trips(requests: u64, mut trip: impl FnMut(u64) -> Result<u64>) -> Result<Vec<u64>> {
    let warm_up = with_warm_up(requests) - requests;
    let mut nanos = Vec::with_capacity(requests as usize);
    for i in 0..with_warm_up(requests) {
        let taken = trip(i)?;
        if i >= warm_up {
            nanos.push(taken);
        }
    }
    Ok(nanos)
}

/// Two kinds of round trips in turns of a hundred, so that both see the same moods of the machine:
/// nanoseconds of each.
///
/// # Errors
/// As of the round trips.
pub fn in_turns(
    requests: u64,
    mut one: impl FnMut(u64) -> Result<u64>,
    mut other: impl FnMut(u64) -> Result<u64>,
) -> Result<(Vec<u64>, Vec<u64>)> {
    const TURN: u64 = 100;
    let warm_up = with_warm_up(requests) - requests;
    let (mut ones, mut others) = (Vec::new(), Vec::new());
    let mut i = 0;
    while i < with_warm_up(requests) {
        let turn = i..(i + TURN).min(with_warm_up(requests));
        for i in turn.clone() {
            let nanos = one(i)?;
            ones.extend((i >= warm_up).then_some(nanos));
        }
        for i in turn.clone() {
            let nanos = other(i)?;
            others.extend((i >= warm_up).then_some(nanos));
        }
        i = turn.end;
    }
    Ok((ones, others))
}

/// Reads all triples in pages, or as many as `rows_max`: how many there were, and the time it took.
///
/// # Errors
/// Of libzmq; a refusal by the daemon.
pub fn scan(endpoint: &str, page_rows: u32, rows_max: u64) -> Result<(u64, Duration)> {
    let socket = wire::connect(&Context::new(), SocketType::REQ, endpoint)?;
    let (mut request, mut rows, mut cursor) = (Vec::new(), 0, Vec::new());
    let start = Instant::now();
    loop {
        encode::scan(&mut request, page_rows, &cursor);
        let reply = wire::ask(&socket, &request)?;
        let page = Page::read(&reply)?;
        rows += page.rows();
        cursor.clear();
        match page.cursor {
            Some(next) if rows < rows_max => cursor.extend_from_slice(next),
            _ => return Ok((rows, start.elapsed())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_cover_all_requests_and_drop_the_warm_up() {
        let (mut seen, mut order) = (Vec::new(), Vec::new());
        let (ones, others) = in_turns(
            1000,
            |i| {
                seen.push(i);
                Ok(i)
            },
            |i| {
                order.push(i);
                Ok(10 * i)
            },
        )
        .unwrap();
        assert_eq!(seen, (0..1100).collect::<Vec<_>>());
        assert_eq!(order, seen);
        assert_eq!(ones, (100..1100).collect::<Vec<_>>());
        assert_eq!(others.iter().sum::<u64>(), 10 * ones.iter().sum::<u64>());
    }

    #[test]
    fn a_tenth_is_warm_up() {
        assert_eq!(round_trips(20, Ok).unwrap(), (2..22).collect::<Vec<_>>());
        assert!(round_trips(5, |_| bail!("no")).is_err());
    }
}
