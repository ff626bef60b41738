//! The daemon as a whole: what is opened, started and ended in which order.

use crate::config::{Config, Loaded};
use crate::endpoints::Endpoints;
use crate::exit::{Exit, Fatal};
use crate::health::Phase;
use crate::http;
use crate::limits;
use crate::merging::Merging;
use crate::mirror;
use crate::pool::Pool;
use crate::publisher::Publisher;
use crate::push::{Push, Rejected};
use crate::req::{Event, Replies, Req};
use crate::resident;
use crate::scrubbing::Scrubbing;
use crate::sealing::{Requests, Sealing};
use crate::service::Service;
use crate::shared::{Engine, Shared};
use crate::signals;
use crate::sockets;
use crate::transport::{self, Mailbox, Transport, Wake};
use crate::writer::Writer;
use cidstore_disk::{Disk, LockError, RealDisk, StoreLock};
use cidstore_engine::{MergeStop, Store, StoreOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Time between looks at rates and the service manager's watchdog.
const TICK: Duration = Duration::from_secs(1);
/// How long HTTP requests under way may take at the end.
const HTTP_DRAIN: Duration = Duration::from_secs(1);

/// So many times what is sealed at once may be in memory before mutations wait. A seal takes half a second, and
/// longer beside a merge: with twice as much the writer waited for it, up to 80 ms in a row, at half of the
/// greatest load (ARCHITECTURE.md).
const MEMORY_FACTOR: usize = 4;

/// What the main thread waits for.
enum Note {
    /// SIGTERM or SIGINT.
    Signal(i32),
    /// A thread ended.
    Ended(&'static str, Result<(), String>),
    /// Readers have touched much.
    Touched,
}

/// Threads that tell the main thread when they end.
struct Threads {
    notes: Sender<Note>,
    running: Vec<(&'static str, JoinHandle<()>)>,
}

impl Threads {
    fn start<E: std::fmt::Display>(
        &mut self,
        name: &'static str,
        work: impl FnOnce() -> Result<(), E> + Send + 'static,
    ) -> Result<(), Fatal> {
        let notes = self.notes.clone();
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
            let ended = work().map_err(|error| error.to_string());
            // The main thread may be gone already, at the very end.
            let _ = notes.send(Note::Ended(name, ended));
        });
        let thread = thread.map_err(|error| Fatal::new(Exit::Unavailable, error))?;
        self.running.push((name, thread));
        Ok(())
    }

    /// The same for work that cannot fail.
    fn run(&mut self, name: &'static str, work: impl FnOnce() + Send + 'static) -> Result<(), Fatal> {
        self.start(name, move || {
            work();
            Ok::<(), String>(())
        })
    }

    /// Waits for a thread to end.
    fn join(&mut self, name: &str) {
        while let Some(at) = self.running.iter().position(|(other, _)| *other == name) {
            let (_, thread) = self.running.swap_remove(at);
            // A panic ends the process, so a join cannot find one.
            let _ = thread.join();
        }
    }
}

/// The path with something after its name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Runs until a signal.
///
/// # Errors
/// Why it did not start, or had to end.
pub fn run(loaded: Loaded) -> Result<(), Fatal> {
    let config = loaded.config;
    let (libzmq, curve) = transport::library();
    let (major, minor, release) = cidstore_engine::hdf5::hdf5_version();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        libzmq,
        curve,
        hdf5 = format!("{major}.{minor}.{release}"),
        data_path = %config.data_path.display(),
        durability = config.show("durability"),
        pid = std::process::id(),
        "cidstored starts"
    );
    if !loaded.injected.is_empty() {
        tracing::warn!(
            "passed over what the container platform tells of its services, which is no setting: {}",
            loaded.injected.join(", ")
        );
    }
    let descriptors = limits::raise_descriptors(&config).map_err(|e| Fatal::new(Exit::Usage, e))?;
    tracing::debug!(descriptors, "limit of file descriptors");

    let (notes, noted) = channel();
    signals::watch(notes.clone(), Note::Signal).map_err(|e| Fatal::new(Exit::Unavailable, e))?;
    let shared = Arc::new(Shared::new(config));
    // The lock first: a second daemon must not disturb the first one, not even on its ports.
    let lock = acquire_lock(&shared.config.data_path)?;
    // Who waits for the file must not find the one of an earlier life.
    if let Some(stale) = &shared.config.endpoints_file {
        let _ = std::fs::remove_file(stale);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("tokio")
        .enable_all()
        .build()
        .map_err(|e| Fatal::new(Exit::Unavailable, e))?;
    let (http_stop, http_address) = serve_http(&shared, &runtime)?;

    let parts = Daemon::open(Arc::clone(&shared), runtime, notes)?;
    let ended = parts.run(&noted, &http_address, &http_stop);
    drop(lock);
    ended
}

fn acquire_lock(path: &Path) -> Result<StoreLock, Fatal> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|error| {
            Fatal::new(Exit::Io, format!("cannot make the data folder {}: {error}", folder.display()))
        })?;
    }
    StoreLock::acquire(&beside(path, ".lock")).map_err(|error| {
        let exit = if matches!(error, LockError::Held { .. }) { Exit::Held } else { Exit::Io };
        Fatal::new(exit, error)
    })
}

/// Binds and serves HTTP, so that health and readiness are known from the first moment.
fn serve_http(
    shared: &Arc<Shared>,
    runtime: &tokio::runtime::Runtime,
) -> Result<(watch::Sender<bool>, String), Fatal> {
    let address = shared.config.http_address();
    let bound = runtime.block_on(tokio::net::TcpListener::bind(&address));
    let listener = bound
        .map_err(|error| Fatal::new(Exit::Unavailable, format!("cannot bind HTTP to {address}: {error}")))?;
    let local = listener.local_addr().map_err(|error| Fatal::new(Exit::Unavailable, error))?;
    let (stop, stopped) = watch::channel(false);
    let router = http::router(Arc::clone(shared));
    runtime.spawn(async move {
        let mut stopped = stopped;
        let stop = async move {
            // An error means that the sender is gone, which means the same.
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        if let Err(error) = axum::serve(
            http::Bounded::new(listener),
            router.into_make_service_with_connect_info::<http::Peer>(),
        )
        .with_graceful_shutdown(stop)
        .await
        {
            tracing::error!(%error, "HTTP has ended");
        }
    });
    Ok((stop, format!("http://{local}")))
}

/// An open store, bound sockets, running threads.
struct Daemon {
    shared: Arc<Shared>,
    runtime: tokio::runtime::Runtime,
    transport: Transport,
    threads: Threads,
    pool: Vec<JoinHandle<()>>,
    requests: Arc<Requests>,
    replies: Arc<Mailbox<Event>>,
    publisher_wake: Arc<Wake>,
    publisher_may_end: Arc<AtomicBool>,
    mirror: Option<(watch::Sender<bool>, tokio::task::JoinHandle<()>)>,
    merge_stop: MergeStop,
    endpoints: Endpoints,
}

fn store_options(config: &Config) -> Result<StoreOptions, Fatal> {
    let mut random = [0; 24];
    let read = std::fs::File::open("/dev/urandom")
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut random));
    read.map_err(|error| Fatal::new(Exit::Io, format!("cannot read /dev/urandom: {error}")))?;
    let (id, nonce) = random.split_at(16);
    let defaults = StoreOptions::default();
    Ok(StoreOptions {
        new_store_id: id.try_into().expect("16 of 24 bytes"),
        nonce: u64::from_ne_bytes(nonce.try_into().expect("8 of 24 bytes")),
        segment_bytes: config.wal_segment_bytes.0,
        batch_rows_max: config.batch_triples_max,
        seal_rows: config.promotion_threshold,
        memory_rows_max: config.promotion_threshold.saturating_mul(MEMORY_FACTOR),
        // As many rows as are asked for can be sealed at once, in 64 runs.
        tidy_rows_max: defaults.tidy_rows_max.max(config.promotion_threshold / 16),
        key_ttl_s: config.idempotency_ttl_s.into(),
        keys_max: config.idempotency_keys_max,
        ..defaults
    })
}

impl Daemon {
    fn open(
        shared: Arc<Shared>,
        runtime: tokio::runtime::Runtime,
        notes: Sender<Note>,
    ) -> Result<Self, Fatal> {
        let config = &shared.config;
        let start = Instant::now();
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let (mut store, report) = Store::open(Arc::clone(&disk), &config.data_path, store_options(config)?)
            .map_err(|error| Fatal::new(Exit::Io, error))?;
        tracing::info!(
            created = report.created,
            runs = report.runs,
            sealed_seq = report.sealed_seq,
            last_seq = report.last_seq,
            replayed = report.replayed,
            keys = report.keys,
            torn_bytes = report.wal.torn_bytes,
            elapsed = ?start.elapsed(),
            "store open"
        );
        if !report.debris.is_empty() {
            tracing::info!(files = ?report.debris, "removed what an interrupted merge had left");
        }
        let engine = Engine { reader: store.reader(), log: store.log() };
        shared.visible.advance(report.last_seq);
        let (sealer, merger) = store.maintainer().split();
        let merge_stop = merger.stopper();
        assert!(shared.engine.set(engine).is_ok(), "the store is opened once");
        // Before anything is appended: it compares its cursor with the log.
        let mirror = mirror::open(&shared, disk, &beside(&config.data_path, ".mirror"))
            .map_err(|error| Fatal::new(Exit::Usage, error))?;
        mirror::read(&shared).map_err(|error| Fatal::new(Exit::Usage, error))?;

        let unavailable = |error: std::io::Error| Fatal::new(Exit::Unavailable, error);
        let replies = Arc::new(Mailbox::new().map_err(unavailable)?);
        let requests = Arc::new(Requests::default());
        let service = Arc::new(Service::new(Arc::clone(&shared)));
        let threads = match config.read_threads {
            0 => std::thread::available_parallelism().map_or(2, |cores| (cores.get() / 2).clamp(1, 16)),
            threads => threads,
        };
        let (pool, pool_threads) =
            Pool::start(threads, config.read_queue_max, &service, &replies).map_err(unavailable)?;

        let publisher_wake = Arc::new(Wake::new().map_err(unavailable)?);
        let push_wake = Arc::new(Wake::new().map_err(unavailable)?);
        let rejected = Rejected::new(Arc::clone(&shared), Arc::clone(&publisher_wake));
        shared.visible.notify(&publisher_wake);
        for wake in [replies.wake(), &push_wake, &publisher_wake] {
            shared.stop.notify(wake);
        }

        let transport = Transport::new(i32::try_from(config.io_threads).unwrap_or(1), config.connections_max)
            .map_err(|error| Fatal::new(Exit::Unavailable, error))?;
        let _ = shared.connections.set(transport.connections());
        let (router, puller, socket, endpoints) = sockets::bind(&transport, config)?;

        let readers = notes.clone();
        // To ask the system here is cheaper than to wake the main thread for nothing, which may be gone
        // already, at the very end.
        let most = config.resident_bytes_max.0;
        shared.touched.notify(move || resident::is_too_much(most) && readers.send(Note::Touched).is_ok());
        let looks = Arc::clone(&shared);
        store.on_lookups(move |places| looks.touched.add(places));
        let mut threads = Threads { notes, running: Vec::new() };
        let direct = Arc::new(Replies::new(Arc::clone(&shared), router.clone(), Arc::clone(&replies)));
        let writer = Writer::new(Arc::clone(&shared), store, Arc::clone(&direct), rejected.clone());
        threads.run("writer", move || writer.run())?;
        let sealing = Sealing::new(Arc::clone(&shared), sealer, Arc::clone(&requests), Arc::clone(&replies));
        threads.run("seal", move || sealing.run())?;
        let merging = Merging::new(Arc::clone(&shared), merger);
        threads.run("merge", move || merging.run())?;
        if config.scrub_bytes_per_second.0 > 0 {
            let scrubbing = Scrubbing::new(Arc::clone(&shared), shared.engine().reader.scrubber());
            threads.run("scrub", move || scrubbing.run())?;
        }
        let publisher =
            Publisher::new(Arc::clone(&shared), socket, Arc::clone(&publisher_wake), rejected.clone());
        let publisher_may_end = Arc::new(AtomicBool::new(false));
        let may_end = Arc::clone(&publisher_may_end);
        threads.start("pub", move || publisher.run(&|| may_end.load(Ordering::Acquire)))?;
        let push = Push {
            shared: Arc::clone(&shared),
            service: Arc::clone(&service),
            puller,
            wake: push_wake,
            rejected,
        };
        threads.start("push", move || push.run())?;
        let req = Req::new(
            Arc::clone(&shared),
            service,
            router,
            Arc::clone(&replies),
            direct,
            pool,
            Arc::clone(&requests),
        );
        threads.start("req", move || req.run())?;
        let mirror = mirror.map(|mirror| {
            let (stop, stopped) = watch::channel(false);
            (stop, runtime.spawn(mirror.run(shared.visible.watch(), stopped)))
        });
        Ok(Self {
            shared,
            runtime,
            transport,
            threads,
            pool: pool_threads,
            requests,
            replies,
            merge_stop,
            publisher_wake,
            publisher_may_end,
            mirror,
            endpoints,
        })
    }

    fn run(
        mut self,
        noted: &Receiver<Note>,
        http_address: &str,
        http_stop: &watch::Sender<bool>,
    ) -> Result<(), Fatal> {
        self.endpoints.http = http_address.into();
        self.shared.health.enter(Phase::Running);
        if let Some(path) = &self.shared.config.endpoints_file {
            self.endpoints
                .write(path)
                .map_err(|error| Fatal::new(Exit::Io, format!("cannot write {}: {error}", path.display())))?;
        }
        let Endpoints { req, push, publish, router_dealer, http, .. } = &self.endpoints;
        tracing::info!(req, push, publish, router_dealer, http, elapsed = ?self.shared.started.elapsed(), "ready");
        tell_manager(&[sd_notify::NotifyState::Ready]);

        let ended = self.wait(noted);
        self.shared.health.enter(Phase::Stopping);
        tell_manager(&[sd_notify::NotifyState::Stopping]);
        self.end_within_grace();
        self.finish(http_stop);
        ended?;
        match self.shared.health.latched() {
            Some(why) => Err(Fatal::new(Exit::Io, format!("writes had stopped for good: {why}"))),
            None => Ok(()),
        }
    }

    /// Until a signal, or a thread that ended without being asked.
    fn wait(&self, noted: &Receiver<Note>) -> Result<(), Fatal> {
        let watchdog = sd_notify::watchdog_enabled();
        let mut resident = resident::Bound::new(self.shared.config.resident_bytes_max.0);
        loop {
            let tick = watchdog.map_or(TICK, |every| TICK.min(every / 3));
            self.shared.touched.taken();
            let tick = resident.look(&self.shared.engine().reader, tick);
            match noted.recv_timeout(tick) {
                Ok(Note::Signal(signal)) => {
                    tracing::info!(signal, "ending in order; a second signal ends at once");
                    return Ok(());
                }
                Ok(Note::Ended(name, ended)) => {
                    let why = ended.err().unwrap_or_else(|| "without being asked".into());
                    return Err(Fatal::new(Exit::Unavailable, format!("thread {name} ended: {why}")));
                }
                Ok(Note::Touched) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("this thread holds a sender"),
            }
            self.shared.window.tick(&self.shared.metrics, Instant::now());
            match watchdog.map(|every| self.shared.pulses.missing(every)) {
                None => {}
                Some(None) => tell_manager(&[sd_notify::NotifyState::Watchdog]),
                // Without this the service manager ends the process, which is what it is for.
                Some(Some(thread)) => tracing::error!(?thread, "a thread is stuck"),
            }
        }
    }

    /// Ends the process when the orderly end takes too long.
    fn end_within_grace(&self) {
        let grace = Duration::from_secs(self.shared.config.shutdown_grace_s.into());
        let _ = std::thread::Builder::new().name("grace".into()).spawn(move || {
            std::thread::sleep(grace);
            tracing::error!(?grace, "the orderly end took too long; what was acknowledged is on disk");
            signal_hook::low_level::exit(Exit::Late as i32);
        });
    }

    /// The orderly end, each thread after those that feed it.
    fn finish(&mut self, http_stop: &watch::Sender<bool>) {
        let shared = &self.shared;
        shared.stop.want();
        // Not needed to end in order, and its processor is: what is abandoned is merged another time.
        self.merge_stop.stop();
        shared.compaction.end();
        shared.merging.ring();
        shared.scrubbing.ring();
        // What had arrived by push is in the queue when this returns.
        self.threads.join("push");
        // Requests that come now are told that it is over.
        shared.queue.close();
        self.threads.join("writer");
        self.publisher_may_end.store(true, Ordering::Release);
        self.publisher_wake.notify();
        self.requests.finish();
        shared.sealing.ring();
        self.threads.join("seal");
        self.threads.join("merge");
        self.threads.join("scrub");
        self.threads.join("pub");
        // Every reply is in the mailbox before this.
        self.replies.push(Event::Finish);
        self.threads.join("req");
        for thread in self.pool.drain(..) {
            let _ = thread.join();
        }
        self.transport.connections().stop();
        if let Some((stop, task)) = self.mirror.take() {
            let _ = stop.send(true);
            let _ = self.runtime.block_on(async { tokio::time::timeout(HTTP_DRAIN * 2, task).await });
        }
        let _ = http_stop.send(true);
        if let Some(path) = &self.shared.config.endpoints_file {
            let _ = std::fs::remove_file(path);
        }
        tracing::info!(seq = self.shared.visible.seq(), "ended");
    }
}

/// Tells systemd, where it wants to know.
fn tell_manager(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}
