//! Oxigraph on RocksDB, as a library in this process.

use crate::{BATCH, Work, folder};
use anyhow::{Result, ensure};
use cidstore_bench::report::{Report, Unit};
use cidstore_types::{Cid, Triple};
use oxigraph::model::{GraphName, NamedNode, Quad};
use oxigraph::store::Store;
use std::time::Instant;

/// A CID as a term: an IRI of its 64 hex digits.
fn term(cid: Cid) -> NamedNode {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut iri = String::with_capacity(4 + 64);
    iri.push_str("cid:");
    for byte in cid.0 {
        iri.push(DIGITS[usize::from(byte >> 4)].into());
        iri.push(DIGITS[usize::from(byte & 15)].into());
    }
    NamedNode::new_unchecked(iri)
}

fn quad(triple: Triple) -> Quad {
    Quad::new(term(triple.s()), term(triple.p()), term(triple.o()), GraphName::DefaultGraph)
}

/// Bulk load, lookups and size after it; then batches into a store of their own.
pub fn measure(report: &mut Report, work: &Work) -> Result<()> {
    let dir = work.folder()?;
    let store = Store::open(dir.path())?;
    let start = Instant::now();
    let mut loader = store.bulk_loader();
    loader.load_quads((0..work.triples).map(|n| quad(work.data.triple(n))))?;
    loader.commit()?;
    report.add("oxigraph: bulk load", Unit::TriplesPerSecond, work.rate(start), None);
    store.optimize()?;
    store.flush()?;
    let bytes = folder::bytes(dir.path())? as f64 / work.triples as f64;
    report.add("oxigraph: disk after bulk load and optimize", Unit::BytesPerTriple, bytes, None);
    lookups(&store, work)?;
    report.add_latencies("oxigraph: lookup sp", &lookups(&store, work)?, None);
    drop(store);
    drop(dir);

    let dir = work.folder()?;
    let store = Store::open(dir.path())?;
    let start = Instant::now();
    for batch in work.batches() {
        let mut transaction = store.start_transaction()?;
        for n in batch {
            transaction.insert(quad(work.data.triple(n)).as_ref());
        }
        transaction.commit()?;
    }
    let name = format!("oxigraph: batches of {BATCH}, not synced");
    report.add(&name, Unit::TriplesPerSecond, work.rate(start), None);
    Ok(())
}

/// Nanoseconds of lookups by (s, p), terms made beforehand.
fn lookups(store: &Store, work: &Work) -> Result<Vec<u64>> {
    let mut nanos = Vec::with_capacity(work.requests as usize);
    for i in 0..work.requests {
        let quad = quad(work.data.triple(work.data.scattered(work.triples, i)));
        let start = Instant::now();
        let found =
            store.quads_for_pattern(Some(quad.subject.as_ref()), Some(quad.predicate.as_ref()), None, None);
        let found: Vec<Quad> = found.collect::<Result<_, _>>()?;
        nanos.push(start.elapsed().as_nanos() as u64);
        ensure!(found.contains(&quad), "Oxigraph does not find {quad}");
    }
    Ok(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_tell_their_cids() {
        let cid = Cid::from_lanes([1, 2, 3, u64::MAX]);
        let expected = format!("cid:{:016x}{:016x}{:016x}{:016x}", 1, 2, 3, u64::MAX);
        assert_eq!(term(cid).as_str(), expected);
        assert!(NamedNode::new(expected).is_ok(), "it is an IRI");
    }
}
