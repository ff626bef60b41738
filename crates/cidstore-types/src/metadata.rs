//! What a client may say about a triple beside its three parts.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Limit of one triple's stored metadata (the JSON text of [`Metadata::to_stored`]), in bytes.
pub const METADATA_BYTES_MAX: usize = 64 * 1024;

/// Optional facts about one triple, as stored: everything but `created_at`, which every triple has
/// and which is kept in a column of its own.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Metadata {
    /// Where the triple comes from: the client's own map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Map<String, Value>>,
    /// Version of the client's schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_version: Option<String>,
    /// From 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
}

/// Why metadata cannot be stored.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum MetadataError {
    /// Over [`METADATA_BYTES_MAX`] or the operator's lower limit.
    #[error("metadata of {found} bytes as JSON: the limit is {limit}")]
    TooLarge {
        /// Its size in bytes.
        found: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Not between 0 and 1.
    #[error("confidence is {found}: expected a number from 0 to 1")]
    Confidence {
        /// What stood there.
        found: f64,
    },
}

impl Metadata {
    /// Whether there is nothing to store.
    pub fn is_empty(&self) -> bool {
        self.provenance.is_none() && self.schema_version.is_none() && self.confidence.is_none()
    }

    /// The stored form: compact JSON.
    ///
    /// # Errors
    /// [`MetadataError`] when it is larger than `limit` bytes or the confidence is out of range.
    pub fn to_stored(&self, limit: usize) -> Result<Box<str>, MetadataError> {
        if let Some(found) = self.confidence
            && !(0.0..=1.0).contains(&found)
        {
            return Err(MetadataError::Confidence { found });
        }
        let text = serde_json::to_string(self).expect("JSON values serialize");
        if text.len() > limit {
            return Err(MetadataError::TooLarge { found: text.len(), limit });
        }
        Ok(text.into())
    }

    /// Reads the stored form. Text that is not of this form reads as empty metadata with the text
    /// under `provenance.unreadable`, so that a reader of damaged data sees it instead of nothing.
    pub fn from_stored(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_else(|_| Self {
            provenance: Some(Map::from_iter([("unreadable".into(), Value::from(text))])),
            ..Self::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_form_round_trips_and_is_bounded() {
        let metadata = Metadata {
            provenance: Some(Map::from_iter([("z".into(), 1.into()), ("a".into(), "é".into())])),
            schema_version: Some("v2".into()),
            confidence: Some(0.5),
        };
        let text = metadata.to_stored(METADATA_BYTES_MAX).unwrap();
        assert_eq!(&*text, r#"{"provenance":{"z":1,"a":"é"},"schema_version":"v2","confidence":0.5}"#);
        assert_eq!(Metadata::from_stored(&text), metadata);
        let found = text.len();
        assert_eq!(metadata.to_stored(found - 1), Err(MetadataError::TooLarge { found, limit: found - 1 }));
        for bad in [-0.1, 1.1, f64::NAN] {
            let metadata = Metadata { confidence: Some(bad), ..Metadata::default() };
            assert!(metadata.to_stored(100).is_err(), "{bad}");
        }
    }
}
