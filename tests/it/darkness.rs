//! Prometheus goes away during an observation, and comes back.

use std::time::Duration;

use serde_json::Value;

use super::support::fleet::{Fleet, Setup};
use super::support::{stays, wait_for};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_decided_in_the_dark_and_its_sessions_are_counted_afterwards() {
    let setup = Setup { v2: &[], ..Setup::default() };
    let (mut fleet, calls) = Fleet::serving_on_v1(setup).await;
    fleet.start_workers("v2").await;
    fleet.until("v2's sessions to count", |fleet| started(fleet) > 20).await;

    fleet.prometheus.stop();
    let failures = query_failures(&fleet).await;
    let in_the_dark = |fleet: &Value| fleet["holding"].as_str().is_some_and(says_why);
    fleet.until("the fleet to hold", in_the_dark).await;
    assert!(fleet.log().contains("holding: no decision without an answer"));
    let (records, counted) = (fleet.records().len(), view(&fleet).await);
    stays("undecided", Duration::from_secs(12), async || {
        let now = view(&fleet).await;
        in_the_dark(&now) && started(&now) == started(&counted) && fleet.records().len() == records
    })
    .await;
    assert!(query_failures(&fleet).await > failures);

    fleet.prometheus.start_again().await;
    fleet.until("the fleet to go on", |fleet| fleet["holding"].is_null()).await;
    drop(calls);
    wait_for("the last calls to end", Duration::from_mins(1), || async {
        (fleet.check("v1", "v2")["live_by_version"]["v2"] == 0).then_some(())
    })
    .await;
    let facts = fleet.check("v1", "v2");
    let truth = facts["started_by_version"]["v2"].as_u64().unwrap();
    fleet.until(&format!("all {truth} sessions to count"), |fleet| started(fleet) == truth).await;
    stays("the count", Duration::from_secs(5), async || started(&view(&fleet).await) == truth)
        .await;
    assert_eq!(fleet.steps(), [""; 0]);
}

fn says_why(reason: &str) -> bool {
    reason.starts_with("no evidence: ")
}

async fn view(fleet: &Fleet) -> Value {
    fleet.until("the view", |_| true).await
}

/// Sessions that the candidate started under observation.
fn started(fleet: &Value) -> u64 {
    fleet["rollouts"][0]["verdicts"][0]["started"].as_u64().unwrap_or(0)
}

async fn query_failures(fleet: &Fleet) -> f64 {
    fleet.metric("rollbackd_query_failures_total").await
}
