//! The questions rollbackd asks, against known counts on the real Prometheus.

use std::collections::BTreeMap;
use std::time::Duration;

use rollbackd::domain::time::Timestamp;
use rollbackd::ports::metrics::{MetricSource, RangeQuery};
use rollbackd::rules::SessionRule;
use rollbackd::rules::query::SessionQueries;

use crate::support::prometheus::{Prometheus, SCRAPE};
use crate::support::worker::{Counts, Step, Worker};
use crate::support::{now, wait_for};

const LIMIT: Duration = Duration::from_secs(90);

/// A target's last stale marker is written 1.1 scrape intervals after the time it stands for.
const SETTLE: Duration = Duration::from_millis(2500);

fn show(version: &'static str, started: u64, failed: u64, live: u64) -> Step {
    Step::Show(version, vec![("a", Counts { started, failed, live })])
}

/// `scrapes` of a worker that had `from` sessions before and starts `pace` more every time.
fn run(version: &'static str, from: u64, pace: u64, scrapes: u64) -> Vec<Step> {
    let at = |n: u64| show(version, from + n * pace, (from + n * pace) / 3, pace);
    (0..scrapes).map(at).collect()
}

async fn all_done(workers: &[&Worker]) {
    wait_for("every script to be played", LIMIT, || async {
        workers.iter().all(|worker| worker.is_done()).then_some(())
    })
    .await;
}

struct Queries {
    started: String,
    failed: String,
    dropped: String,
    died: String,
}

fn queries(window: Duration) -> Queries {
    let rule = SessionRule {
        name: "SessionsFailing".to_owned(),
        started: "sessions_started_total".to_owned(),
        failed: "sessions_failed_total".to_owned(),
        live: Some("sessions_live".to_owned()),
        ceiling: None,
        tolerance: None,
        dispersion: None,
        narrow_by: Vec::new(),
        annotations: BTreeMap::new(),
        digest: String::new(),
    };
    let queries = SessionQueries::new(&rule, &[], "deployment_version", window);
    Queries {
        started: queries.started,
        failed: queries.failed,
        dropped: queries.dropped.unwrap(),
        died: queries.died.unwrap(),
    }
}

/// The sum over all ticks, by version, once the last tick has settled.
async fn total(
    server: &Prometheus,
    expr: &str,
    window: Duration,
    from: Timestamp,
    to: Timestamp,
) -> BTreeMap<String, f64> {
    let (start, end) = (from.align_down(window), to.align_down(window) + window);
    wait_for("the last tick to settle", LIMIT, || async { (now() >= end + SETTLE).then_some(()) })
        .await;
    let query = RangeQuery { expr: expr.to_owned(), start, end, step: window };
    let series = server.source().range(query).await.unwrap();
    let of = |points: Vec<(Timestamp, f64)>| points.iter().map(|(_, value)| value).sum();
    let version = |labels: &BTreeMap<String, String>| labels["deployment_version"].clone();
    series.into_iter().map(|series| (version(&series.labels), of(series.points))).collect()
}

#[tokio::test]
async fn every_session_a_scrape_saw_is_counted_once() {
    let server = Prometheus::start().await;
    // By then Prometheus has a past, longer than the widest window.
    let elder = Worker::start(run("elder", 0, 1, 8)).await;
    server.scrape(&[elder.address]).await;
    all_done(&[&elder]).await;
    let began = now();
    let gap = [Step::Fail, Step::Fail, Step::Hang, Step::Fail, Step::Hang, Step::Fail];
    let steady = Worker::start(run("steady", 0, 3, 25)).await;
    let relapsed = Worker::start([run("reset", 4, 5, 9), run("reset", 1, 2, 9)].concat()).await;
    let exit = Worker::start(run("exit", 7, 4, 8)).await;
    let holey =
        Worker::start([run("holey", 0, 7, 6), gap.to_vec(), run("holey", 60, 7, 6)].concat()).await;
    let restart_in_gap =
        Worker::start([run("both", 9, 7, 6), gap.to_vec(), run("both", 2, 1, 6)].concat()).await;
    let born = Worker::start(run("born", 5, 6, 6)).await;

    let first = [&steady, &relapsed, &exit, &holey, &restart_in_gap];
    server.scrape(&first.map(|worker| worker.address)).await;
    all_done(&[&exit]).await;
    exit.stop();
    let rest = [&steady, &relapsed, &holey, &restart_in_gap, &born];
    server.scrape(&rest.map(|worker| worker.address)).await;
    all_done(&rest).await;
    let ended = now();

    let workers = [
        ("steady", &steady),
        ("reset", &relapsed),
        ("exit", &exit),
        ("holey", &holey),
        ("both", &restart_in_gap),
        ("born", &born),
    ];
    for window in [SCRAPE, 2 * SCRAPE, 3 * SCRAPE, 5 * SCRAPE] {
        let asked = queries(window);
        let started = total(&server, &asked.started, window, began, ended).await;
        let failed = total(&server, &asked.failed, window, began, ended).await;
        for (name, worker) in workers {
            let (true_started, true_failed) = worker.truth();
            assert_eq!(started.get(name), Some(&(true_started as f64)), "{name}, {window:?}");
            assert_eq!(failed.get(name), Some(&(true_failed as f64)), "{name}, {window:?}");
        }
    }
}

#[tokio::test]
async fn what_a_prometheus_without_a_past_sees_first_is_not_new() {
    let server = Prometheus::start().await;
    let began = now();
    let old = Worker::start(run("old", 600, 3, 8)).await;
    server.scrape(&[old.address]).await;
    all_done(&[&old]).await;
    let ended = now();
    let (started_in_all, failed_in_all) = old.truth();
    for window in [SCRAPE, 3 * SCRAPE] {
        let asked = queries(window);
        let started = total(&server, &asked.started, window, began, ended).await["old"];
        let failed = total(&server, &asked.failed, window, began, ended).await["old"];
        let since = [(started_in_all - 600) as f64, (failed_in_all - 200) as f64];
        assert!(started > 0.0 && started <= since[0] && failed <= since[1], "{started} {failed}");
    }
}

#[tokio::test]
async fn calls_on_a_worker_that_died_are_counted_once_and_no_others() {
    let server = Prometheus::start().await;
    let began = now();
    let held = |version, live| vec![show(version, 20, 2, live); 8];
    let fails = |count| vec![Step::Fail; count];
    // Its second tenant comes back with as many sessions as before, and its third not at all.
    let tenants = |of: &[(&'static str, u64, u64)]| {
        let counts = |&(name, started, live)| (name, Counts { started, failed: 0, live });
        Step::Show("restarted", of.iter().map(counts).collect())
    };
    let before = tenants(&[("a", 9, 3), ("b", 1, 1), ("c", 2, 2)]);
    let after = tenants(&[("a", 1, 1), ("b", 1, 1)]);
    let restarted = Worker::start([vec![before; 8], vec![after; 6]].concat()).await;
    let returned =
        Worker::start([held("returned", 4), fails(6), vec![show("returned", 1, 0, 1); 6]].concat())
            .await;
    let replaced =
        Worker::start([held("replaced", 2), vec![show("successor", 1, 0, 1); 6]].concat()).await;
    let gap = Worker::start([held("gap", 5), fails(6), held("gap", 5)].concat()).await;
    let evicted = Worker::start(held("evicted", 3)).await;
    let drained =
        Worker::start([held("drained", 3), vec![show("drained", 20, 2, 0); 2]].concat()).await;

    let first = [&restarted, &returned, &replaced, &gap, &evicted, &drained];
    server.scrape(&first.map(|worker| worker.address)).await;
    all_done(&[&evicted, &drained]).await;
    evicted.stop();
    drained.stop();
    let rest = [&restarted, &returned, &replaced, &gap];
    server.scrape(&rest.map(|worker| worker.address)).await;
    // Back under the same name, with counters that fell: its calls were counted when it went.
    let again = Worker::start_at(evicted.address, vec![show("evicted", 1, 0, 1); 4]).await;
    let rest = [&restarted, &returned, &replaced, &gap, &again];
    server.scrape(&rest.map(|worker| worker.address)).await;
    all_done(&rest).await;
    let ended = now() + 2 * SCRAPE;

    #[rustfmt::skip]
    let want: &[(&str, f64, f64)] = &[
        ("restarted", 6.0, 1.0),
        ("returned",  4.0, 1.0),
        ("replaced",  2.0, 1.0),
        ("evicted",   3.0, 1.0),
        ("drained",   0.0, 0.0),
        ("gap",       0.0, 0.0),
        ("successor", 0.0, 0.0),
    ];
    for window in [SCRAPE, 2 * SCRAPE, 3 * SCRAPE, 5 * SCRAPE] {
        let asked = queries(window);
        let dropped = total(&server, &asked.dropped, window, began, ended).await;
        let died = total(&server, &asked.died, window, began, ended).await;
        for (name, calls, workers) in want {
            let found = |counts: &BTreeMap<_, _>| counts.get(*name).copied().unwrap_or(0.0);
            assert_eq!(found(&dropped).to_bits(), calls.to_bits(), "{name}, {window:?}");
            assert_eq!(found(&died).to_bits(), workers.to_bits(), "{name}, {window:?}");
        }
    }
}
