//! rollbackd watches a new version's session failures in Prometheus, decides with a stated error
//! bound whether it is worse than the last good one, and takes the fleet back by draining.
//!
//! Dependencies point one way: `domain` ← `rules`, `ledger` ← `ports` ← `controller`, `adapters`,
//! `http`, `cli` ← `app` ← `main`. `membership` stands between `domain` and `ports`; `metrics` is for
//! all that have something to count. Siblings do not import each other.

pub mod domain;
pub mod http;
pub mod ledger;
pub mod membership;
pub mod metrics;
pub mod ports;
pub mod rules;
