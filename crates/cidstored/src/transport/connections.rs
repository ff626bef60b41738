//! The number of open connections, which libzmq does not bound.
//!
//! libzmq reports each accepted and each ended connection to a monitor, with its descriptor. One
//! thread counts them, and shuts down those beyond the limit: libzmq sees the end of the stream and
//! cleans up. The descriptors that are reserved beside the limit absorb what is accepted in between.
//!
//! A descriptor may have been closed and given out again between libzmq's report and our call. So it
//! is only touched if it is a connection to one of our own addresses: then the worst that a mix-up can
//! do is to end another of the newest connections at the limit, whose client connects again.

use super::{Result, failed};
use std::collections::{HashMap, HashSet};
use std::mem::ManuallyDrop;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{FromRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use zeromq::{Context, Message, Socket};

const ACCEPTED: u16 = 32;
const ACCEPT_FAILED: u16 = 64;
const DISCONNECTED: u16 = 512;
const HANDSHAKE_FAILED: u16 = 2048 | 8192 | 16384;
const EVENTS: i32 = (ACCEPTED | ACCEPT_FAILED | DISCONNECTED | HANDSHAKE_FAILED) as i32;

/// Watch over the connections of all sockets.
pub struct Connections {
    max: usize,
    open: AtomicU64,
    refused: AtomicU64,
    accept_failed: AtomicU64,
    handshake_failed: AtomicU64,
    /// Addresses of ours that a connection may belong to.
    own: Mutex<Own>,
    monitors: Sender<(&'static str, Socket)>,
    wake: super::Wake,
    stop: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Own {
    ports: HashMap<&'static str, HashSet<u16>>,
    paths: HashSet<String>,
}

impl Connections {
    pub(super) fn start(max: usize) -> Result<Arc<Self>> {
        let (monitors, added) = channel();
        let wake = super::Wake::new()
            .map_err(|e| zeromq::Error::from_raw(e.raw_os_error().unwrap_or_default()))
            .map_err(failed("create", "an event"))?;
        let this = Arc::new(Self {
            max,
            open: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            accept_failed: AtomicU64::new(0),
            handshake_failed: AtomicU64::new(0),
            own: Mutex::default(),
            monitors,
            wake,
            stop: AtomicBool::new(false),
            thread: Mutex::new(None),
        });
        let watcher = Arc::clone(&this);
        let thread = std::thread::Builder::new()
            .name("connections".into())
            .spawn(move || watcher.run(&added))
            .map_err(|e| zeromq::Error::from_raw(e.raw_os_error().unwrap_or_default()))
            .map_err(failed("start", "the thread that counts connections"))?;
        *this.thread.lock().expect("a panic ends the process") = Some(thread);
        Ok(this)
    }

    /// Has a socket report its connections.
    pub(super) fn watch(&self, context: &Context, socket: &Socket, name: &'static str) -> Result<()> {
        let at = format!("inproc://connections-of-{name}");
        socket.monitor(&at, EVENTS).map_err(failed("monitor", name))?;
        let monitor = context.socket(zeromq::PAIR).map_err(failed("create", "a monitor"))?;
        // Unbounded, because a full monitor would block libzmq's own thread. Its length follows the
        // rate of new connections, and the thread that reads it does nothing else.
        monitor.set_rcvhwm(0).map_err(failed("set options of", "a monitor"))?;
        monitor.set_linger(0).map_err(failed("set options of", "a monitor"))?;
        monitor.connect(&at).map_err(failed("connect", at))?;
        self.monitors.send((name, monitor)).expect("the thread runs until `stop`");
        self.wake.notify();
        Ok(())
    }

    /// Names an address that connections of a socket belong to.
    pub(super) fn allow(&self, name: &'static str, endpoint: &str) {
        let mut own = self.own.lock().expect("a panic ends the process");
        if let Some(path) = endpoint.strip_prefix("ipc://") {
            own.paths.insert(path.into());
        } else if let Some(port) = endpoint.rsplit_once(':').and_then(|(_, port)| port.parse().ok()) {
            own.ports.entry(name).or_default().insert(port);
        }
    }

    /// Connections that are open now.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections that were closed because there were too many.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Connections that the system did not give us: no descriptor left.
    pub fn accept_failed(&self) -> u64 {
        self.accept_failed.load(Ordering::Relaxed)
    }

    /// Connections that ended in their handshake.
    pub fn handshake_failed(&self) -> u64 {
        self.handshake_failed.load(Ordering::Relaxed)
    }

    /// Ends one connection to one of our own addresses, from our side.
    pub fn end(&self, fd: RawFd) -> bool {
        let own = self.own.lock().expect("a panic ends the process");
        // SAFETY: the descriptor is only looked at and shut down, never closed. If it is by now
        // another file, the calls fail or its address is not ours.
        let stream = ManuallyDrop::new(unsafe { TcpStream::from_raw_fd(fd) });
        if let Ok(address) = stream.local_addr() {
            return own.ports.values().any(|ports| ports.contains(&address.port()))
                && stream.shutdown(Shutdown::Both).is_ok();
        }
        // SAFETY: as above.
        let stream = ManuallyDrop::new(unsafe { UnixStream::from_raw_fd(fd) });
        let ours = |path: &std::path::Path| own.paths.contains(&*path.to_string_lossy());
        stream.local_addr().is_ok_and(|address| address.as_pathname().is_some_and(ours))
            && stream.shutdown(Shutdown::Both).is_ok()
    }

    /// Ends the thread, which closes the monitors. The context cannot end before.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake.notify();
        if let Some(thread) = self.thread.lock().expect("a panic ends the process").take() {
            let _ = thread.join();
        }
    }

    fn run(&self, added: &Receiver<(&'static str, Socket)>) {
        let mut monitors: Vec<Monitor> = Vec::new();
        let mut newest: Vec<(usize, RawFd)> = Vec::new();
        while !self.stop.load(Ordering::Acquire) {
            let mut items: Vec<_> =
                monitors.iter().map(|monitor| monitor.socket.as_poll_item(zeromq::POLLIN)).collect();
            items.push(self.wake.poll_item());
            match zeromq::poll(&mut items, -1) {
                Ok(_) | Err(zeromq::Error::EINTR) => {}
                Err(error) => {
                    tracing::error!(%error, "cannot wait for reports of connections: they are not limited any more");
                    return;
                }
            }
            if self.wake.is_pending() {
                self.wake.clear();
                monitors.extend(added.try_iter().map(|(name, socket)| Monitor::new(name, socket)));
            }
            // First all reports, so that a connection that has ended by itself is not ended again.
            for (at, monitor) in monitors.iter_mut().enumerate() {
                self.drain(at, monitor, &mut newest);
            }
            let mut open: usize = monitors.iter().map(|monitor| monitor.open.len()).sum();
            while open > self.max {
                let Some((at, fd)) = newest.pop() else { break };
                // Not open any more, or counted as refused already.
                if monitors[at].open.remove(&fd) {
                    open -= 1;
                    self.refused.fetch_add(1, Ordering::Relaxed);
                    self.end(fd);
                    tracing::debug!(
                        socket = monitors[at].name,
                        limit = self.max,
                        "connection refused: too many"
                    );
                }
            }
            newest.clear();
            self.open.store(open as u64, Ordering::Relaxed);
        }
    }

    fn drain(&self, at: usize, monitor: &mut Monitor, newest: &mut Vec<(usize, RawFd)>) {
        let mut frame = Message::new();
        while let Ok(true) = super::receive(&monitor.socket, &mut frame) {
            let Some((event, fd)) = event(&frame) else { continue };
            if frame.get_more() {
                let mut address = Message::new();
                let _ = super::receive(&monitor.socket, &mut address);
            }
            match event {
                ACCEPTED => {
                    monitor.open.insert(fd);
                    newest.push((at, fd));
                }
                DISCONNECTED => {
                    monitor.open.remove(&fd);
                }
                ACCEPT_FAILED => {
                    self.accept_failed.fetch_add(1, Ordering::Relaxed);
                }
                _ => {
                    self.handshake_failed.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

struct Monitor {
    name: &'static str,
    socket: Socket,
    open: HashSet<RawFd>,
}

impl Monitor {
    fn new(name: &'static str, socket: Socket) -> Self {
        Self { name, socket, open: HashSet::new() }
    }
}

/// The first frame of a report: the event (u16) and its value (u32), in the machine's byte order.
fn event(frame: &[u8]) -> Option<(u16, RawFd)> {
    let (event, value) = frame.split_at_checked(2)?;
    Some((u16::from_ne_bytes(event.try_into().ok()?), RawFd::from_ne_bytes(value.try_into().ok()?)))
}
