//! Triples that were read a moment ago.
//!
//! An entry knows the state of the store that it was read in, and counts only while the triple cannot have changed
//! since: whoever asks brings the snapshot that is to be answered from. So the writer has nothing to do with it.
//!
//! **Owns** the bounds in entries, bytes and time, and which entry goes: one that nobody has asked for since the
//! hand came by last (CLOCK). In shards, so that threads seldom meet.

use super::body::Body;
use cidstore_types::{Seq, Triple, TripleHash, TripleRecord};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

const SHARDS_MAX: usize = 64;
/// A shard has so many bytes at least, so that entries with much metadata find room in it, and so many entries.
const SHARD_BYTES_MIN: usize = 1 << 20;
const SHARD_ENTRIES_MIN: usize = 256;
/// What an entry takes without metadata: itself, its places in map and ring, and its JSON once that was asked for.
const ENTRY_BYTES: usize = 1024;
/// A byte of metadata is there as a tree and in the JSON.
const METADATA_FACTOR: usize = 4;

/// A triple that was read.
pub struct Cached {
    /// The triple.
    pub record: TripleRecord,
    /// A state of the store in which it was so.
    as_of: AtomicU64,
    read_at: Instant,
    body: OnceLock<Body>,
}

impl Cached {
    /// What was read in the state `as_of`, at the time `now`.
    pub fn new(record: TripleRecord, as_of: Seq, now: Instant) -> Self {
        Self { record, as_of: AtomicU64::new(as_of), read_at: now, body: OnceLock::new() }
    }

    /// As it goes to clients of HTTP; made once.
    pub fn body(&self, hash: &TripleHash) -> &Body {
        self.body.get_or_init(|| Body::of(self.record.to_json(hash).to_string().into()))
    }

    /// A state of the store in which it was so.
    pub fn as_of(&self) -> Seq {
        self.as_of.load(Ordering::Acquire)
    }

    /// Whether it is so in the state `as_of`, by what is said of changes since an earlier one.
    pub fn holds(&self, as_of: Seq, may_have_changed: impl FnOnce(&Triple, Seq) -> bool) -> bool {
        let since = self.as_of();
        if since == as_of {
            return true;
        }
        let holds = !may_have_changed(&self.record.triple, since);
        if holds {
            // The next one has less to look through.
            self.as_of.fetch_max(as_of, Ordering::AcqRel);
        }
        holds
    }

    fn bytes(&self) -> usize {
        let metadata = &self.record.metadata;
        let text =
            if metadata.is_empty() { 0 } else { metadata.to_stored(usize::MAX).map_or(0, |text| text.len()) };
        ENTRY_BYTES + METADATA_FACTOR * text
    }
}

struct Slot {
    hash: TripleHash,
    entry: Arc<Cached>,
    bytes: usize,
    /// Somebody asked for it since the hand came by.
    is_used: bool,
}

#[derive(Default)]
struct Shard {
    places: HashMap<TripleHash, usize>,
    ring: Vec<Option<Slot>>,
    /// Places in the ring that have nothing.
    free: Vec<usize>,
    hand: usize,
    bytes: usize,
}

impl Shard {
    fn len(&self) -> usize {
        self.ring.len() - self.free.len()
    }

    fn slot(&mut self, hash: &TripleHash) -> Option<&mut Slot> {
        self.ring[*self.places.get(hash)?].as_mut()
    }

    fn remove(&mut self, hash: &TripleHash) {
        let Some(at) = self.places.remove(hash) else { return };
        if let Some(slot) = self.ring[at].take() {
            self.bytes -= slot.bytes;
            self.free.push(at);
        }
    }

    fn add(&mut self, slot: Slot) {
        // Where the hand was last, if it made room: so it comes by there last.
        let at = self.free.pop().unwrap_or(self.ring.len());
        self.places.insert(slot.hash, at);
        self.bytes += slot.bytes;
        if at == self.ring.len() {
            self.ring.push(Some(slot));
        } else {
            self.ring[at] = Some(slot);
        }
    }

    /// Removes the next entry that nobody has asked for, of which there is one: each step takes a mark that a
    /// lookup has set.
    fn evict(&mut self) {
        loop {
            let at = self.hand;
            self.hand = (at + 1) % self.ring.len();
            if let Some(slot) = &mut self.ring[at]
                && !std::mem::take(&mut slot.is_used)
            {
                let hash = slot.hash;
                return self.remove(&hash);
            }
        }
    }
}

/// The entries.
pub struct Cache {
    shards: Box<[Mutex<Shard>]>,
    /// Of each shard.
    entries_max: usize,
    bytes_max: usize,
    ttl: Option<Duration>,
    entries: AtomicUsize,
    bytes: AtomicUsize,
    evictions: AtomicU64,
}

impl Cache {
    /// One of at most so many entries and, about, bytes, none older than `ttl`. `None` where there is no room for
    /// anything.
    pub fn new(entries: usize, bytes: usize, ttl: Option<Duration>) -> Option<Self> {
        if entries == 0 || bytes == 0 {
            return None;
        }
        let shards = (bytes / SHARD_BYTES_MIN).min(entries / SHARD_ENTRIES_MIN).clamp(1, SHARDS_MAX);
        Some(Self {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            entries_max: entries / shards,
            bytes_max: bytes / shards,
            ttl,
            entries: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            evictions: AtomicU64::new(0),
        })
    }

    fn shard(&self, hash: &TripleHash) -> MutexGuard<'_, Shard> {
        // The beginning is what files are searched by; either end is as uniform.
        let tail = u64::from_le_bytes(*hash.0.last_chunk().expect("32 bytes"));
        let at = (tail % self.shards.len() as u64) as usize;
        self.shards[at].lock().expect("a panic ends the process")
    }

    /// Does something to a shard, and keeps the sums.
    fn change(&self, hash: &TripleHash, change: impl FnOnce(&mut Shard)) {
        let mut shard = self.shard(hash);
        let (entries, bytes) = (shard.len(), shard.bytes);
        change(&mut shard);
        // Modulo 2^64, in which taking away is adding.
        self.entries.fetch_add(shard.len().wrapping_sub(entries), Ordering::Relaxed);
        self.bytes.fetch_add(shard.bytes.wrapping_sub(bytes), Ordering::Relaxed);
    }

    /// The triple of this hash, if it is here, not too old, and so in the state `as_of`; see [`Cached::holds`].
    pub fn get(
        &self,
        hash: &TripleHash,
        now: Instant,
        as_of: Seq,
        may_have_changed: impl FnOnce(&Triple, Seq) -> bool,
    ) -> Option<Arc<Cached>> {
        if self.entries.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let found = {
            let mut shard = self.shard(hash);
            let slot = shard.slot(hash)?;
            slot.is_used = true;
            Arc::clone(&slot.entry)
        };
        let is_old = self.ttl.is_some_and(|ttl| now.saturating_duration_since(found.read_at) >= ttl);
        if !is_old && found.holds(as_of, may_have_changed) {
            return Some(found);
        }
        // One of a later state is only too new for who asks.
        if is_old || found.as_of() <= as_of {
            self.change(hash, |shard| {
                if shard.slot(hash).is_some_and(|slot| Arc::ptr_eq(&slot.entry, &found)) {
                    shard.remove(hash);
                }
            });
        }
        None
    }

    /// Keeps what was read, unless it is too large, or here as of a later state.
    pub fn put(&self, hash: TripleHash, entry: &Arc<Cached>) {
        let bytes = entry.bytes();
        if bytes > self.bytes_max {
            return;
        }
        self.change(&hash, |shard| {
            if shard.slot(&hash).is_some_and(|slot| slot.entry.as_of() > entry.as_of()) {
                return;
            }
            shard.remove(&hash);
            while shard.len() >= self.entries_max || shard.bytes + bytes > self.bytes_max {
                shard.evict();
                self.evictions.fetch_add(1, Ordering::Relaxed);
            }
            shard.add(Slot { hash, entry: Arc::clone(entry), bytes, is_used: false });
        });
    }

    /// How many entries there are.
    pub fn entries(&self) -> usize {
        self.entries.load(Ordering::Relaxed)
    }

    /// Bytes that they take, about.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How many went to make room for others.
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cidstore_types::Cid;

    fn triple(n: u64) -> Triple {
        Triple::new(Cid::ZERO, Cid::ZERO, Cid::from_two_lanes([0, n]))
    }

    fn put(cache: &Cache, n: u64, as_of: Seq, now: Instant) {
        let record = TripleRecord::new(triple(n), as_of as f64, None);
        cache.put(triple(n).hash(), &Arc::new(Cached::new(record, as_of, now)));
    }

    /// In which state the entry was read, if there is one that holds in the state `as_of`.
    fn get(cache: &Cache, n: u64, as_of: Seq, now: Instant, changed: bool) -> Option<f64> {
        let found = cache.get(&triple(n).hash(), now, as_of, |of, _| {
            assert_eq!(*of, triple(n));
            changed
        });
        found.map(|entry| entry.record.created_at)
    }

    #[test]
    fn an_entry_counts_while_its_triple_has_not_changed() {
        let cache = Cache::new(100, 1 << 20, None).unwrap();
        let now = Instant::now();
        put(&cache, 1, 5, now);
        assert_eq!(get(&cache, 1, 5, now, true), Some(5.0), "of the same state nothing is asked");
        assert_eq!(get(&cache, 1, 8, now, false), Some(5.0));
        assert_eq!(get(&cache, 1, 8, now, true), Some(5.0), "it is known to be so at 8, too");
        assert_eq!(get(&cache, 1, 7, now, true), None, "who asks for an earlier state gets none");
        assert_eq!(get(&cache, 1, 8, now, true), Some(5.0), "and takes it from nobody");
        assert_eq!(get(&cache, 1, 9, now, true), None);
        assert_eq!((cache.entries(), cache.bytes()), (0, 0));
        put(&cache, 1, 9, now);
        put(&cache, 1, 7, now);
        assert_eq!(get(&cache, 1, 9, now, true), Some(9.0), "what was read before does not replace it");
    }

    #[test]
    fn entries_end_with_their_time() {
        let cache = Cache::new(100, 1 << 20, Some(Duration::from_secs(10))).unwrap();
        let now = Instant::now();
        put(&cache, 1, 5, now);
        assert!(get(&cache, 1, 5, now + Duration::from_secs(9), false).is_some());
        assert!(get(&cache, 1, 5, now + Duration::from_secs(10), false).is_none());
        assert_eq!(cache.entries(), 0);
    }

    #[test]
    fn bounds_hold_and_what_is_asked_for_stays() {
        let now = Instant::now();
        for (entries, bytes) in [(10, 1 << 30), (1_000_000, 10 * ENTRY_BYTES)] {
            let cache = Cache::new(entries, bytes, None).unwrap();
            put(&cache, 0, 1, now);
            for n in 1..1000 {
                assert!(get(&cache, 0, 1, now, false).is_some(), "{n}");
                put(&cache, n, 1, now);
                assert!(cache.entries() <= entries && cache.bytes() <= bytes);
            }
            assert!(cache.evictions() > 900);
            // Of those that nobody asked for the newest are here.
            let here: Vec<_> = (0..1000).filter(|n| get(&cache, *n, 1, now, false).is_some()).collect();
            assert_eq!(here, [0, 991, 992, 993, 994, 995, 996, 997, 998, 999]);
            assert_eq!(cache.bytes(), cache.entries() * ENTRY_BYTES);
        }
        assert!(Cache::new(10, 0, None).is_none());
    }

    #[test]
    fn what_is_too_large_is_not_kept() {
        let cache = Cache::new(10, 10_000, None).unwrap();
        let text = format!(r#"{{"schema_version":"{}"}}"#, "x".repeat(10_000));
        let record = TripleRecord::new(triple(1), 1.0, Some(&text));
        cache.put(triple(1).hash(), &Arc::new(Cached::new(record, 1, Instant::now())));
        assert_eq!(cache.entries(), 0);
    }

    #[test]
    fn threads_find_what_they_put_or_nothing() {
        let cache = Cache::new(64, 64 << 20, None).unwrap();
        let now = Instant::now();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let cache = &cache;
                scope.spawn(move || {
                    for round in 0..5000 {
                        let n = (round * 7 + thread) % 200;
                        put(cache, n, 1, now);
                        assert!(get(cache, n, 1, now, false).is_none_or(|read| read == 1.0));
                        get(cache, n, 2, now, round % 3 == 0);
                    }
                });
            }
        });
        assert!(cache.entries() <= 64);
        let counted: usize = cache.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert_eq!(cache.entries(), counted);
    }
}
