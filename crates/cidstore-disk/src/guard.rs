//! Mapped files of which a page cannot be read.
//!
//! Reading a mapped file where the medium has a bad sector, or a page behind the end of a file that was cut
//! short, ends a process by SIGBUS (`mmap(2)`). Here zeros take the place of the whole mapping when that
//! happens, and the mapping remembers it: whoever read from it asks afterwards whether that was the file.
//! The whole, since each page by itself would be a mapping of its own, of which a process has 65 530, and
//! each further bad sector might cost the seconds for which a disk tries to read it.
//!
//! **Invariants**
//! - That a page is gone is noted before anybody reads zeros in its place.
//! - The handler touches nothing but atomics and calls nothing but `mmap`, `sigaction`, `raise` and who was
//!   there before it: what a signal handler may (`signal-safety(7)`; `mmap` is not listed there, on Linux it
//!   is a bare system call).
//! - A SIGBUS of any other memory goes to whoever handled it before.

use std::io;
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Most mappings that are guarded at a time: many more than a store has files.
const GUARDED_MAX: usize = 4096;

/// A mapping that is guarded. All zeros: none.
struct Slot {
    /// Its address; [`TAKEN`] while the rest is being written.
    start: AtomicUsize,
    end: AtomicUsize,
    /// One more than the offset of the first page that could not be read; 0 where all could.
    unreadable: AtomicUsize,
}

/// No address of a page.
const TAKEN: usize = 1;

static SLOTS: [Slot; GUARDED_MAX] = [const {
    Slot { start: AtomicUsize::new(0), end: AtomicUsize::new(0), unreadable: AtomicUsize::new(0) }
}; GUARDED_MAX];

/// Whether a page of any mapping was ever unreadable.
static ANY: AtomicBool = AtomicBool::new(false);

/// What handled SIGBUS before, and the bytes of a page.
static BEFORE: OnceLock<(libc::sigaction, usize)> = OnceLock::new();

/// A mapping that turns into zeros when a page of it cannot be read.
pub(crate) struct Guard(&'static Slot);

/// Whether a page of any mapped file could not be read since the process began. Whoever has read from one
/// asks this first: it is one variable for all of them, which hardly ever changes.
pub fn any_page_was_unreadable() -> bool {
    // What was read before this may have been zeros: only then is the answer of use.
    fence(Ordering::Acquire);
    ANY.load(Ordering::Relaxed)
}

impl Guard {
    /// Guards a mapping, which must not go before the guard does. `None` where too many are guarded.
    ///
    /// # Errors
    /// What the system says to the handler.
    pub(crate) fn new(addresses: Range<usize>) -> io::Result<Option<Self>> {
        install()?;
        let take =
            |slot: &&Slot| slot.start.compare_exchange(0, TAKEN, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        let Some(slot) = SLOTS.iter().find(take) else { return Ok(None) };
        slot.end.store(addresses.end, Ordering::Release);
        slot.unreadable.store(0, Ordering::Release);
        slot.start.store(addresses.start, Ordering::Release);
        Ok(Some(Self(slot)))
    }

    /// Offset of the page that could not be read; `None` where all could that were.
    pub(crate) fn unreadable(&self) -> Option<usize> {
        if any_page_was_unreadable() {
            self.0.unreadable.load(Ordering::Acquire).checked_sub(1)
        } else {
            None
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.start.store(0, Ordering::Release);
    }
}

static INSTALLING: Mutex<()> = Mutex::new(());

/// Has [`handle`] called, from now on.
fn install() -> io::Result<()> {
    let _one_at_a_time = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    if BEFORE.get().is_some() {
        return Ok(());
    }
    // Known before the handler can run.
    let _ = BEFORE.set((sigaction(None)?, rustix::param::page_size()));
    // SAFETY: a `sigaction` is numbers, for which zeros are values, and a function that may be none.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handle as Handler as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    sigaction(Some(&action)).map(drop)
}

/// A handler with `SA_SIGINFO`.
type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);

/// Has SIGBUS handled as `new` says, if it is there; returns how it was handled before.
fn sigaction(new: Option<&libc::sigaction>) -> io::Result<libc::sigaction> {
    // SAFETY: as in `install`.
    let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: `new` is null or an action: one with `handle`, which has the signature that its flags ask
    // for and does what a handler may, or one that was there before. `before` may be written.
    let done =
        unsafe { libc::sigaction(libc::SIGBUS, new.map_or(ptr::null(), ptr::from_ref), &raw mut before) };
    if done == 0 { Ok(before) } else { Err(io::Error::last_os_error()) }
}

extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: to a handler with SA_SIGINFO the kernel hands a `siginfo_t` that is valid until it returns.
    let about = unsafe { &*info };
    if about.si_code == libc::BUS_MCEERR_AO {
        // Memory has an error that nobody has met yet.
        return;
    }
    if about.si_code <= 0 {
        // Somebody sent it, who wants the process to end.
        // SAFETY: as in `install`; it is the default action. The signal comes again when this returns.
        let _ = sigaction(Some(&unsafe { std::mem::zeroed() }));
        // SAFETY: takes no memory of this process.
        unsafe { libc::raise(signal) };
        return;
    }
    // SAFETY: it is of a SIGBUS, which has this field.
    let address = unsafe { about.si_addr() } as usize;
    let Some((before, page_bytes)) = BEFORE.get() else { return };
    if let Some((slot, mapping)) = SLOTS.iter().find_map(|slot| slot.holding(address))
        && slot.replace(mapping, address, *page_bytes)
    {
        return;
    }
    let handler = before.sa_sigaction;
    if before.sa_flags & libc::SA_SIGINFO != 0 && handler != libc::SIG_DFL && handler != libc::SIG_IGN {
        // SAFETY: with SA_SIGINFO the field holds a function of this signature.
        let handler = unsafe { std::mem::transmute::<usize, Handler>(handler) };
        handler(signal, info, context);
    } else {
        // Put back what was there: the access is made again, and meets it.
        let _ = sigaction(Some(before));
    }
}

impl Slot {
    /// The mapping, if `address` is within it. Who asks is reading from the mapping that he asks for, so
    /// that this one stays; any other may go meanwhile, and its slot become another's.
    fn holding(&self, address: usize) -> Option<(&Self, Range<usize>)> {
        let start = self.start.load(Ordering::Acquire);
        let end = self.end.load(Ordering::Acquire);
        let is_whole = start > TAKEN && self.start.load(Ordering::Acquire) == start;
        (is_whole && (start..end).contains(&address)).then_some((self, start..end))
    }

    /// Puts zeros where the mapping is, of which the page of `address` cannot be read. Whether it could.
    fn replace(&self, mapping: Range<usize>, address: usize, page_bytes: usize) -> bool {
        let noted = (address - mapping.start) / page_bytes * page_bytes + 1;
        let _ = self.unreadable.compare_exchange(0, noted, Ordering::AcqRel, Ordering::Relaxed);
        ANY.store(true, Ordering::Release);
        // SAFETY: the pages are those of a live mapping that is only read, and that its owner unmaps as a
        // whole. Others who read from it meanwhile see bytes turn into zeros: they copy what has to stay
        // as it was checked, and ask in the end.
        let mapped = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
            libc::mmap(mapping.start as *mut libc::c_void, mapping.len(), libc::PROT_READ, flags, -1, 0)
        };
        mapped != libc::MAP_FAILED
    }
}

#[cfg(test)]
mod tests {
    use crate::{Disk, RealDisk};
    use std::fs;

    #[test]
    fn a_file_of_which_a_page_is_gone_reads_as_zeros_and_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        let page = rustix::param::page_size();
        let sums = move |map: &dyn crate::Map| -> Vec<u64> {
            map.bytes().chunks(page).map(|page| page.iter().map(|byte| u64::from(*byte)).sum()).collect()
        };
        fs::write(&path, vec![1; 4 * page]).unwrap();
        let whole = RealDisk.map(&path).unwrap();
        let cut = RealDisk.map(&path).unwrap();
        let full = page as u64;
        assert_eq!(sums(&*whole), [full; 4]);
        assert_eq!(whole.unreadable_page(), None);

        // Behind the end of a file there is nothing to read either.
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(2 * page as u64).unwrap();
        assert_eq!(cut.bytes()[0], 1);
        assert_eq!(cut.unreadable_page(), None);
        let reader = std::thread::spawn(move || (sums(&*cut), cut.unreadable_page()));
        // What came before it was read before.
        assert_eq!(reader.join().unwrap(), (vec![full, full, 0, 0], Some(2 * full)));
        // Each mapping is by itself.
        assert_eq!(whole.unreadable_page(), None);
        assert_eq!(whole.bytes()[3 * page + 1], 0);
        assert_eq!(whole.unreadable_page(), Some(3 * full));
        assert_eq!(sums(&*whole), [0; 4]);
    }
}
