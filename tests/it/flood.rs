//! Alertmanager repeats, reorders and floods: looks are taken together, and nothing but a look
//! follows.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::prometheus::Prometheus;
use super::support::site::{PATIENCE, Site};
use super::support::wait_for;

/// How many notifications; `make reliability` measures with more, and rollbackd on one core.
fn notifications() -> u64 {
    std::env::var("ROLLBACKD_NOTIFICATIONS").map_or(10_000, |count| count.parse().unwrap())
}

const SENDERS: u64 = 8;
const LOOKS: &str = "rollbackd_evaluation_duration_seconds_count";

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stdout, reason = "scripts/reliability reads the row")]
async fn a_flood_of_notifications_is_a_look_a_second_and_nothing_more() {
    let prometheus = Prometheus::start().await;
    let mut site = Site::prepare("flooded", &prometheus.url).await;
    prometheus.scrape(&site.targets).await;
    let measured = std::env::var_os("ROLLBACKD_NOTIFICATIONS").is_some();
    if measured {
        site.run_on_one_core();
    }
    site.serve_on_v1().await;
    let records = site.records(0).await.len();
    let looks = site.metric(LOOKS, "").await;

    let began = tokio::time::Instant::now();
    let taken = Arc::new(AtomicU64::new(0));
    let senders = (0..SENDERS).map(|sender| {
        let (address, taken) = (site.address, taken.clone());
        tokio::spawn(async move { send(address, sender, notifications() / SENDERS, &taken).await })
    });
    for sender in senders.collect::<Vec<_>>() {
        sender.await.unwrap();
    }
    let took = began.elapsed().as_secs_f64();
    let looked = site.metric(LOOKS, "").await - looks;
    // One in turn and one out of turn a second, and those under way at either end.
    assert!(looked <= 2.0 * took + 4.0, "{looked} looks in {took:.1} s");
    let taken = taken.load(Ordering::Relaxed);
    let counted = site.metric("rollbackd_alerts_received_total", "accepted").await
        + site.metric("rollbackd_alerts_received_total", "ignored").await;
    assert!((counted - taken as f64).abs() < 0.5, "{counted} counted, {taken} taken");
    wait_for("another look", PATIENCE, || async {
        (site.metric(LOOKS, "").await > looks + looked).then_some(())
    })
    .await;
    let events: Vec<_> = site.records(0).await.into_iter().skip(records).map(|r| r.event).collect();
    assert_eq!(events, [""; 0], "a notification decided something");
    if measured {
        println!(
            "| webhook notifications taken per second on one core while evaluations keep their \
             pace | 5,000 | {:.0} ({looked:.0} looks in {took:.0} s at an interval of 1 s) |",
            taken as f64 / took
        );
    }
}

/// Sends notifications, each other one about another thing, over a connection that is kept.
async fn send(address: SocketAddr, sender: u64, count: u64, taken: &AtomicU64) {
    let bodies = bodies().map(|body| body.to_string());
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut answer = vec![0; 4096];
    for n in 0..count {
        let body = &bodies[usize::try_from((sender + n * 7) % 6).unwrap()];
        let head = format!(
            "POST /api/v1/alerts HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice()).await.unwrap();
        let read = tokio::time::timeout(Duration::from_mins(1), stream.read(&mut answer)).await;
        let status = String::from_utf8_lossy(&answer[9..read.unwrap().unwrap().min(12)]);
        // Busy: Alertmanager would send it again.
        assert!(["200", "503"].contains(&status.as_ref()), "{status}");
        if status == "200" {
            taken.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Firing and resolved, of this fleet, of all, of another; the same ones again and again.
fn bodies() -> [Value; 6] {
    let body = |status: &str, labels: Value| {
        let alert = json!({
            "status": status, "labels": labels, "annotations": {}, "fingerprint": "1",
            "startsAt": "2025-07-20T08:26:40Z", "endsAt": "0001-01-01T00:00:00Z",
        });
        json!({
            "version": "4", "groupKey": "{}", "status": status, "receiver": "rollbackd",
            "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "",
            "alerts": vec![alert; 3],
        })
    };
    [
        body("firing", json!({ "alertname": "Failing", "fleet": "voice" })),
        body("resolved", json!({ "alertname": "Failing", "fleet": "voice" })),
        body("firing", json!({ "alertname": "Failing", "fleet": "voice", "version": "v1" })),
        body("firing", json!({ "alertname": "Failing" })),
        body("resolved", json!({ "alertname": "Failing" })),
        body("firing", json!({ "alertname": "Failing", "fleet": "another" })),
    ]
}
