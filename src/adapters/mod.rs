//! The world, as the ports see it.

pub mod clock;
pub mod command;
mod http_client;
pub mod ledger;
pub mod notify;
pub mod prometheus;
