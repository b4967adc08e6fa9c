//! rollbackd watches a new version's session failures in Prometheus, decides with a stated error
//! bound whether it is worse than the last good one, and takes the fleet back by draining.
//!
//! Dependencies point one way: `domain` ← `yaml`, `signing`, `membership` ← `rules`, `ledger`,
//! `metrics` ← `config` ← `ports` ← `evaluate`, `explain`, `adapters` ← `http`, `controller`, `cli`
//! ← `app` ← `main`. Siblings do not import each other.

pub mod adapters;
pub mod app;
pub mod cli;
pub mod config;
pub mod controller;
pub mod domain;
pub mod evaluate;
pub mod explain;
#[cfg(any(test, fuzzing))]
pub mod foreign;
pub mod http;
pub mod ledger;
pub mod membership;
pub mod metrics;
pub mod notices;
pub mod plot;
pub mod ports;
pub mod rules;
pub mod signing;
pub mod simulate;
pub mod telemetry;
pub mod yaml;
