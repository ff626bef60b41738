//! Health, status, metrics and single triples over HTTP.
//!
//! **Knows nothing of** the sockets of requests; it reads what the other threads publish.
//!
//! **Invariants**
//! - It answers while the store is being opened and after writes have stopped.
//! - What may change anything needs a token; without a secret it is off for everyone.

mod client;
mod control;
mod gauges;
mod limits;
mod listener;
mod status;
mod triples;
mod window;

use crate::shared::Shared;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use std::sync::Arc;

pub use gauges::gauges;
pub use limits::Limits;
pub use listener::{Bounded, Peer};

/// Largest body of a request.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Everything that is served.
pub fn router(shared: Arc<Shared>) -> Router {
    let control = any(control::answer);
    Router::new()
        .route("/health", get(|| async { "ok" }))
        .route("/ready", get(ready))
        .route("/status", get(status::status))
        .route("/metrics", get(metrics))
        .route("/metrics/prometheus", get(metrics))
        .route("/triples", get(triples::triples))
        .route("/triples/{hash}", get(triples::triple))
        .route("/config/{*name}", control.clone())
        .route("/debug/{*name}", control.clone())
        .route("/openapi.json", control)
        .fallback(|| async { error(StatusCode::NOT_FOUND, "no such path: see proto/README.md, section 10") })
        .method_not_allowed_fallback(|| async {
            error(StatusCode::METHOD_NOT_ALLOWED, "this path takes another method: see the Allow header")
        })
        .layer(axum::extract::DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), limits::limit))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), count))
        .with_state(shared)
}

async fn count(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    shared.metrics.http_requests_total.one();
    next.run(request).await
}

async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    match shared.health.not_ready() {
        None => "ready".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why).into_response(),
    }
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let text = shared.metrics.prometheus(&gauges(&shared));
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// An error in the form of the wire.
fn error(code: StatusCode, message: &str) -> Response {
    let body = serde_json::json!({"error_code": code.as_u16(), "error_msg": message, "version": "1.0"});
    (code, axum::Json(body)).into_response()
}
