//! SIGKILL at any record of a rollback: the next rollbackd finishes it, once.

use std::collections::BTreeMap;
use std::time::Duration;

use rollbackd::ledger::record::Record;
use rollbackd::ports::ledger::Ledger;

use super::support::prometheus::Prometheus;
use super::support::site::{PATIENCE, Site};
use super::support::{STEPS, wait_for};

/// How many kills: a handful, or as many as `make reliability` wants.
fn kills() -> usize {
    std::env::var("ROLLBACKD_KILLS").map_or(8, |kills| kills.parse().unwrap())
}

/// Fleets with a controller each, killed at the same time for their own reasons.
fn sites() -> usize {
    kills().div_ceil(2).min(8)
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stdout, reason = "scripts/reliability reads the row")]
async fn a_controller_killed_at_any_record_of_a_rollback_finishes_it_after_its_restart() {
    let prometheus = Prometheus::start().await;
    let mut all = Vec::new();
    for n in 0..sites() {
        all.push(Site::prepare(&format!("s{n}"), &prometheus.url).await);
    }
    let targets: Vec<_> = all.iter().flat_map(|site| site.targets.clone()).collect();
    prometheus.scrape(&targets).await;
    let rounds = (0..sites()).map(|n| (n..kills()).step_by(sites()).collect::<Vec<_>>());
    let running = all
        .into_iter()
        .zip(rounds)
        .map(|(site, kills)| tokio::spawn(async move { kill_in_each_rollback(site, kills).await }));
    let running: Vec<_> = running.collect();
    let mut at = BTreeMap::<String, u32>::new();
    let mut served = 0;
    for site in running {
        let (killed_at, calls) = site.await.unwrap();
        for event in killed_at {
            *at.entry(event).or_default() += 1;
        }
        served += calls;
    }
    eprintln!("{served} calls served, none turned away; killed after {at:?}");
    assert_eq!(at.values().sum::<u32>() as usize, kills());
    if kills() >= 100 {
        let missed = STEPS.iter().filter(|step| !at.contains_key(**step)).collect::<Vec<_>>();
        assert!(missed.is_empty(), "never killed after {missed:?}: {at:?}");
        println!(
            "| real SIGKILLs during rollbacks, each finished after restart, one \
             `deployment.rolled_back` each, no call dropped | 200 | {} |",
            kills()
        );
    }
}

/// One rollback for each kill; gives the last record at each, and how many calls were served.
async fn kill_in_each_rollback(mut site: Site, kills: Vec<usize>) -> (Vec<String>, u64) {
    site.serve_on_v1().await;
    let mut killed_at = Vec::new();
    for kill in kills {
        let bad = format!("bad{kill}");
        site.deploy(&bad);
        let step = STEPS[kill % STEPS.len()];
        let seq = recorded(&site, &bad, step).await;
        site.kill_controller();
        let last = site.records(seq - 1).await.pop().unwrap();
        assert_eq!(last.extra["from_version"], bad, "{last:?}");
        killed_at.push(last.event);
        site.start_controller();
        recorded(&site, &bad, "rollback.clean").await;
        wait_for("the bad workers to have gone", PATIENCE, || async {
            (site.workers(&bad) == 0 && site.workers("v1") == 2).then_some(())
        })
        .await;
        let told = rollback_of(&site, &bad).await;
        assert_eq!(told, STEPS, "each once, killed after {:?}", killed_at.last());
    }
    // A record after the last kill, so that nothing was left to come.
    site.until("a look", |fleet| fleet["holding"].is_null()).await;
    let callers = site.callers();
    assert_eq!(callers.turned_away, 0, "{callers:?}");
    let audit = site.audit();
    assert!(audit.status.success(), "{audit:?}");
    (killed_at, callers.served)
}

fn is_of(record: &Record, bad: &str) -> bool {
    record.extra.contains_key("rollback_id") && record.extra["from_version"] == bad
}

async fn rollback_of(site: &Site, bad: &str) -> Vec<String> {
    let records = site.records(0).await;
    records.into_iter().filter(|record| is_of(record, bad)).map(|record| record.event).collect()
}

/// Waits, closely, for a record of the rollback from a version; gives its number.
async fn recorded(site: &Site, bad: &str, event: &str) -> u64 {
    let ledger = site.ledger().await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut after = 0;
    let seq = loop {
        let records = ledger.read(after, 1000).await.unwrap();
        let found = records.iter().find(|record| is_of(record, bad) && record.event == event);
        if let Some(found) = found {
            break found.seq;
        }
        after = records.last().map_or(after, |last| last.seq);
        assert!(tokio::time::Instant::now() < deadline, "no {event} of {bad}:\n{}", site.log());
        tokio::time::sleep(Duration::from_micros(500)).await;
    };
    ledger.close().await;
    seq
}
