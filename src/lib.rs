//! rollbackd watches a new version's session failures in Prometheus, decides with a stated error
//! bound whether it is worse than the last good one, and takes the fleet back by draining.
//!
//! Dependencies point one way: `domain` ← `rules`, `ledger` ← `ports` ← `controller`, `adapters`,
//! `http`, `cli` ← `app` ← `main`. Siblings do not import each other.

pub mod adapters;
pub mod domain;
pub mod ledger;
pub mod ports;
pub mod rules;
