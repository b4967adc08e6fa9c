//! A ledger's file and log as anybody might have left them, for the fuzzer.

use super::{LogFlaw, SqliteLedger, wal};
use crate::ledger::verify::{ChainVerifier, Trust};

/// How long a log's index is that says something of the log.
const INDEX_BYTES: usize = 136;

/// A log, with the first bytes for its index and without one.
pub(crate) fn read_log(bytes: &[u8]) {
    let (index, log) = bytes.split_at(INDEX_BYTES.min(bytes.len()));
    let frames = bytes.len() / 512;
    for flaw in [wal::check(log, index), wal::check(bytes, &[])].into_iter().flatten() {
        let (LogFlaw::Damaged { frame } | LogFlaw::CutOff { frame }) = flaw;
        assert!(frame <= frames + 1, "{flaw}");
    }
}

/// A file, as `audit verify` reads it: what holds is byte for byte what its records make.
pub(crate) fn read_file(bytes: &[u8]) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else {
        return;
    };
    let Ok(directory) = tempfile::tempdir() else { return };
    let path = directory.path().join("ledger.db");
    if std::fs::write(&path, bytes).is_err() {
        return;
    }
    runtime.block_on(async {
        let Ok(ledger) = SqliteLedger::open_read_only(&path).await else { return };
        let mut verifier = ChainVerifier::new(Trust::AnyKey);
        if ledger.verify_each(&mut verifier, drop).await.is_ok() {
            drop(ledger.examine_file().await);
        }
        ledger.close().await;
    });
}
