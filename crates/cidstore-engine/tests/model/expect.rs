//! What a store must be, and whether it is.

use cidstore_engine::{Page, Snapshot};
use cidstore_types::{Mutation, Op, Pattern, Triple};
use std::collections::BTreeMap;

/// All triples, with their time and metadata.
pub type Model = BTreeMap<Triple, (f64, Option<String>)>;

/// Applies a mutation; returns what it tells its client, and what it is in the log.
pub fn apply(model: &mut Model, mutation: &Mutation) -> (u64, Op, Vec<Triple>, bool) {
    match mutation {
        Mutation::Batch(batch) => {
            let mut affected = 0;
            for (i, triple) in batch.rows.iter().enumerate() {
                if batch.op == Op::Delete {
                    affected += u64::from(model.remove(triple).is_some());
                } else {
                    let text = batch.metadata.iter().find(|(row, _)| *row as usize == i);
                    let version = text.map(|(_, text)| text.to_string());
                    model.insert(*triple, (batch.received_at, version));
                    affected += 1;
                }
            }
            (affected, batch.op, batch.rows.clone(), false)
        }
        Mutation::DeleteMatching { pattern, .. } => {
            let rows: Vec<Triple> = model.keys().filter(|triple| pattern.matches(triple)).copied().collect();
            model.retain(|triple, _| !pattern.matches(triple));
            (rows.len() as u64, Op::Delete, rows, true)
        }
    }
}

/// Whether the store is the model: every row, with its columns.
pub fn equals(snapshot: &Snapshot, model: &Model) -> bool {
    let page = snapshot.query(&Pattern::ALL, usize::MAX, None, true).unwrap();
    let records = page.records.unwrap();
    page.rows.len() == model.len()
        && model.iter().zip(&records).all(|((triple, (created_at, text)), record)| {
            let version = record.metadata.schema_version.as_ref();
            let stored = version.map(|version| format!(r#"{{"schema_version":"{version}"}}"#));
            record.triple == *triple && record.created_at.total_cmp(created_at).is_eq() && stored == *text
        })
}

/// All pages of a query.
fn query_all(snapshot: &Snapshot, pattern: &Pattern, limit: usize) -> Vec<Triple> {
    let mut rows = Vec::new();
    let mut cursor: Option<Vec<u8>> = None;
    loop {
        let page: Page = snapshot.query(pattern, limit, cursor.as_deref(), false).unwrap();
        assert!(page.rows.len() <= limit);
        rows.extend(page.rows);
        match page.cursor {
            Some(next) => cursor = Some(next),
            None => return rows,
        }
    }
}

/// Every way of asking, against the model.
pub fn check_questions(snapshot: &Snapshot, model: &Model, samples: &[Pattern]) {
    for pattern in samples {
        let expected: Vec<Triple> = model.keys().filter(|triple| pattern.matches(triple)).copied().collect();
        for limit in [1, 7, 1000] {
            let rows = query_all(snapshot, pattern, limit);
            let mut sorted = rows.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), rows.len(), "{pattern:?}: a triple twice");
            assert_eq!(sorted, expected, "{pattern:?}");
        }
        assert_eq!(snapshot.count(pattern), expected.len() as u64, "{pattern:?}");
    }
    for triple in model.keys() {
        assert!(snapshot.contains(triple));
        assert_eq!(snapshot.get(&triple.hash()).map(|record| record.triple), Some(*triple));
    }
}
