//! Who may do what, asked before a handler sees the request.
//!
//! ```text
//! request ─► credentials? ─► from a web page of our own? ─► role? ─► handler, with its Caller
//!                 │ 401               │ 403                   │ 401, 403
//! ```
//!
//! **Invariant:** every route but those that say nothing or prove themselves (health, heartbeat,
//! membership) is behind [`guarded`]; a handler that takes a [`Caller`] fails without it.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header, uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::{Json, Router};
use serde::Serialize;
use utoipa::ToSchema;

use super::access::{Caller, Unproven};
use super::{App, Problem};
use crate::domain::role::Role;
use crate::metrics::Refused;

/// Lets only callers with the role at these routes; `None`: whoever has no wrong credentials.
pub(super) fn guarded<S: Clone + Send + Sync + 'static>(
    app: &Arc<App>,
    role: Option<Role>,
    routes: Router<S>,
) -> Router<S> {
    routes.route_layer(from_fn_with_state((Arc::clone(app), role), guard))
}

async fn guard(
    State((app, role)): State<(Arc<App>, Option<Role>)>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    match admit(&app, role, request.method(), request.headers()).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            Ok(next.run(request).await)
        }
        Err((refused, problem)) => {
            app.refuse(refused, request.uri().path());
            Err(problem)
        }
    }
}

async fn admit(
    app: &App,
    role: Option<Role>,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Caller, (Refused, Problem)> {
    let access = Arc::clone(&app.access.borrow());
    let unknown = |refused, detail: &str| {
        let problem = Problem::new(StatusCode::UNAUTHORIZED, detail);
        (refused, problem.challenging(access.challenges()))
    };
    let forbidden =
        |refused, detail: String| (refused, Problem::new(StatusCode::FORBIDDEN, detail));
    let caller = access.identify(headers).await.map_err(|unproven| match unproven {
        Unproven::Wrong => unknown(Refused::BadCredentials, "these credentials are not known here"),
        Unproven::Busy => {
            (Refused::Busy, Problem::busy("too many passwords are being checked at the moment"))
        }
    })?;
    if !method.is_safe()
        && let Some(why) = elsewhere(headers, caller.anonymous && role == Some(Role::Operate))
    {
        return Err(forbidden(Refused::CrossSite, why.to_owned()));
    }
    let Some(role) = role.filter(|role| !caller.roles.has(*role)) else { return Ok(caller) };
    let needed = role.as_str();
    if !caller.anonymous {
        let detail = format!("these credentials have not the role `{needed}`");
        return Err(forbidden(Refused::Role, detail));
    }
    if access.challenges().is_empty() {
        let detail = format!(
            "the role `{needed}` needs credentials, and none are configured (`auth`); without \
             them it is only for who speaks to a loopback address"
        );
        return Err(forbidden(Refused::NoCredentials, detail));
    }
    Err(unknown(Refused::NoCredentials, &format!("the role `{needed}` needs credentials")))
}

/// Why a request that changes something comes from where it must not come from: a web page that
/// is not rollbackd's own.
///
/// A browser names the page's origin in every such request. Ours has the address it asks. A page
/// that had its own name point at this machine would have that too, so that the name must be one
/// of this machine's own where nothing but the address tells who may speak (`by_address`).
fn elsewhere(headers: &HeaderMap, by_address: bool) -> Option<&'static str> {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if site.is_some_and(|site| site != b"none" && site != b"same-origin") {
        return Some("a web page from elsewhere cannot speak for an operator");
    }
    let host = headers.get(header::HOST).map(|host| host.to_str().unwrap_or_default());
    if let Some(origin) = headers.get(header::ORIGIN) {
        let origin = origin.to_str().unwrap_or_default();
        let page = origin.split_once("://").map(|(_, address)| address);
        if page.is_none() || page != host {
            return Some("a web page from elsewhere cannot speak for an operator");
        }
    }
    if by_address && host.is_some_and(|host| !cannot_be_pointed_elsewhere(host)) {
        return Some("without credentials, rollbackd must be asked as `localhost` or by address");
    }
    None
}

/// Whether a name server has no say in what this means.
fn cannot_be_pointed_elsewhere(host: &str) -> bool {
    let Ok(authority) = host.parse::<uri::Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok()
}

/// Has every answer carry the headers that were asked for.
pub(super) async fn headers(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let access = Arc::clone(&app.access.borrow());
    for (name, value) in access.headers() {
        response.headers_mut().insert(name.clone(), value.clone());
    }
    response
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get().cloned().ok_or_else(|| {
            let detail = "this route does not ask who calls";
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
        })
    }
}

/// What the caller is told of itself.
#[derive(Serialize, ToSchema)]
pub(super) struct CallerView {
    /// The user, where the credentials name one.
    name: Option<String>,
    /// `read`, `alert`, `operate`.
    roles: Vec<&'static str>,
}

/// Who the caller is taken for, and what the caller may do.
#[utoipa::path(get, path = "/api/v1/caller", tag = "access", responses(
    (status = 200, body = CallerView),
))]
pub(super) async fn caller(caller: Caller) -> Json<CallerView> {
    Json(CallerView { roles: caller.roles.iter().map(Role::as_str).collect(), name: caller.name })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::access::Access;
    use super::super::testing::{Bench, bench, bench_for};
    use super::*;
    use crate::domain::role::Roles;

    const JSON: (&str, &str) = ("content-type", "application/json");
    const PAUSE: &str = "/api/v1/fleets/voice/pause";

    /// What answers a request that got through to its handler, which here is nonsense to it.
    const HEARD: u16 = 400;

    fn bench_with_tokens(anonymous: &[Role]) -> Bench {
        let access = Access::anonymous(anonymous.iter().copied().collect());
        let access = Role::ALL.into_iter().fold(access, |access, role| {
            access.with_token(&format!("the-token-to-{}", role.as_str()), Roles::NONE.and(role))
        });
        bench_for(access)
    }

    #[tokio::test]
    async fn each_role_opens_its_own_doors_and_no_other() {
        let bench = bench_with_tokens(&[]);
        #[rustfmt::skip]
        let doors = [
            // method, path,                            open, read, alert, operate, nobody
            ("GET",  "/-/healthy",                      [200, 200, 200, 200]),
            ("GET",  "/-/ready",                        [503, 503, 503, 503]),
            ("POST", "/api/v1/heartbeat",               [400, 400, 400, 400]),
            ("POST", "/api/v1/membership/verify",       [400, 400, 400, 400]),
            ("GET",  "/api/v1/caller",                  [200, 200, 200, 200]),
            ("GET",  "/metrics",                        [401, 200, 403, 200]),
            ("GET",  "/api/v1/fleets",                  [401, 200, 403, 200]),
            ("GET",  "/api/v1/fleets/nope",             [401, 404, 403, 404]),
            ("GET",  "/api/v1/fleets/voice/manifest",   [401, 404, 403, 404]),
            ("GET",  "/api/v1/rollbacks",               [401, 200, 403, 200]),
            ("GET",  "/api/v1/rollbacks/nope",          [401, 404, 403, 404]),
            ("GET",  "/api/v1/rules",                   [401, 200, 403, 200]),
            ("GET",  "/api/v1/ledger",                  [401, 200, 403, 200]),
            ("GET",  "/api/v1/ledger/checkpoint",       [401, 200, 403, 200]),
            ("POST", "/api/v1/alerts",                  [401, 403, HEARD, HEARD]),
            ("POST", PAUSE,                             [401, 403, 403, HEARD]),
            ("POST", "/api/v1/fleets/voice/rollback",   [401, 403, 403, HEARD]),
        ];
        for (method, path, statuses) in doors {
            let tokens = [None, Some("read"), Some("alert"), Some("operate")];
            for (token, status) in tokens.into_iter().zip(statuses) {
                let token = token.map(|role| format!("Bearer the-token-to-{role}"));
                let credentials = token.as_deref().map(|token| ("authorization", token));
                let headers: Vec<_> = credentials.into_iter().chain([JSON]).collect();
                let answer = bench.send(method, path, &headers, "{}").await;
                assert_eq!(answer.status, status, "{method} {path} {token:?}: {answer:?}");
                let challenged = answer.headers.contains_key("www-authenticate");
                assert_eq!(challenged, status == 401, "{method} {path} {token:?}");
            }
        }
        assert_eq!(bench.count_of_refused("no_credentials"), 12);
        assert_eq!(bench.count_of_refused("role"), 9 + 3 + 2);
    }

    #[tokio::test]
    async fn what_the_api_describes_is_behind_a_role_unless_it_is_open_on_purpose() {
        let open = [
            "/-/healthy",
            "/-/ready",
            "/api/v1/heartbeat",
            "/api/v1/membership/verify",
            "/api/v1/caller",
        ];
        let described = bench().get("/api/v1/openapi.json").await.json();
        let bench = bench_with_tokens(&[]);
        let mut guarded = 0;
        for (path, methods) in described["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys() {
                let uri = path.replace(['{', '}'], "");
                let answer = bench.send(&method.to_uppercase(), &uri, &[JSON], "{}").await;
                let is_open = open.contains(&path.as_str());
                assert_eq!(answer.status == 401, !is_open, "{method} {path}: {answer:?}");
                guarded += usize::from(!is_open);
            }
        }
        assert!(guarded > 10, "{guarded}");
    }

    #[tokio::test]
    async fn wrong_credentials_are_worse_than_none() {
        let bench = bench_with_tokens(&[Role::Read]);
        let wrong = [("authorization", "Bearer the-token-to-rea")];
        assert_eq!(bench.get("/api/v1/fleets").await.status, 200);
        for path in ["/api/v1/fleets", "/api/v1/caller", "/metrics"] {
            let answer = bench.send("GET", path, &wrong, "").await;
            assert!(answer.problem(401).contains("not known"), "{answer:?}");
        }
        assert_eq!(bench.send("GET", "/-/healthy", &wrong, "").await.status, 200);
        assert_eq!(bench.count_of_refused("bad_credentials"), 3);
    }

    #[tokio::test]
    async fn a_token_that_is_replaced_opens_nothing_any_more() {
        let bench = bench_with_tokens(&[]);
        let old = [("authorization", "Bearer the-token-to-read")];
        assert_eq!(bench.send("GET", "/api/v1/fleets", &old, "").await.status, 200);
        let new = Access::default().with_token("the-next-token", Roles::NONE.and(Role::Read));
        bench.access.send_replace(Arc::new(new));
        bench.send("GET", "/api/v1/fleets", &old, "").await.problem(401);
        let new = [("authorization", "Bearer the-next-token")];
        assert_eq!(bench.send("GET", "/api/v1/fleets", &new, "").await.status, 200);
    }

    #[tokio::test]
    async fn callers_learn_what_they_may_do() {
        let bench = bench_with_tokens(&[]);
        let nobody = bench.get("/api/v1/caller").await;
        assert_eq!(nobody.json(), json!({ "name": null, "roles": [] }));
        let operator = [("authorization", "Bearer the-token-to-operate")];
        let operator = bench.send("GET", "/api/v1/caller", &operator, "").await;
        assert_eq!(operator.json()["roles"], json!(["read", "alert", "operate"]));
    }

    #[tokio::test]
    async fn only_a_page_of_its_own_speaks_for_an_operator() {
        let by_token = ("authorization", "Bearer the-token-to-operate");
        let ours =
            [("origin", "https://rollbackd.example:8443"), ("host", "rollbackd.example:8443")];
        #[rustfmt::skip]
        let cases = [
            ("no page",            vec![],                                                              HEARD),
            ("ours",               ours.to_vec(),                                                       HEARD),
            ("ours, and said so",  [&ours[..], &[("sec-fetch-site", "same-origin")]].concat(),          HEARD),
            ("typed by a person",  vec![("sec-fetch-site", "none")],                                    HEARD),
            ("another",            vec![("origin", "https://evil.example"), ours[1]],                   403),
            ("another port",       vec![("origin", "https://rollbackd.example"), ours[1]],              403),
            ("a sandboxed frame",  vec![("origin", "null"), ours[1]],                                   403),
            ("no host to compare", vec![ours[0]],                                                       403),
            ("said by fetch",      [&ours[..], &[("sec-fetch-site", "cross-site")]].concat(),           403),
            ("a sibling",          [&ours[..], &[("sec-fetch-site", "same-site")]].concat(),            403),
        ];
        let bench = bench_with_tokens(&[]);
        for (name, mut headers, status) in cases {
            headers.extend([by_token, JSON]);
            for path in [PAUSE, "/api/v1/alerts"] {
                let answer = bench.send("POST", path, &headers, "{}").await;
                assert_eq!(answer.status, status, "{name}: {answer:?}");
            }
            // Reading changes nothing, and the browser keeps the answer from the other page.
            assert_eq!(bench.send("GET", "/metrics", &headers, "").await.status, 200, "{name}");
        }
        assert_eq!(bench.count_of_refused("cross_site"), 12);
        let reload = [by_token, ("origin", "https://evil.example"), ("host", "127.0.0.1:9788")];
        bench.send("POST", "/-/reload", &reload, "").await.problem(403);
    }

    #[tokio::test]
    async fn without_credentials_a_name_that_anybody_can_point_here_does_not_operate() {
        let bench = bench();
        #[rustfmt::skip]
        let cases = [
            ("127.0.0.1:9788",    HEARD),
            ("[::1]:9788",        HEARD),
            ("localhost:9788",    HEARD),
            ("LOCALHOST",         HEARD),
            ("evil.example:9788", 403),
            ("localhost.evil",    403),
            ("127.0.0.1.evil",    403),
            ("",                  403),
        ];
        for (host, status) in cases {
            let answer = bench.send("POST", PAUSE, &[("host", host), JSON], "{}").await;
            assert_eq!(answer.status, status, "{host}: {answer:?}");
        }
        let rebound = [("host", "evil.example:9788"), ("origin", "http://evil.example:9788"), JSON];
        bench.send("POST", PAUSE, &rebound, "{}").await.problem(403);
        // Alertmanager may well know it by a name.
        let by_name = [("host", "rollbackd.voice.svc:9788")];
        assert_eq!(bench.send("POST", "/api/v1/alerts", &by_name, "{}").await.status, HEARD);
    }

    #[tokio::test]
    async fn where_no_credentials_are_configured_the_refusal_says_so() {
        let bench = bench_for(Access::anonymous(Roles::NONE.and(Role::Read)));
        assert_eq!(bench.get("/api/v1/fleets").await.status, 200);
        for path in ["/api/v1/alerts", PAUSE, "/-/reload"] {
            let detail = bench.send("POST", path, &[JSON], "{}").await.problem(403);
            assert!(detail.contains("`auth`") && detail.contains("loopback"), "{detail}");
        }
    }
}
