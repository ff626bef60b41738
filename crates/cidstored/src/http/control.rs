//! What may change something. Not served yet; who may is decided first all the same, so that nobody
//! learns more than they may.

use super::error;
use crate::shared::Shared;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

/// Answers everything under `/config`, `/debug` and `/openapi.json`.
pub async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let needs_token = !matches!(*request.method(), Method::GET | Method::HEAD)
        || request.uri().path().starts_with("/debug/");
    if needs_token {
        if shared.config.jwt_secret.is_none() {
            return error(StatusCode::FORBIDDEN, "control over HTTP is off: no jwt_secret is set");
        }
        if !has_bearer(request.headers()) {
            let refused = error(StatusCode::UNAUTHORIZED, "expected Authorization: Bearer <token>");
            return ([(header::WWW_AUTHENTICATE, "Bearer")], refused).into_response();
        }
    }
    error(StatusCode::NOT_IMPLEMENTED, "not available in this version")
}

/// Whether there is something that could be a token: three parts of base64url.
fn has_bearer(headers: &HeaderMap) -> bool {
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    let base64url = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    token.is_some_and(|token| token.split('.').count() == 3 && token.split('.').all(base64url))
}
