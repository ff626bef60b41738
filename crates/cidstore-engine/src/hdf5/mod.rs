//! HDF5: the only module that knows it.
//!
//! **Owns** what stands in run files and in the catalog: names, datatypes, attributes, where the
//! bytes are. `docs/FORMAT.md` says it for readers of the files; tests hold the two together.
//!
//! **Knows nothing of** what rows mean, of how files get to the disk, of the log.
//!
//! **How.** HDF5 is used as a function from a description to bytes and back, working in memory
//! (`image`): it never writes a file of the store and never sees one whose bytes were not checked
//! first. A run of gigabytes is described by [`run_skeleton`]: HDF5 lays all datasets out in a sparse
//! file in memory, and what is kept of that is the *head* (all of HDF5's own structures, some KiB)
//! and where each column's bytes belong. Whoever writes the run writes columns and head with plain
//! writes; whoever reads it maps the columns and hands the head alone to [`read_run`].
//!
//! **Invariants**
//! - The same description gives the same bytes, and checksums in it do not move anything: a run is
//!   laid out before its columns are computed, and described again when their checksums are known.
//! - All of HDF5's structures of a run are before its first column; between and after the columns
//!   there are zeros only.
//! - Bytes go to HDF5 after their checksum was verified, and what HDF5 says of them is validated.
//! - No call to HDF5 without its lock (`session`); no id outlives the lock.

mod attribute;
mod catalog;
mod column;
mod dataset;
mod error;
mod export_file;
mod extent;
mod file;
mod image;
mod run_file;
mod session;
mod space;
#[cfg(test)]
mod tests;
mod types;

pub use catalog::{Catalog, RunEntry, read_catalog, write_catalog};
pub use column::{ColumnId, Kind, Length, PerColumn, SAMPLE_ROWS};
pub use error::Hdf5Error;
pub use export_file::{
    EXPORT_TRAILER_BYTES, ExportAbout, ExportColumn, ExportExtent, ExportLayout, ExportSkeleton, ExportSpec,
    export_head_bytes, export_skeleton, read_export,
};
pub use extent::Extent;
pub use run_file::{
    ColumnSpec, RunAttributes, RunLayout, RunSource, RunSpec, Skeleton, read_run, run_skeleton,
};

use ::hdf5_sys::h5::H5get_libversion;

/// Version of the formats of run files and of the catalog that this program writes, and the newest
/// it reads. It reads all before.
pub const FORMAT_VERSION: u32 = 3;

/// Every column begins at a multiple of this many bytes: a page, so that mapped columns share none.
pub const ALIGNMENT_BYTES: u64 = 4096;

/// Version of the HDF5 library in this program: major, minor, release.
pub fn hdf5_version() -> (u32, u32, u32) {
    let (mut major, mut minor, mut release) = (0, 0, 0);
    session::with_session("library", |_| {
        // SAFETY: three valid outputs; the lock is held. The call cannot fail.
        unsafe { H5get_libversion(&raw mut major, &raw mut minor, &raw mut release) };
    });
    (major, minor, release)
}
