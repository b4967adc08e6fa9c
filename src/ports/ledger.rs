//! Where what must be remembered is written.

use std::future::{Future, ready};

use crate::ledger::record::{Draft, Record};

/// Why the ledger did not take or give records.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// Another writer has appended in between; this process must stop acting.
    #[error("ledger is at record {found}, expected {expected}: another writer is at work")]
    Conflict {
        /// What the caller believed to be the last `seq`.
        expected: u64,
        /// The last `seq` there is.
        found: u64,
    },
    /// Disk full, read-only, damaged: nothing was written.
    #[error("ledger {path}: {reason}")]
    Storage {
        /// The database file.
        path: String,
        /// What happened.
        reason: String,
    },
}

/// The append-only record, synced to disk when `append` returns.
pub trait Ledger: Send + Sync + 'static {
    /// Appends all drafts or none, in one transaction, after the record `last_seq` (0: empty).
    fn append(
        &self,
        last_seq: u64,
        drafts: Vec<Draft>,
    ) -> impl Future<Output = Result<Vec<Record>, LedgerError>> + Send;

    /// At most `limit` records with a `seq` above `after`, in order.
    fn read(
        &self,
        after: u64,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<Record>, LedgerError>> + Send;

    /// How long the ledger is and what it ends with, as a signed note; `None` if nothing is in it,
    /// or if it does not sign.
    fn checkpoint(&self) -> impl Future<Output = Result<Option<String>, LedgerError>> + Send {
        ready(Ok(None))
    }
}
