//! From answers to verdicts: what to ask, how to read it, and what the rules say of a candidate.
//!
//! ```text
//! plan ─► look (the only part that waits) ─► answers ─► observed (ticks) ─► judge
//! ```
//!
//! The controller does this live; `test` and `backtest` do it on ticks of another origin, so that
//! what they show is what would happen.

pub(crate) mod answers;
pub(crate) mod judge;
pub(crate) mod observed;
pub(crate) mod plan;
pub(crate) mod slices;
