//! The ports' real implementations.

pub mod ledger;
