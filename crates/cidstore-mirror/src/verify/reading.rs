//! What a verification reads of Redis, over connections of its own, and what it does when they break.

use super::Verifier;
use super::sight::{Expected, Sight};
use crate::endpoint::Address;
use crate::failure::{Category, Failure};
use crate::link::{History, Link};
use crate::pace::backoff;
use crate::slots::SlotMap;
use cidstore_types::TripleHash;
use redis::Value;
use std::sync::Arc;

/// Which data a `SCAN` walks over: where it is another, its cursor means nothing.
#[derive(Clone, Default)]
pub(super) struct Place {
    servers: Vec<Address>,
    slots: Option<Arc<SlotMap>>,
    history: History,
}

impl Verifier {
    /// Connections of its own.
    pub(super) async fn connect(&mut self) -> Result<&mut Link, Failure> {
        if self.link.is_none() {
            let link = Link::beside(&self.target, &self.names, &self.place.servers, self.failures).await?;
            let place = Place {
                servers: link.connections().iter().map(|one| one.address.clone()).collect(),
                slots: link.slots().cloned(),
                history: link.history().await?,
            };
            let was = &self.place;
            let same = place.servers == was.servers
                && place.slots == was.slots
                && place.history.continues(&was.history);
            self.moves += u64::from(!same);
            self.place = place;
            self.link = Some(link);
        }
        Ok(self.link.as_mut().expect("it was made"))
    }

    /// After a failure: tells of it, and waits a little. A store that cannot be read ends it.
    pub(super) async fn begin_anew(&mut self, failure: Failure) -> Result<(), Failure> {
        if failure.category == Category::Store {
            return Err(failure);
        }
        self.link = None;
        self.failures = self.failures.saturating_add(1);
        self.update(|report| report.waiting = Some(failure.to_string()));
        tokio::time::sleep(backoff(self.failures, self.backoff_max, fastrand::f64())).await;
        Ok(())
    }

    /// Some of Redis answered.
    pub(super) fn goes_on(&mut self) {
        if std::mem::take(&mut self.failures) > 0 {
            self.update(|report| report.waiting = None);
        }
    }

    /// What Redis has of these triples, however often connections break meanwhile, beside what it should have.
    pub(super) async fn sights(
        &mut self,
        hashes: &[TripleHash],
        expected: &[Expected],
    ) -> Result<Vec<(Sight, Value)>, Failure> {
        let keys: Vec<_> = hashes.iter().map(|hash| self.key_of(hash).into_bytes()).collect();
        let terms = self.terms;
        loop {
            let looked: Result<Vec<_>, Failure> = async {
                let replies = self.connect().await?.values(terms.form, &keys).await?;
                let looked = hashes.iter().zip(expected).zip(replies);
                looked
                    .map(|((hash, expected), reply)| Ok((Sight::of(terms, expected, hash, &reply)?, reply)))
                    .collect()
            }
            .await;
            match looked {
                Ok(sights) => {
                    self.goes_on();
                    return Ok(sights);
                }
                Err(failure) => self.begin_anew(failure).await?,
            }
        }
    }
}
