//! A denied version that comes back is drained again, and its record comes first.

use std::time::Duration;

use serde_json::Value;

use super::support::fleet::rollbackd;
use super::support::synthetic::{Setup, Synthetic};
use super::support::wait_for;

fn records(fleet: &Synthetic, event: &str) -> Vec<Value> {
    let exported = rollbackd(&fleet.path(""), &["audit", "export"]);
    let text = String::from_utf8(exported.stdout).unwrap();
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    all.filter(|record| record["event"] == event).collect()
}

async fn until_clean(fleet: &Synthetic, times: usize) {
    let what = format!("{times} rollbacks to end");
    wait_for(&what, Duration::from_mins(2), || async {
        (records(fleet, "rollback.clean").len() == times).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_version_that_comes_back_is_drained_twice_and_then_people_are_told() {
    let fleet = Synthetic::serving_on_v1(Setup::default()).await;
    fleet.add("v2", 0.6).await;
    fleet.add("v2", 0.6).await;
    until_clean(&fleet, 1).await;
    for times in [2, 3] {
        fleet.add("v2", 0.6).await;
        until_clean(&fleet, times).await;
    }
    fleet.add("v2", 0.6).await;
    let third = wait_for("people to be told", Duration::from_mins(1), || async {
        records(&fleet, "rollback.returned").into_iter().nth(2)
    })
    .await;
    assert_eq!((&third["result"], &third["version"]), (&"escalate".into(), &"v2".into()));
    let seq = |record: &Value| record["seq"].as_u64().unwrap();
    let returned: Vec<u64> = records(&fleet, "rollback.returned").iter().map(seq).collect();
    let chosen: Vec<u64> = records(&fleet, "rollback.chosen").iter().map(seq).collect();
    assert_eq!(chosen[1..], [returned[0] + 1, returned[1] + 1], "and no fourth");
    let rolled_back = records(&fleet, "deployment.rolled_back");
    assert!(rolled_back.iter().all(|record| record["version"] == "v1"), "{rolled_back:#?}");
}
