//! Which path leads where.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use tokio::sync::Semaphore;

use super::api::Archive;
use super::explain::Witness;
use super::guard::guarded;
use super::refusals::Refusals;
use super::{
    App, Problem, Shared, alerts, api, etag, events, explain, guard, health, membership, openapi,
    operate, page,
};
use crate::domain::role::Role;
use crate::ports::ledger::Ledger;

/// All endpoints. Further ones belong into the group of who may use them.
pub fn router<L: Ledger>(shared: Shared<L>) -> Router {
    let limits = shared.limits;
    let archive = Archive { ledger: shared.ledger, limits };
    let app = Arc::new(App {
        inbox: shared.inbox,
        view: shared.view,
        manifests: shared.manifests,
        metrics: shared.metrics,
        verifiers: shared.verifiers,
        clock: shared.clock,
        limits,
        access: shared.access,
        stopping: shared.stopping,
        written: page::Written::default(),
        told: events::Told::default(),
        followers: Arc::new(Semaphore::new(limits.streams_max)),
        refusals: Refusals::default(),
        refusals_logged: Refusals::default(),
        malformed_logged: AtomicBool::new(false),
    });
    let witness = Witness { app: Arc::clone(&app), ledger: Arc::clone(&archive.ledger) };
    let explain = Router::new()
        .route("/api/v1/fleets/{fleet}/explain", get(explain::explain::<L>))
        .with_state(witness.clone());
    let pages = Router::new()
        .route("/ledger", get(page::ledger::<L>))
        .route("/ledger/{seq}", get(page::record::<L>))
        .with_state(witness);
    let ledger = Router::new()
        .route("/api/v1/ledger", get(api::ledger::<L>))
        .route("/api/v1/ledger/checkpoint", get(api::checkpoint::<L>))
        .with_state(archive);
    let readers = readers().with_state(Arc::clone(&app)).merge(ledger).merge(explain).merge(pages);
    open()
        .merge(guarded(&app, None, Router::new().route("/api/v1/caller", get(guard::caller))))
        .merge(guarded(&app, Some(Role::Alert), alerters()))
        .merge(guarded(&app, Some(Role::Operate), operators()))
        .with_state(Arc::clone(&app))
        .merge(guarded(&app, Some(Role::Read), readers))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(limits.body_bytes_max))
        .layer(from_fn_with_state(app, guard::headers))
}

/// For everybody: what tells nothing, and what carries a proof of its own.
fn open() -> Router<Arc<App>> {
    Router::new()
        .route("/assets/{name}", get(page::assets::serve))
        .route("/-/healthy", get(health::healthy))
        .route("/-/ready", get(health::ready))
        .route("/api/v1/heartbeat", post(membership::heartbeat))
        .route("/api/v1/membership/verify", post(membership::verify))
}

fn readers() -> Router<Arc<App>> {
    let views = Router::new()
        .route("/api/v1/fleets", get(api::fleets))
        .route("/api/v1/fleets/{fleet}", get(api::fleet))
        .route("/api/v1/fleets/{fleet}/manifest", get(api::manifest))
        .route("/api/v1/rollbacks", get(api::rollbacks))
        .route("/api/v1/rollbacks/{id}", get(api::rollback))
        .route("/api/v1/rules", get(api::rules))
        .route("/api/v1/openapi.json", get(openapi::document))
        .route_layer(from_fn(etag::tag));
    Router::new()
        .route("/", get(page::overview))
        .route("/fleets/{fleet}", get(page::fleet))
        .route("/history", get(page::history))
        .route("/rules", get(page::rules))
        .route("/metrics", get(health::metrics))
        .route("/api/v1/events", get(events::follow))
        .merge(views)
}

fn alerters() -> Router<Arc<App>> {
    Router::new().route("/api/v1/alerts", post(alerts::receive))
}

fn operators() -> Router<Arc<App>> {
    Router::new()
        .route("/-/reload", post(health::reload))
        .route("/api/v1/fleets/{fleet}/{act}", post(operate::act))
}

async fn not_found(uri: Uri) -> Problem {
    Problem::not_found(format!("there is nothing at `{}`", uri.path()))
}

async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    let detail = format!("`{}` does not take {method}", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}

#[cfg(test)]
mod tests {
    use super::super::testing::bench;

    #[tokio::test]
    async fn what_is_not_there_is_a_problem_document() {
        let bench = bench();
        for path in ["/nothing", "/api/v1/fleets/nope", "/api/v1/rollbacks/nope"] {
            bench.get(path).await.problem(404);
        }
        bench.get("/api/v1/fleets/nope/manifest").await.problem(404);
        bench.get("/api/v1/fleets/%FF").await.problem(400);
    }

    #[tokio::test]
    async fn a_method_that_is_not_taken_is_a_problem_document_that_allows() {
        let bench = bench();
        for (method, path, allowed) in [
            ("POST", "/metrics", "GET,HEAD"),
            ("DELETE", "/api/v1/ledger", "GET,HEAD"),
            ("GET", "/api/v1/alerts", "POST"),
            ("GET", "/-/reload", "POST"),
        ] {
            let answer = bench.call(method, path, String::new()).await;
            answer.problem(405);
            assert_eq!(answer.headers["allow"], allowed, "{method} {path}");
        }
    }
}
