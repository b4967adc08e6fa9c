//! The world, as the ports see it.

pub mod clock;
pub mod command;
pub mod ledger;
pub mod prometheus;
