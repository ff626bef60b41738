//! Keeping mapped run files from filling the process's resident memory.
//!
//! Lookups map pages of run files, 64 KiB and more at a fault, and nothing takes them away while the machine
//! has memory to spare. They are the page cache's, and the kernel may have them back at any time, but
//! they count as the process's own in every tool that an operator looks at. Who has set a bound has them
//! given back when there are too many, one file after the other: they stay in the page cache, and the
//! next lookup maps them again. That takes some microseconds a lookup, and milliseconds to do, so no more
//! is given back than must be. Readers say how much they have touched ([`Touched`]), since they can map
//! a gigabyte in the time between two looks by the clock.
//!
//! And freed memory that the allocator keeps, after a burst of large messages say, is given back now
//! and then.

use cidstore_engine::Reader;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What mapped files, this program's code included, may have in any case.
const MAPPED_BYTES_MIN: u64 = 128 << 20;

/// Resident bytes that belong to no file above which the allocator is asked for what is free of them.
const ANONYMOUS_BYTES_MAX: u64 = 256 << 20;
/// How often at most: it holds up whoever allocates, for milliseconds.
const TRIM_EVERY: Duration = Duration::from_secs(10);

/// How often to look, in a store that is large enough.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Places in files that may be touched between two looks. A fault maps 64 KiB around its place, and up
/// to 2 MiB where the page cache holds the file in large folios.
const WINDOWS_MAX: usize = 48;
/// Windows of a run that a lookup by hash touches: its place in the index, the row number, the row.
const WINDOWS_BY_HASH: usize = 3;

/// What readers may have mapped since the last look.
#[derive(Default)]
pub struct Touched {
    windows: AtomicUsize,
    ask: OnceLock<Box<dyn Fn() -> bool + Send + Sync>>,
    /// A look was asked for and has not been taken.
    asked: AtomicBool,
}

impl Touched {
    /// Has `ask` called when it may be time for a look; it says whether it asked for one.
    pub fn notify(&self, ask: impl Fn() -> bool + Send + Sync + 'static) {
        let _ = self.ask.set(Box::new(ask));
    }

    /// A look is taken now.
    pub fn taken(&self) {
        self.asked.store(false, Ordering::Release);
    }

    /// A triple was looked for by its hash in so many runs.
    pub fn by_hash(&self, runs: usize) {
        self.add(runs * WINDOWS_BY_HASH);
    }

    /// So many places were looked at, of which each may be in another window.
    pub fn add(&self, windows: usize) {
        if self.windows.fetch_add(windows, Ordering::Relaxed) + windows >= WINDOWS_MAX
            && self.windows.swap(0, Ordering::Relaxed) >= WINDOWS_MAX
            && let Some(ask) = self.ask.get()
            && !self.asked.swap(true, Ordering::AcqRel)
            && !ask()
        {
            self.asked.store(false, Ordering::Release);
        }
    }
}

/// Resident bytes of this process.
#[derive(Debug, Clone, Copy)]
struct Resident {
    all: u64,
    /// Those that belong to files, this program's own code included.
    mapped: u64,
}

impl Resident {
    /// What `statm` says (`proc(5)`). The file stays open, since a scan asks for every 64 rows: to open
    /// it takes longer than to read it.
    fn now() -> Option<Self> {
        static STATM: OnceLock<Option<File>> = OnceLock::new();
        let file = STATM.get_or_init(|| File::open("/proc/self/statm").ok()).as_ref()?;
        let mut bytes = [0; 256];
        let len = file.read_at(&mut bytes, 0).ok()?;
        let statm = std::str::from_utf8(&bytes[..len]).ok()?;
        let mut pages = statm.split_whitespace().skip(1).map_while(|field| field.parse::<u64>().ok());
        let page = rustix::param::page_size() as u64;
        Some(Self { all: pages.next()? * page, mapped: pages.next()? * page })
    }
}

/// Whether more than `most` bytes are resident, of whatever kind, so that mapped files must be given back;
/// never if that is 0.
pub fn is_too_much(most: u64) -> bool {
    most > 0 && Resident::now().is_some_and(|now| now.all > most && now.mapped > MAPPED_BYTES_MIN)
}

/// Gives pages of run files back when too many are resident.
pub struct Bound {
    /// See [`is_too_much`].
    most: u64,
    /// Which run is next.
    next: usize,
    trimmed: Option<Instant>,
}

impl Bound {
    /// Of so many resident bytes; 0 for none.
    pub fn new(most: u64) -> Self {
        Self { most, next: 0, trimmed: None }
    }

    /// Looks, and gives back. Returns how long not to look again, at most `idle`.
    pub fn look(&mut self, reader: &Reader, idle: Duration) -> Duration {
        if Resident::now().is_some_and(|now| now.all - now.mapped.min(now.all) > ANONYMOUS_BYTES_MAX)
            && self.trimmed.is_none_or(|at| at.elapsed() >= TRIM_EVERY)
        {
            give_back_freed_memory();
            self.trimmed = Some(Instant::now());
        }
        let runs = reader.snapshot();
        if self.most == 0 || reader.stats().file_bytes <= MAPPED_BYTES_MIN {
            return idle;
        }
        for _ in 0..runs.runs_len() {
            if !is_too_much(self.most) {
                break;
            }
            runs.release_mapped(self.next);
            self.next = (self.next + 1) % runs.runs_len();
        }
        idle.min(LOOK_EVERY)
    }
}

/// Has the allocator return what it keeps of freed memory to the system (`malloc_trim(3)`).
#[cfg(target_env = "gnu")]
fn give_back_freed_memory() {
    // SAFETY: may be called at any time from any thread; what is in use is not touched.
    unsafe { libc::malloc_trim(0) };
}

/// Other C libraries have no such call.
#[cfg(not(target_env = "gnu"))]
fn give_back_freed_memory() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_bytes_of_files_are_known() {
        let Resident { all, mapped } = Resident::now().expect("Linux says how much is resident");
        assert!((1 << 12..1 << 32).contains(&mapped), "{mapped}");
        assert!((mapped..1 << 34).contains(&all), "{all}");
    }

    #[test]
    #[cfg(target_env = "gnu")]
    fn freed_memory_is_given_back() {
        // Pieces too small to be mapped one by one, the last of which keeps the heap from shrinking.
        let mut pieces: Vec<Vec<u8>> = (0..2000).map(|_| vec![1; 64 << 10]).collect();
        let last = pieces.pop();
        let full = Resident::now().unwrap().all;
        drop(pieces);
        give_back_freed_memory();
        let left = Resident::now().unwrap().all;
        // Other tests allocate meanwhile.
        assert!(left + (60 << 20) < full, "{full} bytes before, {left} after");
        drop(last);
    }

    #[test]
    fn readers_ask_for_a_look_after_what_they_touched() {
        let touched = Touched::default();
        let looks = std::sync::Arc::new(AtomicUsize::new(0));
        let counted = std::sync::Arc::clone(&looks);
        touched.notify(move || counted.fetch_add(1, Ordering::Relaxed) > 0);
        let small = (WINDOWS_MAX - 1) / WINDOWS_BY_HASH;
        (0..small).for_each(|_| touched.by_hash(1));
        assert_eq!(looks.load(Ordering::Relaxed), 0);
        touched.by_hash(1);
        // Nothing was to be done then, so the next one that has touched much asks again, and is heard.
        touched.add(10 * WINDOWS_MAX);
        touched.add(1);
        assert_eq!(looks.load(Ordering::Relaxed), 2);
        // One question at a time, however many have touched much until there is an answer.
        (0..5).for_each(|_| touched.add(WINDOWS_MAX));
        assert_eq!(looks.load(Ordering::Relaxed), 2);
        touched.taken();
        touched.add(WINDOWS_MAX);
        assert_eq!(looks.load(Ordering::Relaxed), 3);
    }
}
