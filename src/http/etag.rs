//! Entity tags, so that who asks often is sent what has changed and nothing else.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::Problem;

/// Bytes of the digest that make a tag: enough that two states never share one.
const TAG_BYTES: usize = 16;

/// Tags a good answer to a GET by its content; a client that has it already is told so (304).
///
/// A cache may keep the answer and must ask before it uses it.
pub(super) async fn tag(request: Request, next: Next) -> Response {
    let is_get = request.method() == Method::GET;
    let known = request.headers().get(header::IF_NONE_MATCH).cloned();
    let response = next.run(request).await;
    if !is_get || response.status() != StatusCode::OK {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    // The handlers' answers lie in memory already.
    let Ok(bytes) = to_bytes(body, usize::MAX).await else {
        return Problem::busy("the answer could not be written").into_response();
    };
    let digest = Sha256::digest(&bytes);
    let tag = format!("\"{}\"", hex::encode(digest.get(..TAG_BYTES).unwrap_or(&digest)));
    let is_known = known.is_some_and(|known| names(&known, &tag));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        parts.headers.insert(header::ETAG, tag);
    }
    parts.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    if is_known {
        parts.status = StatusCode::NOT_MODIFIED;
        parts.headers.remove(header::CONTENT_TYPE);
        parts.headers.remove(header::CONTENT_LENGTH);
        return Response::from_parts(parts, Body::empty());
    }
    Response::from_parts(parts, Body::from(bytes))
}

/// Whether an `If-None-Match` names the tag, as RFC 9110 compares weakly.
fn names(known: &HeaderValue, tag: &str) -> bool {
    let known = known.to_str().unwrap_or_default();
    known.split(',').map(str::trim).any(|one| one == "*" || one.trim_start_matches("W/") == tag)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt;

    use super::super::testing::{Answer, Bench, bench};
    use crate::ports::view::{RuleView, View};

    async fn get(bench: &Bench, known: &str) -> Answer {
        let request = Request::get("/api/v1/rules").header("if-none-match", known);
        let request = request.body(Body::empty()).unwrap();
        Answer::of(bench.router.clone().oneshot(request).await.unwrap()).await
    }

    #[tokio::test]
    async fn what_a_client_has_already_is_not_sent_again() {
        let bench = bench();
        let first = bench.get("/api/v1/rules").await;
        assert_eq!(first.headers["cache-control"], "private, no-cache");
        let tag = first.headers["etag"].to_str().unwrap().to_owned();
        for known in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".to_owned()] {
            let again = get(&bench, &known).await;
            assert_eq!((again.status.as_u16(), again.body.as_str()), (304, ""), "{known}");
            assert_eq!(again.headers["etag"], tag);
        }
        bench.view.send_replace(Arc::new(View {
            rules: [RuleView { name: "new".to_owned(), ..RuleView::default() }].into(),
            ..View::default()
        }));
        let changed = get(&bench, &tag).await;
        assert_eq!(changed.status, 200);
        assert_ne!(changed.headers["etag"], tag);
    }

    #[tokio::test]
    async fn an_error_has_no_tag() {
        let answer = bench().get("/api/v1/fleets/nope").await;
        answer.problem(404);
        assert!(!answer.headers.contains_key("etag"));
    }
}
