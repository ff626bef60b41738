//! A client of cidstored: requests ([`Client`]), pipelined batches ([`Pipeline`]), mutations without
//! reply ([`Pusher`]), notifications ([`Subscriber`]) and an exact feed of changes ([`Follower`]).
//!
//! **Owns** the client's side of the sockets: timeouts, sending again, matching replies to requests,
//! and the recovery of what a subscriber missed.
//!
//! **Knows nothing of** the daemon's insides: it speaks the wire protocol and no more.
//!
//! **Invariants**
//! - Synchronous: a call returns with its answer, or with an error in bounded time.
//! - A request without a reply is sent again on a fresh connection. That is safe, because inserting
//!   what is there and deleting what is not change nothing; only the number of deleted triples in
//!   the reply may then be that of the second time.
//! - A [`Follower`] hands out every change once, in order of `seq`, or says that it cannot.

mod change;
mod client;
mod config;
mod error;
mod follow;
mod pipeline;
mod push;
mod socket;
mod subscribe;
mod wire;

pub use change::{Change, Changes};
pub use client::{Client, CompactAction, MirrorAction, Page, QueryOptions, Stored};
pub use config::{Config, connectable};
pub use error::{Error, Refusal};
pub use follow::{Follower, Happening};
pub use pipeline::{Ack, Pipeline, PipelineOptions, Record};
pub use push::Pusher;
pub use subscribe::{Notification, Subscriber};
