//! What the machine itself takes: a bare ROUTER echo, and a write made durable.

use crate::wire;
use anyhow::{Context as _, Result};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;
use zeromq::{Context, SocketType};

/// What the echo sends back at most, in bytes: the reply to a batch is short too.
const ECHO_BYTES_MAX: usize = 256;

/// Serves as a bare ROUTER echo until standard input ends; prints its endpoint first.
///
/// # Errors
/// Of libzmq.
pub fn serve_echo() -> Result<()> {
    let context = Context::new();
    let socket = context.socket(SocketType::ROUTER)?;
    socket.set_linger(0)?;
    socket.bind("tcp://127.0.0.1:*")?;
    let endpoint = socket.get_last_endpoint()?.unwrap_or_default();
    println!("{endpoint}");
    std::io::stdout().flush()?;
    std::thread::spawn(|| {
        // The parent holds the other end; when it goes, for whatever reason, so does this process.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    loop {
        let mut frames = socket.recv_multipart(0)?;
        if let Some(payload) = frames.last_mut() {
            payload.truncate(ECHO_BYTES_MAX);
        }
        socket.send_multipart(frames, 0)?;
    }
}

/// A running echo server, in a process of its own as the daemon is.
pub struct Echo {
    child: Child,
    /// Where it listens.
    pub endpoint: String,
}

impl Echo {
    /// Starts it.
    ///
    /// # Errors
    /// When this program cannot start itself again.
    pub fn start() -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("echo-server")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the echo server")?;
        let mut endpoint = String::new();
        BufReader::new(child.stdout.take().expect("piped above")).read_line(&mut endpoint)?;
        Ok(Self { child, endpoint: endpoint.trim().to_owned() })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Round trips of `bytes` through the echo on one REQ connection, in nanoseconds.
///
/// # Errors
/// Of libzmq.
pub fn echo(echo: &Echo, bytes: usize, requests: usize) -> Result<Vec<u64>> {
    let context = Context::new();
    let socket = wire::connect(&context, SocketType::REQ, &echo.endpoint)?;
    let request = vec![0x80; bytes];
    let mut nanos = Vec::with_capacity(requests);
    for n in 0..requests + requests / 10 {
        let start = Instant::now();
        wire::ask(&socket, &request)?;
        if n >= requests / 10 {
            nanos.push(start.elapsed().as_nanos() as u64);
        }
    }
    Ok(nanos)
}

const BLOCK_BYTES: usize = 4096;

/// Durations of write + fdatasync of 4 KiB on the disk of `folder`, in nanoseconds: over space that
/// is allocated and written already (the least a durable write can cost), or appending.
///
/// # Errors
/// Of the file system.
pub fn fsync(folder: &Path, writes: usize, append: bool) -> Result<Vec<u64>> {
    let path = folder.join("fsync-floor");
    let file = File::create(&path).with_context(|| path.display().to_string())?;
    if !append {
        file.write_all_at(&vec![0; BLOCK_BYTES * writes], 0)?;
        file.sync_all()?;
    }
    let block = [0xa5; BLOCK_BYTES];
    let mut nanos = Vec::with_capacity(writes);
    for n in 0..writes {
        let start = Instant::now();
        file.write_all_at(&block, (n * BLOCK_BYTES) as u64)?;
        file.sync_data()?;
        nanos.push(start.elapsed().as_nanos() as u64);
    }
    std::fs::remove_file(&path)?;
    Ok(nanos)
}

/// Bytes a second of a sequential write in pieces of 1 MiB with one fdatasync every 16 MiB, on the
/// disk of `folder`.
///
/// # Errors
/// Of the file system.
pub fn disk_stream(folder: &Path, bytes: u64) -> Result<f64> {
    let path = folder.join("stream-floor");
    let mut file = File::create(&path).with_context(|| path.display().to_string())?;
    let piece = vec![0x5a; 1 << 20];
    let pieces = bytes.div_ceil(1 << 20).max(1);
    let start = Instant::now();
    for n in 1..=pieces {
        file.write_all(&piece)?;
        if n.is_multiple_of(16) || n == pieces {
            file.sync_data()?;
        }
    }
    let rate = (pieces << 20) as f64 / start.elapsed().as_secs_f64();
    std::fs::remove_file(&path)?;
    Ok(rate)
}
