//! What the engine itself costs, without sockets: durable ingest on a real disk with sealing and
//! merging beside it, lookups, restart.
//!
//!     cargo run --release -p cidstore-engine --example engine_rate -- DIR [TRIPLES] [BATCH]

use cidstore_disk::RealDisk;
use cidstore_engine::{Durability, Merging, Step, Store, StoreOptions};
use cidstore_types::{Batch, Cid, Mutation, Op, Pattern, Triple};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ (z >> 27)
}

fn cid(kind: u64, n: u64) -> Cid {
    Cid::from_lanes([mix(n ^ kind << 60), mix(n + 1), mix(n + 2), n])
}

/// Four triples to a subject, 16 predicates, objects that repeat now and then.
fn triple(n: u64) -> Triple {
    Triple::new(cid(1, n / 4), cid(2, n % 16), cid(3, mix(n) % (1 + n / 2)))
}

fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) >> 10
    };
    format!("rss {} MiB (anon {}, file {})", field("VmRSS"), field("RssAnon"), field("RssFile"))
}

fn main() {
    let mut args = std::env::args().skip(1);
    let dir = args.next().expect("a directory");
    let total: u64 = args.next().map_or(1_000_000, |n| n.parse().unwrap());
    let batch: u64 = args.next().map_or(1000, |n| n.parse().unwrap());
    let path = Path::new(&dir).join("cidstore.h5");
    let options = StoreOptions { nonce: std::process::id().into(), ..StoreOptions::default() };
    let (mut store, _) = Store::open(Arc::new(RealDisk), &path, options.clone()).unwrap();

    let stop = Arc::new(AtomicBool::new(false));
    let mut maintainer = store.maintainer();
    let stopped = Arc::clone(&stop);
    let maintenance = std::thread::spawn(move || {
        let mut busy = Duration::ZERO;
        loop {
            let start = Instant::now();
            let done = stopped.load(Ordering::Relaxed);
            let step = maintainer.step(if done { Merging::Settling } else { Merging::Needed }).unwrap();
            if step == Step::Idle {
                if done {
                    return busy;
                }
                std::thread::sleep(Duration::from_millis(2));
            } else {
                println!("  {step:?} in {:.2?}", start.elapsed());
                busy += start.elapsed();
            }
        }
    });
    let start = Instant::now();
    let (mut building, mut committing, mut tidying) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let mut next = 0;
    while next < total {
        let t = Instant::now();
        let group: Vec<Mutation> = (0..4)
            .map(|_| {
                let rows = (next..next + batch).map(triple).collect();
                next += batch;
                Mutation::Batch(Batch::new(Op::Insert, 1.0, rows))
            })
            .collect();
        building += t.elapsed();
        let t = Instant::now();
        store.commit(&group, Durability::Fsync).unwrap();
        committing += t.elapsed();
        let t = Instant::now();
        store.tidy();
        while store.memory_is_full() {
            std::thread::sleep(Duration::from_millis(1));
        }
        tidying += t.elapsed();
        let sealed = store.reader().sealed_seq();
        store.wal().remove_before(sealed).unwrap();
    }
    let elapsed = start.elapsed();
    println!(
        "ingest: {:.0}/s; generating {building:.2?}, committing {committing:.2?}, tidying and waiting {tidying:.2?}; {}",
        total as f64 / elapsed.as_secs_f64(),
        memory()
    );
    stop.store(true, Ordering::Relaxed);
    println!("maintenance busy {:.2?}; {:?}", maintenance.join().unwrap(), store.reader().stats());

    let snapshot = store.reader().snapshot();
    let mut times: Vec<Duration> = (0..20_000)
        .map(|i| {
            let t = triple(mix(i) % total);
            let pattern = Pattern { s: Some(t.s()), p: Some(t.p()), o: None };
            let start = Instant::now();
            assert!(!snapshot.query(&pattern, 1000, None, false).unwrap().rows.is_empty());
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!("(s,p): p50 {:.2?} p99 {:.2?}; {}", times[10_000], times[19_800], memory());
    let mut times: Vec<Duration> = (0..20_000)
        .map(|i| {
            let hash = triple(mix(i) % total).hash();
            let start = Instant::now();
            assert!(snapshot.get(&hash).unwrap().is_some());
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!("get: p50 {:.2?} p99 {:.2?}; {}", times[10_000], times[19_800], memory());
    let t = Instant::now();
    let count = snapshot.count(&Pattern::ALL).unwrap();
    println!("count: {count} at {:.0} rows/s", count as f64 / t.elapsed().as_secs_f64());
    drop((snapshot, store));
    let t = Instant::now();
    let (_, report) = Store::open(Arc::new(RealDisk), &path, options).unwrap();
    println!("restart {:.2?}: {report:?}", t.elapsed());
}
