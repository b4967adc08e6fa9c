//! What rollbackd knows about fleets, evidence and rollbacks, as plain data and pure functions.
//!
//! **Invariant:** nothing here reads a clock, does I/O, logs, awaits or serializes.

pub mod breaker;
pub mod comeback;
pub mod counts;
pub mod decision;
pub mod evidence;
pub mod fleet;
pub mod history;
pub mod interval;
pub mod manifest;
pub mod membership;
pub mod narrow;
pub mod observation;
mod outage;
pub mod role;
pub mod rollback;
mod scaled;
pub mod share;
pub mod template;
pub mod thinned;
pub mod time;
pub mod value;
pub mod verdict;
pub mod version;
