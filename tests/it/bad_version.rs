//! A version that fails its calls is taken back; one that does not is promoted.

use super::support::fleet::{Fleet, Setup, rollbackd};

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
    let replayed = rollbackd(&fleet.path(""), &["audit", "replay", "--key", "rollbackd.key.pub"]);
    let said = String::from_utf8(replayed.stdout).unwrap();
    assert!(replayed.status.success(), "{said}");
    assert!(said.ends_with("decisions: 1 as recorded, 0 not derivable\n"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_version_is_promoted_and_nothing_is_drained() {
    let setup = Setup { observe_for: "20s", v2: &[], ..Setup::default() };
    let (fleet, _calls) = Fleet::serving_on_v1(setup).await;
    fleet.start_workers("v2").await;
    let promoted = fleet.until_recorded("deployment.completed").await;
    assert_eq!(promoted["version"], "v2");
    fleet.until("v2 to be the last good", |fleet| fleet["last_good"] == "v2").await;

    assert_eq!(fleet.steps(), [""; 0]);
    for version in ["v1", "v2"] {
        let workers = fleet.workers(version);
        assert_eq!(workers.len(), 2, "{workers:?}");
        assert!(workers.iter().all(|worker| worker["state"] == "ready"), "{workers:?}");
    }
    let facts = fleet.check("v1", "v2");
    assert_eq!(facts["dropped"].as_array().unwrap().len(), 0, "{facts:#}");
    assert_eq!(facts["refused"], 0, "{facts:#}");
}
