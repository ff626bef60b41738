//! SQLite in this process: one table without row ids in the order SPO, and two more indexes, which
//! makes three B-trees that each hold everything.

use crate::{BATCH, Work, folder};
use anyhow::{Result, ensure};
use cidstore_bench::report::{Report, Unit};
use cidstore_types::Triple;
use rusqlite::{Connection, params};
use std::path::Path;
use std::time::Instant;

const TABLE: &str = "CREATE TABLE triple (
    s BLOB NOT NULL, p BLOB NOT NULL, o BLOB NOT NULL, PRIMARY KEY (s, p, o)
) WITHOUT ROWID";
const INDEXES: &str = "
    CREATE INDEX pos ON triple (p, o, s);
    CREATE INDEX osp ON triple (o, s, p);";
const INSERT: &str = "INSERT OR IGNORE INTO triple (s, p, o) VALUES (?1, ?2, ?3)";
/// Pages that SQLite keeps in memory, in KiB.
const CACHE_KIB: i32 = 512 << 10;

fn open(dir: &Path, synchronous: &str) -> Result<Connection> {
    let connection = Connection::open(dir.join("triples.sqlite"))?;
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    ensure!(mode == "wal", "SQLite has journal mode {mode}");
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.execute_batch(TABLE)?;
    Ok(connection)
}

fn insert(connection: &Connection, triples: impl Iterator<Item = Triple>) -> Result<()> {
    let mut statement = connection.prepare_cached(INSERT)?;
    for triple in triples {
        statement.execute(params![triple.s().0, triple.p().0, triple.o().0])?;
    }
    Ok(())
}

/// Bulk load, lookups and size after it; then batches into databases of their own.
pub fn measure(report: &mut Report, work: &Work) -> Result<()> {
    let dir = work.folder()?;
    let mut connection = open(dir.path(), "FULL")?;
    let start = Instant::now();
    // As its documents advise: in the table's order, in one transaction, indexes afterwards.
    let mut triples: Vec<Triple> = (0..work.triples).map(|n| work.data.triple(n)).collect();
    triples.sort_unstable_by_key(|triple| triple.0);
    let transaction = connection.transaction()?;
    insert(&transaction, triples.into_iter())?;
    transaction.execute_batch(INDEXES)?;
    transaction.commit()?;
    report.add("sqlite: bulk load", Unit::TriplesPerSecond, work.rate(start), None);
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    let bytes = folder::bytes(dir.path())? as f64 / work.triples as f64;
    report.add("sqlite: disk after bulk load", Unit::BytesPerTriple, bytes, None);
    lookups(&connection, work)?;
    report.add_latencies("sqlite: lookup sp", &lookups(&connection, work)?, None);
    drop(connection);
    drop(dir);

    for synchronous in ["FULL", "NORMAL"] {
        let dir = work.folder()?;
        let mut connection = open(dir.path(), synchronous)?;
        connection.execute_batch(INDEXES)?;
        let start = Instant::now();
        for batch in work.batches() {
            let transaction = connection.transaction()?;
            insert(&transaction, batch.map(|n| work.data.triple(n)))?;
            transaction.commit()?;
        }
        let name = format!("sqlite: batches of {BATCH}, synchronous {synchronous}");
        report.add(&name, Unit::TriplesPerSecond, work.rate(start), None);
    }
    Ok(())
}

/// Nanoseconds of lookups by (s, p), with one prepared statement.
fn lookups(connection: &Connection, work: &Work) -> Result<Vec<u64>> {
    let mut statement = connection.prepare("SELECT o FROM triple WHERE s = ?1 AND p = ?2")?;
    let mut nanos = Vec::with_capacity(work.requests as usize);
    for i in 0..work.requests {
        let triple = work.data.triple(work.data.scattered(work.triples, i));
        let (s, p, o) = (triple.s().0, triple.p().0, triple.o().0);
        let start = Instant::now();
        let found = statement.query_map(params![s, p], |row| row.get::<_, [u8; 32]>(0))?;
        let found: Vec<[u8; 32]> = found.collect::<Result<_, _>>()?;
        nanos.push(start.elapsed().as_nanos() as u64);
        ensure!(found.contains(&o), "SQLite does not find {triple:?}");
    }
    Ok(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_order_is_answered_from_an_index_alone() {
        let dir = tempfile::tempdir().unwrap();
        let connection = open(dir.path(), "FULL").unwrap();
        connection.execute_batch(INDEXES).unwrap();
        for (what, index) in [
            ("o FROM triple WHERE s = 1 AND p = 1", "PRIMARY KEY"),
            ("s FROM triple WHERE p = 1 AND o = 1", "COVERING INDEX pos"),
            ("p FROM triple WHERE o = 1 AND s = 1", "COVERING INDEX osp"),
        ] {
            let plan: String = connection
                .query_row(&format!("EXPLAIN QUERY PLAN SELECT {what}"), [], |row| row.get(3))
                .unwrap();
            assert!(plan.contains(index), "{plan}");
        }
        let full: i32 = connection.query_row("PRAGMA synchronous", [], |row| row.get(0)).unwrap();
        assert_eq!(full, 2);
    }
}
