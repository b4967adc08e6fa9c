//! One process at a time.

use std::fs::{File, TryLockError};
use std::path::Path;

use crate::ports::ledger::LedgerError;

/// Keeps other processes from the same ledger, for as long as the file is held open.
///
/// The ledger refuses a second writer by itself, but only when the first one next appends: until
/// then, a controller that was overtaken would go on speaking to workers.
///
/// # Errors
/// When another process holds it, or the file beside the ledger cannot be made.
pub fn lock(ledger: &Path) -> Result<File, LedgerError> {
    let path = ledger.with_added_extension("lock");
    let failed = |reason: String| LedgerError::Storage { path: path.display().to_string(), reason };
    let file = File::create(&path).map_err(|error| failed(format!("failed to lock: {error}")))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LedgerError::Storage {
            path: ledger.display().to_string(),
            reason: "another rollbackd runs on the ledger".to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(failed(format!("failed to lock: {error}"))),
    }
}
