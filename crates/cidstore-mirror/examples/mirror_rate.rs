//! How fast the mirror writes, beside how fast `redis-benchmark` does on the same machine.
//!
//!     cargo run --release -p cidstore-mirror --example mirror_rate [-- <triples> <runs>]
//!
//! Starts its own redis-server; needs `redis-benchmark`. The floor is SET with 64 commands in a
//! pipeline and values of the size that the mirror writes, over as many keys.

use cidstore_disk::RealDisk;
use cidstore_mirror::{
    Found, Mirror, MirrorConfig, MirrorState, Parts, RebuildPage, RebuildSource, SourceError,
};
use cidstore_types::{Batch, Op, Seq, Triple, TripleHash};
use cidstore_wal::{Options, Wal};
use std::error::Error;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

const ROWS: usize = 1000;

struct NoStore;

impl RebuildSource for NoStore {
    fn page(&self, _: Option<&Triple>, _: usize) -> Result<RebuildPage, SourceError> {
        Err("no rebuild is due here".into())
    }

    fn holds(&self, _: &[TripleHash]) -> Result<Vec<bool>, SourceError> {
        Err("no rebuild is due here".into())
    }

    fn get(&self, _: &[TripleHash]) -> Result<Found, SourceError> {
        Err("nothing is verified here".into())
    }

    fn rows_about(&self) -> u64 {
        0
    }
}

struct Server(Child, u16, #[expect(dead_code, reason = "kept for its drop")] tempfile::TempDir);

impl Server {
    fn start() -> Result<Self, Box<dyn Error>> {
        let dir = tempfile::tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(dir.path())
            .stdout(Stdio::null())
            .spawn()?;
        let client = redis::Client::open(format!("redis://127.0.0.1:{port}/"))?;
        while client.get_connection().is_err() {
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self(child, port, dir))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

fn floor(triples: usize, value_bytes: usize) -> Result<f64, Box<dyn Error>> {
    let server = Server::start()?;
    let (port, n, d) = (server.1.to_string(), triples.to_string(), value_bytes.to_string());
    let out = Command::new("redis-benchmark")
        .args(["-p", &port, "-t", "set", "-d", &d, "-P", "64", "-n", &n, "-r", &n, "--csv"])
        .output()?;
    let text = String::from_utf8(out.stdout)?;
    let line = text.lines().find(|line| line.contains("SET")).ok_or("no figure from redis-benchmark")?;
    let rate = line.split(',').nth(1).ok_or("no figure from redis-benchmark")?;
    Ok(rate.trim_matches('"').parse()?)
}

/// Resident memory of this process at its peak, in MB.
fn peak_memory() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<f64>().ok().map(|kb| kb / 1024.0)
}

fn mirror(
    runtime: &tokio::runtime::Runtime,
    wal: &Wal,
    triples: usize,
) -> Result<(f64, f64), Box<dyn Error>> {
    let server = Server::start()?;
    let dir = tempfile::tempdir()?;
    let state = Arc::new(MirrorState::new());
    let parts = Parts {
        disk: Arc::new(RealDisk),
        cursor: dir.path().join("cursor"),
        store_id: [7; 16],
        log: wal.log(),
        source: Arc::new(NoStore),
        state: Arc::clone(&state),
    };
    let config = MirrorConfig { host: Some("127.0.0.1".into()), port: server.1, ..MirrorConfig::default() };
    let mirror = Mirror::open(config, parts)?.ok_or("not configured")?;
    let (_appended, appended) = watch::channel::<Seq>(wal.last_seq());
    let (stop, stopping) = watch::channel(false);
    let begin = Instant::now();
    let task = runtime.spawn(mirror.run(appended, stopping));
    while state.cursor() < triples as Seq {
        std::thread::sleep(Duration::from_millis(1));
    }
    let seconds = begin.elapsed().as_secs_f64();
    stop.send_replace(true);
    runtime.block_on(task)?;
    let counters = state.report(wal.last_seq(), now()).counters;
    assert_eq!(counters.sets, triples as u64);
    Ok((triples as f64 / seconds, counters.bytes as f64 / triples as f64))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<usize>());
    let triples = args.next().transpose()?.unwrap_or(1_000_000) / ROWS * ROWS;
    let runs = args.next().transpose()?.unwrap_or(3);
    let dir = tempfile::tempdir()?;
    let (mut wal, _) = Wal::open(Arc::new(RealDisk), dir.path(), [7; 16], Options::default())?;
    let mut random = fastrand::Rng::with_seed(1);
    let mut payload = Vec::new();
    for _ in 0..triples / ROWS {
        let rows = (0..ROWS).map(|_| {
            let mut bytes = [0; Triple::BYTES];
            random.fill(&mut bytes);
            Triple(bytes)
        });
        payload.clear();
        Batch::new(Op::Insert, now(), rows.collect()).encode_into(ROWS as u64, &mut payload);
        wal.append(ROWS as u32, &payload)?;
        wal.flush()?;
    }
    let before = peak_memory();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for run in 1..=runs {
        let (rate, bytes) = mirror(&runtime, &wal, triples)?;
        // A command is the value, a key of 64 digits, and some 45 bytes beside.
        let floor = floor(triples, (bytes - 109.0) as usize)?;
        println!(
            "run {run}: mirror {rate:.0}/s ({bytes:.0} bytes each), redis-benchmark {floor:.0}/s: {:.0} %",
            100.0 * rate / floor
        );
    }
    if let (Some(before), Some(after)) = (before, peak_memory()) {
        println!("peak memory: {before:.1} MB before the mirror ran, {after:.1} MB after it");
    }
    Ok(())
}
