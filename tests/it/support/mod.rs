//! Real servers and fake workers to put around the code under test.

pub(crate) mod alertmanager;
pub(crate) mod broker;
pub(crate) mod browser;
pub(crate) mod exporter;
pub(crate) mod fleet;
pub(crate) mod history;
pub(crate) mod prometheus;
pub(crate) mod proxy;
pub(crate) mod site;
pub(crate) mod synthetic;
pub(crate) mod worker;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rollbackd::domain::time::Timestamp;

/// The records of a rollback, in order.
pub(crate) const STEPS: [&str; 8] = [
    "rollback.chosen",
    "rollback.gated",
    "rollback.starting",
    "rollback.capable",
    "deployment.drain_started",
    "deployment.rolled_back",
    "rollback.confirming",
    "rollback.clean",
];

/// Now, by the clock Prometheus uses too.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
}

/// Asks until there is an answer; fails the test when `limit` has passed.
pub(crate) async fn wait_for<T, F>(what: &str, limit: Duration, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = tokio::time::Instant::now() + limit;
    let mut pulse = tokio::time::interval(Duration::from_millis(50));
    loop {
        pulse.tick().await;
        if let Some(found) = ask().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited {limit:?} for {what}");
    }
}

/// Fails the test unless something is so for all of `time`.
pub(crate) async fn stays(what: &str, time: Duration, is_so: impl AsyncFn() -> bool) {
    let end = tokio::time::Instant::now() + time;
    let mut pulse = tokio::time::interval(Duration::from_millis(100));
    while tokio::time::Instant::now() < end {
        assert!(is_so().await, "{what} is so no longer");
        pulse.tick().await;
    }
}

/// An address on the loopback interface that nobody listens on, another one each time. Its port is
/// below those that outgoing connections get, one of which could take it before its server does.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id() * 101 + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + u16::try_from(number % 12_000).unwrap();
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return listener.local_addr().unwrap();
        }
    }
}

/// Speaks plain HTTP to servers of the test's own.
pub(crate) fn client() -> reqwest::Client {
    // An error says that one is installed already.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap()
}

/// Sends `TERM`, `KILL` or the like to one process; it may be gone already.
pub(crate) fn signal(pid: u32, name: &str) {
    let script = r#"kill -s "$0" "$1" 2>/dev/null || true"#;
    let sent = Command::new("sh").args(["-c", script, name, &pid.to_string()]).status().unwrap();
    assert!(sent.success());
}
