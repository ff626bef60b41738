//! Messages that tell when libzmq has done with them.
//!
//! A high-water mark counts messages, and a reply may have 30 MB. So the bytes of large replies are
//! counted per client and in all until libzmq frees them, which it does when they were written to
//! the connection or the peer has left.

use std::ffi::c_void;
use std::ops::Deref;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes given to libzmq and not yet freed by it.
#[derive(Debug, Default)]
pub struct Outstanding {
    bytes: AtomicUsize,
    taken: AtomicUsize,
}

impl Outstanding {
    /// Their number.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How many were freed ever, modulo the size of the number: it changes when some are.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Counts bytes.
    pub fn hold(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes that were written to the connection.
    pub fn release(&self, bytes: usize) {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Counts bytes that were never sent as if they had not been given.
    fn take_back(&self, bytes: usize) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A frame that came in.
pub struct Payload(pub(super) zeromq::Message);

impl Payload {
    /// The descriptor of the connection that it came over, which libzmq attaches to it.
    pub fn connection(&mut self) -> Option<RawFd> {
        self.0.gets("__fd").and_then(|fd| fd.parse().ok())
    }
}

impl Deref for Payload {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for Payload {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

/// What a tracked frame holds while libzmq has it.
struct Tracked {
    bytes: Vec<u8>,
    counters: [Arc<Outstanding>; 2],
}

impl Drop for Tracked {
    fn drop(&mut self) {
        for counter in &self.counters {
            counter.release(self.bytes.len());
        }
    }
}

/// libzmq calls this from one of its threads when nobody needs the bytes any more.
unsafe extern "C" fn release(_data: *mut c_void, hint: *mut c_void) {
    // SAFETY: `hint` is the box that `send` leaked for this frame, and libzmq calls once per frame.
    drop(unsafe { Box::from_raw(hint.cast::<Tracked>()) });
}

/// The C message; libzmq keeps pointers in it, so it is aligned as one.
#[repr(align(8))]
struct Raw(zmq_sys::zmq_msg_t);

/// Sends bytes as one frame without copying them, counted on both counters until they are freed.
pub(super) fn send(
    socket: &mut zeromq::Socket,
    bytes: Vec<u8>,
    counters: [Arc<Outstanding>; 2],
    flags: i32,
) -> zeromq::Result<()> {
    for counter in &counters {
        counter.hold(bytes.len());
    }
    let unsent = counters.clone();
    let tracked = Box::new(Tracked { bytes, counters });
    let (data, len) = (tracked.bytes.as_ptr().cast_mut().cast(), tracked.bytes.len());
    let hint = Box::into_raw(tracked);
    let mut raw = Raw(zmq_sys::zmq_msg_t::default());
    // SAFETY: `raw` is a message's space. `data` and `len` are a buffer that stays in place until
    // `release` frees it with `hint`; libzmq only reads it.
    let made = unsafe { zmq_sys::zmq_msg_init_data(&raw mut raw.0, data, len, Some(release), hint.cast()) };
    if made != 0 {
        // SAFETY: libzmq did not take the hint, so it is still ours, and only here.
        drop(unsafe { Box::from_raw(hint) });
        return Err(zeromq::Error::ENOMEM);
    }
    // SAFETY: the socket is open, since we hold it, and used by this thread alone (`&mut`).
    let sent = unsafe { zmq_sys::zmq_msg_send(&raw mut raw.0, socket.as_mut_ptr(), flags) };
    if sent >= 0 {
        return Ok(());
    }
    // SAFETY: reads this thread's errno of libzmq, right after the call that failed.
    let errno = unsafe { zmq_sys::zmq_errno() };
    // SAFETY: a message that was not sent is still ours to close, which releases the bytes.
    unsafe { zmq_sys::zmq_msg_close(&raw mut raw.0) };
    for counter in &unsent {
        counter.take_back(len);
    }
    Err(zeromq::Error::from_raw(errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_until_libzmq_has_written_or_dropped_them() {
        let context = zeromq::Context::new();
        let mut push = context.socket(zeromq::PUSH).unwrap();
        push.set_linger(0).unwrap();
        push.set_sndhwm(2).unwrap();
        push.bind("inproc://tracked").unwrap();
        let pull = context.socket(zeromq::PULL).unwrap();
        pull.set_rcvhwm(1).unwrap();
        pull.connect("inproc://tracked").unwrap();
        let (mine, all) = (Arc::new(Outstanding::default()), Arc::new(Outstanding::default()));
        let counters = || [Arc::clone(&mine), Arc::clone(&all)];
        let mut given = 0;
        while send(&mut push, vec![7; 1000], counters(), zeromq::DONTWAIT).is_ok() {
            given += 1;
        }
        assert!(given > 0);
        // The refused one was released at once, and nobody took it.
        assert_eq!((mine.bytes(), all.bytes()), (given * 1000, given * 1000));
        assert_eq!((mine.taken(), all.taken()), (0, 0));
        assert_eq!(pull.recv_bytes(0).unwrap(), vec![7; 1000]);
        assert_eq!((all.bytes(), all.taken()), ((given - 1) * 1000, 1000));
        drop((push, pull));
        drop(context);
        assert_eq!((mine.bytes(), all.bytes()), (0, 0));
    }
}
