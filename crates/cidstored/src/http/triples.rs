//! Triples by their hashes.

use super::error;
use crate::reading::{self, Body};
use crate::shared::Shared;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cidstore_types::TripleHash;
use std::sync::Arc;

/// Most hashes of one request: so many fit well into its first line.
const HASHES_MAX: usize = 256;

const NO_HASH: &str = "expected a triple hash: 64 hex digits";

/// `GET /triples/{hash}`.
pub async fn triple(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    hash: Result<Path<String>, PathRejection>,
) -> Response {
    // A rejection is a path that is no UTF-8.
    let Some(hash) = hash.ok().and_then(|Path(hash)| TripleHash::parse(&hash)) else {
        return error(StatusCode::BAD_REQUEST, NO_HASH);
    };
    if shared.engine.get().is_none() {
        return recovering();
    }
    match reading::get(&shared, hash).await {
        Ok(found) => match &found.triple {
            Some(triple) => answer(triple.body(&hash), found.is_hit, &headers),
            None => error(StatusCode::NOT_FOUND, "no triple has this hash"),
        },
        Err(why) => error(StatusCode::INTERNAL_SERVER_ERROR, &why),
    }
}

/// `GET /triples?hash=…&hash=…`.
pub async fn triples(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Response {
    let fields = match query {
        Ok(Query(fields)) => fields,
        Err(rejection) => return error(StatusCode::BAD_REQUEST, &rejection.to_string()),
    };
    if fields.len() > HASHES_MAX {
        let why = format!("{} hashes: the limit is {HASHES_MAX}", fields.len());
        return error(StatusCode::PAYLOAD_TOO_LARGE, &why);
    }
    let hashes = match hashes(&fields) {
        Ok(hashes) => hashes,
        Err(why) => return error(StatusCode::BAD_REQUEST, &why),
    };
    if shared.engine.get().is_none() {
        return recovering();
    }
    let (found, is_hit) = match reading::get_many(&shared, hashes.clone()).await {
        Ok(found) => found,
        Err(why) => return error(StatusCode::INTERNAL_SERVER_ERROR, &why),
    };
    let mut text = Vec::with_capacity(64 + found.len() * 640);
    text.extend_from_slice(b"{\"triples\":{");
    for (n, (hash, triple)) in hashes.iter().zip(&found).enumerate() {
        text.extend_from_slice(if n == 0 { b"\"" } else { b",\"" });
        text.extend_from_slice(hash.to_hex().as_bytes());
        text.extend_from_slice(b"\":");
        text.extend_from_slice(triple.as_ref().map_or(b"null", |triple| &triple.body(hash).bytes));
    }
    text.extend_from_slice(b"},\"version\":\"1.0\"}");
    answer(&Body::of(text.into()), is_hit, &headers)
}

/// The hashes of a query, each once, in their order.
fn hashes(fields: &[(String, String)]) -> Result<Vec<TripleHash>, String> {
    let mut hashes = Vec::with_capacity(fields.len());
    for (name, value) in fields {
        if name != "hash" {
            return Err(format!("parameter {name:?}: expected hash=…, once for each triple"));
        }
        let hash = TripleHash::parse(value).ok_or_else(|| format!("hash={value:?}: {NO_HASH}"))?;
        // A key that stands twice in JSON is read by some as an error.
        if !hashes.contains(&hash) {
            hashes.push(hash);
        }
    }
    if hashes.is_empty() {
        return Err("expected hash=…, once for each triple".into());
    }
    Ok(hashes)
}

fn recovering() -> Response {
    error(StatusCode::SERVICE_UNAVAILABLE, "recovering: opening the store")
}

/// The bytes, unless the client has them.
fn answer(body: &Body, is_hit: bool, asked: &HeaderMap) -> Response {
    let headers = [
        // Kept by whoever likes, and asked for again each time: a triple can be deleted at any moment.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::ETAG, body.etag.clone()),
        (
            header::HeaderName::from_static("x-cache-status"),
            HeaderValue::from_static(if is_hit { "HIT" } else { "MISS" }),
        ),
    ];
    if body.is_known(asked) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    let json = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    (headers, json, body.bytes.clone()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_hashes_and_nothing_else() {
        let fields = |fields: &[(&str, &str)]| {
            let fields: Vec<_> =
                fields.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
            hashes(&fields).map(|hashes| hashes.iter().map(TripleHash::to_hex).collect::<Vec<_>>())
        };
        let [one, two] = ["01", "02"].map(|byte| byte.repeat(32));
        assert_eq!(
            fields(&[("hash", &two), ("hash", &one), ("hash", &two)]).unwrap(),
            [two.as_str(), one.as_str()]
        );
        for (wrong, why) in [
            (&[][..], "expected hash="),
            (&[("hash", "01")], "64 hex digits"),
            (&[("hash", one.as_str()), ("hashes", one.as_str())], "\"hashes\""),
        ] {
            assert!(fields(wrong).unwrap_err().contains(why), "{wrong:?}");
        }
    }
}
