//! What the parts do together, against the real Prometheus.

#![expect(clippy::unwrap_used, reason = "a test whose surroundings fail fails")]

mod counting;
mod house;
mod support;
