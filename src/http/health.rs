//! Whether rollbackd is alive and ready, its metrics, and the reload of its rules.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{App, Problem};
use crate::metrics;
use crate::ports::inbox::Message;

/// `GET /-/healthy`
pub(super) async fn healthy() -> &'static str {
    "rollbackd is healthy.\n"
}

/// `GET /-/ready`
pub(super) async fn ready(State(app): State<Arc<App>>) -> Result<&'static str, Problem> {
    if app.view().ready {
        Ok("rollbackd is ready.\n")
    } else {
        Err(Problem::busy("rollbackd is not ready: it has not evaluated yet"))
    }
}

/// `GET /metrics`
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let text = app.metrics.encode().map_err(|error| {
        let detail = format!("failed to write metrics: {error}");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    })?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

/// `POST /-/reload`
///
/// 400 with the problems as text, one a line, as a person at a shell wants them.
pub(super) async fn reload(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let (reply, replied) = oneshot::channel();
    app.send(Message::Reload(reply))?;
    let outcome = timeout(app.limits.request_timeout, replied)
        .await
        .map_err(|_| Problem::busy("the controller took too long to reload"))?
        .map_err(|_| Problem::busy("the controller stopped before it reloaded"))?;
    Ok(match outcome {
        Ok(()) => "rules reloaded.\n".into_response(),
        Err(problems) => (StatusCode::BAD_REQUEST, problems).into_response(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::bench;
    use super::*;
    use crate::ports::view::View;

    #[tokio::test]
    async fn rollbackd_is_healthy_at_once_and_ready_when_it_has_evaluated() {
        let bench = bench();
        assert_eq!(bench.get("/-/healthy").await.status, 200);
        assert!(bench.get("/-/ready").await.problem(503).contains("not ready"));
        bench.view.send_replace(Arc::new(View { ready: true, ..View::default() }));
        assert_eq!(bench.get("/-/ready").await.status, 200);
    }

    #[tokio::test]
    async fn metrics_are_in_the_text_format() {
        let answer = bench().get("/metrics").await;
        assert_eq!(answer.content_type, "text/plain; version=0.0.4");
        assert!(
            answer.body.contains("rollbackd_build_info{revision=\"test\",version=\"test\"} 1"),
            "{answer:?}"
        );
    }

    #[tokio::test]
    async fn a_reload_tells_what_is_wrong_with_the_rules() {
        let mut bench = bench();
        let problems = "rules/voice.yml:3:11: no\nrules/voice.yml:9:17: no";
        let cases = [(Ok(()), 200, "rules reloaded.\n"), (Err(problems.to_owned()), 400, problems)];
        for (outcome, status, body) in cases {
            let router = bench.router.clone();
            let controller = async {
                let Some(Message::Reload(reply)) = bench.inbox.recv().await else { panic!() };
                reply.send(outcome).unwrap();
            };
            let request = axum::http::Request::post("/-/reload").body(axum::body::Body::empty());
            let (answer, ()) =
                tokio::join!(tower::ServiceExt::oneshot(router, request.unwrap()), controller);
            let answer = answer.unwrap();
            assert_eq!(answer.status(), status);
            let bytes = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
            assert_eq!(bytes, body);
        }
    }

    #[tokio::test]
    async fn a_reload_without_a_controller_fails() {
        let mut bench = bench();
        bench.inbox.close();
        assert!(bench.post("/-/reload", "").await.problem(503).contains("stopped"));
    }
}
