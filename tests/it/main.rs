//! What the parts do together, against the real Prometheus.

#![expect(clippy::unwrap_used, reason = "a test whose surroundings fail fails")]

mod access;
mod api;
mod backtest;
mod bad_version;
mod breaker;
mod check_online;
mod comeback;
mod counting;
mod darkness;
mod decision_table;
mod demo;
mod disk;
mod false_rollbacks;
mod flood;
mod heartbeats;
mod house;
mod kills;
mod ledger;
mod ledger_damage;
mod membership;
mod notices;
mod operator;
mod page;
mod prometheus_faults;
mod refusals;
mod restart;
mod support;
mod tls;
mod way_back;
mod webhook;
