//! A version that fails its calls is taken back; one that does not is promoted.

use super::support::fleet::{Fleet, Setup};

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_version_is_rolled_back_without_a_dropped_call() {
    let (fleet, _calls) = Fleet::serving_on_v1(Setup::default()).await;
    fleet.cut_over_to_v2().await;
    fleet.until_recorded("rollback.clean").await;

    assert_eq!(
        fleet.steps(),
        [
            "rollback.chosen",
            "rollback.gated",
            "rollback.starting",
            "rollback.capable",
            "deployment.drain_started",
            "deployment.rolled_back",
            "rollback.confirming",
            "rollback.clean",
        ]
    );
    let facts = fleet.check("v2", "v1");
    assert_eq!(facts["clean"], true, "{facts:#}");
    assert_eq!(facts["killed"].as_array().unwrap().len(), 0, "{facts:#}");
    assert_eq!(facts["alive_by_version"]["v1"].as_array().unwrap().len(), 2, "{facts:#}");
    let audit = fleet.audit();
    assert!(audit.status.success(), "{audit:?}");
}
