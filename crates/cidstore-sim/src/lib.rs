//! Whole histories of a store on a simulated disk, each from a seed, against an independent model.
//!
//! **Owns** random histories, the scheduler that interleaves commits with the maintainer's I/O, the
//! oracle that says what may be found after a crash, and the campaign over many seeds.
//!
//! **Knows nothing of** sockets, threads and the daemon; of the store it uses what the daemon uses.
//!
//! **Invariants**
//! - A history is one thread's work, without clock or chance but its seed: the same seed does the
//!   same operations in the same order, and fails in the same way.
//! - The oracle knows what was acknowledged from the calls alone, and never asks the store what it
//!   should hold.
//! - Every history ends with a power cut and a start, so that none passes without one.

pub mod campaign;
pub mod counts;
pub mod exhaustive;
mod follow;
pub mod generate;
pub mod history;
mod hook;
mod keys;
pub mod model;
mod oracle;
mod restart;
mod rot;
mod schedule;
mod shrink;
mod templates;
mod world;
