//! Checkpoints in a file: written at a pace, and held against the ledger at the next start.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, bail};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info};

use crate::adapters::ledger::SqliteLedger;
use crate::config::CheckpointConfig;
use crate::ledger::checkpoint::{Checkpoint, SignedCheckpoint};
use crate::metrics::Metrics;
use crate::ports::ledger::Ledger;

/// Refuses a ledger that is shorter than it was, or another one, by the checkpoint there is.
///
/// # Errors
/// When the ledger does not go on from the checkpoint, or one of them cannot be read.
pub(super) async fn check(file: &Path, ledger: &SqliteLedger) -> anyhow::Result<()> {
    let named = || format!("checkpoint {}", file.display());
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(named),
    };
    let note = SignedCheckpoint::read(&text).with_context(named)?;
    let size = note.size();
    let first = ledger.read(0, 1).await?;
    // The key in force at the record, or the one that took over by it and signed at once.
    let (at, last) = (ledger.read(size - 1, 1).await?, ledger.head().await?);
    let Some(((first, at), last)) = first.first().zip(at.first()).zip(last) else {
        bail!("{}: the ledger's end was cut off: it had {size} records", named());
    };
    let mut keys = vec![at.key.as_str(), last.key.as_str()];
    keys.extend(ledger.public_key());
    let checkpoint = note.verify(keys).with_context(named)?;
    if *checkpoint != Checkpoint::new(&first.hash, size, &at.hash) {
        bail!("{}: the ledger's record {size} is not the one it was signed with", named());
    }
    info!(records = size, "the ledger goes on from its checkpoint");
    Ok(())
}

/// Writes a checkpoint at the configured pace. Never ends.
pub(super) async fn keep(config: &CheckpointConfig, ledger: &SqliteLedger, metrics: &Metrics) {
    let mut pulse = interval(config.every);
    pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pulse.tick().await;
        metrics.checkpoint_finished(write(&config.file, ledger).await);
    }
}

/// Writes one, or logs why not; says which.
async fn write(file: &Path, ledger: &SqliteLedger) -> bool {
    let written = match ledger.checkpoint().await {
        Ok(Some(note)) => replace(file, &note).map_err(|error| error.to_string()),
        Ok(None) => Ok(()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(reason) = &written {
        error!(file = %file.display(), reason, "no checkpoint written");
    }
    written.is_ok()
}

/// All of it or nothing: a reader never sees half a note.
fn replace(file: &Path, note: &str) -> std::io::Result<()> {
    let new = file.with_added_extension("new");
    let mut written = fs::File::create(&new)?;
    written.write_all(note.as_bytes())?;
    written.sync_all()?;
    fs::rename(new, file)
}
