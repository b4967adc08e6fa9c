//! Whether rollbackd is alive and ready, its metrics, and the reload of its rules.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::problem::ProblemDocument;
use super::{App, Problem};
use crate::metrics;
use crate::ports::inbox::Message;

/// Whether the process serves.
#[utoipa::path(get, path = "/-/healthy", tag = "health", responses(
    (status = 200, body = String, content_type = "text/plain"),
))]
pub(super) async fn healthy() -> &'static str {
    "rollbackd is healthy.\n"
}

/// Whether the ledger was replayed and a first look was tried.
#[utoipa::path(get, path = "/-/ready", tag = "health", responses(
    (status = 200, body = String, content_type = "text/plain"),
    (status = 503, body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn ready(State(app): State<Arc<App>>) -> Result<&'static str, Problem> {
    if app.view().ready {
        Ok("rollbackd is ready.\n")
    } else {
        Err(Problem::busy("rollbackd is not ready: it has not evaluated yet"))
    }
}

/// Its own metrics.
#[utoipa::path(get, path = "/metrics", tag = "health", responses(
    (status = 200, body = String, content_type = "text/plain"),
))]
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let text = app.metrics.encode().map_err(|error| {
        let detail = format!("failed to write metrics: {error}");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    })?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

/// Reads the rule files again. The old rules stay where the new ones have problems.
#[utoipa::path(post, path = "/-/reload", tag = "health", responses(
    (status = 200, body = String, content_type = "text/plain"),
    (status = 400, body = ProblemDocument, content_type = "application/problem+json",
        description = "`detail` has every problem, a line each"),
    (status = 503, body = ProblemDocument, content_type = "application/problem+json",
        description = "the controller is busy"),
))]
pub(super) async fn reload(State(app): State<Arc<App>>) -> Result<&'static str, Problem> {
    let (reply, replied) = oneshot::channel();
    app.send(Message::Reload(reply))?;
    let outcome = timeout(app.limits.request_timeout, replied)
        .await
        .map_err(|_| Problem::busy("the controller took too long to reload"))?
        .map_err(|_| Problem::busy("the controller stopped before it reloaded"))?;
    outcome.map(|()| "rules reloaded.\n").map_err(Problem::bad)
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
        let told: Result<(), String> = Err(problems.to_owned());
        for (outcome, status) in [(Ok(()), 200), (told, 400)] {
            let mut inbox = std::mem::replace(&mut bench.inbox, tokio::sync::mpsc::channel(1).1);
            let controller = async {
                let Some(Message::Reload(reply)) = inbox.recv().await else { panic!() };
                reply.send(outcome).unwrap();
            };
            let (answer, ()) = tokio::join!(bench.post("/-/reload", ""), controller);
            bench.inbox = inbox;
            match status {
                200 => assert_eq!(answer.body, "rules reloaded.\n"),
                _ => assert_eq!(answer.problem(status), problems),
            }
        }
    }

    #[tokio::test]
    async fn a_reload_without_a_controller_fails() {
        let mut bench = bench();
        bench.inbox.close();
        assert!(bench.post("/-/reload", "").await.problem(503).contains("stopped"));
    }
}
