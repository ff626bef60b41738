//! What can be wrong with an HDF5 file, with file, object, found and expected.

use std::io;

/// Why a file could not be described, or is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum Hdf5Error {
    /// The HDF5 library refused a call.
    #[error("{file}: HDF5 cannot {op} {object}: {detail}")]
    Library {
        /// The file, as the caller names it.
        file: String,
        /// Path of the object inside the file, or what it is.
        object: String,
        /// What was tried, as a verb.
        op: &'static str,
        /// HDF5's error stack, outermost call first.
        detail: String,
    },
    /// The memory that HDF5 works in could not be had, or a file could not be read into it.
    #[error("{file}: cannot {op}: {source}")]
    Io {
        /// The file, as the caller names it.
        file: String,
        /// What was tried, as a verb.
        op: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Something is in the file, but not as the format says.
    #[error("{file}: {object}: {what} is {found}, expected {expected}")]
    Mismatch {
        /// The file, as the caller names it.
        file: String,
        /// Path of the object inside the file; `path@name` for an attribute.
        object: String,
        /// Which property of it.
        what: &'static str,
        /// What stood there.
        found: String,
        /// What the format asks for.
        expected: String,
    },
    /// A checksum does not match its bytes.
    #[error(
        "{file}: CRC-32C of {what} is {found:#010x}, expected {expected:#010x}: the bytes were changed or damaged"
    )]
    Checksum {
        /// The file, as the caller names it.
        file: String,
        /// Which bytes.
        what: &'static str,
        /// Computed from the bytes.
        found: u32,
        /// As it was recorded.
        expected: u32,
    },
    /// The file was written by a version that this one does not know.
    #[error(
        "{file}: format version {found}, this program reads up to {supported}: use the program that wrote it, or a newer one"
    )]
    Version {
        /// The file, as the caller names it.
        file: String,
        /// Version in the file.
        found: u32,
        /// Newest version known here.
        supported: u32,
    },
    /// The caller described a file that the format cannot hold.
    #[error("{file}: cannot be described: {what} is {found}, expected {expected}")]
    Spec {
        /// The file, as the caller names it.
        file: String,
        /// Which part of the description.
        what: &'static str,
        /// What was given.
        found: String,
        /// What is possible.
        expected: String,
    },
}
