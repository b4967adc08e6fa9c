//! What the parts do together, against the real Prometheus.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test whose surroundings fail fails")]

mod bad_version;
mod counting;
mod false_rollbacks;
mod house;
mod support;
