//! Receivers of notices that are not well.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::synthetic::{Setup, Synthetic};
use crate::support::{client, wait_for};

/// An Alertmanager that answers 500 until it is well, and a broker of events that never answers.
#[derive(Clone, Default)]
struct Receivers {
    well: Arc<AtomicBool>,
    told: Arc<Mutex<Vec<Value>>>,
}

async fn take(State(receivers): State<Receivers>, Json(alerts): Json<Value>) -> StatusCode {
    if !receivers.well.load(Ordering::SeqCst) {
        return StatusCode::INTERNAL_SERVER_ERROR;
    }
    receivers.told.lock().unwrap().extend(alerts.as_array().cloned().unwrap_or_default());
    StatusCode::OK
}

impl Receivers {
    async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let never = post(async || std::future::pending::<()>().await);
        let router = Router::new().route("/api/v2/alerts", post(take)).route("/events", never);
        let router = router.with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        url
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn notices_that_nobody_takes_hold_no_rollback_up_and_are_told_later() {
    let receivers = Receivers::default();
    let url = receivers.start().await;
    let further = json!({
        "alertmanager": { "url": url },
        "cdevents": { "url": format!("{url}/events"), "environment": "test" },
    });
    let further = further.as_object().unwrap().clone();
    let fleet = Synthetic::serving_on_v1(Setup { further, ..Setup::default() }).await;
    fleet.add("v2", 0.5).await;
    fleet.until_recorded("rollback.clean").await;
    let metrics = client().get(fleet.url("/metrics")).send().await.unwrap().text().await.unwrap();
    let failed = r#"rollbackd_notices_total{outcome="failed",to="alertmanager"}"#;
    assert!(metrics.contains(failed), "{metrics}");
    assert!(!metrics.contains(r#"outcome="sent""#), "{metrics}");
    let mut records = fleet.records().await.into_iter();
    assert!(records.all(|record| record["event"] != "notice.delivered"));

    receivers.well.store(true, Ordering::SeqCst);
    let alert = wait_for("the end of the rollback", Duration::from_mins(2), || async {
        let told = receivers.told.lock().unwrap();
        told.iter().find(|alert| alert["labels"]["alertname"] == "RollbackEnded").cloned()
    })
    .await;
    // The rule is found by the rollback's reason.
    let runbook = &alert["annotations"]["runbook_url"];
    assert_eq!(runbook, "https://runbooks.example.org/voice/v2", "{alert:#}");
    let log = std::fs::read_to_string(fleet.path("log")).unwrap();
    let said = log.matches("notices are not taken; trying again").count();
    assert!((1..=2).contains(&said), "once for each receiver: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_on_an_escalation_names_the_rule_that_the_decision_rests_on() {
    let receivers = Receivers::default();
    receivers.well.store(true, Ordering::SeqCst);
    let further = json!({ "alertmanager": { "url": receivers.start().await } });
    let further = further.as_object().unwrap().clone();
    let setup = Setup { mode: "observe", further, ..Setup::default() };
    let fleet = Synthetic::serving_on_v1(setup).await;
    fleet.add("v2", 0.5).await;
    let alert = wait_for("an escalation", Duration::from_mins(2), || async {
        let told = receivers.told.lock().unwrap();
        told.iter().find(|alert| alert["labels"]["alertname"] == "RolloutEscalated").cloned()
    })
    .await;
    assert_eq!(alert["labels"]["rule"], "sessions/SessionsFailing", "{alert:#}");
}
