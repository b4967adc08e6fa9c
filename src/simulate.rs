//! Simulated sessions, and what a rule says of them: seeded, so that a run can be had again.
//!
//! ```text
//! traffic (sessions → ticks of both versions) ─► trial (one rollout, judged) ─► statistics
//! ```
//!
//! `simulate`, the tests and the detection bench all draw from here.

pub mod statistics;
pub mod traffic;
pub mod trial;
