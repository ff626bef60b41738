//! An answer as it goes to clients of HTTP, and the name of its bytes.

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, header};
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// Bytes of SHA-256 in an entity tag: nobody finds two texts that have so many in common.
const TAG_BYTES: usize = 16;

/// JSON, and its entity tag.
#[derive(Debug, Clone)]
pub struct Body {
    /// The JSON.
    pub bytes: Bytes,
    /// A strong one: it names these bytes and no others (RFC 9110, section 8.8.3).
    pub etag: HeaderValue,
}

impl Body {
    /// Around a text.
    pub fn of(bytes: Bytes) -> Self {
        let mut etag = String::with_capacity(2 * TAG_BYTES + 2);
        etag.push('"');
        for byte in &Sha256::digest(&bytes)[..TAG_BYTES] {
            let _ = write!(etag, "{byte:02x}");
        }
        etag.push('"');
        Self { bytes, etag: HeaderValue::from_str(&etag).expect("hex digits in quotes") }
    }

    /// Whether a client has these bytes already, as it says (RFC 9110, section 13.1.2).
    pub fn is_known(&self, headers: &HeaderMap) -> bool {
        let tags = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|tags| tags.to_str().ok());
        // No tag of ours has a comma in it.
        let mut tags = tags.flat_map(|tags| tags.split(',')).map(str::trim);
        tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag).as_bytes() == self.etag.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_names_these_bytes_alone() {
        let (one, other) = (Body::of("{}".into()), Body::of("{ }".into()));
        assert_eq!(one.etag, "\"44136fa355b3678a1146ad16f7e8649e\"");
        assert_ne!(one.etag, other.etag);
        let (own, others) = (one.etag.to_str().unwrap(), other.etag.to_str().unwrap());
        let known = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::IF_NONE_MATCH, value.parse().unwrap());
            }
            one.is_known(&headers)
        };
        assert!(!known(&[]) && !known(&[""]) && !known(&[others]) && !known(&[own.trim_matches('"')]));
        assert!(
            known(&[own])
                && known(&["*"])
                && known(&[&format!("{others}, W/{own}")])
                && known(&[others, own])
        );
    }
}
