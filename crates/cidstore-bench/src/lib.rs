//! What every measuring program shares: the triples, and the report.
//!
//! **Owns** the triples that are loaded ([`data`]), medians and quantiles ([`stats`]), the figures
//! ([`report`]), and what is promised of them ([`promise`]).
//!
//! **Knows nothing of** what is measured. The load generator `cidstore-bench` is one user, the
//! engine's example `in_process` and the programs of `bench/peers` are others: figures of all of
//! them are of the same triples, and in one form.

pub mod data;
pub mod promise;
pub mod report;
pub mod stats;

mod table;
