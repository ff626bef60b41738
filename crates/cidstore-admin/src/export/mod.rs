//! Exports: all triples of a store at one moment in one HDF5 file, written and read again.
//!
//! **Owns** how such a file is filled in bounded memory, checked, and read row by row. What stands in it
//! is described in `docs/FORMAT.md` and laid out by the engine's module `hdf5`.
//!
//! **Knows nothing of** daemons: whoever imports sends the rows.
//!
//! **Invariants**
//! - The same triples of the same store at the same moment give the same bytes.
//! - Every column was read against its checksum before anything of it gets a new one.
//! - A file gets its name when it is complete. An interrupted export starts over.

mod error;
mod read;
mod write;

pub use error::ExportError;
pub use read::{ExportFile, ExportRow, ExportRows};
pub use write::{ExportReport, export};

use cidstore_engine::hdf5::{EXPORT_TRAILER_BYTES, export_head_bytes};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// First bytes of every HDF5 file that has no user block.
const HDF5_SIGNATURE: [u8; 8] = *b"\x89HDF\r\n\x1a\n";
/// What a file begins with as long as it is no whole export. The head is written over it.
const UNFINISHED: &[u8; 32] = b"cidstore export, not finished.\n\0";
/// Bytes read and written at once.
const BLOCK_BYTES: usize = 1 << 20;

/// Whether the file begins as HDF5 files do.
///
/// # Errors
/// Of reading it.
pub fn is_hdf5(file: &File) -> io::Result<bool> {
    let mut first = [0; HDF5_SIGNATURE.len()];
    match file.read_exact_at(&mut first, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| first == HDF5_SIGNATURE),
    }
}

/// The trailer of a file, and the file's length.
fn read_trailer(file: &File) -> io::Result<([u8; EXPORT_TRAILER_BYTES as usize], u64)> {
    let bytes = file.metadata()?.len();
    let mut trailer = [0; EXPORT_TRAILER_BYTES as usize];
    if bytes >= EXPORT_TRAILER_BYTES {
        file.read_exact_at(&mut trailer, bytes - EXPORT_TRAILER_BYTES)?;
    }
    Ok((trailer, bytes))
}

/// Whether a file is what an interrupted export has left, or holds nothing: one that may be written over.
fn is_unfinished(file: &File) -> io::Result<bool> {
    let mut first = [0; UNFINISHED.len()];
    let is_marked = match file.read_exact_at(&mut first, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => file.metadata()?.len() == 0,
        read => read.map(|()| first == *UNFINISHED)?,
    };
    // Interrupted just before it got its name.
    Ok(is_marked || is_export(file)?)
}

/// Whether a file looks like an export, whole or not: one that may be replaced by another.
fn is_export(file: &File) -> io::Result<bool> {
    let (trailer, bytes) = read_trailer(file)?;
    Ok(export_head_bytes("", &trailer, bytes).is_ok())
}
