//! Many fleets regress at once: that is not one version's fault.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::support::fleet::{Fleet, Setup, rollbackd};
use super::support::worker::{Counts, Step, Worker};
use super::support::{stays, wait_for};

const SITES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// A worker that serves these sites, ten sessions a second at each.
async fn worker(version: &'static str, sites: &[&'static str], failing: u64) -> Worker {
    let counts = |second| Counts { started: 10 * second, failed: failing * second, live: 5 };
    let steps = (1..2000).map(|second| {
        Step::Show(version, sites.iter().map(|site| (*site, counts(second))).collect())
    });
    Worker::start(steps.collect()).await
}

/// A fleet of its own for each tenant.
fn divide_by_tenant(fleet: &Fleet) {
    let change = |name: &str, change: &dyn Fn(&mut Value)| {
        let path = fleet.path(name);
        let mut file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut file);
        std::fs::write(path, file.to_string()).unwrap();
    };
    change("rollbackd.yml", &|config| {
        config["breaker"] = json!({ "fleets": 1, "share": "20%" });
        config["fleets"][0] = json!({
            "name": "voice", "by": ["tenant"], "observe_for": "5m", "history": "5m",
            "workers": "sessions_live", "live": "sessions_live",
            "drain": { "command": ["true"] },
        });
    });
    change("rules.yml", &|rules| {
        rules["groups"][0]["regressions"][0] = json!({
            "name": "SessionsFailing", "ceiling": "5%",
            "started": "sessions_started_total", "failed": "sessions_failed_total",
        });
    });
}

/// The fleets with a record of this event.
fn told(fleet: &Fleet, event: &str) -> BTreeSet<String> {
    let records = fleet.records().into_iter().filter(|record| record["event"] == event);
    records.map(|record| record["fleet"].as_str().unwrap().replace("voice:", "")).collect()
}

async fn until_told(fleet: &Fleet, event: &str, sites: &[&str]) {
    let what = format!("{event} of {sites:?}");
    wait_for(&what, Duration::from_mins(2), || async {
        sites.iter().all(|site| told(fleet, event).contains(*site)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_fleets_that_regress_are_held_and_the_rollback_under_way_goes_on() {
    let mut fleet = Fleet::prepare(Setup::default()).await;
    divide_by_tenant(&fleet);
    fleet.start_controller().await;
    let v1 = worker("v1", &SITES, 0).await;
    fleet.prometheus.scrape(&[v1.address]).await;
    until_told(&fleet, "rollout.baseline_adopted", &SITES).await;

    let first = worker("v2", &["a"], 6).await;
    fleet.prometheus.scrape(&[v1.address, first.address]).await;
    until_told(&fleet, "rollback.confirming", &["a"]).await;
    let others = worker("v2", &SITES[1..], 6).await;
    fleet.prometheus.scrape(&[v1.address, first.address, others.address]).await;
    until_told(&fleet, "rollout.held_back", &SITES[1..]).await;
    assert_eq!(told(&fleet, "rollback.chosen"), BTreeSet::from(["a".to_owned()]));
    wait_for("the breaker to show", Duration::from_secs(30), || async {
        (fleet.metric("rollbackd_breaker_open").await > 0.0).then_some(())
    })
    .await;

    fleet.kill_controller();
    fleet.start_controller().await;
    fleet.prometheus.scrape(&[v1.address, others.address]).await;
    until_told(&fleet, "rollback.clean", &["a"]).await;
    stays("held", Duration::from_secs(8), async || told(&fleet, "rollback.chosen").len() == 1)
        .await;
    let url = format!("http://{}", fleet.address);
    let say = |words: &[&str]| {
        let output = rollbackd(&fleet.path(""), &[words, &["--url", &url]].concat());
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = say(&["status"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("breaker open: 6 of 6 fleets regress at once\n"), "{said}");
    assert!(said.contains(": would roll back, but many fleets regress at once"), "{said}");
    let (code, said) = say(&["approve", "voice:b", "--reason", "it is v2"]);
    assert_eq!((code, said.as_str()), (Some(0), "voice:b: rolling back v2\n"));
    until_told(&fleet, "rollback.confirming", &["b"]).await;
    assert!(fleet.audit().status.success());
}
