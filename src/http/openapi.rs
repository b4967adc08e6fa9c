//! The API's description, made from the handlers themselves.

use axum::Json;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use super::problem::ProblemDocument;
use super::{alerts, api, events, explain, guard, health, membership, operate};

/// What needs no role: it tells nothing, or carries a proof of its own.
const OPEN: [&str; 4] =
    ["/-/healthy", "/-/ready", "/api/v1/heartbeat", "/api/v1/membership/verify"];

/// What [`document`] serves.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "rollbackd",
        description = "Watches a new version's session failures in Prometheus and takes a fleet \
                       back by draining. Errors are problem documents (RFC 9457).",
    ),
    paths(
        health::healthy,
        health::ready,
        health::metrics,
        health::reload,
        alerts::receive,
        api::fleets,
        api::fleet,
        explain::explain,
        api::manifest,
        operate::act,
        api::rollbacks,
        api::rollback,
        api::rules,
        api::ledger,
        api::checkpoint,
        membership::heartbeat,
        membership::verify,
        guard::caller,
        events::follow,
        document,
    ),
    components(schemas(ProblemDocument)),
    modifiers(&Guarded)
)]
struct Description;

/// Says of all that is not open to everybody that it asks who calls.
struct Guarded;

impl Modify for Guarded {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(bearer));
        let basic = HttpBuilder::new().scheme(HttpAuthScheme::Basic).build();
        components.add_security_scheme("user", SecurityScheme::Http(basic));
        let guarded = |path: &str| !OPEN.contains(&path);
        for (_, item) in openapi.paths.paths.iter_mut().filter(|(path, _)| guarded(path)) {
            for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
                guard_operation(operation);
            }
        }
    }
}

fn guard_operation(operation: &mut Operation) {
    let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("ProblemDocument")));
    let problem = problem.build();
    for (status, why) in [
        ("401", "the role needs credentials, or these are not known"),
        ("403", "the credentials have not the role, or a foreign web page asks"),
    ] {
        let response = ResponseBuilder::new()
            .description(why)
            .content("application/problem+json", problem.clone())
            .build();
        operation.responses.responses.entry(status.to_owned()).or_insert(response.into());
    }
    // None is fine too where the config gives roles to those without credentials.
    let [token, user] =
        ["token", "user"].map(|s| SecurityRequirement::new::<_, [&str; 0], &str>(s, []));
    operation.security = Some(vec![SecurityRequirement::default(), token, user]);
}

/// This description, in `OpenAPI` 3.1.
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "health", responses(
    (status = 200, body = Object, headers(("ETag", description = "changes with the answer"))),
    (status = 304, description = "`If-None-Match` names this state"),
))]
pub(super) async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(Description::openapi())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::testing::bench;

    #[tokio::test]
    async fn every_route_of_the_api_is_described_and_no_other() {
        let document = bench().get("/api/v1/openapi.json").await.json();
        let mut described = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys() {
                described.insert(format!("{method} {path}"));
            }
        }
        let mut routed = BTreeSet::new();
        for part in include_str!("router.rs").split(".route(\"").skip(1) {
            let (path, rest) = part.split_once("\", ").unwrap();
            let method = rest.split('(').next().unwrap();
            // Pages for people and their parts are no API.
            if path.starts_with("/api/") || path.starts_with("/-/") || path == "/metrics" {
                routed.insert(format!("{method} {path}"));
            }
        }
        assert!(routed.len() > 10, "{routed:?}");
        assert_eq!(described, routed);
    }
}
