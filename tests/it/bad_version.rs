//! A version that fails its calls is taken back; one that does not is promoted.

use serde_json::json;

use super::support::alertmanager::Alertmanager;
use super::support::broker::Broker;
use super::support::fleet::{Fleet, Setup, rollbackd};
use super::support::{STEPS, wait_for};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_version_is_rolled_back_without_a_dropped_call() {
    let mut fleet = Fleet::prepare(Setup::default()).await;
    let alertmanager = Alertmanager::start(fleet.address).await;
    let broker = Broker::start().await;
    fleet.configure(|config| {
        config["alertmanager"] = json!({ "url": alertmanager.url });
        config["cdevents"] = json!({ "url": broker.url, "environment": "test" });
    });
    let _calls = fleet.serve_on_v1().await;
    fleet.cut_over_to_v2().await;
    fleet.until_recorded("rollback.chosen").await;
    let limit = Duration::from_mins(2);
    let told = async |name: &'static str| {
        wait_for(name, limit, || async {
            alertmanager.firing().await.into_iter().find(|(alert, _)| alert == name)
        })
        .await
    };
    let (_, annotations) = told("RollbackUnderWay").await;
    assert_eq!(annotations["summary"], "voice is being rolled back from v2 to v1");
    fleet.until_recorded("rollback.clean").await;

    assert_eq!(fleet.steps(), STEPS);
    let facts = fleet.check("v2", "v1");
    assert_eq!(facts["clean"], true, "{facts:#}");
    assert_eq!(facts["killed"].as_array().unwrap().len(), 0, "{facts:#}");
    assert_eq!(facts["alive_by_version"]["v1"].as_array().unwrap().len(), 2, "{facts:#}");
    let (_, annotations) = told("RollbackEnded").await;
    assert!(annotations["summary"].as_str().unwrap().ends_with("clean"), "{annotations}");
    fleet.until_recorded("notice.delivered").await;
    // It failed twice, and was tried again.
    let events = broker.events();
    assert_eq!(events.len(), 3, "{events:#?}");
    for event in &events {
        assert_eq!(event["type"], "dev.cdevents.service.rolledback.0.3.0", "{event:#}");
        assert_eq!(event["id"], events[0]["id"], "a repetition is known as one");
        assert_eq!(event["data"]["customData"]["from_version"], "v2", "{event:#}");
    }
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
