//! The ledger's meaning: records, their chain, their verification.

pub mod record;
