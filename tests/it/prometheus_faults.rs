//! Answers of Prometheus that are late, broken or hollow: nothing is decided on them, rollbackd
//! says so, and finds the regression once they are whole again.

use std::time::Duration;

use super::support::prometheus::Prometheus;
use super::support::proxy::{Fault, Proxy};
use super::support::site::{PATIENCE, Site};
use super::support::{stays, wait_for};

const FAULTS: [Fault; 8] = [
    Fault::Silence,
    Fault::Status500,
    Fault::Garbage,
    Fault::Nan,
    Fault::Empty,
    Fault::Half,
    Fault::Redirect,
    Fault::Huge,
];

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_decided_on_a_broken_answer_and_the_regression_is_found_once_it_is_whole() {
    let prometheus = Prometheus::start().await;
    let mut all = Vec::new();
    for fault in FAULTS {
        let proxy = Proxy::start(&prometheus.url).await;
        let site = Site::prepare(&format!("{fault:?}"), &proxy.url).await;
        all.push((fault, proxy, site));
    }
    let targets: Vec<_> = all.iter().flat_map(|(_, _, site)| site.targets.clone()).collect();
    prometheus.scrape(&targets).await;
    let running = all.into_iter().map(|(fault, proxy, site)| goes_bad(fault, proxy, site));
    futures::future::join_all(running).await;
}

/// A version that begins to fail while answers are broken.
async fn goes_bad(fault: Fault, proxy: Proxy, mut site: Site) {
    site.set_failing(false);
    site.serve_on_v1().await;
    site.deploy("bad");
    site.until("bad's sessions to count", |fleet| {
        fleet["rollouts"][0]["verdicts"][0]["started"].as_u64().unwrap_or(0) > 0
    })
    .await;

    proxy.set(fault);
    site.set_failing(true);
    wait_for(&format!("{fault:?} to be told of"), PATIENCE, || async {
        let holds = site.view().await.is_some_and(|fleet| fleet["holding"].is_string());
        (holds || has(&site, &["rollout.held"]).await).then_some(())
    })
    .await;
    stays(&format!("{fault:?}: undecided"), Duration::from_secs(6), async || {
        !has(&site, &DECIDED).await
    })
    .await;
    assert_eq!((site.workers("bad"), site.callers().turned_away), (2, 0), "{fault:?}");

    proxy.set(Fault::None);
    wait_for(&format!("the rollback after {fault:?}"), PATIENCE, || async {
        has(&site, &["rollback.clean"]).await.then_some(())
    })
    .await;
    assert_eq!(site.callers().turned_away, 0, "{fault:?}");
    assert!(site.audit().status.success(), "{fault:?}");
}

const DECIDED: [&str; 4] =
    ["rollback.chosen", "deployment.completed", "rollout.escalated", "deployment.drain_started"];

async fn has(site: &Site, events: &[&str]) -> bool {
    let records = site.records(0).await;
    records.iter().any(|record| events.contains(&record.event.as_str()))
}
