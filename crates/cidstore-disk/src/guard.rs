//! Pages of mapped files that cannot be read.
//!
//! Reading a mapped file where the medium has a bad sector, or behind the end of a file that was cut
//! short, ends a process by SIGBUS (`mmap(2)`). Here a page of zeros takes the place of such a page, and
//! the mapping remembers that it did: whoever read from it asks afterwards whether all of that was there.
//!
//! **Invariants**
//! - A page is remembered before anybody reads zeros in its place.
//! - The handler touches nothing but atomics and calls nothing but `mmap` and `sigaction`: what a signal
//!   handler may (`signal-safety(7)`; `mmap` is not listed there, on Linux it is a bare system call).
//! - A SIGBUS of any other memory goes to whoever handled it before.

use std::io;
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
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

/// What handled SIGBUS before, and the bytes of a page.
static BEFORE: OnceLock<(libc::sigaction, usize)> = OnceLock::new();

/// A mapping in which pages that cannot be read are zeros.
pub(crate) struct Guard(&'static Slot);

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
        slot.end.store(addresses.end, Ordering::Relaxed);
        slot.unreadable.store(0, Ordering::Relaxed);
        slot.start.store(addresses.start, Ordering::Release);
        Ok(Some(Self(slot)))
    }

    /// Offset of a page that could not be read, the first of them; `None` where all could.
    pub(crate) fn unreadable(&self) -> Option<usize> {
        self.0.unreadable.load(Ordering::Acquire).checked_sub(1)
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
    // SAFETY: it is of a SIGBUS, which has this field.
    let address = unsafe { about.si_addr() } as usize;
    let Some((before, page_bytes)) = BEFORE.get() else { return };
    if let Some(slot) = SLOTS.iter().find(|slot| slot.holds(address))
        && slot.replace_page(address, *page_bytes)
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
    fn holds(&self, address: usize) -> bool {
        let start = self.start.load(Ordering::Acquire);
        start > TAKEN && start <= address && address < self.end.load(Ordering::Relaxed)
    }

    /// Puts a page of zeros where `address` is, which the slot holds. Whether it could.
    fn replace_page(&self, address: usize, bytes: usize) -> bool {
        let page = address / bytes * bytes;
        let noted = page - self.start.load(Ordering::Relaxed) + 1;
        let _ = self.unreadable.compare_exchange(0, noted, Ordering::AcqRel, Ordering::Relaxed);
        // SAFETY: the page belongs to a live mapping that is only read and that its guard's owner will
        // unmap as a whole; what could be read there before stays, since there was nothing.
        let mapped = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
            libc::mmap(page as *mut libc::c_void, bytes, libc::PROT_READ, flags, -1, 0)
        };
        mapped != libc::MAP_FAILED
    }
}

#[cfg(test)]
mod tests {
    use crate::{Disk, RealDisk};
    use std::fs;

    #[test]
    fn a_page_that_is_gone_reads_as_zeros_and_is_told() {
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
        assert_eq!(reader.join().unwrap(), (vec![full, full, 0, 0], Some(2 * full)));
        // Each mapping has pages of its own.
        assert_eq!(whole.unreadable_page(), None);
        assert_eq!(whole.bytes()[3 * page], 0);
        assert_eq!(whole.unreadable_page(), Some(3 * full));
    }

    /// The process that [`any_other_fault_ends_the_process`] starts.
    #[test]
    #[ignore = "ends the process"]
    fn touch_a_mapping_that_nobody_guards() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1).unwrap();
        // So that there is a handler.
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("run"), b"x").unwrap();
        assert_eq!(RealDisk.map(&dir.path().join("run")).unwrap().bytes(), b"x");
        // SAFETY: what becomes of reading it is what is tested; nothing else uses it.
        let map = unsafe { memmap2::Mmap::map(&file) }.unwrap();
        file.set_len(0).unwrap();
        assert_eq!(std::hint::black_box(map[0]), 0);
    }

    #[test]
    fn any_other_fault_ends_the_process() {
        use std::os::unix::process::ExitStatusExt;
        let name = "guard::tests::touch_a_mapping_that_nobody_guards";
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let ended = child.args([name, "--exact", "--ignored"]).output().unwrap();
        assert_eq!(ended.status.signal(), Some(libc::SIGBUS), "{ended:?}");
    }
}
