//! A controller that dies in the middle of a rollback is started again and finishes it.

use super::support::STEPS;
use super::support::fleet::{Fleet, Setup};

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_survives_that_the_controller_is_killed_twice() {
    let setup = Setup { drain_held: true, ..Setup::default() };
    let (mut fleet, _calls) = Fleet::serving_on_v1(setup).await;
    fleet.cut_over_to_v2().await;

    fleet.until_recorded("rollback.starting").await;
    fleet.kill_controller();
    let before = fleet.steps();
    assert_eq!(before.last().unwrap(), "rollback.starting", "killed too late for this test");
    fleet.start_controller().await;

    fleet.until_recorded("deployment.drain_started").await;
    fleet.kill_controller();
    std::fs::write(fleet.path("drain"), "").unwrap();
    fleet.start_controller().await;
    fleet.until_recorded("rollback.clean").await;

    assert_eq!(fleet.steps(), STEPS);
    let starts = fleet.records().iter().filter(|r| r["event"] == "controller.started").count();
    assert_eq!(starts, 3);
    // Asked twice, the platform has started two workers and not four.
    let facts = fleet.check("v2", "v1");
    assert_eq!(facts["clean"], true, "{facts:#}");
    assert_eq!(facts["alive_by_version"]["v1"].as_array().unwrap().len(), 2, "{facts:#}");
    let audit = fleet.audit();
    assert!(audit.status.success(), "{audit:?}");
}
