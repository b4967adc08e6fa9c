//! What the controller shows of itself, read-only.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{App, Limits, Problem, membership};
use crate::ports::ledger::Ledger;
use crate::ports::view::{FleetView, RollbackView};

/// Records in one answer, unless asked for fewer or more.
const RECORDS_DEFAULT: u32 = 1_000;
/// Records in one answer at most.
const RECORDS_MAX: u32 = 10_000;

/// `GET /api/v1/fleets`
pub(super) async fn fleets(State(app): State<Arc<App>>) -> Json<Value> {
    let view = app.view();
    Json(json!({ "fleets": view.fleets.values().collect::<Vec<_>>() }))
}

/// `GET /api/v1/fleets/{fleet}`
pub(super) async fn fleet(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<FleetView>, Problem> {
    let name = named(path)?;
    let fleet = app.view().fleets.get(&name).cloned();
    fleet.map(Json).ok_or_else(|| Problem::not_found(format!("there is no fleet `{name}`")))
}

/// `GET /api/v1/fleets/{fleet}/manifest`
pub(super) async fn manifest(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let name = named(path)?;
    let manifest = app.manifest(&name);
    manifest
        .as_ref()
        .map(membership::envelope)
        .ok_or_else(|| Problem::not_found(format!("there is no manifest for fleet `{name}`")))
}

/// `GET /api/v1/rollbacks`
pub(super) async fn rollbacks(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({ "rollbacks": app.view().rollbacks }))
}

/// `GET /api/v1/rollbacks/{id}`
pub(super) async fn rollback(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<RollbackView>, Problem> {
    let id = named(path)?;
    let rollback = app.view().rollbacks.iter().find(|rollback| rollback.id == id).cloned();
    rollback.map(Json).ok_or_else(|| Problem::not_found(format!("there is no rollback `{id}`")))
}

/// `GET /api/v1/rules`
pub(super) async fn rules(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({ "rules": app.view().rules }))
}

/// Which records.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    #[serde(default)]
    after: u64,
    limit: Option<u32>,
}

/// What the ledger's handler needs.
pub(super) struct Archive<L> {
    pub(super) ledger: Arc<L>,
    pub(super) limits: Limits,
}

impl<L> Clone for Archive<L> {
    fn clone(&self) -> Self {
        Self { ledger: Arc::clone(&self.ledger), limits: self.limits }
    }
}

/// `GET /api/v1/ledger?after=SEQ&limit=N`
///
/// One record a line. Fewer than `limit` means that there are no more.
pub(super) async fn ledger<L: Ledger>(
    State(archive): State<Archive<L>>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(page) = page.map_err(|rejection| Problem::bad(rejection.body_text()))?;
    let limit = page.limit.unwrap_or(RECORDS_DEFAULT);
    if !(1..=RECORDS_MAX).contains(&limit) {
        return Err(Problem::bad(format!("`limit` must be from 1 to {RECORDS_MAX}")));
    }
    let records = timeout(archive.limits.request_timeout, archive.ledger.read(page.after, limit))
        .await
        .map_err(|_| Problem::busy("the ledger took too long to answer"))?
        .map_err(|error| Problem::busy(format!("failed to read the ledger: {error}")))?;
    let mut lines = String::new();
    for record in &records {
        let line = serde_json::to_string(record).map_err(|error| {
            Problem::busy(format!("failed to write record {}: {error}", record.seq))
        })?;
        lines.push_str(&line);
        lines.push('\n');
    }
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], lines).into_response())
}

fn named(path: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    path.map(|Path(name)| name).map_err(|rejection| Problem::bad(rejection.body_text()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::testing::{Shelf, bench, bench_with};
    use super::*;
    use crate::ports::ledger::LedgerError;
    use crate::ports::view::{RuleView, View};

    #[tokio::test]
    async fn the_view_is_served_whole_and_in_parts() {
        let bench = bench();
        let voice = FleetView { fleet: "voice:eu%2F1".to_owned(), ..FleetView::default() };
        bench.view.send_replace(Arc::new(View {
            ready: true,
            fleets: BTreeMap::from([(voice.fleet.clone(), voice)]),
            rollbacks: vec![RollbackView { id: "r1".to_owned(), ..RollbackView::default() }],
            rules: vec![RuleView { name: "Failing".to_owned(), ..RuleView::default() }],
        }));
        assert_eq!(bench.get("/api/v1/fleets").await.json()["fleets"][0]["fleet"], "voice:eu%2F1");
        let fleet = bench.get("/api/v1/fleets/voice:eu%252F1").await;
        assert_eq!(fleet.content_type, "application/json");
        assert_eq!(fleet.json()["fleet"], "voice:eu%2F1");
        assert_eq!(bench.get("/api/v1/rollbacks").await.json()["rollbacks"][0]["id"], "r1");
        assert_eq!(bench.get("/api/v1/rollbacks/r1").await.json()["id"], "r1");
        assert_eq!(bench.get("/api/v1/rules").await.json()["rules"][0]["name"], "Failing");
    }

    #[tokio::test]
    async fn a_manifest_is_served_with_the_bytes_that_were_signed() {
        let bench = bench();
        bench.publish(7, &["v2"]);
        let answer = bench.get("/api/v1/fleets/voice/manifest").await;
        let want = r#"{"manifest":{"denied":["v2"],"serial":7},"key":"aa","signature":"bb"}"#;
        assert_eq!(answer.body, want);
        assert_eq!(answer.content_type, "application/json");
    }

    #[tokio::test]
    async fn the_ledger_is_served_a_record_a_line_page_by_page() {
        let bench = bench();
        let seqs = async |uri: &str| -> Vec<u64> {
            let answer = bench.get(uri).await;
            assert_eq!(answer.content_type, "application/x-ndjson", "{answer:?}");
            let records = answer.body.lines().map(serde_json::from_str::<Value>);
            records.map(|record| record.unwrap()["seq"].as_u64().unwrap()).collect()
        };
        assert_eq!(seqs("/api/v1/ledger").await, [1, 2, 3]);
        assert_eq!(seqs("/api/v1/ledger?after=1").await, [2, 3]);
        assert_eq!(seqs("/api/v1/ledger?after=1&limit=1").await, [2]);
        assert_eq!(seqs("/api/v1/ledger?after=3").await, [0; 0]);
        for query in ["after=-1", "after=x", "limit=0", "limit=10001"] {
            bench.get(&format!("/api/v1/ledger?{query}")).await.problem(400);
        }
    }

    #[tokio::test]
    async fn a_ledger_that_cannot_be_read_is_a_problem() {
        let error =
            LedgerError::Storage { path: "a.db".to_owned(), reason: "disk full".to_owned() };
        let bench = bench_with(Shelf(Err(error)));
        assert!(bench.get("/api/v1/ledger").await.problem(503).contains("disk full"));
    }
}
