//! Workers with held heartbeats: each hears of a changed manifest.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use rollbackd::membership::sign_membership;

use super::support::fleet::SECRET;
use super::support::prometheus::Prometheus;
use super::support::site::{PATIENCE, Site};
use super::support::{client, now, wait_for};

/// How many workers; `make reliability` measures with 1,000.
fn workers() -> usize {
    std::env::var("ROLLBACKD_WORKERS").map_or(50, |workers| workers.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stdout, reason = "scripts/reliability reads the row")]
async fn a_changed_manifest_reaches_every_held_heartbeat() {
    let prometheus = Prometheus::start().await;
    let mut site = Site::prepare("heard", &prometheus.url).await;
    prometheus.scrape(&site.targets).await;
    site.serve_on_v1().await;
    let (heard, mut arrivals) = mpsc::unbounded_channel();
    let held = Arc::new(AtomicUsize::new(0));
    let client = client();
    let url = format!("http://{}/api/v1", site.address);
    let beating: Vec<_> = (0..workers())
        .map(|n| tokio::spawn(beat(client.clone(), url.clone(), n, held.clone(), heard.clone())))
        .collect();
    let mut waits = Vec::new();
    for round in 0..20 {
        // Each has its answer, has asked again, and is held.
        wait_for("all to be held", PATIENCE, || async {
            (held.load(Ordering::Relaxed) >= workers() * (round + 1)).then_some(())
        })
        .await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        while arrivals.try_recv().is_ok() {}
        let act = if round % 2 == 0 { "pause" } else { "resume" };
        let began = Instant::now();
        let said = client.post(format!("{url}/fleets/voice/{act}")).json(&json!({ "reason": "r" }));
        let said = tokio::spawn(said.send());
        for _ in 0..workers() {
            let at: Instant = timeout(PATIENCE, arrivals.recv()).await.unwrap().unwrap();
            waits.push(at.duration_since(began));
        }
        assert!(said.await.unwrap().unwrap().status().is_success());
    }
    beating.iter().for_each(tokio::task::JoinHandle::abort);
    assert_eq!(waits.len(), 20 * workers());
    waits.sort_unstable();
    if std::env::var_os("ROLLBACKD_WORKERS").is_some() {
        let millis = |part: usize| waits[waits.len() * part / 100].as_millis();
        println!(
            "| 1,000 heartbeating workers with held requests: a manifest change reaches all of \
             them (99th percentile) | 500 ms | {} ms (median {} ms, last {} ms) |",
            millis(99),
            millis(50),
            waits.last().unwrap().as_millis()
        );
    }
}

/// A worker that asks again as soon as it has an answer; says when each changed one came.
async fn beat(
    client: reqwest::Client,
    url: String,
    n: usize,
    held: Arc<AtomicUsize>,
    heard: mpsc::UnboundedSender<Instant>,
) {
    let worker_id = format!("w{n}");
    let mut serial = 0;
    loop {
        let timestamp = now().as_seconds();
        let token = sign_membership("v1", &worker_id, timestamp, SECRET.as_bytes());
        let claim = json!({
            "fleet": "voice", "worker_id": worker_id, "version": "v1", "draining": false,
            "active_sessions": 1, "timestamp": timestamp, "token": token,
        });
        let wait = format!("{url}/heartbeat?wait=30s&serial={serial}");
        let asked = client.post(wait).json(&claim).send();
        if serial > 0 {
            held.fetch_add(1, Ordering::Relaxed);
        }
        let answer = asked.await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
        let answer: Value = answer.json().await.unwrap();
        let now = answer["manifest"]["serial"].as_u64().unwrap();
        if serial > 0 && now > serial {
            heard.send(Instant::now()).unwrap();
        }
        serial = serial.max(now);
    }
}
