//! What the mirror asks of the store when the log alone does not do.

use cidstore_types::{Seq, Triple, TripleHash, TripleRecord};
use std::error::Error;

/// Why the store cannot answer.
pub type SourceError = Box<dyn Error + Send + Sync>;

/// Some triples of the store, in ascending order.
#[derive(Debug, Clone, PartialEq)]
pub struct RebuildPage {
    /// The triples with their metadata; empty at the end.
    pub records: Vec<TripleRecord>,
    /// The store as of this seq, or later. Never goes back from page to page.
    pub as_of: Seq,
}

/// The store, as a rebuild sees it. Called from a blocking thread.
///
/// Pages may come from different moments: what changes meanwhile is in the log after the first
/// page's `as_of`, and the mirror reads it from there afterwards.
pub trait RebuildSource: Send + Sync + 'static {
    /// At most `limit` (≥ 1) triples after `after`, in the order of their bytes.
    ///
    /// # Errors
    /// Whatever keeps the store from reading; the mirror tries again later.
    fn page(&self, after: Option<&Triple>, limit: usize) -> Result<RebuildPage, SourceError>;

    /// For each hash, whether the store has the triple, not earlier than the latest page's `as_of`.
    ///
    /// # Errors
    /// As for [`RebuildSource::page`].
    fn holds(&self, hashes: &[TripleHash]) -> Result<Vec<bool>, SourceError>;
}
