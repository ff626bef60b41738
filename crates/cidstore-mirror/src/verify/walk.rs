//! The two walks of a verification: over the triples of the store, and over the keys of Redis.

use super::pick::Picker;
use super::sight::Expected;
use super::{SUSPECTS_MAX, Verifier};
use crate::failure::Failure;
use crate::source;
use crate::sweep::{
    UNSETTLED_PAUSE, VALUES_AT_ONCE, absent, hash_of_key, pattern_of, scan, shared_with_another_store,
};
use cidstore_types::{Triple, TripleHash, TripleRecord};

/// Most triples in a page of the store.
const PAGE_ROWS_MAX: usize = 256;
/// Bytes of values that a page should come to; pages shrink when triples are heavy.
const PAGE_BYTES_GOAL: usize = 512 * 1024;

/// How far the walk over keys is: the next cursor of `SCAN` on the server at that place.
#[derive(Clone, Copy, Default)]
struct At {
    server: usize,
    cursor: u64,
    /// See [`Verifier::moves`]: where that has changed, it begins anew.
    moves: u64,
}

impl Verifier {
    /// Both walks.
    pub(super) async fn walk(&mut self) -> Result<(), Failure> {
        let rows = source::ask(&self.source, |source| Ok(source.rows_about())).await?;
        let (sample, seed) = self.update(|report| {
            report.rows_about = rows;
            (report.options.sample, report.seed)
        });
        let picker = || sample.map_or_else(Picker::all, |wanted| Picker::sample(wanted, rows, seed));
        self.is_shared = false;
        self.by_triples(picker()).await?;
        self.by_keys(&picker).await
    }

    async fn by_triples(&mut self, mut picker: Picker) -> Result<(), Failure> {
        let mut after: Option<Triple> = None;
        let mut limit = PAGE_ROWS_MAX / 16;
        loop {
            let page = source::ask(&self.source, move |source| source.page(after.as_ref(), limit)).await?;
            let Some(last) = page.records.last() else { break };
            after = Some(last.triple);
            let rows = page.records.len() as u64;
            let picked: Vec<_> = page.records.into_iter().filter(|_| picker.picks()).collect();
            let mut bytes = 0;
            for group in picked.chunks(VALUES_AT_ONCE) {
                bytes += self.compare(group).await?;
            }
            let by_bytes = limit.saturating_mul(PAGE_BYTES_GOAL) / bytes.max(1);
            limit = by_bytes.min(limit * 2).clamp(1, PAGE_ROWS_MAX);
            self.update(|report| {
                report.rows += rows;
                report.checked += picked.len() as u64;
            });
            if self.suspects.len() >= SUSPECTS_MAX {
                self.settle().await?;
            }
        }
        self.settle().await
    }

    /// Compares triples of the store with Redis. Returns about how many bytes their values are.
    async fn compare(&mut self, records: &[TripleRecord]) -> Result<usize, Failure> {
        let hashes: Vec<_> = records.iter().map(|record| record.triple.hash()).collect();
        let expected: Vec<_> =
            hashes.iter().zip(records).map(|(hash, record)| Expected::of(hash, Some(record))).collect();
        self.suspect(&hashes, &expected).await?;
        Ok(expected.iter().map(Expected::bytes).sum())
    }

    /// Remembers those that differ, at the first look.
    async fn suspect(&mut self, hashes: &[TripleHash], expected: &[Expected]) -> Result<(), Failure> {
        let sights = self.sights(hashes, expected).await?;
        let differ = hashes.iter().zip(sights).filter(|(_, (sight, _))| sight.difference().is_some());
        self.suspects.extend(differ.map(|(hash, (sight, _))| (*hash, sight)));
        Ok(())
    }

    async fn by_keys(&mut self, picker: &impl Fn() -> Picker) -> Result<(), Failure> {
        let mut at = At::default();
        let mut picks = picker();
        loop {
            match self.step(&mut at, &mut picks, picker).await {
                Ok(true) => return self.settle().await,
                Ok(false) => self.goes_on(),
                Err(failure) => self.begin_anew(failure).await?,
            }
            if self.suspects.len() >= SUSPECTS_MAX {
                self.settle().await?;
            }
        }
    }

    /// One `SCAN`, and what its keys are. Returns whether that was the last one.
    async fn step(
        &mut self,
        at: &mut At,
        picks: &mut Picker,
        picker: &impl Fn() -> Picker,
    ) -> Result<bool, Failure> {
        self.connect().await?;
        if at.moves != self.moves {
            let link = self.link.as_ref().expect("it is connected");
            self.is_shared = shared_with_another_store(link, &self.names, &self.prefix).await?;
            (*at, *picks) = (At { moves: self.moves, ..At::default() }, picker());
            self.update(|report| report.keys = 0);
        }
        let link = self.link.as_ref().expect("it is connected");
        let Some(connection) = link.connections().get(at.server) else {
            if link.is_settled().await? {
                return Ok(true);
            }
            // Keys that came to a server behind the walk's back would never be seen.
            self.update(|report| report.waiting = Some("slots of the cluster move".into()));
            tokio::time::sleep(UNSETTLED_PAUSE).await;
            (self.link, at.moves) = (None, 0);
            return Ok(false);
        };
        let found = scan(connection, at.cursor, &pattern_of(&self.prefix)).await;
        let (next, keys) = found.map_err(|failure| failure.at(&connection.address))?;
        let own = keys.into_iter().filter_map(|key| hash_of_key(&key, &self.prefix).map(|hash| (key, hash)));
        let own: Vec<_> = own.filter(|_| picks.picks()).collect();
        let looked_up = own.len() as u64;
        let absent = absent(&self.source, own).await?;
        for group in absent.chunks(VALUES_AT_ONCE) {
            let hashes: Vec<_> = group.iter().map(|(_, hash)| *hash).collect();
            let expected: Vec<_> = hashes.iter().map(|hash| Expected::of(hash, None)).collect();
            self.suspect(&hashes, &expected).await?;
        }
        self.update(|report| report.keys += looked_up);
        (at.server, at.cursor) = if next == 0 { (at.server + 1, 0) } else { (at.server, next) };
        Ok(false)
    }
}
