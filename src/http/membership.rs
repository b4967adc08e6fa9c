//! Workers say how they are and learn what to do; coordinators ask whether to route to a worker.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::timeout;
use utoipa::{IntoParams, ToSchema};

use super::problem::ProblemDocument;
use super::{App, Problem, claim};
use crate::domain::fleet::entry_of;
use crate::domain::membership::Heartbeat;
use crate::membership::Rejection;
use crate::metrics::Refused;
use crate::ports::inbox::Message;
use crate::ports::manifest::SignedManifest;

/// How long a heartbeat wants to be held, and for what.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Hold {
    /// Such as `30s`; without it, the answer is immediate.
    #[param(pattern = "^[0-9]{1,4}(ms|s|m|h)$")]
    wait: Option<String>,
    /// The serial the worker has; without it, any manifest is news.
    serial: Option<u64>,
}

/// A worker says how it is.
///
/// Answers with the manifest as soon as its serial is above `N`, or with what there is when the
/// wait is over: 204 if there is none.
#[utoipa::path(post, path = "/api/v1/heartbeat", tag = "workers", params(Hold),
    request_body = claim::HeartbeatBody,
    responses(
        (status = 200, body = Envelope, description = "the manifest in force"),
        (status = 204, description = "the fleet has no manifest yet"),
        (status = 400, body = ProblemDocument, content_type = "application/problem+json",
            description = "every field that is wrong"),
        (status = 401, body = ProblemDocument, content_type = "application/problem+json",
            description = "the token proves nothing: stale, from the future, or badly signed"),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json",
            description = "the fleet has no membership"),
        (status = 413, body = ProblemDocument, content_type = "application/problem+json",
            description = "the body is too long"),
        (status = 503, body = ProblemDocument, content_type = "application/problem+json",
            description = "the controller is busy"),
    ))]
pub(super) async fn heartbeat(
    State(app): State<Arc<App>>,
    hold: Result<Query<Hold>, QueryRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let Query(hold) = hold.map_err(|rejection| Problem::bad(rejection.body_text()))?;
    let wait = wait(&hold, app.limits.wait_max)?;
    let heartbeat = claim::heartbeat(&app.body(request).await?)?;
    authenticate(&app, &heartbeat).map_err(|refusal| {
        report(&app, &heartbeat, &refusal.to_string());
        match refusal {
            Refusal::NoMembership => Problem::new(StatusCode::FORBIDDEN, refusal.to_string()),
            Refusal::Token(_) => Problem::new(StatusCode::UNAUTHORIZED, refusal.to_string())
                .challenging(&["Membership"]),
        }
    })?;
    let fleet = heartbeat.fleet.clone();
    app.send(Message::Heartbeat(heartbeat))?;

    let is_news =
        |manifest: &SignedManifest| hold.serial.is_none_or(|serial| manifest.serial > serial);
    let mut manifests = app.manifests.clone();
    // Neither the end of the wait nor a controller that has stopped is the worker's fault: both
    // are answered with what there is.
    drop(timeout(wait, manifests.wait_for(|all| all.get(&fleet).is_some_and(is_news))).await);
    Ok(match app.manifest(&fleet) {
        Some(manifest) => envelope(&manifest),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

/// A coordinator asks whether a worker may be given sessions.
#[utoipa::path(post, path = "/api/v1/membership/verify", tag = "workers",
    request_body = claim::QuestionBody,
    responses(
        (status = 200, body = Admission, description = "it may"),
        (status = 400, body = ProblemDocument, content_type = "application/problem+json",
            description = "every field that is wrong"),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json",
            description = "it may not, and why"),
        (status = 413, body = ProblemDocument, content_type = "application/problem+json",
            description = "the body is too long"),
        (status = 503, body = ProblemDocument, content_type = "application/problem+json",
            description = "what is denied is not known yet"),
    ))]
pub(super) async fn verify(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<Admission>, Problem> {
    let question = claim::question(&app.body(request).await?)?;
    let refused = |reason: String| {
        report(&app, &question, &reason);
        Problem::new(StatusCode::FORBIDDEN, reason)
    };
    authenticate(&app, &question).map_err(|refusal| refused(refusal.to_string()))?;
    if denies(&app, &question)? {
        return Err(refused(format!("version `{}` is denied", question.version)));
    }
    Ok(Json(Admission { admitted: true }))
}

/// A worker may be given sessions.
#[derive(Serialize, ToSchema)]
pub(super) struct Admission {
    admitted: bool,
}

/// A manifest and what proves it, as [`envelope`] writes it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it only describes")]
pub(super) struct Envelope {
    /// What is signed.
    manifest: ManifestBody,
    /// The public key, hex. Pin it; do not believe this one.
    key: String,
    /// Ed25519 over the canonical JSON (RFC 8785) of `manifest`, hex.
    signature: String,
}

/// Which versions a fleet admits and denies.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it only describes")]
struct ManifestBody {
    /// The fleet's name.
    fleet: String,
    /// Only grows: refuse a lower one.
    serial: u64,
    /// The last good version and the candidates.
    admitted: Vec<String>,
    /// Versions that may not start.
    denied: Vec<String>,
    /// Denied versions whose running workers must drain now.
    draining: Vec<String>,
    /// The newest promoted version that is not denied.
    last_good: Option<String>,
    /// RFC 3339.
    issued_at: String,
    /// RFC 3339.
    expires_at: String,
}

/// The manifest and what proves it. The manifest's bytes are those that were signed.
pub(super) fn envelope(manifest: &SignedManifest) -> Response {
    let body = format!(
        r#"{{"manifest":{},"key":{},"signature":{}}}"#,
        manifest.manifest_json,
        Value::from(manifest.key.as_str()),
        Value::from(manifest.signature.as_str()),
    );
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("no fleet of this name has membership configured")]
    NoMembership,
    #[error(transparent)]
    Token(#[from] Rejection),
}

fn authenticate(app: &App, heartbeat: &Heartbeat) -> Result<(), Refusal> {
    let verifier = app.verifiers.get(entry_of(&heartbeat.fleet)).ok_or(Refusal::NoMembership)?;
    Ok(verifier.verify(heartbeat, app.clock.now())?)
}

/// Has a refusal recorded, unless the worker was reported a moment ago or the controller is busy.
fn report(app: &App, heartbeat: &Heartbeat, reason: &str) {
    app.metrics.request_refused(Refused::Membership);
    // Whoever makes fleets up gets no records for it.
    if !app.verifiers.contains_key(entry_of(&heartbeat.fleet)) {
        return;
    }
    let Ok(room) = app.inbox.try_reserve() else { return };
    if app.refusals.admit(&heartbeat.fleet, &heartbeat.worker_id, app.clock.now()) {
        room.send(Message::WorkerRejected {
            fleet: heartbeat.fleet.clone(),
            worker_id: heartbeat.worker_id.clone(),
            version: heartbeat.version.to_string(),
            reason: reason.to_owned(),
        });
    }
}

#[derive(Deserialize)]
struct Denied {
    denied: BTreeSet<String>,
}

/// Whether the fleet's manifest denies the version. Without a manifest nothing is denied, once
/// the ledger was replayed; before, nobody knows.
fn denies(app: &App, question: &Heartbeat) -> Result<bool, Problem> {
    let Some(manifest) = app.manifest(&question.fleet) else {
        if app.view().ready {
            return Ok(false);
        }
        return Err(Problem::busy("what is denied is not known yet"));
    };
    let Denied { denied } = serde_json::from_str(&manifest.manifest_json)
        .map_err(|error| Problem::busy(format!("the manifest is unreadable: {error}")))?;
    Ok(denied.contains(question.version.as_str()))
}

fn wait(hold: &Hold, wait_max: Duration) -> Result<Duration, Problem> {
    let Some(text) = &hold.wait else { return Ok(Duration::ZERO) };
    humantime::parse_duration(text)
        .map(|wait| wait.min(wait_max))
        .map_err(|error| Problem::bad(format!("`wait` is not a duration such as `30s`: {error}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{NOW, SECRET, bench, heartbeat as signed};
    use super::*;
    use crate::ports::view::View;

    const HEARTBEAT: &str = "/api/v1/heartbeat";
    const VERIFY: &str = "/api/v1/membership/verify";

    #[tokio::test]
    async fn a_good_heartbeat_reaches_the_controller_and_gets_the_manifest() {
        let mut bench = bench();
        let body = signed("voice", NOW - 0.123_456, SECRET);
        assert_eq!(bench.post(HEARTBEAT, &body).await.status, 204, "no manifest yet");
        bench.publish(7, &["v2"]);
        let answer = bench.post(HEARTBEAT, &body).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["manifest"]["serial"], 7);
        for _ in 0..2 {
            let Message::Heartbeat(heartbeat) = bench.inbox.try_recv().unwrap() else { panic!() };
            assert_eq!(heartbeat.version.as_str(), "v2");
            assert_eq!(heartbeat.active_sessions, 3);
        }
        let of_a_part = signed("voice:eu", NOW, SECRET);
        assert_eq!(bench.post(HEARTBEAT, of_a_part).await.status, 204);
    }

    #[tokio::test]
    async fn a_heartbeat_that_does_not_prove_membership_is_refused_and_reported_once() {
        #[rustfmt::skip]
        let cases = [
            ("voice", NOW,         "wrong", 401, "signature is invalid"),
            ("voice", NOW - 301.0, SECRET,  401, "stale"),
            ("voice", NOW + 301.0, SECRET,  401, "in the future"),
            ("chat",  NOW,         SECRET,  403, "no fleet"),
        ];
        for (fleet, timestamp, secret, status, detail) in cases {
            let mut bench = bench();
            bench.publish(7, &[]);
            let body = signed(fleet, timestamp, secret);
            for _ in 0..2 {
                let answer = bench.post(HEARTBEAT, &body).await;
                assert!(answer.problem(status).contains(detail), "{answer:?}");
                assert_eq!(answer.headers.contains_key("www-authenticate"), status == 401);
            }
            assert!(bench.post(VERIFY, &body).await.problem(403).contains(detail));
            if status == 403 {
                assert!(bench.inbox.try_recv().is_err(), "made-up fleets fill no ledger");
                continue;
            }
            let Message::WorkerRejected { fleet: named, worker_id, version, reason } =
                bench.inbox.try_recv().unwrap()
            else {
                panic!()
            };
            assert_eq!((&*named, &*worker_id, &*version), (fleet, "w1", "v2"));
            assert!(reason.contains(detail), "{reason}");
            assert!(bench.inbox.try_recv().is_err(), "reported once a minute");
        }
    }

    #[tokio::test]
    async fn a_malformed_heartbeat_is_told_what_is_wrong() {
        let bench = bench();
        let mut body = signed("voice", NOW, SECRET);
        body["worker_id"] = Value::Null;
        assert!(bench.post(HEARTBEAT, &body).await.problem(400).contains("`worker_id`"));
        bench.post(HEARTBEAT, "nonsense").await.problem(400);
        bench.post(HEARTBEAT, "x".repeat((1 << 20) + 1)).await.problem(413);
        for query in ["wait=soon", "wait=30", "serial=-1", "serial=x"] {
            let uri = format!("{HEARTBEAT}?{query}");
            bench.post(&uri, signed("voice", NOW, SECRET)).await.problem(400);
        }
    }

    #[tokio::test]
    async fn a_heartbeat_finds_no_room_in_a_full_inbox() {
        let bench = bench();
        for _ in 0..4 {
            assert_eq!(bench.post(HEARTBEAT, signed("voice", NOW, SECRET)).await.status, 204);
        }
        bench.post(HEARTBEAT, signed("voice", NOW, SECRET)).await.problem(503);
    }

    #[tokio::test]
    async fn a_held_heartbeat_is_answered_the_moment_the_manifest_changes() {
        let mut bench = bench();
        bench.publish(7, &[]);
        let (router, body) = (bench.router.clone(), signed("voice", NOW, SECRET).to_string());
        let request = axum::http::Request::post("/api/v1/heartbeat?wait=60s&serial=7").body(body);
        let held = tokio::spawn(tower::ServiceExt::oneshot(router, request.unwrap()));
        bench.inbox.recv().await.unwrap();
        // An older manifest, and the one it has, are no news.
        bench.publish(6, &[]);
        bench.publish(7, &[]);
        tokio::task::yield_now().await;
        assert!(!held.is_finished());
        bench.publish(8, &["v2"]);
        let answer = timeout(Duration::from_secs(10), held).await.unwrap().unwrap().unwrap();
        let bytes = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        let answer: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(answer["manifest"]["serial"], 8);
    }

    #[tokio::test]
    async fn a_held_heartbeat_is_answered_when_the_wait_or_the_controller_ends() {
        let mut bench = bench();
        bench.publish(7, &[]);
        let over = format!("{HEARTBEAT}?wait=20ms&serial=7");
        let answer = bench.post(&over, signed("voice", NOW, SECRET)).await;
        assert_eq!(answer.json()["manifest"]["serial"], 7);
        drop(std::mem::replace(
            &mut bench.manifests,
            tokio::sync::watch::channel(Arc::default()).0,
        ));
        let ended = format!("{HEARTBEAT}?wait=60s&serial=7");
        let answer = bench.post(&ended, signed("voice", NOW, SECRET));
        let answer = timeout(Duration::from_secs(10), answer).await.unwrap();
        assert_eq!(answer.json()["manifest"]["serial"], 7);
    }

    #[tokio::test]
    async fn nobody_waits_longer_than_the_limit() {
        let limit = Duration::from_mins(1);
        let asked = |text: &str| wait(&Hold { wait: Some(text.to_owned()), serial: None }, limit);
        assert_eq!(asked("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(asked("2h"), Ok(limit));
        assert_eq!(wait(&Hold { wait: None, serial: Some(1) }, limit), Ok(Duration::ZERO));
    }

    #[tokio::test]
    async fn a_coordinator_learns_whether_to_route_to_a_worker() {
        let mut bench = bench();
        let mut body = signed("voice", NOW, SECRET);
        let claim = body.as_object_mut().unwrap();
        claim.remove("draining");
        claim.remove("active_sessions");
        assert!(bench.post(VERIFY, &body).await.problem(503).contains("not known yet"));
        bench.view.send_replace(Arc::new(View { ready: true, ..View::default() }));
        assert_eq!(bench.post(VERIFY, &body).await.json(), json!({ "admitted": true }));
        bench.publish(7, &["v1"]);
        assert_eq!(bench.post(VERIFY, &body).await.json(), json!({ "admitted": true }));
        assert!(bench.inbox.try_recv().is_err());
        bench.publish(8, &["v1", "v2"]);
        assert!(bench.post(VERIFY, &body).await.problem(403).contains("`v2` is denied"));
        let rejected = bench.inbox.try_recv().unwrap();
        assert!(matches!(rejected, Message::WorkerRejected { .. }), "{rejected:?}");
    }
}
