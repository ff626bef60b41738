//! Redis, in a process of its own, with its log on: `redis-benchmark`'s SET, and triples as keys.

use crate::resp::Connection;
use crate::{Work, folder};
use anyhow::{Context as _, Result, bail, ensure};
use cidstore_bench::report::{Report, Unit};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Commands that are sent before a reply is waited for.
const PIPELINE: usize = 64;
/// Connections that set triples as keys.
const CONNECTIONS: u64 = 4;
/// How long the server may take to start.
const PATIENCE: Duration = Duration::from_secs(30);
/// Has an answer only once the server is ready.
const READY: &[&[u8]] = &[b"ECHO", b"ready"];

/// A server, killed when dropped.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(dir: &Path, appendfsync: &str) -> Result<Self> {
        // Free now; if somebody takes it meanwhile, the server says so and ends.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", appendfsync, "--logfile", "redis.log"])
            .arg("--dir")
            .arg(dir)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("starting redis-server (Debian: apt-get install redis-server)")?;
        let mut server = Self { child, port };
        let start = Instant::now();
        while Connection::connect(port).and_then(|mut connection| connection.text(READY)).is_err() {
            if let Some(status) = server.child.try_wait()? {
                let log = std::fs::read_to_string(dir.join("redis.log")).unwrap_or_default();
                bail!("redis-server ended with {status}: {log}");
            }
            ensure!(start.elapsed() < PATIENCE, "redis-server does not answer on port {port}");
            thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    /// Bytes that its data takes in memory.
    fn memory(&self) -> Result<u64> {
        let info = Connection::connect(self.port)?.text(&[b"INFO", b"memory"])?;
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
        line.and_then(|bytes| bytes.parse().ok()).context("INFO without used_memory")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The rate that `redis-benchmark --csv` prints for SET.
fn set_rate(csv: &str) -> Option<f64> {
    let line = csv.lines().find_map(|line| line.strip_prefix("\"SET\",\""))?;
    line.split('"').next()?.parse().ok()
}

/// Both ways, for each kind of durability.
pub fn measure(report: &mut Report, work: &Work) -> Result<()> {
    for appendfsync in ["everysec", "always"] {
        let dir = work.folder()?;
        let server = Server::start(dir.path(), appendfsync)?;
        let output = Command::new("redis-benchmark")
            .args(["-p", &server.port.to_string(), "-t", "set", "-d", "600", "-P", "64", "--csv"])
            .args(["-n", &work.triples.to_string(), "-r", &work.triples.to_string()])
            .stderr(Stdio::inherit())
            .output()
            .context("starting redis-benchmark (Debian: apt-get install redis-tools)")?;
        let csv = String::from_utf8_lossy(&output.stdout);
        let rate = set_rate(&csv).with_context(|| format!("no rate of SET in {csv:?}"))?;
        let name = format!("redis: SET of 600 B pipelined by 64, appendfsync {appendfsync}");
        report.add(&name, Unit::RequestsPerSecond, rate, None);
        drop(server);
        drop(dir);

        let dir = work.folder()?;
        let server = Server::start(dir.path(), appendfsync)?;
        let before = server.memory()?;
        let start = Instant::now();
        triples_as_keys(work, server.port)?;
        let name = format!("redis: triples as keys pipelined by 64, appendfsync {appendfsync}");
        report.add(&name, Unit::TriplesPerSecond, work.rate(start), None);
        if appendfsync == "always" {
            let each = |bytes: u64| bytes as f64 / work.triples as f64;
            let memory = server.memory()?.saturating_sub(before);
            report.add("redis: memory, triples as keys", Unit::BytesPerTriple, each(memory), None);
            let disk = folder::bytes(dir.path())?;
            report.add("redis: log on disk, triples as keys", Unit::BytesPerTriple, each(disk), None);
        }
    }
    Ok(())
}

/// Sets every triple as a key of 96 bytes without a value, over several connections.
fn triples_as_keys(work: &Work, port: u16) -> Result<()> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|connection| {
                scope.spawn(move || -> Result<()> {
                    let mut redis = Connection::connect(port)?;
                    let mut keys = (connection..work.triples)
                        .step_by(CONNECTIONS as usize)
                        .map(|n| work.data.triple(n).0)
                        .peekable();
                    while keys.peek().is_some() {
                        redis.set_all(keys.by_ref().take(PIPELINE), b"")?;
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a thread of the load panicked"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_in_what_redis_benchmark_prints() {
        let csv = "\"test\",\"rps\",\"avg_latency_ms\"\n\"SET\",\"450000.50\",\"1.234\"\n";
        assert_eq!(set_rate(csv), Some(450_000.5));
        assert_eq!(set_rate("\"GET\",\"1.0\"\n"), None);
    }
}
