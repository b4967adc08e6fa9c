//! The ledger's meaning: records, their chain, their verification.

pub mod event;
pub mod record;
