//! What people and other systems are told, and how it reaches them.
//!
//! ```text
//! view ──► alerts ──► Alertmanager     what is so now: sent again and again, resolved when over
//! ledger ─► cdevents ──► a broker      what has happened: each once, in order, and none lost
//! ```
//!
//! **Invariant:** nothing here is waited for by the controller. A notice that cannot be delivered
//! delays no look and no rollback.

pub mod alerts;
pub mod cdevents;
mod telling;

pub use telling::{Told, tell_alertmanager, tell_events};
