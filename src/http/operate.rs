//! An operator's word, over HTTP.
//!
//! **Invariant:** no foreign web page can speak for an operator: what a browser sends for one names
//! its origin, which [`super::guard`] refuses, or is no `application/json`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::problem::ProblemDocument;
use super::{App, Caller, Problem};
use crate::domain::version::Version;
use crate::ports::inbox::{Act, Message, Order, Refusal};

/// The longest reason, in characters.
const REASON_CHARS_MAX: usize = 1000;
/// The longest name of a person, in characters.
const ACTOR_CHARS_MAX: usize = 100;
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_hours(24 * 365);

/// What comes with every act.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Word {
    /// Why: a line.
    #[schema(min_length = 1, max_length = 1000, example = "a noisy night")]
    reason: String,
    /// Who says so; `anonymous` unless given.
    #[schema(min_length = 1, max_length = 100, example = "ada")]
    actor: Option<String>,
    /// Which version, with `rollback`, `approve` and `allow`.
    version: Option<String>,
    /// Back to which version that was good before, with `rollback`; the last good one unless given.
    to: Option<String>,
    /// How long, with `pause`.
    #[schema(example = "2h")]
    #[serde(rename = "for")]
    lasting: Option<String>,
}

/// What was done on an operator's word.
#[derive(Serialize, ToSchema)]
pub(super) struct Outcome {
    fleet: String,
    actor: String,
    /// In a sentence.
    done: String,
}

/// Which acts there are.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "it only describes")]
enum ActName {
    Rollback,
    Approve,
    Pause,
    Resume,
    Allow,
    Abandon,
}

/// An operator's word. It is recorded before it is done.
#[utoipa::path(post, path = "/api/v1/fleets/{fleet}/{act}", tag = "fleets",
    params(
        ("fleet" = String, Path, description = "the fleet's name"),
        ("act" = inline(ActName), Path, description = "what to do"),
    ),
    request_body = Word,
    responses(
        (status = 200, body = Outcome, description = "it is recorded"),
        (status = 400, body = ProblemDocument, content_type = "application/problem+json",
            description = "what is wrong with the word"),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json",
            description = "who asks may not"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json",
            description = "there is no such fleet, or no such act"),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json",
            description = "the fleet's state does not allow it"),
        (status = 413, body = ProblemDocument, content_type = "application/problem+json",
            description = "the body is too long"),
        (status = 415, body = ProblemDocument, content_type = "application/problem+json",
            description = "the body is no `application/json`"),
        (status = 503, body = ProblemDocument, content_type = "application/problem+json",
            description = "the ledger takes no record, or the controller is busy"),
    ))]
pub(super) async fn act(
    State(app): State<Arc<App>>,
    caller: Caller,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Result<Json<Outcome>, Problem> {
    let Path((fleet, act)) = path.map_err(|rejection| Problem::bad(rejection.body_text()))?;
    let name = act.as_str();
    if !["rollback", "approve", "pause", "resume", "allow", "abandon"].contains(&name) {
        return Err(Problem::not_found(format!("there is no act `{name}`")));
    }
    check_kind(request.headers())?;
    let body = app.body(request).await?;
    let word = read(&body)?;
    let order = order(&app, &caller, fleet, name, &word)?;
    let (fleet, actor) = (order.fleet.clone(), order.actor.clone());
    let (reply, replied) = oneshot::channel();
    app.send(Message::Order(order, reply))?;
    let outcome = timeout(app.limits.request_timeout, replied)
        .await
        .map_err(|_| Problem::busy("the controller took too long; see whether it was done"))?
        .map_err(|_| Problem::busy("the controller stopped before it answered"))?;
    match outcome {
        Ok(done) => Ok(Json(Outcome { fleet, actor, done })),
        Err(refusal) => Err(problem(&refusal)),
    }
}

/// Reads an operator's word.
pub(super) fn read(body: &[u8]) -> Result<Word, Problem> {
    serde_json::from_slice(body)
        .map_err(|error| Problem::bad(format!("not an operator's word: {error}")))
}

fn problem(refusal: &Refusal) -> Problem {
    let status = match refusal {
        Refusal::UnknownFleet(_) => StatusCode::NOT_FOUND,
        Refusal::Conflict(_) => StatusCode::CONFLICT,
        Refusal::NotRecorded(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    Problem::new(status, refusal.to_string())
}

fn check_kind(headers: &HeaderMap) -> Result<(), Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).map(str::trim);
    if kind.is_some_and(|kind| kind.eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    let detail = "the body must be `application/json`";
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail))
}

fn order(
    app: &App,
    caller: &Caller,
    fleet: String,
    name: &str,
    word: &Word,
) -> Result<Order, Problem> {
    let reason = text("reason", &word.reason, REASON_CHARS_MAX)?;
    // Whoever has proved a name is recorded by that one, whatever else was said.
    let actor = caller.name.as_deref().or(word.actor.as_deref()).unwrap_or("anonymous");
    let actor = text("actor", actor, ACTOR_CHARS_MAX)?;
    let version = version_named("version", word.version.as_deref())?;
    let to = version_named("to", word.to.as_deref())?;
    let takes_version = ["rollback", "approve", "allow"].contains(&name);
    if version.is_some() && !takes_version {
        return Err(Problem::bad(format!("`{name}` takes no `version`")));
    }
    if to.is_some() && name != "rollback" {
        return Err(Problem::bad(format!("`{name}` takes no `to`")));
    }
    if word.lasting.is_some() && name != "pause" {
        return Err(Problem::bad(format!("`{name}` takes no `for`")));
    }
    let act = match (name, version) {
        ("rollback", version) => Act::RollBack { version, to },
        ("approve", version) => Act::Approve { version },
        ("allow", Some(version)) => Act::Allow { version },
        ("allow", None) => return Err(Problem::bad("`allow` needs a `version`")),
        ("pause", _) => {
            let lasting = word.lasting.as_deref().map(lasting).transpose()?;
            Act::Pause { until: lasting.map(|lasting| app.clock.now() + lasting) }
        }
        ("resume", _) => Act::Resume,
        _ => Act::Abandon,
    };
    Ok(Order { fleet, act, actor, actor_proven: caller.name.is_some(), reason })
}

fn version_named(field: &str, text: Option<&str>) -> Result<Option<Version>, Problem> {
    let read = |text: &str| text.parse().map_err(|e| Problem::bad(format!("`{field}`: {e}")));
    text.map(read).transpose()
}

fn lasting(text: &str) -> Result<Duration, Problem> {
    let lasting = humantime::parse_duration(text)
        .map_err(|error| Problem::bad(format!("`for`: `{text}` is no duration: {error}")))?;
    if lasting.is_zero() || lasting > PAUSE_MAX {
        return Err(Problem::bad("`for`: expected more than nothing and at most a year"));
    }
    Ok(lasting)
}

fn text(field: &str, value: &str, chars_max: usize) -> Result<String, Problem> {
    let value = value.trim();
    if value.is_empty() || value.chars().count() > chars_max || value.contains(char::is_control) {
        return Err(Problem::bad(format!(
            "`{field}`: expected a line of 1 to {chars_max} characters"
        )));
    }
    Ok(value.to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::testing::{bench, bench_for};
    use super::super::{Access, User};
    use super::*;
    use crate::domain::role::{Role, Roles};
    use crate::domain::time::Timestamp;

    const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");
    const PAUSE: &str = "/api/v1/fleets/voice/pause";

    #[tokio::test]
    async fn a_word_reaches_the_controller_and_its_answer_comes_back() {
        let outcomes = [
            (Ok("paused".to_owned()), 200),
            (Err(Refusal::Conflict("it is paused already".to_owned())), 409),
            (Err(Refusal::UnknownFleet("voice".to_owned())), 404),
            (Err(Refusal::NotRecorded("disk full".to_owned())), 503),
        ];
        for (outcome, status) in outcomes {
            let mut bench = bench();
            let mut inbox = std::mem::replace(&mut bench.inbox, tokio::sync::mpsc::channel(1).1);
            let controller = async {
                let Some(Message::Order(order, reply)) = inbox.recv().await else { panic!() };
                reply.send(outcome).unwrap();
                order
            };
            let body = r#"{"reason": "noisy night", "actor": "ada", "for": "1h"}"#;
            let (answer, order) =
                tokio::join!(bench.send("POST", PAUSE, &[JSON], body), controller);
            assert_eq!(answer.status, status, "{answer:?}");
            let until = Some(Timestamp::from_millis(1_753_000_000_000) + Duration::from_hours(1));
            assert_eq!(order.act, Act::Pause { until });
            assert_eq!((order.actor.as_str(), order.reason.as_str()), ("ada", "noisy night"));
        }
    }

    #[tokio::test]
    async fn who_has_proved_a_name_is_recorded_by_that_one() {
        let hash = bcrypt::hash("her own", 4).unwrap();
        let user = User { hash, roles: Roles::NONE.and(Role::Operate) };
        let users = BTreeMap::from([("ada".to_owned(), user)]);
        let mut bench = bench_for(Access::default().with_users(users));
        let mut inbox = std::mem::replace(&mut bench.inbox, tokio::sync::mpsc::channel(1).1);
        let by_ada = ("authorization", "Basic YWRhOmhlciBvd24=");
        let body = r#"{"reason": "r", "actor": "eve"}"#;
        let controller = async {
            let Some(Message::Order(order, reply)) = inbox.recv().await else { panic!() };
            reply.send(Ok("paused".to_owned())).unwrap();
            order
        };
        let headers = [JSON, by_ada];
        let (answer, order) = tokio::join!(bench.send("POST", PAUSE, &headers, body), controller);
        assert_eq!((order.actor.as_str(), &answer.json()["actor"]), ("ada", &"ada".into()));
        assert!(order.actor_proven);
    }

    #[tokio::test]
    async fn a_malformed_word_is_told_what_is_wrong() {
        let bench = bench();
        #[rustfmt::skip]
        let cases = [
            ("pause",    r#"{"actor": "ada"}"#,                         "missing field `reason`"),
            ("pause",    r#"{"reason": " "}"#,                          "`reason`"),
            ("pause",    r#"{"reason": "a\nb"}"#,                      "`reason`"),
            ("pause",    r#"{"reason": "r", "until": "x"}"#,            "unknown field `until`"),
            ("pause",    r#"{"reason": "r", "for": "soon"}"#,           "`for`"),
            ("pause",    r#"{"reason": "r", "for": "0s"}"#,             "`for`"),
            ("pause",    r#"{"reason": "r", "version": "v2"}"#,         "takes no `version`"),
            ("resume",   r#"{"reason": "r", "for": "1h"}"#,             "takes no `for`"),
            ("allow",    r#"{"reason": "r"}"#,                          "needs a `version`"),
            ("rollback", r#"{"reason": "r", "version": ""}"#,           "`version`"),
            ("rollback", r#"{"reason": "r", "to": ""}"#,                "`to`"),
            ("approve",  r#"{"reason": "r", "to": "v1"}"#,              "takes no `to`"),
            ("abandon",  "",                                            "not an operator's word"),
        ];
        for (act, body, want) in cases {
            let path = format!("/api/v1/fleets/voice/{act}");
            let answer = bench.send("POST", &path, &[JSON], body).await;
            let detail = answer.problem(400);
            assert!(detail.contains(want), "{act} {body}: {detail}");
        }
        bench.send("POST", "/api/v1/fleets/voice/explode", &[JSON], "{}").await.problem(404);
    }

    #[tokio::test]
    async fn what_is_no_json_is_not_read() {
        let bench = bench();
        for headers in [&[("content-type", "text/plain")][..], &[]] {
            bench.send("POST", PAUSE, headers, r#"{"reason": "r"}"#).await.problem(415);
        }
    }
}
