//! What a store must hold: a map, and what each mutation does to it.

use cidstore_engine::{Refused, Snapshot};
use cidstore_types::{Mutation, Op, Pattern, Triple};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is known of a triple: time and metadata.
#[derive(Debug, Clone)]
pub struct Version {
    /// Seconds since the epoch, compared bit by bit.
    pub created_at: f64,
    /// As the client gave it.
    pub metadata: Option<Arc<str>>,
}

/// All triples of a store.
pub type Model = BTreeMap<Triple, Version>;

/// What a mutation does.
pub struct Effect {
    /// What its client is told.
    pub affected: u64,
    /// What the log says.
    pub op: Op,
    /// The rows of its record, in the order of their numbers, unless the store chose it.
    pub rows: Vec<(Triple, Version)>,
    /// The store chose the order of the rows.
    pub by_pattern: bool,
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.created_at.total_cmp(&other.created_at).is_eq() && self.metadata == other.metadata
    }
}

/// Applies a mutation, of at most `rows_max` rows.
///
/// # Errors
/// What the store must say; nothing changes then.
pub fn apply(model: &mut Model, mutation: &Mutation, rows_max: usize) -> Result<Effect, Refused> {
    match mutation {
        Mutation::Batch(batch) if batch.rows.len() > rows_max => {
            Err(Refused::TooManyRows { found: batch.rows.len(), limit: rows_max })
        }
        Mutation::Batch(batch) => {
            let mut rows = Vec::with_capacity(batch.rows.len());
            let mut affected = 0;
            for (i, triple) in (0..).zip(&batch.rows) {
                let own = batch.created_at.iter().find(|(row, _)| *row == i);
                let text = batch.metadata.iter().find(|(row, _)| *row == i);
                let version = Version {
                    created_at: own.map_or(batch.received_at, |(_, at)| *at),
                    metadata: text.map(|(_, text)| (**text).into()),
                };
                if batch.op == Op::Delete {
                    affected += u64::from(model.remove(triple).is_some());
                } else {
                    model.insert(*triple, version.clone());
                    affected += 1;
                }
                rows.push((*triple, version));
            }
            Ok(Effect { affected, op: batch.op, rows, by_pattern: false })
        }
        Mutation::DeleteMatching { pattern, received_at, key } => {
            let version = Version { created_at: *received_at, metadata: None };
            let matching = model.keys().filter(|triple| pattern.matches(triple));
            let mut rows: Vec<_> = matching.map(|triple| (*triple, version.clone())).collect();
            if rows.len() > rows_max {
                return Err(Refused::TooManyMatches { limit: rows_max });
            }
            model.retain(|triple, _| !pattern.matches(triple));
            let affected = rows.len() as u64;
            if rows.is_empty() && key.is_some() {
                let [s, p, o] = [pattern.s, pattern.p, pattern.o].map(Option::unwrap_or_default);
                rows.push((Triple::new(s, p, o), version));
            }
            Ok(Effect { affected, op: Op::Delete, rows, by_pattern: true })
        }
    }
}

/// Stored metadata of a schema's version: the only form that histories use.
pub fn metadata_text(version: &str) -> String {
    format!(r#"{{"schema_version":"{version}"}}"#)
}

/// The first thing in which the store is not the model, every column of every row compared.
pub fn difference(snapshot: &Snapshot, model: &Model) -> Option<String> {
    let page = snapshot.query(&Pattern::ALL, usize::MAX, None, true).expect("a query without a cursor");
    let records = page.records.expect("they were asked for");
    for (record, (triple, version)) in records.iter().zip(model) {
        if record.triple != *triple {
            return Some(format!("it holds {:?} where {triple:?} comes next", record.triple));
        }
        let metadata = record.metadata.schema_version.as_deref().map(metadata_text);
        let found = Version { created_at: record.created_at, metadata: metadata.map(Into::into) };
        if found != *version {
            return Some(format!("of {triple:?} it holds {found:?}, expected {version:?}"));
        }
    }
    (records.len() != model.len())
        .then(|| format!("it holds {} triples, expected {}", records.len(), model.len()))
}

/// Asks the store in every way, by pages of `limit`.
///
/// # Panics
/// With what is wrong.
pub fn ask(snapshot: &Snapshot, model: &Model, pattern: &Pattern, limit: usize) {
    let expected: Vec<Triple> = model.keys().filter(|triple| pattern.matches(triple)).copied().collect();
    let mut rows = Vec::new();
    let mut cursor: Option<Vec<u8>> = None;
    loop {
        let page = snapshot.query(pattern, limit, cursor.as_deref(), false).expect("a cursor of its own");
        assert!(page.rows.len() <= limit, "{pattern:?}: {} rows in a page of {limit}", page.rows.len());
        rows.extend(page.rows);
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    let found = rows.len();
    rows.sort_unstable();
    rows.dedup();
    assert_eq!(rows.len(), found, "{pattern:?}: a triple twice");
    assert_eq!(rows, expected, "{pattern:?}");
    assert_eq!(snapshot.count(pattern).unwrap(), expected.len() as u64, "the count of {pattern:?}");
    for triple in expected.iter().take(limit) {
        assert!(snapshot.contains(triple).unwrap(), "{triple:?} is not contained");
        assert_eq!(snapshot.get(&triple.hash()).unwrap().map(|record| record.triple), Some(*triple));
    }
}
