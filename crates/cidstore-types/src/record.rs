//! The JSON of a stored triple: what Redis holds, and what `get` and `GET /triples/{hash}` answer.

use crate::{Cid, Metadata, Triple, TripleHash};
use serde_json::{Map, Value, json};

/// A triple with all that is known about it.
#[derive(Debug, Clone, PartialEq)]
pub struct TripleRecord {
    /// The triple.
    pub triple: Triple,
    /// Seconds since the epoch: the client's, else the time of receipt.
    pub created_at: f64,
    /// The client's metadata.
    pub metadata: Metadata,
}

impl TripleRecord {
    /// Joins a triple with its columns; `stored_metadata` is the text of [`Metadata::to_stored`].
    pub fn new(triple: Triple, created_at: f64, stored_metadata: Option<&str>) -> Self {
        let metadata = stored_metadata.map(Metadata::from_stored).unwrap_or_default();
        Self { triple, created_at, metadata }
    }

    /// The JSON map: `subject`, `predicate`, `object` as maps of lanes, `provenance` (with
    /// `triple_hash` added where it was absent), `schema_version` (`v1` where it was absent),
    /// `created_at`, and `confidence` where the client gave one.
    pub fn to_json(&self, hash: &TripleHash) -> Value {
        let mut provenance = self.metadata.provenance.clone().unwrap_or_default();
        if !provenance.contains_key("triple_hash") {
            provenance.insert("triple_hash".into(), hash.to_hex().into());
        }
        let mut map = Map::new();
        map.insert("subject".into(), lanes_json(self.triple.s()));
        map.insert("predicate".into(), lanes_json(self.triple.p()));
        map.insert("object".into(), lanes_json(self.triple.o()));
        map.insert("provenance".into(), provenance.into());
        map.insert("schema_version".into(), self.metadata.schema_version.as_deref().unwrap_or("v1").into());
        map.insert("created_at".into(), self.created_at.into());
        if let Some(confidence) = self.metadata.confidence {
            map.insert("confidence".into(), confidence.into());
        }
        map.into()
    }
}

fn lanes_json(cid: Cid) -> Value {
    let [high, high_mid, low_mid, low] = cid.lanes();
    json!({"high": high, "high_mid": high_mid, "low_mid": low_mid, "low": low})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_the_wire_form() {
        let cid = |low| Cid::from_lanes([u64::MAX, 0, 0, low]);
        let triple = Triple::new(cid(1), cid(2), cid(3));
        let hash = triple.hash();
        let record = TripleRecord::new(triple, 1_730_505_600.25, Some(r#"{"provenance":{"by":"x"}}"#));
        let lanes = |low| format!(r#"{{"high":18446744073709551615,"high_mid":0,"low_mid":0,"low":{low}}}"#);
        let (s, p, o) = (lanes(1), lanes(2), lanes(3));
        assert_eq!(
            record.to_json(&hash).to_string(),
            format!(
                r#"{{"subject":{s},"predicate":{p},"object":{o},"provenance":{{"by":"x","triple_hash":"{hash}"}},"schema_version":"v1","created_at":1730505600.25}}"#
            )
        );
        let own = TripleRecord::new(triple, 1.0, Some(r#"{"provenance":{"triple_hash":"mine"}}"#));
        assert_eq!(own.to_json(&hash)["provenance"]["triple_hash"], "mine");
    }
}
