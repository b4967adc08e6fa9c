//! The ledger's meaning: records, their chain, their verification.

pub mod chain;
pub mod record;
pub mod verify;
