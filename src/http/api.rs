//! What the controller shows of itself, read-only.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use utoipa::{IntoParams, ToSchema};

use super::problem::ProblemDocument;
use super::{App, Limits, Problem, membership, paging};
use crate::ports::ledger::Ledger;
use crate::ports::view::{BreakerView, FleetView, RollbackView, RuleView};

/// No record can be above it.
const SEQ_MAX: u64 = i64::MAX as u64;

/// All fleets, and whether many of them regress at once.
#[derive(Serialize, ToSchema)]
pub(super) struct Fleets {
    fleets: Vec<FleetView>,
    breaker: BreakerView,
}

/// A page of rollbacks, newest last.
#[derive(Serialize, ToSchema)]
pub(super) struct Rollbacks {
    rollbacks: Vec<RollbackView>,
}

/// The rules in force.
#[derive(Serialize, ToSchema)]
pub(super) struct Rules {
    rules: Vec<RuleView>,
}

/// All fleets with their versions, rollouts and verdicts.
#[utoipa::path(get, path = "/api/v1/fleets", tag = "fleets", responses(
    (status = 200, body = Fleets, headers(("ETag", description = "changes with the answer"))),
    (status = 304, description = "`If-None-Match` names this state"),
))]
pub(super) async fn fleets(State(app): State<Arc<App>>) -> Json<Fleets> {
    let view = app.view();
    let breaker = view.breaker.clone();
    Json(Fleets { fleets: view.fleets.values().cloned().collect(), breaker })
}

/// One fleet.
#[utoipa::path(get, path = "/api/v1/fleets/{fleet}", tag = "fleets",
    params(("fleet" = String, Path, description = "the fleet's name")),
    responses(
        (status = 200, body = FleetView, headers(("ETag", description = "changes with the answer"))),
        (status = 304, description = "`If-None-Match` names this state"),
        (status = 400, body = ProblemDocument, content_type = "application/problem+json",
            description = "the name is no text"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json",
            description = "there is no such fleet"),
    ))]
pub(super) async fn fleet(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<FleetView>, Problem> {
    let name = named(path)?;
    let fleet = app.view().fleets.get(&name).cloned();
    fleet.map(Json).ok_or_else(|| Problem::not_found(format!("there is no fleet `{name}`")))
}

/// The signed statement of which versions the fleet admits and denies.
#[utoipa::path(get, path = "/api/v1/fleets/{fleet}/manifest", tag = "workers",
    params(("fleet" = String, Path, description = "the fleet's name")),
    responses(
        (status = 200, body = membership::Envelope,
            headers(("ETag", description = "changes with the answer"))),
        (status = 304, description = "`If-None-Match` names this state"),
        (status = 400, body = ProblemDocument, content_type = "application/problem+json",
            description = "the name is no text"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json",
            description = "the fleet has no manifest"),
    ))]
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

/// Which rollbacks.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct RollbackPage {
    /// Only those that began after the one of this id.
    after: Option<String>,
    /// At most so many.
    #[param(minimum = 1, maximum = 10_000, default = 1_000)]
    limit: Option<u32>,
}

/// Rollbacks, newest last.
#[utoipa::path(get, path = "/api/v1/rollbacks", tag = "rollbacks", params(RollbackPage), responses(
    (status = 200, body = Rollbacks, headers(
        ("ETag", description = "changes with the answer"),
        ("Link", description = "with `rel=\"next\"`: where there are more"),
    )),
    (status = 304, description = "`If-None-Match` names this state"),
    (status = 400, body = ProblemDocument, content_type = "application/problem+json",
        description = "`limit` is out of its range"),
    (status = 404, body = ProblemDocument, content_type = "application/problem+json",
        description = "`after` names no rollback"),
))]
pub(super) async fn rollbacks(
    State(app): State<Arc<App>>,
    page: Result<Query<RollbackPage>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(page) = page.map_err(|rejection| Problem::bad(rejection.body_text()))?;
    let limit = paging::limit(page.limit)?;
    let view = app.view();
    let all = view.rollbacks.as_slice();
    let first = match &page.after {
        None => 0,
        Some(id) => match all.iter().position(|rollback| rollback.id == *id) {
            Some(place) => place + 1,
            None => {
                return Err(Problem::not_found(format!("`after`: there is no rollback `{id}`")));
            }
        },
    };
    let rest = all.get(first..).unwrap_or_default();
    let page = rest.get(..limit as usize).unwrap_or(rest);
    let more = page.last().filter(|_| page.len() < rest.len());
    let link = more.map(|last| paging::next("/api/v1/rollbacks", &last.id, limit));
    Ok((link, Json(Rollbacks { rollbacks: page.to_vec() })).into_response())
}

/// One rollback.
#[utoipa::path(get, path = "/api/v1/rollbacks/{id}", tag = "rollbacks",
    params(("id" = String, Path, description = "the rollback's id")),
    responses(
        (status = 200, body = RollbackView,
            headers(("ETag", description = "changes with the answer"))),
        (status = 304, description = "`If-None-Match` names this state"),
        (status = 400, body = ProblemDocument, content_type = "application/problem+json",
            description = "the id is no text"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json",
            description = "there is no such rollback"),
    ))]
pub(super) async fn rollback(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<RollbackView>, Problem> {
    let id = named(path)?;
    let rollback = app.view().rollbacks.iter().find(|rollback| rollback.id == id).cloned();
    rollback.map(Json).ok_or_else(|| Problem::not_found(format!("there is no rollback `{id}`")))
}

/// The rules in force, with their digests and queries.
#[utoipa::path(get, path = "/api/v1/rules", tag = "rules", responses(
    (status = 200, body = Rules, headers(("ETag", description = "changes with the answer"))),
    (status = 304, description = "`If-None-Match` names this state"),
))]
pub(super) async fn rules(State(app): State<Arc<App>>) -> Json<Rules> {
    Json(Rules { rules: app.view().rules.to_vec() })
}

/// Which records.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// Only those above this `seq`.
    #[serde(default)]
    after: u64,
    /// At most so many.
    #[param(minimum = 1, maximum = 10_000, default = 1_000)]
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

/// The ledger's records, a line of JSON each.
///
/// Fewer than `limit` means that there are no more.
#[utoipa::path(get, path = "/api/v1/ledger", tag = "ledger", params(Page), responses(
    (status = 200, body = String, content_type = "application/x-ndjson", headers(
        ("Link", description = "with `rel=\"next\"`: where there may be more"),
    )),
    (status = 400, body = ProblemDocument, content_type = "application/problem+json",
        description = "no such page"),
    (status = 503, body = ProblemDocument, content_type = "application/problem+json",
        description = "the ledger does not answer"),
))]
pub(super) async fn ledger<L: Ledger>(
    State(archive): State<Archive<L>>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(page) = page.map_err(|rejection| Problem::bad(rejection.body_text()))?;
    let limit = paging::limit(page.limit)?;
    if page.after > SEQ_MAX {
        return Err(Problem::bad(format!("`after` must be at most {SEQ_MAX}")));
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
    let last = records.last().filter(|_| records.len() == limit as usize);
    let link = last.map(|last| paging::next("/api/v1/ledger", &last.seq.to_string(), limit));
    let content_type = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((content_type, link, lines).into_response())
}

/// How long the ledger is and what it ends with, as a C2SP signed note.
#[utoipa::path(get, path = "/api/v1/ledger/checkpoint", tag = "ledger", responses(
    (status = 200, body = String, content_type = "text/plain; charset=utf-8"),
    (status = 404, body = ProblemDocument, content_type = "application/problem+json",
        description = "there is no record yet, or it runs read-only"),
    (status = 503, body = ProblemDocument, content_type = "application/problem+json",
        description = "the ledger does not answer"),
))]
pub(super) async fn checkpoint<L: Ledger>(
    State(archive): State<Archive<L>>,
) -> Result<String, Problem> {
    timeout(archive.limits.request_timeout, archive.ledger.checkpoint())
        .await
        .map_err(|_| Problem::busy("the ledger took too long to answer"))?
        .map_err(|error| Problem::busy(format!("failed to read the ledger: {error}")))?
        .ok_or_else(|| {
            Problem::not_found("there is no record to sign for, or nothing to sign with")
        })
}

pub(super) fn named(path: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    path.map(|Path(name)| name).map_err(|rejection| Problem::bad(rejection.body_text()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::super::testing::{Shelf, bench, bench_with};
    use super::*;
    use crate::ports::ledger::LedgerError;
    use crate::ports::view::{BreakerView, RuleView, View};

    #[tokio::test]
    async fn the_view_is_served_whole_and_in_parts() {
        let bench = bench();
        let voice = FleetView { fleet: "voice:eu%2F1".to_owned(), ..FleetView::default() };
        bench.view.send_replace(Arc::new(View {
            ready: true,
            fleets: BTreeMap::from([(voice.fleet.clone(), voice)]),
            rollbacks: vec![RollbackView { id: "r1".to_owned(), ..RollbackView::default() }],
            breaker: BreakerView { open: true, regressed: 4, fleets: 6, ..BreakerView::default() },
            rules: [RuleView { name: "Failing".to_owned(), ..RuleView::default() }].into(),
            ..View::default()
        }));
        assert_eq!(bench.get("/api/v1/fleets").await.json()["fleets"][0]["fleet"], "voice:eu%2F1");
        assert_eq!(bench.get("/api/v1/fleets").await.json()["breaker"]["open"], true);
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
        for query in ["after=-1", "after=9223372036854775808", "after=x", "limit=0", "limit=10001"]
        {
            bench.get(&format!("/api/v1/ledger?{query}")).await.problem(400);
        }
    }

    #[tokio::test]
    async fn a_page_that_is_not_the_last_names_the_next() {
        let bench = bench();
        let rollback = |n| RollbackView { id: format!("voice:eu-{n}"), ..RollbackView::default() };
        bench.view.send_replace(Arc::new(View {
            rollbacks: (0..5).map(rollback).collect(),
            ..View::default()
        }));
        for (first, want) in [
            ("/api/v1/rollbacks?limit=2", vec![2, 2, 1]),
            ("/api/v1/rollbacks?limit=5", vec![5]),
            ("/api/v1/ledger?limit=2", vec![2, 1]),
            ("/api/v1/ledger?limit=4", vec![3]),
        ] {
            let (mut uri, mut found) = (first.to_owned(), Vec::new());
            loop {
                let answer = bench.get(&uri).await;
                found.push(answer.body.matches("\"version\"").count());
                let Some(link) = answer.headers.get("link") else { break };
                let link = link.to_str().unwrap();
                let (target, relation) = link.split_once('>').unwrap();
                assert_eq!(relation, "; rel=\"next\"");
                uri = target.trim_start_matches('<').to_owned();
            }
            assert_eq!(found, want, "{first}");
        }
        for query in ["limit=0", "limit=10001", "limit=x"] {
            bench.get(&format!("/api/v1/rollbacks?{query}")).await.problem(400);
        }
        bench.get("/api/v1/rollbacks?after=nope").await.problem(404);
    }

    #[tokio::test]
    async fn a_checkpoint_is_served_as_it_was_signed() {
        let answer = bench().get("/api/v1/ledger/checkpoint").await;
        assert_eq!(answer.content_type, "text/plain; charset=utf-8");
        assert_eq!(answer.body, "3\n");
        bench_with(Shelf(Ok(0))).get("/api/v1/ledger/checkpoint").await.problem(404);
    }

    #[tokio::test]
    async fn a_ledger_that_cannot_be_read_is_a_problem() {
        let error =
            LedgerError::Storage { path: "a.db".to_owned(), reason: "disk full".to_owned() };
        let bench = bench_with(Shelf(Err(error)));
        assert!(bench.get("/api/v1/ledger").await.problem(503).contains("disk full"));
    }
}
