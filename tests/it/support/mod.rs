//! Real servers and fake workers to put around the code under test.

pub(crate) mod prometheus;
pub(crate) mod worker;

use std::future::Future;
use std::time::Duration;

use rollbackd::domain::time::Timestamp;

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
