//! Alertmanager's webhook: a firing alert has its fleet evaluated at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use super::problem::ProblemDocument;
use super::{App, Problem};
use crate::metrics::AlertResult;
use crate::ports::inbox::Message;

/// The only version of the webhook there is.
const WEBHOOK_VERSION: &str = "4";

/// What of a webhook matters here.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Webhook {
    #[schema(pattern = "^4$")]
    version: String,
    #[serde(default)]
    common_labels: BTreeMap<String, String>,
    alerts: Vec<Alert>,
}

#[derive(Deserialize, ToSchema)]
struct Alert {
    status: Status,
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Status {
    Firing,
    Resolved,
}

/// Alertmanager's webhook: look now.
///
/// An alert only asks to look now: what is decided comes from Prometheus, so one lost or sent
/// twice does no harm.
#[utoipa::path(post, path = "/api/v1/alerts", tag = "alerts", request_body = Webhook, responses(
    (status = 200, description = "taken"),
    (status = 400, body = ProblemDocument, content_type = "application/problem+json",
        description = "no webhook of version 4"),
    (status = 413, body = ProblemDocument, content_type = "application/problem+json",
        description = "the body is too long"),
    (status = 503, body = ProblemDocument, content_type = "application/problem+json",
        description = "the controller is busy; Alertmanager tries again"),
))]
pub(super) async fn receive(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let read = app.body(request).await.and_then(|body| firing(&body));
    let firing = read.inspect_err(|problem| {
        app.metrics.alert_received(AlertResult::Malformed);
        // A sender that is set up wrongly repeats itself for days.
        if !app.malformed_logged.swap(true, Ordering::Relaxed) {
            tracing::warn!(reason = problem.detail(), "webhook refused; silent until a good one");
        }
    })?;
    app.malformed_logged.store(false, Ordering::Relaxed);
    if firing.is_empty() {
        app.metrics.alert_received(AlertResult::Ignored);
        return Ok(StatusCode::OK);
    }
    let sent = app.send(Message::Alerted(firing));
    let result = if sent.is_ok() { AlertResult::Accepted } else { AlertResult::Refused };
    app.metrics.alert_received(result);
    sent.map(|()| StatusCode::OK)
}

/// The labels of the alerts that fire.
pub(super) fn firing(body: &[u8]) -> Result<Vec<BTreeMap<String, String>>, Problem> {
    let webhook: Webhook = serde_json::from_slice(body)
        .map_err(|error| Problem::bad(format!("not an Alertmanager webhook: {error}")))?;
    if webhook.version != WEBHOOK_VERSION {
        return Err(Problem::bad(format!(
            "webhook has version `{}`, expected `{WEBHOOK_VERSION}`",
            webhook.version
        )));
    }
    let firing = webhook.alerts.into_iter().filter(|alert| alert.status == Status::Firing);
    let merged = firing.map(|alert| {
        let mut labels = webhook.common_labels.clone();
        labels.extend(alert.labels);
        labels
    });
    Ok(merged.collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::{Value, json};

    use super::super::testing::bench;
    use super::*;

    fn webhook(statuses: &[&str]) -> Value {
        let alerts: Vec<_> = statuses
            .iter()
            .map(|status| {
                json!({
                    "status": status, "labels": { "alertname": "Failing", "severity": "page" },
                    "annotations": {}, "startsAt": "2025-07-20T08:26:40Z",
                    "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "", "fingerprint": "1",
                })
            })
            .collect();
        json!({
            "version": "4", "groupKey": "{}", "truncatedAlerts": 0, "status": "firing",
            "receiver": "rollbackd", "groupLabels": {}, "commonAnnotations": {},
            "commonLabels": { "fleet": "voice", "severity": "none" }, "externalURL": "",
            "alerts": alerts,
        })
    }

    #[tokio::test]
    async fn firing_alerts_reach_the_controller_with_the_common_labels() {
        let mut bench = bench();
        let answer = bench.post("/api/v1/alerts", webhook(&["firing", "resolved"])).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let Message::Alerted(alerts) = bench.inbox.try_recv().unwrap() else { panic!() };
        let labels = [("alertname", "Failing"), ("fleet", "voice"), ("severity", "page")];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(alerts, [BTreeMap::from(labels)]);
        assert_eq!(bench.count_of_alerts("accepted"), 1);
    }

    #[tokio::test]
    async fn resolved_alerts_evaluate_nothing() {
        let mut bench = bench();
        for statuses in [&["resolved", "resolved"][..], &[]] {
            let answer = bench.post("/api/v1/alerts", webhook(statuses)).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        assert!(bench.inbox.try_recv().is_err());
        assert_eq!(bench.count_of_alerts("ignored"), 2);
    }

    #[tokio::test]
    async fn a_malformed_webhook_is_refused_and_counted() {
        let mut bench = bench();
        let mut wrong_version = webhook(&["firing"]);
        wrong_version["version"] = json!("3");
        let mut no_version = webhook(&["firing"]);
        no_version.as_object_mut().unwrap().remove("version");
        let wrong_status = webhook(&["burning"]);
        #[rustfmt::skip]
        let cases = [
            (wrong_version.to_string(),    400, "version `3`"),
            (no_version.to_string(),       400, "missing field `version`"),
            (wrong_status.to_string(),     400, "unknown variant `burning`"),
            ("{}".to_owned(),              400, "missing field"),
            ("[1]".to_owned(),             400, "invalid"),
            ("not json".to_owned(),        400, "expected"),
            (String::new(),                400, "EOF"),
            ("x".repeat((1 << 20) + 1),    413, "length limit"),
        ];
        for (count, (body, status, detail)) in (1..).zip(cases) {
            let problem = bench.post("/api/v1/alerts", body).await.problem(status);
            assert!(problem.contains(detail), "{problem}");
            assert_eq!(bench.count_of_alerts("malformed"), count);
        }
        assert!(bench.inbox.try_recv().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_given_up_on() {
        use axum::body::{Body, Bytes};

        let bench = bench();
        let never = futures::stream::pending::<Result<Bytes, std::io::Error>>();
        let request = axum::http::Request::post("/api/v1/alerts").body(Body::from_stream(never));
        let begun = tokio::time::Instant::now();
        let answer = tower::ServiceExt::oneshot(bench.router.clone(), request.unwrap()).await;
        assert_eq!(answer.unwrap().status(), 408);
        // By the stopped clock, which passes over what is waited for.
        assert_eq!(begun.elapsed().as_secs(), 30);
        assert_eq!(bench.count_of_refused("body"), 1);
    }

    #[tokio::test]
    async fn alertmanager_tries_again_when_the_controller_is_busy() {
        let bench = bench();
        for _ in 0..4 {
            assert_eq!(bench.post("/api/v1/alerts", webhook(&["firing"])).await.status, 200);
        }
        let answer = bench.post("/api/v1/alerts", webhook(&["firing"])).await;
        assert!(answer.problem(503).contains("inbox is full"));
        assert_eq!(answer.headers["retry-after"], "5");
        assert_eq!(bench.count_of_alerts("refused"), 1);
    }

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_sender_that_repeats_its_mistake_is_logged_once() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let lines = || String::from_utf8_lossy(&log.0.lock().unwrap()).lines().count();
        let bench = bench();
        for (body, logged) in [("{}", 1), ("{}", 1), ("[]", 1), ("good", 1), ("{}", 2), ("{}", 2)] {
            let good = webhook(&[]).to_string();
            let body = if body == "good" { good } else { body.to_owned() };
            bench.post("/api/v1/alerts", body).await;
            assert_eq!(lines(), logged);
        }
    }
}
