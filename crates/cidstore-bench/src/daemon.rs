//! A daemon of the benchmark's own: started on a folder of its own and free ports, stopped and
//! started again.

use crate::wire;
use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use zeromq::{Context, SocketType};

/// How long it may take to get ready, or to end.
const PATIENCE: Duration = Duration::from_mins(2);

/// Where a daemon listens.
#[derive(Debug, Clone)]
pub struct Endpoints {
    /// For requests.
    pub request: String,
    /// For mutations without reply.
    pub push: String,
}

/// A running daemon; killed when dropped.
pub struct Daemon {
    child: Child,
    /// Where it listens.
    pub endpoints: Endpoints,
    /// From its start to its first reply.
    pub ready_after: Duration,
}

impl Daemon {
    /// Starts `program` on `folder`, without a mirror and otherwise with its defaults and what the
    /// environment says, but for `settings` (names of variables and their values).
    ///
    /// # Errors
    /// When it does not get ready; the end of its log is in the message.
    pub fn start(program: &Path, folder: &Path, settings: &[(&str, String)]) -> Result<Self> {
        let file = folder.join("endpoints.json");
        let log = folder.join("daemon.log");
        let _ = fs::remove_file(&file);
        let start = Instant::now();
        let mut child = Command::new(program)
            .env("CIDSTORE_DATA_PATH", folder.join("cidstore.h5"))
            .env("CIDSTORE_ENDPOINTS_FILE", &file)
            .env("CIDSTORE_ZMQ_REQREP_PORT", "0")
            .env("CIDSTORE_ZMQ_PUSH_PORT", "0")
            .env("CIDSTORE_ZMQ_PUB_PORT", "0")
            .env("CIDSTORE_PORT", "0")
            .env("CIDSTORE_USE_REDIS", "0")
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let told = |what: &str| {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let tail: Vec<_> = text.lines().rev().take(10).collect();
            format!(
                "the daemon {what}; its log ends with\n{}",
                tail.into_iter().rev().collect::<Vec<_>>().join("\n")
            )
        };
        let endpoints = loop {
            if let Some(endpoints) = read_endpoints(&file) {
                break endpoints;
            }
            if let Some(status) = child.try_wait()? {
                bail!(told(&format!("ended with {status}")));
            }
            if start.elapsed() > PATIENCE {
                let _ = child.kill();
                let _ = child.wait();
                bail!(told("does not get ready"));
            }
            thread::sleep(Duration::from_millis(1));
        };
        let mut daemon = Self { child, endpoints, ready_after: Duration::ZERO };
        let context = Context::new();
        let socket = wire::connect(&context, SocketType::REQ, &daemon.endpoints.request)?;
        wire::expect_ok(&wire::ask(&socket, br#"{"command":"ping"}"#)?)?;
        daemon.ready_after = start.elapsed();
        Ok(daemon)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it (`TERM`: in order; `KILL`: at once).
    ///
    /// # Errors
    /// When it does not end.
    pub fn end(mut self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal)?;
        let asked = Instant::now();
        while self.child.try_wait()?.is_none() {
            if asked.elapsed() > PATIENCE {
                bail!("the daemon does not end");
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_endpoints(file: &Path) -> Option<Endpoints> {
    let map: Value = serde_json::from_str(&fs::read_to_string(file).ok()?).ok()?;
    let text = |name: &str| map[name].as_str().map(str::to_owned);
    Some(Endpoints { request: text("req")?, push: text("push")? })
}
