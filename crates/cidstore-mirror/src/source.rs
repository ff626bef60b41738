//! What the mirror asks of the store when the log alone does not do.

use crate::failure::Failure;
use cidstore_types::{Seq, Triple, TripleHash, TripleRecord};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

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

/// Triples of the store, looked up by their hashes.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// In the order of the hashes; `None` for a triple that the store does not have.
    pub records: Vec<Option<TripleRecord>>,
    /// The store as of this seq.
    pub as_of: Seq,
}

/// The store, as rebuilds, verifications and repairs see it. Called from a blocking thread.
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

    /// The triples of these hashes, all as of one moment, which is not before the latest page's.
    ///
    /// # Errors
    /// As for [`RebuildSource::page`].
    fn get(&self, hashes: &[TripleHash]) -> Result<Found, SourceError>;

    /// About how many triples the store has, without looking at them.
    fn rows_about(&self) -> u64;
}

/// The pause before the store is asked again that does not show yet what the log has.
const NOT_YET_VISIBLE: Duration = Duration::from_millis(1);

/// Asks the store from asynchronous code.
///
/// # Errors
/// [`Failure`] of the store.
pub(crate) async fn ask<T: Send + 'static>(
    source: &Arc<dyn RebuildSource>,
    question: impl FnOnce(&dyn RebuildSource) -> Result<T, SourceError> + Send + 'static,
) -> Result<T, Failure> {
    let source = Arc::clone(source);
    let failed = |what: String| Failure::store(what, "see the daemon's messages about its store");
    match tokio::task::spawn_blocking(move || question(source.as_ref())).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(e)) => Err(failed(format!("cannot read the store: {e}"))),
        Err(e) => Err(failed(format!("reading the store ended badly: {e}"))),
    }
}

/// The triples of these hashes as of `at_least` or later: the log has a mutation for a moment before the
/// store shows it.
///
/// # Errors
/// [`Failure`] of the store.
pub(crate) async fn records(
    source: &Arc<dyn RebuildSource>,
    hashes: &[TripleHash],
    at_least: Seq,
) -> Result<Vec<Option<TripleRecord>>, Failure> {
    loop {
        let asked = hashes.to_vec();
        let found = ask(source, move |source| source.get(&asked)).await?;
        if found.as_of >= at_least {
            return Ok(found.records);
        }
        tokio::time::sleep(NOT_YET_VISIBLE).await;
    }
}
