//! Single triples by their hash: out of memory, out of Redis, out of the store.
//!
//! **Owns** the order in which these are asked, and the lookups under way, so that those who ask for the same
//! triple at the same time make one.
//!
//! **Invariants**
//! - No answer is older than the state of the store at the moment of the question: what memory has counts only as
//!   long as the triple cannot have changed, Redis only when it has every mutation that the store shows, and who
//!   joins a lookup takes its answer only if that is so of it, too.
//! - Nobody waits for Redis where the store is in memory, nor longer than a deadline anywhere.
//! - With no bytes for it there is no cache, and with no Redis nothing that would ask it.

mod body;
mod cache;

pub use body::Body;
pub use cache::{Cache, Cached};

use crate::config::Config;
use crate::shared::Shared;
use cidstore_engine::{Snapshot, UnreadablePage};
use cidstore_mirror::{NoAnswer, Reader};
use cidstore_types::{Seq, TripleHash};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A lookup that takes so long has waited for a disk. What is found faster is as fast to find again, and is kept
/// only for clients of HTTP, to whom it goes encoded.
const SLOW: Duration = Duration::from_micros(20);

/// What a lookup came to.
#[derive(Clone)]
pub struct Found {
    /// The triple, if there is one.
    pub triple: Option<Arc<Cached>>,
    /// Of which state of the store.
    as_of: Seq,
    /// Whether the store itself was not asked.
    pub is_hit: bool,
}

impl Found {
    /// Whether it is so in this state of the store.
    fn holds(&self, snapshot: &Snapshot) -> bool {
        self.as_of >= snapshot.as_of()
            || self
                .triple
                .as_ref()
                .is_some_and(|found| !snapshot.may_have_changed(&found.record.triple, self.as_of))
    }
}

/// A lookup under way, and what it came to in the end.
type Flight = watch::Receiver<Option<Result<Found, Arc<str>>>>;

/// The way to single triples.
pub struct Reading {
    /// What was read a moment ago.
    pub cache: Option<Cache>,
    flights: Mutex<HashMap<TripleHash, Flight>>,
    redis: OnceLock<Reader>,
}

impl Reading {
    /// As the settings say.
    pub fn new(config: &Config) -> Self {
        let ttl = (config.cache_ttl_ms > 0).then(|| Duration::from_millis(config.cache_ttl_ms.into()));
        let cache = Cache::new(config.cache_entries, config.cache_bytes.len(), ttl);
        Self { cache, flights: Mutex::default(), redis: OnceLock::new() }
    }

    /// Asks Redis, too, from now on.
    pub fn ask_redis(&self, redis: Reader) {
        let _ = self.redis.set(redis);
    }

    fn remembered(&self, shared: &Shared, hash: &TripleHash, snapshot: &Snapshot) -> Option<Arc<Cached>> {
        let cache = self.cache.as_ref().filter(|cache| cache.entries() > 0)?;
        let changed = |triple: &_, since| snapshot.may_have_changed(triple, since);
        let found = cache.get(hash, Instant::now(), snapshot.as_of(), changed)?;
        shared.metrics.cache_memory_hits_total.one();
        Some(found)
    }

    fn remember(&self, hash: TripleHash, entry: &Arc<Cached>) {
        if let Some(cache) = &self.cache {
            cache.put(hash, entry);
        }
    }
}

/// The triple of a hash in this state of the store, out of memory or out of the store; for threads that may wait for
/// a disk, and not for a network.
///
/// # Errors
/// [`UnreadablePage`].
pub fn get_now(
    shared: &Shared,
    hash: &TripleHash,
    snapshot: &Snapshot,
) -> Result<Option<Arc<Cached>>, UnreadablePage> {
    if let Some(found) = shared.reading.remembered(shared, hash, snapshot) {
        return Ok(Some(found));
    }
    let begin = Instant::now();
    let found = from_store(shared, hash, snapshot)?;
    if let Some(found) = &found
        && begin.elapsed() >= SLOW
    {
        shared.reading.remember(*hash, found);
    }
    Ok(found)
}

fn from_store(
    shared: &Shared,
    hash: &TripleHash,
    snapshot: &Snapshot,
) -> Result<Option<Arc<Cached>>, UnreadablePage> {
    shared.metrics.cache_misses_total.one();
    shared.touched.by_hash(snapshot.runs_len());
    let record = snapshot.get(hash)?;
    Ok(record.map(|record| Arc::new(Cached::new(record, snapshot.as_of(), Instant::now()))))
}

/// The triple of a hash, as the store has it now or later.
///
/// # Errors
/// What could not be read, for the client; the log has it, too.
pub async fn get(shared: &Arc<Shared>, hash: TripleHash) -> Result<Found, Arc<str>> {
    let snapshot = shared.engine().reader.snapshot();
    if let Some(found) = shared.reading.remembered(shared, &hash, &snapshot) {
        return Ok(Found { triple: Some(found), as_of: snapshot.as_of(), is_hit: true });
    }
    if snapshot.is_in_memory() {
        // It takes less than telling somebody else to do it.
        return look_up(shared, hash, &snapshot);
    }
    loop {
        let mut flight = join(shared, hash);
        let landed = match flight.wait_for(Option::is_some).await {
            Ok(landed) => landed.clone().expect("it was waited for"),
            Err(_) => return Err("the lookup was given up".into()),
        };
        match landed {
            // It began before a mutation that this client may know of. One that begins now does not.
            Ok(found) if !found.holds(&snapshot) => {}
            landed => return landed,
        }
    }
}

/// The lookup of this hash that is under way, or a new one. It belongs to nobody: who asked for it may leave.
fn join(shared: &Arc<Shared>, hash: TripleHash) -> Flight {
    let mut flights = shared.reading.flights.lock().expect("a panic ends the process");
    if let Some(flight) = flights.get(&hash) {
        return flight.clone();
    }
    let (land, flight) = watch::channel(None);
    flights.insert(hash, flight.clone());
    drop(flights);
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let found = from_outside(&shared, hash).await;
        // First of all, so that nobody joins who asks from now on.
        shared.reading.flights.lock().expect("a panic ends the process").remove(&hash);
        let _ = land.send(Some(found));
    });
    flight
}

/// Out of Redis, else out of files.
async fn from_outside(shared: &Arc<Shared>, hash: TripleHash) -> Result<Found, Arc<str>> {
    let snapshot = shared.engine().reader.snapshot();
    let found = from_redis(shared, &[hash], &snapshot).await;
    if let Some(found) = found.and_then(|mut found| found.pop()).flatten() {
        return Ok(Found { triple: Some(found), as_of: snapshot.as_of(), is_hit: true });
    }
    let shared = Arc::clone(shared);
    let looked_up = tokio::task::spawn_blocking(move || look_up(&shared, hash, &snapshot)).await;
    looked_up.unwrap_or_else(|_| Err("the lookup did not finish".into()))
}

/// Out of the store, for clients of HTTP.
fn look_up(shared: &Shared, hash: TripleHash, snapshot: &Snapshot) -> Result<Found, Arc<str>> {
    let triple = from_store(shared, &hash, snapshot).map_err(|unreadable| {
        tracing::error!(%unreadable, "a lookup met a page that cannot be read");
        Arc::<str>::from(unreadable.to_string())
    })?;
    if let Some(found) = &triple {
        shared.reading.remember(hash, found);
    }
    Ok(Found { triple, as_of: snapshot.as_of(), is_hit: false })
}

/// What Redis has of these, each `None` where it has none. `None` where it may not be asked, or does not answer.
async fn from_redis(
    shared: &Shared,
    hashes: &[TripleHash],
    snapshot: &Snapshot,
) -> Option<Vec<Option<Arc<Cached>>>> {
    let redis = shared.reading.redis.get()?;
    let (metrics, as_of) = (&shared.metrics, snapshot.as_of());
    let Some(held) = shared.mirror.holds(as_of) else {
        metrics.cache_redis_skipped_total.one();
        return None;
    };
    let found = match redis.get(hashes, as_of).await {
        Ok(found) if shared.mirror.still_holds(held) => found,
        Ok(_) | Err(NoAnswer::NotConnected | NoAnswer::Behind) => {
            metrics.cache_redis_skipped_total.one();
            return None;
        }
        Err(NoAnswer::Failed) => {
            metrics.cache_redis_failed_total.one();
            return None;
        }
    };
    let now = Instant::now();
    // It may have something newer, of which the state is not known.
    let latest = shared.engine().reader.snapshot();
    let keep = |(hash, record): (&TripleHash, Option<_>)| {
        let entry = Arc::new(Cached::new(record?, as_of, now));
        metrics.cache_redis_hits_total.one();
        if !latest.may_have_changed(&entry.record.triple, as_of) {
            shared.reading.remember(*hash, &entry);
        }
        Some(entry)
    };
    Some(hashes.iter().zip(found).map(keep).collect())
}

/// The triples of several hashes, in their order, as the store has them now or later, and whether the store was not
/// asked for any.
///
/// # Errors
/// As [`get`].
pub async fn get_many(
    shared: &Arc<Shared>,
    hashes: Vec<TripleHash>,
) -> Result<(Vec<Option<Arc<Cached>>>, bool), Arc<str>> {
    let snapshot = shared.engine().reader.snapshot();
    let mut found: Vec<_> =
        hashes.iter().map(|hash| shared.reading.remembered(shared, hash, &snapshot)).collect();
    let missing = |found: &[Option<_>]| -> Vec<usize> {
        found.iter().enumerate().filter(|(_, found)| found.is_none()).map(|(at, _)| at).collect()
    };
    let mut places = missing(&found);
    if !places.is_empty() && !snapshot.is_in_memory() {
        let asked: Vec<TripleHash> = places.iter().map(|at| hashes[*at]).collect();
        if let Some(answers) = from_redis(shared, &asked, &snapshot).await {
            for (at, answer) in places.iter().zip(answers) {
                found[*at] = answer;
            }
            places = missing(&found);
        }
    }
    if places.is_empty() {
        return Ok((found, true));
    }
    let work = {
        let shared = Arc::clone(shared);
        let asked: Vec<TripleHash> = places.iter().map(|at| hashes[*at]).collect();
        let snapshot = Arc::clone(&snapshot);
        move || asked.into_iter().map(|hash| look_up(&shared, hash, &snapshot)).collect::<Result<Vec<_>, _>>()
    };
    let looked_up = if snapshot.is_in_memory() {
        work()?
    } else {
        let looked_up = tokio::task::spawn_blocking(work).await;
        looked_up.unwrap_or_else(|_| Err("the lookup did not finish".into()))?
    };
    for (at, answer) in places.into_iter().zip(looked_up) {
        found[at] = answer.triple;
    }
    Ok((found, false))
}
