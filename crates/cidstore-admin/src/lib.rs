//! What an operator does with a store's files: verify, repair, back up, restore, export.
//!
//! **Owns** these operations, their progress and their reports. They work on the files themselves, of
//! a store that is closed or, where they only read, of one that a daemon has open.
//!
//! **Knows nothing of** sockets, Redis and the command line.
//!
//! **Invariants**
//! - A file of a store is never changed in place. What is written is written beside, synced and renamed.
//! - Every operation may be interrupted at any moment and started again.
//! - Whatever could not be read or saved is in the report, by file and sequence number; nothing is left
//!   out in silence.

pub mod backup;
pub mod export;
pub mod repair;
pub mod verify;

mod finding;
mod held;
mod log;
mod look;
mod progress;
mod sum;

pub use cidstore_engine::files::Places;
pub use finding::{Finding, REPAIR, Weight};
pub use held::{HeldError, identity};
pub use progress::{Stage, Stopped, Watch};
pub use sum::Sum;
