//! The ledger's meaning: records, their chain, their verification.

pub mod chain;
pub mod event;
pub mod record;
pub mod verify;
