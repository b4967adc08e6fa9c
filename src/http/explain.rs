//! Why rollbackd acted, or why it has not yet.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use tokio::time::timeout;
use tracing::warn;
use utoipa::IntoParams;

use super::api::named;
use super::problem::ProblemDocument;
use super::{App, Problem};
use crate::explain::{Explanation, Unknown, record_needed};
use crate::ledger::record::Record;
use crate::ports::ledger::Ledger;

/// What the handler needs.
pub(super) struct Witness<L> {
    pub(super) app: Arc<App>,
    pub(super) ledger: Arc<L>,
}

impl<L> Clone for Witness<L> {
    fn clone(&self) -> Self {
        Self { app: Arc::clone(&self.app), ledger: Arc::clone(&self.ledger) }
    }
}

/// Of what.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Asked {
    /// One version; else all that are under observation or being rolled back.
    version: Option<String>,
}

/// Why it acted, or why it has not yet.
#[utoipa::path(get, path = "/api/v1/fleets/{fleet}/explain", tag = "fleets",
    params(("fleet" = String, Path, description = "the fleet's name"), Asked),
    responses(
        (status = 200, body = Explanation),
        (status = 400, body = ProblemDocument, content_type = "application/problem+json",
            description = "the name is no text, or something else is asked"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json",
            description = "there is no such fleet or version; the detail names those there are"),
    ))]
pub(super) async fn explain<L: Ledger>(
    State(witness): State<Witness<L>>,
    path: Result<Path<String>, PathRejection>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<Explanation>, Problem> {
    let fleet = named(path)?;
    let Query(Asked { version }) =
        asked.map_err(|rejection| Problem::bad(rejection.body_text()))?;
    let unknown = |unknown: Unknown| Problem::not_found(unknown.to_string());
    let view = witness.app.view();
    let needed = record_needed(&view, &fleet, version.as_deref()).map_err(unknown)?;
    let records = match needed {
        Some(seq) => witness.records(seq).await,
        None => Vec::new(),
    };
    let now = witness.app.clock.now();
    crate::explain::explain(&view, &fleet, version.as_deref(), &records, now)
        .map(Json)
        .map_err(unknown)
}

impl<L: Ledger> Witness<L> {
    /// The record and the one before it; none if they cannot be read, for what is known without
    /// them must still be told.
    async fn records(&self, seq: u64) -> Vec<Record> {
        let read = self.ledger.read(seq.saturating_sub(2), 2);
        match timeout(self.app.limits.request_timeout, read).await {
            Ok(Ok(records)) => records,
            Ok(Err(error)) => {
                warn!(%error, "explaining without the record");
                Vec::new()
            }
            Err(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::testing::{Shelf, bench, bench_with};
    use super::*;
    use crate::ports::ledger::LedgerError;
    use crate::ports::view::{FleetView, PastView, View};

    fn view() -> Arc<View> {
        let past = PastView {
            version: "v2".to_owned(),
            outcome: "promoted".to_owned(),
            at: "2025-07-20T08:26:40.000Z".to_owned(),
            seq: 2,
        };
        let voice =
            FleetView { fleet: "voice".to_owned(), past: vec![past], ..FleetView::default() };
        Arc::new(View { fleets: BTreeMap::from([("voice".to_owned(), voice)]), ..View::default() })
    }

    #[tokio::test]
    async fn a_version_is_explained_with_or_without_its_record() {
        let promoted = "v2 was promoted at 2025-07-20 08:26:40Z: it was observed, and nothing spoke \
                        against it.";
        let mut bench = bench();
        bench.view.send_replace(view());
        let explained = bench.get("/api/v1/fleets/voice/explain?version=v2").await.json();
        assert_eq!(explained["versions"][0]["sentences"], serde_json::json!([promoted]));

        let path = "a.db".to_owned();
        bench = bench_with(Shelf(Err(LedgerError::Storage { path, reason: "full".to_owned() })));
        bench.view.send_replace(view());
        let explained = bench.get("/api/v1/fleets/voice/explain?version=v2").await.json();
        let unread = "The record of it, 2, could not be read.";
        assert_eq!(explained["versions"][0]["sentences"], serde_json::json!([promoted, unread]));
    }

    #[tokio::test]
    async fn what_is_not_known_is_told_with_what_is() {
        let bench = bench();
        bench.view.send_replace(view());
        let cases = [
            ("chat/explain", 404, "there is no fleet `chat`; there is only `voice`"),
            (
                "voice/explain?version=v9",
                404,
                "fleet `voice` has no version `v9`; there is only `v2`",
            ),
        ];
        for (path, status, detail) in cases {
            let answer = bench.get(&format!("/api/v1/fleets/{path}")).await;
            assert_eq!(answer.problem(status), detail);
        }
        bench.get("/api/v1/fleets/voice/explain?verison=v2").await.problem(400);
        bench.call("POST", "/api/v1/fleets/voice/explain", String::new()).await.problem(405);
    }
}
