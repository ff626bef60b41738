//! The engine: what is true after each mutation, and answers about it.
//!
//! **Owns** runs in memory and in HDF5, the catalog, snapshots, queries, merging, sealing, recovery.
//!
//! **Knows nothing of** sockets, Redis, threads and clocks: everything here is synchronous, takes
//! time from its caller, and touches the disk only through [`cidstore_disk::Disk`].
//!
//! **Invariants**
//! - A mutation is in the log before it is visible; the log is the truth, runs follow it.
//! - Runs are immutable and ordered by age; the newest run that mentions a triple decides about it.
//!   Only adjacent runs are merged, so that this order is never disturbed.
//! - In the list, runs in files come before runs in memory; the catalog names exactly the former,
//!   and they hold the effects of exactly the mutations up to its sealed sequence number.
//! - A run file is written once, synced, renamed into place and never changed; it is removed after
//!   the catalog no longer names it, the last snapshot that holds it is gone, and no other program
//!   has a former catalog open that names it.
//! - Only the module [`hdf5`] knows HDF5.

pub mod files;
pub mod hdf5;
pub mod policy;

mod builder;
mod catalog;
mod changes;
mod column;
mod compaction;
mod error;
mod filter;
mod garbage;
mod kway;
mod list;
mod maintain;
mod mentions;
mod merge;
mod options;
mod order;
mod outcomes;
mod output;
mod pace;
mod recover;
mod reopen;
mod room;
mod run;
mod sample;
mod scrub;
mod seal;
mod sealed;
mod search;
mod snapshot;
mod sort;
mod stats;
mod store;
mod tree;
mod verify;

pub use changes::{Change, changes, changes_until};
pub use compaction::Pending;
pub use error::{StoreError, UnreadablePage};
pub use maintain::{Maintainer, MergeStop, Merger, Merging, Progress, Sealer, Step};
pub use options::StoreOptions;
pub use pace::{GoOn, Looked};
pub use recover::OpenReport;
pub use scrub::{Scrubbed, Scrubber};
pub use sealed::{Sealed, SealedRow, SealedRows};
pub use snapshot::{CursorError, Page, QueryError, Snapshot};
pub use stats::EngineStats;
pub use store::{Durability, Outcome, Reader, Refused, Store};
