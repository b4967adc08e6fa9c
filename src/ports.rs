//! What the controller needs of the world, and what the world may ask of the controller.
//!
//! **Invariant:** no implementation lives here; `controller`, `adapters`, `http` and `cli` meet
//! only through these types.

pub mod inbox;
pub mod ledger;
pub mod manifest;
pub mod metrics;
pub mod notify;
pub mod platform;
pub mod view;

use crate::domain::time::Timestamp;

/// Tells the time. The only way to read it outside the adapters.
pub trait Clock: Send + Sync + 'static {
    /// Now, by the wall clock.
    fn now(&self) -> Timestamp;
}
