//! How often a refused worker is worth a record.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::domain::time::Timestamp;

/// A worker is reported at most once in this time.
const PERIOD: Duration = Duration::from_mins(1);
/// Workers reported in one period. Anybody who can reach the port can make names up, and each
/// would be a record that is kept for good.
const WORKERS_MAX: usize = 30;

/// When workers were last reported, by fleet and worker.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<BTreeMap<(String, String), Timestamp>>);

impl Refusals {
    /// Whether this refusal is to be reported; if so, it counts as reported.
    pub(super) fn admit(&self, fleet: &str, worker_id: &str, now: Timestamp) -> bool {
        let mut reported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reported.retain(|_, at| *at <= now && now.since(*at) < PERIOD);
        let worker = (fleet.to_owned(), worker_id.to_owned());
        if reported.contains_key(&worker) || reported.len() >= WORKERS_MAX {
            return false;
        }
        reported.insert(worker, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_reported_once_a_minute() {
        let refusals = Refusals::default();
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        assert!(refusals.admit("voice", "w1", at(100)));
        assert!(!refusals.admit("voice", "w1", at(159)));
        assert!(refusals.admit("voice", "w2", at(159)));
        assert!(refusals.admit("chat", "w1", at(159)));
        assert!(refusals.admit("voice", "w1", at(160)));
        assert!(refusals.admit("voice", "w1", at(90)), "the clock was set back");
    }

    #[test]
    fn made_up_workers_do_not_fill_the_ledger() {
        let refusals = Refusals::default();
        let report = |n: usize, at| refusals.admit("voice", &n.to_string(), at);
        let now = Timestamp::from_millis(0);
        assert_eq!((0..1000).filter(|n| report(*n, now)).count(), WORKERS_MAX);
        assert!(report(1000, now + PERIOD));
    }
}
