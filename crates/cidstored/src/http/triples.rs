//! One triple by its hash.

use super::error;
use crate::shared::Shared;
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use cidstore_types::TripleHash;
use std::sync::Arc;

/// `GET /triples/{hash}`.
pub async fn triple(
    State(shared): State<Arc<Shared>>,
    hash: Result<Path<String>, PathRejection>,
) -> Response {
    // A rejection is a path that is no UTF-8.
    let Some(hash) = hash.ok().and_then(|Path(hash)| TripleHash::parse(&hash)) else {
        return error(StatusCode::BAD_REQUEST, "expected a triple hash: 64 hex digits");
    };
    let Some(engine) = shared.engine.get() else {
        return error(StatusCode::SERVICE_UNAVAILABLE, "recovering: opening the store");
    };
    let snapshot = engine.reader.snapshot();
    // A lookup may wait for the disk, where the page is not in memory.
    shared.touched.by_hash(snapshot.runs_len());
    let found = tokio::task::spawn_blocking(move || snapshot.get(&hash)).await;
    match found {
        // The store itself answered: there is no cache in front of it that could hit.
        Ok(Ok(Some(record))) => ([("x-cache-status", "MISS")], Json(record.to_json(&hash))).into_response(),
        Ok(Err(unreadable)) => {
            tracing::error!(%unreadable, "a lookup met a page that cannot be read");
            error(StatusCode::INTERNAL_SERVER_ERROR, &unreadable.to_string())
        }
        Ok(Ok(None)) => error(StatusCode::NOT_FOUND, "no triple has this hash"),
        Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "the lookup did not finish"),
    }
}
