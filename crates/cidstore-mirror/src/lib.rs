//! The mirror: a follower of the log that writes each triple to Redis or Valkey.
//!
//! `SET <prefix><triple hash> <JSON>` for an insert, `UNLINK` for a delete, or the like in another [`Form`],
//! in the order of the log, pipelined; behind them, where that is asked for, [`Events`]. A mutation never
//! waits for it: what Redis misses is in the log, and a cursor tells how far Redis is.
//!
//! **Owns** the connections to Redis (one server, the primary that Sentinel names, the primaries of a
//! cluster), the cursor file, the epoch keys, and the state that `/status` and the metrics show.
//!
//! **Knows nothing of** requests, sockets of clients, runs or indexes. It reads the log; it asks
//! the store, behind [`RebuildSource`], only for a rebuild, a verification and what that has repaired.
//!
//! **Invariants**
//! - At least once and in order: what is sent again after a failure begins at the last confirmed
//!   seq, and the newest mutation of a triple is always sent last.
//! - A stream has every mutation once, or an entry that stands for those it misses.
//! - The cursor file and the epoch keys may be behind what Redis holds, never ahead of it. The key
//!   `cidstore:mirror:<store id>` (with `:<prefix>` where there is a prefix) holds a seq up to
//!   which this Redis has everything, and in which form; it is moved only where it exists, so a Redis that lost its
//!   data shows it by having none. It cannot be taken for a triple's key, which ends in 64 hex
//!   digits. A cluster has 64 of them, `cidstore:mirror:{<tag>}<store id>`, spread over its slots and taken
//!   along where slots move, and one more for each primary that has none of these; the least of them counts.
//! - Memory is bounded by [`PIPELINE_BYTES_MAX`] times the few pipelines under way, whatever the lag.
//! - Without a configured Redis there is no thread, no task, no log line.
//!
//! **What it asks of Redis** (6 or newer, or Valkey): SET, GET, UNLINK and SCAN on `<prefix>*` and
//! `cidstore:mirror:*`, SELECT for a database other than 0; CLUSTER SLOTS, CLUSTER NODES and ASKING of a
//! cluster; what other forms and events take is in `docs/redis.md`. With CLIENT it ends its own older
//! connections, so that commands stuck in them cannot come after newer ones; with INFO it knows after a broken
//! connection that the data is still the same and repeats less, and which of several servers is the primary.
//! Limits that daemons share take EVALSHA and EVAL, and within the script TIME, HMGET, HSET and PEXPIRE, on
//! `cidstore:rate:*`. One database and prefix belong to one store. A policy that evicts keys (`allkeys-*`) may evict an epoch
//! key: the mirror then takes the data for lost and writes it anew.

// Only chosen, as what encrypts.
use rustls as _;

mod chunk;
mod config;
mod connect;
mod cursor;
mod encode;
mod endpoint;
mod events;
mod failure;
mod feed;
mod follower;
mod form;
mod limit;
mod link;
mod mirror;
mod names;
mod pace;
mod plan;
mod prune;
mod pump;
mod reader;
mod repair;
mod servers;
mod sets;
mod slots;
mod source;
mod state;
mod sweep;
mod value;
mod verify;

pub use config::{ConfigError, DEFAULT_PORT, MirrorConfig, PREFIX_BYTES_MAX, Protocol, Secret, Target};
pub use events::{Announcing, Events};
pub use failure::{Category, Failure};
pub use form::{Form, Sets, ValueForm};
pub use limit::Verdict;
pub use mirror::{Mirror, OpenError, Parts};
pub use pace::{PIPELINE_BYTES_MAX, PIPELINE_COMMANDS_MAX};
pub use reader::{NoAnswer, Reader};
pub use source::{Found, RebuildPage, RebuildSource, SourceError};
pub use state::{Counters, Held, LastError, MirrorState, Rebuilding, Rebuilt, Report, State};
pub use verify::{
    DIFFERENCES_MAX, Difference, Kind, Outcome, Verification, VerificationReport, VerifyOptions,
};
