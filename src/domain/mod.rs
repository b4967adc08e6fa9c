//! What rollbackd knows about fleets, evidence and rollbacks, as plain data and pure functions.
//!
//! **Invariant:** nothing here reads a clock, does I/O, logs, awaits or serializes.

pub mod fleet;
pub mod manifest;
pub mod membership;
pub mod share;
pub mod time;
pub mod version;
