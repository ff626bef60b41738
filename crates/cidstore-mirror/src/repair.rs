//! Repairs: single triples written anew, as the store has them.
//!
//! They go out between chunks of the log, by the follower itself, so that the order of what Redis gets is
//! kept. The store is read when it shows all that was sent of the log, so what is written is no older than
//! what is there; and what the log brings afterwards ends with the newest, as always.

use crate::chunk::{Chunk, Filler};
use crate::encode::Encoder;
use crate::failure::Failure;
use crate::follower::Follower;
use crate::link::Link;
use crate::source;
use cidstore_types::{Seq, TripleHash};
use tokio::sync::oneshot;

/// Triples that are to be written anew, one at least and at most as many as a verification reads at once.
pub(crate) struct Repair {
    pub hashes: Vec<TripleHash>,
    /// Told when they are in Redis, or why the store does not tell them; dropped where the connection broke.
    pub done: oneshot::Sender<Result<(), Failure>>,
}

impl Follower {
    /// `SET` for each triple that the store has, `UNLINK` for the others, as of `newest` or later.
    pub async fn repair_chunk(
        &self,
        link: &Link,
        hashes: &[TripleHash],
        newest: Seq,
    ) -> Result<Chunk, Failure> {
        let records = source::records(&self.mirror.parts.source, hashes, newest).await?;
        let config = &self.mirror.config;
        // Whatever is there is to go, of another type or older and kept.
        let encoder = Encoder::new(&config.prefix, config.form.clone(), true);
        let mut filler = Filler::new(encoder, None, link.slots().cloned(), self.bounds.clone());
        for (hash, record) in hashes.iter().zip(&records) {
            filler.repair(hash, record.as_ref());
        }
        Ok(filler.take().expect("there is one triple at least"))
    }
}
