//! The ledger's meaning: records, their chain, their verification.

pub mod chain;
pub mod checkpoint;
pub mod derive;
pub mod event;
pub mod record;
pub mod rotation;
pub mod verify;
