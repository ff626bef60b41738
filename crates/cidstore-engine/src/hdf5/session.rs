//! The HDF5 library behind its lock: ids that release themselves, and its error stack as text.
//!
//! HDF5 is not thread-safe. A [`Session`] exists only while the library's lock is held, every call
//! goes through one, and an [`Object`] borrows from it: no id outlives the lock.

use std::ffi::{CStr, c_int, c_uint, c_void};
use std::marker::PhantomData;

use ::hdf5_sys::h5e::{H5E_DEFAULT, H5E_WALK_DOWNWARD, H5E_error2_t, H5Ewalk2};
use ::hdf5_sys::h5i::{H5Idec_ref, hid_t};

use super::Hdf5Error;

/// Frames of HDF5's error stack that go into a message; it is rarely deeper.
const ERROR_FRAMES_MAX: usize = 12;

/// The right to call HDF5 about one file; the lock is held as long as it lives.
pub(super) struct Session<'f> {
    file: &'f str,
    /// Neither `Send` nor `Sync`: the lock belongs to a thread.
    _thread: PhantomData<*const ()>,
}

/// Takes the library's lock and calls `work`. `file` is how messages name the file.
pub(super) fn with_session<R>(file: &str, work: impl FnOnce(&Session<'_>) -> R) -> R {
    // The first call of `sync` opens the library and, in each thread, turns its printing to stderr off.
    ::hdf5::sync::sync(|| work(&Session { file, _thread: PhantomData }))
}

impl Session<'_> {
    /// How messages name the file.
    pub(super) fn file(&self) -> String {
        self.file.to_owned()
    }

    /// Takes ownership of an id that a call returned, or the error if it failed.
    pub(super) fn own<'s>(
        &'s self,
        op: &'static str,
        object: &str,
        id: hid_t,
    ) -> Result<Object<'s>, Hdf5Error> {
        if id < 0 { Err(self.failed(op, object)) } else { Ok(Object { id, _session: PhantomData }) }
    }

    /// Turns the negative status of a failed call into the error; returns the status otherwise.
    pub(super) fn check(&self, op: &'static str, object: &str, status: c_int) -> Result<c_int, Hdf5Error> {
        if status < 0 { Err(self.failed(op, object)) } else { Ok(status) }
    }

    /// The error of a call that failed just now.
    pub(super) fn failed(&self, op: &'static str, object: &str) -> Hdf5Error {
        Hdf5Error::Library { file: self.file(), object: object.to_owned(), op, detail: error_stack() }
    }

    /// The error of something that is not as the format says.
    #[expect(clippy::needless_pass_by_value, reason = "numbers and texts alike, made for this call")]
    pub(super) fn mismatch(
        &self,
        object: &str,
        what: &'static str,
        found: impl ToString,
        expected: impl ToString,
    ) -> Hdf5Error {
        Hdf5Error::Mismatch {
            file: self.file(),
            object: object.to_owned(),
            what,
            found: found.to_string(),
            expected: expected.to_string(),
        }
    }
}

/// An id of the library (file, group, dataset, type, …), released when dropped.
pub(super) struct Object<'s> {
    id: hid_t,
    _session: PhantomData<&'s Session<'s>>,
}

impl Object<'_> {
    /// The id, valid as long as `self`.
    pub(super) fn id(&self) -> hid_t {
        self.id
    }

    /// Gives the id up without releasing it; for calls that release it themselves.
    pub(super) fn into_id(self) -> hid_t {
        let id = self.id;
        std::mem::forget(self);
        id
    }
}

impl Drop for Object<'_> {
    fn drop(&mut self) {
        // SAFETY: this value owns one reference of a valid id, and the lock is held, since a Session
        // lives only under it and this value borrows from one.
        unsafe { H5Idec_ref(self.id) };
    }
}

/// The library's error stack in one line, outermost call first.
fn error_stack() -> String {
    let mut frames: Vec<String> = Vec::new();
    // SAFETY: the callback matches the declared signature, does not keep its arguments, and gets the
    // address of `frames`, which outlives the call.
    unsafe { H5Ewalk2(H5E_DEFAULT, H5E_WALK_DOWNWARD, Some(push_frame), (&raw mut frames).cast::<c_void>()) };
    if frames.is_empty() { "no reason given".to_owned() } else { frames.join("; ") }
}

/// Called by `H5Ewalk2` for each frame; never unwinds.
extern "C" fn push_frame(_: c_uint, frame: *const H5E_error2_t, frames: *mut c_void) -> c_int {
    // SAFETY: `error_stack` passes the address of its Vec, and nothing else refers to it meanwhile.
    let frames = unsafe { &mut *frames.cast::<Vec<String>>() };
    // SAFETY: HDF5 passes a valid frame for the time of this call.
    let frame = unsafe { &*frame };
    if frames.len() < ERROR_FRAMES_MAX {
        frames.push(format!("{}: {}", text(frame.func_name), text(frame.desc)));
    }
    0
}

/// A C string of the error stack, which may be missing.
fn text(pointer: *const std::ffi::c_char) -> String {
    if pointer.is_null() {
        return "?".to_owned();
    }
    // SAFETY: not null, so it is a NUL-terminated string owned by the error stack.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}
