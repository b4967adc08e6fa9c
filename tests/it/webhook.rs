//! An alert of the real Alertmanager's has rollbackd look at once.

use std::time::Duration;

use super::support::alertmanager::Alertmanager;
use super::support::fleet::{Fleet, Setup};
use super::support::{stays, wait_for};

#[tokio::test(flavor = "multi_thread")]
async fn a_firing_alert_has_the_fleet_looked_at_and_a_resolved_one_does_not() {
    // No look of its own accord while the test runs.
    let setup = Setup { interval: "6h", observe_for: "12h", history: "24h", ..Setup::default() };
    let mut fleet = Fleet::prepare(setup).await;
    fleet.start_controller().await;
    let alertmanager = Alertmanager::start(fleet.address).await;
    let looked = async || fleet.metric("rollbackd_last_evaluation_timestamp_seconds").await;
    let alerts = async |result: &str| {
        fleet.metric(&format!("rollbackd_alerts_received_total{{result=\"{result}\"}}")).await
    };
    let limit = Duration::from_secs(30);
    let first = looked().await;
    assert!(first > 0.0);
    stays("the first look's time", Duration::from_secs(2), async || looked().await <= first).await;

    alertmanager.post(None).await;
    wait_for("a look", limit, || async { (looked().await > first).then_some(()) }).await;
    assert!(alerts("accepted").await > 0.0);
    assert!(alerts("ignored").await <= 0.0);

    let second = looked().await;
    alertmanager.post(Some(jiff::Timestamp::now().to_string())).await;
    let resolved = || async { (alerts("ignored").await > 0.0).then_some(()) };
    wait_for("word that the alert is resolved", limit, resolved).await;
    stays("the second look's time", Duration::from_secs(2), async || looked().await <= second)
        .await;
}
