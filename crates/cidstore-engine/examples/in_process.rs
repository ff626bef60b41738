//! What lookups and scans cost inside the process, on a store that a daemon has left: all eight
//! patterns with at most ten results, the lookup by hash, and scans. Prints a report as JSON.
//!
//!     cargo run --release -p cidstore-engine --example in_process -- …/cidstore.h5 --triples N
//!
//! N triples of the load generator, numbered from 0, must be in the store (`--shape` and `--seed` as it
//! was given them). `cidstore-bench suite --in-process` runs this program.

use cidstore_bench::data::{Data, PATTERNS, Shape};
use cidstore_bench::report::{Report, Unit};
use cidstore_disk::{RealDisk, StoreLock};
use cidstore_engine::{Snapshot, Store, StoreOptions};
use cidstore_types::{Pattern, Triple};
use clap::Parser;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Measures lookups and scans on a store without a daemon.
#[derive(Debug, Parser)]
struct Args {
    /// The catalog file
    catalog: PathBuf,
    /// How many triples of that shape and seed are there
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    triples: u64,
    /// Distribution of the CIDs
    #[arg(long, value_enum, default_value_t = Shape::Graph)]
    shape: Shape,
    /// Another seed gives other triples
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Lookups of each kind; so many that they do not all fit into the processor's caches
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..))]
    requests: u64,
    /// Most rows of a scan
    #[arg(long, value_name = "N", default_value_t = 20_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    scan_rows: u64,
}

/// Results of a lookup at most: there are no more, but by predicate and by nothing.
const ROWS: usize = 10;
/// Rows of a page of a scan.
const PAGE_ROWS: usize = 100_000;

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let data = Data { shape: args.shape, seed: args.seed };
    let _lock = StoreLock::acquire(&beside(&args.catalog, ".lock"))?;
    let options = StoreOptions { nonce: std::process::id().into(), ..StoreOptions::default() };
    let mut report = Report::default();
    let start = Instant::now();
    let (store, opened) = Store::open(Arc::new(RealDisk), &args.catalog, options)?;
    report.add("inside: open", Unit::Millis, start.elapsed().as_secs_f64() * 1e3, None);
    eprintln!("{opened:?}");
    let snapshot = store.reader().snapshot();

    for parts in PATTERNS {
        let name = format!("inside: {}", if parts.is_empty() { "any" } else { parts });
        // Once with pages that this process may not have mapped yet, then the same again.
        for name in [format!("{name}, first time"), name] {
            report.add_latencies(&name, &lookups(&snapshot, data, &args, parts)?, None);
        }
    }
    for name in ["inside: sp that is absent, first time", "inside: sp that is absent"] {
        report.add_latencies(name, &absent(&snapshot, data, &args)?, None);
    }
    for name in ["inside: by hash, first time", "inside: by hash"] {
        report.add_latencies(name, &by_hash(&snapshot, data, &args)?, None);
    }
    report.add("inside: scan", Unit::TriplesPerSecond, scan(&snapshot, &Pattern::ALL, args.scan_rows)?, None);
    let one_predicate = Pattern { p: Some(data.triple(0).p()), ..Pattern::ALL };
    let rate = scan(&snapshot, &one_predicate, args.scan_rows)?;
    report.add("inside: scan of one predicate", Unit::TriplesPerSecond, rate, None);
    println!("{:#}", report.json());
    Ok(())
}

/// Nanoseconds of each lookup by these parts.
fn lookups(snapshot: &Snapshot, data: Data, args: &Args, parts: &str) -> Result<Vec<u64>, Box<dyn Error>> {
    let bound = |name: &str, cid| parts.contains(name).then_some(cid);
    nanos(args.requests, |i| {
        let triple = data.triple(data.scattered(args.triples, i));
        let pattern =
            Pattern { s: bound("s", triple.s()), p: bound("p", triple.p()), o: bound("o", triple.o()) };
        // Everything has one beginning only, so it is read from anywhere.
        let cursor = parts.is_empty().then(|| Snapshot::cursor_after(&triple));
        let start = Instant::now();
        let page = snapshot.query(&pattern, ROWS, cursor.as_deref(), false)?;
        let taken = start.elapsed();
        if parts.contains('s') && !page.rows.contains(&triple) {
            return Err(
                format!("{triple:?} is not found by {parts}: is the store of this shape and seed?").into()
            );
        }
        Ok(taken)
    })
}

/// Nanoseconds of lookups by (s, p) whose triples are not in the store, though their predicates are.
fn absent(snapshot: &Snapshot, data: Data, args: &Args) -> Result<Vec<u64>, Box<dyn Error>> {
    let other = Data { seed: data.seed ^ 1 << 40, ..data };
    nanos(args.requests, |i| {
        let triple = other.triple(other.scattered(args.triples, i));
        let pattern = Pattern { s: Some(triple.s()), p: Some(triple.p()), o: None };
        let start = Instant::now();
        let page = snapshot.query(&pattern, ROWS, None, false)?;
        let taken = start.elapsed();
        if page.rows.is_empty() { Ok(taken) } else { Err("an absent triple is found".into()) }
    })
}

/// Nanoseconds of lookups by triple hash; computing the hash is not in it.
fn by_hash(snapshot: &Snapshot, data: Data, args: &Args) -> Result<Vec<u64>, Box<dyn Error>> {
    nanos(args.requests, |i| {
        let triple: Triple = data.triple(data.scattered(args.triples, i));
        let hash = triple.hash();
        let start = Instant::now();
        let found = snapshot.get(&hash)?;
        let taken = start.elapsed();
        if found.is_some() { Ok(taken) } else { Err(format!("{triple:?} is not found by hash").into()) }
    })
}

fn nanos(
    requests: u64,
    mut lookup: impl FnMut(u64) -> Result<std::time::Duration, Box<dyn Error>>,
) -> Result<Vec<u64>, Box<dyn Error>> {
    (0..requests).map(|i| Ok(lookup(i)?.as_nanos() as u64)).collect()
}

/// Rows a second, in pages, of all matches or as many as `rows_max`.
fn scan(snapshot: &Snapshot, pattern: &Pattern, rows_max: u64) -> Result<f64, Box<dyn Error>> {
    let (mut rows, mut cursor): (u64, Option<Vec<u8>>) = (0, None);
    let start = Instant::now();
    loop {
        let page = snapshot.query(pattern, PAGE_ROWS, cursor.as_deref(), false)?;
        rows += page.rows.len() as u64;
        cursor = page.cursor;
        if cursor.is_none() || rows >= rows_max {
            return Ok(rows as f64 / start.elapsed().as_secs_f64());
        }
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
