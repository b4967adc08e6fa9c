//! `rollbackd audit`: the ledger, judged and written out. Reads only, also beside a running
//! controller; all but `rotate-key`.

mod replay;
mod sign;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::{CommandError, EXIT_FAILED, EXIT_OK};
use crate::adapters::ledger::{ReplayError, SqliteLedger};
use crate::ledger::checkpoint::{Checkpoint, SignedCheckpoint};
use crate::ledger::record::Record;
use crate::ledger::verify::{ChainVerifier, Summary, Trust};
use crate::signing::read_public_key;

/// How many records an export holds at a time.
const PAGE_RECORDS: u32 = 256;

/// Examine the ledger.
#[derive(Clone, Debug, Subcommand)]
pub enum AuditCommand {
    /// Check every record's place, hash and signature.
    ///
    /// A cut-off end leaves a chain that holds: give a checkpoint that was kept elsewhere.
    Verify {
        /// The ledger's database file.
        #[arg(long, value_name = "FILE", default_value = "rollbackd.db")]
        ledger: PathBuf,
        /// A public key that may sign (a .pub file); may be given more than once. Where keys were
        /// rotated, the first one is enough.
        #[arg(long = "key", value_name = "FILE")]
        keys: Vec<PathBuf>,
        /// A checkpoint that the ledger must go on from; may be given more than once.
        #[arg(long = "checkpoint", value_name = "FILE")]
        checkpoints: Vec<PathBuf>,
    },
    /// Derive every decision again from its own record, and say where it differs.
    ///
    /// Also takes every fleet through its happenings, which must follow from each other. Exit code
    /// 1 if something differs. What an older or a newer rollbackd recorded may not be derivable:
    /// that is said and counted, and is no difference.
    Replay(replay::ReplayArgs),
    /// Sign how long the ledger is and what it ends with, to be kept elsewhere.
    ///
    /// Writes a C2SP signed note. A running rollbackd gives one at /api/v1/ledger/checkpoint.
    Checkpoint(sign::CheckpointArgs),
    /// Let a new signing key take over from the one in force.
    ///
    /// Stop rollbackd first. The old key signs the record that names the new one; from then on
    /// only the new one signs. Give workers the new public key before.
    RotateKey(sign::RotateArgs),
    /// Write the records to a new ledger: a backup, also beside a running rollbackd.
    ///
    /// Records that do not hold are not copied, nor is the ledger then. What is damaged outside of
    /// the records is left behind.
    Copy {
        /// The ledger's database file.
        #[arg(long, value_name = "FILE", default_value = "rollbackd.db")]
        ledger: PathBuf,
        /// The new one.
        to: PathBuf,
    },
    /// Write the records as they are stored, one line of JSON each.
    Export {
        /// The ledger's database file.
        #[arg(long, value_name = "FILE", default_value = "rollbackd.db")]
        ledger: PathBuf,
        /// Only records after this number.
        #[arg(long, value_name = "SEQ", default_value_t = 0)]
        after: u64,
    },
}

/// Runs the command; gives the exit code.
///
/// # Errors
/// When the ledger or a key cannot be read or the output not written. A ledger that was read and
/// does not hold is no error but an exit code.
pub async fn run(command: &AuditCommand, out: &mut impl Write) -> Result<u8, CommandError> {
    match command {
        AuditCommand::Verify { ledger, keys, checkpoints } => {
            verify(ledger, keys, checkpoints, out).await
        }
        AuditCommand::Replay(args) => replay::replay(args, out).await,
        AuditCommand::Checkpoint(args) => sign::checkpoint(args, out).await,
        AuditCommand::RotateKey(args) => sign::rotate(args, out).await,
        AuditCommand::Copy { ledger, to } => copy(ledger, to, out).await,
        AuditCommand::Export { ledger, after } => export(ledger, *after, out).await,
    }
}

/// Why a ledger does not hold, in words.
struct BrokenRecord(String);

/// Feeds every record of a ledger to `take`, as long as it holds.
async fn verified(
    ledger: &SqliteLedger,
    trust: Trust,
    take: impl FnMut(Record),
) -> Result<Result<Summary, BrokenRecord>, CommandError> {
    let mut verifier = ChainVerifier::new(trust);
    match ledger.verify_each(&mut verifier, take).await {
        Ok(()) => Ok(verifier.finish().map_err(|broken| BrokenRecord(broken.to_string()))),
        Err(ReplayError::Ledger(error)) => Err(error.into()),
        Err(broken @ ReplayError::Broken { .. }) => Ok(Err(BrokenRecord(broken.to_string()))),
    }
}

/// What a ledger that holds comes to; what is broken in another one is written to `out`.
fn held(
    records: Result<Result<Summary, BrokenRecord>, CommandError>,
    out: &mut impl Write,
) -> Result<Option<Summary>, CommandError> {
    match records? {
        Ok(summary) => Ok(Some(summary)),
        Err(BrokenRecord(broken)) => {
            writeln!(out, "{broken}")?;
            Ok(None)
        }
    }
}

fn trusted(keys: &[PathBuf]) -> Result<Trust, CommandError> {
    if keys.is_empty() {
        return Ok(Trust::AnyKey);
    }
    let keys: Result<_, _> = keys.iter().map(|key| read_public_key(key)).collect();
    Ok(Trust::Keys(keys?))
}

/// Verifies the ledger at `path`; only signatures by `keys`, and by what took over from them,
/// count, or any if there are none. It must go on from each of the `checkpoints`.
///
/// # Errors
/// When the ledger, a key or a checkpoint cannot be read or the output not written.
pub async fn verify(
    path: &Path,
    keys: &[PathBuf],
    checkpoints: &[PathBuf],
    out: &mut impl Write,
) -> Result<u8, CommandError> {
    let trust = trusted(keys)?;
    let checked = matches!(trust, Trust::Keys(_));
    let notes: Result<Vec<_>, _> = checkpoints.iter().map(|path| read_note(path)).collect();
    let notes = notes?;
    let ledger = SqliteLedger::open_read_only(path).await?;
    let (mut first, mut hashes) = (None, BTreeMap::new());
    let records = verified(&ledger, trust, |record| {
        first.get_or_insert_with(|| record.hash.clone());
        if notes.iter().any(|note| note.size() == record.seq) {
            hashes.insert(record.seq, record.hash);
        }
    })
    .await;
    let file = if matches!(records, Ok(Ok(_))) { ledger.examine_file().await } else { Ok(None) };
    ledger.close().await;
    let Some(summary) = held(records, out)? else { return Ok(EXIT_FAILED) };
    if let Some(flaw) = file? {
        writeln!(out, "{}: {flaw}", path.display())?;
        return Ok(EXIT_FAILED);
    }
    for (file, note) in checkpoints.iter().zip(&notes) {
        if let Err(why) = goes_on(note, &summary, first.as_deref(), &hashes) {
            writeln!(out, "{}: {why}", file.display())?;
            return Ok(EXIT_FAILED);
        }
    }
    write_summary(&summary, out)?;
    if !notes.is_empty() {
        writeln!(out, "ok: goes on from {} checkpoint(s)", notes.len())?;
    }
    if !checked && summary.records > 0 {
        write_unchecked_keys(&summary.keys, out)?;
    }
    Ok(EXIT_OK)
}

fn read_note(path: &Path) -> Result<SignedCheckpoint, CommandError> {
    let unusable = |reason: String| CommandError::File { path: path.display().to_string(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
    SignedCheckpoint::read(&text).map_err(|error| unusable(error.to_string()))
}

/// Whether a verified ledger is the one of a checkpoint, and no shorter.
fn goes_on(
    note: &SignedCheckpoint,
    summary: &Summary,
    first: Option<&str>,
    hashes: &BTreeMap<u64, String>,
) -> Result<(), String> {
    let signed = note.verify(summary.keys.iter().map(String::as_str));
    let Checkpoint { origin, size, head } = signed.map_err(|error| error.to_string())?;
    if first.is_none_or(|first| Checkpoint::new(first, *size, head).origin != *origin) {
        return Err(format!("is of another ledger, {origin}"));
    }
    match hashes.get(size) {
        Some(hash) if hash == head => Ok(()),
        Some(_) => Err(format!("record {size} is not the one it was signed with")),
        None => Err(format!(
            "the ledger's end was cut off: there are {} records, and were {size}",
            summary.records
        )),
    }
}

fn write_summary(summary: &Summary, out: &mut impl Write) -> io::Result<()> {
    let Summary { records, first, last, head, .. } = summary;
    match (first, last) {
        (Some(first), Some(last)) => writeln!(
            out,
            "ok: {records} records, seq 1..{records}, from {first} to {last}, head {head}"
        ),
        (None, _) | (_, None) => writeln!(out, "ok: 0 records"),
    }
}

fn write_unchecked_keys(keys: &BTreeSet<String>, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "keys not checked: the records name their own; give --key to say who may sign")?;
    keys.iter().try_for_each(|key| writeln!(out, "signed by {key}"))
}

/// Writes the records to a new ledger and verifies that one, whoever signed it.
///
/// # Errors
/// When the ledger cannot be read, or the new one not written.
pub async fn copy(ledger: &Path, to: &Path, out: &mut impl Write) -> Result<u8, CommandError> {
    let from = SqliteLedger::open_read_only(ledger).await?;
    let records = from.verify_each(&mut ChainVerifier::new(Trust::AnyKey), drop).await;
    let copied = if records.is_ok() { from.copy_to(to).await } else { Ok(()) };
    from.close().await;
    match records {
        Ok(()) => {}
        Err(ReplayError::Ledger(error)) => return Err(error.into()),
        Err(broken @ ReplayError::Broken { .. }) => {
            writeln!(out, "{broken}")?;
            return Ok(EXIT_FAILED);
        }
    }
    copied?;
    verify(to, &[], &[], out).await
}

/// Writes the records after `after`, a line each, just as they are stored.
///
/// # Errors
/// When the ledger cannot be read or the output not written; a reader that has seen enough
/// (`| head`) is no error.
pub async fn export(path: &Path, after: u64, out: &mut impl Write) -> Result<u8, CommandError> {
    let ledger = SqliteLedger::open_read_only(path).await?;
    let mut after = after;
    loop {
        let page = ledger.read_stored(after, PAGE_RECORDS).await?;
        let Some(last) = page.last() else { break };
        after = last.seq;
        let written = page.iter().try_for_each(|stored| {
            out.write_all(&stored.json)?;
            out.write_all(b"\n")
        });
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            result => result?,
        }
    }
    ledger.close().await;
    match out.flush() {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(EXIT_OK),
        result => Ok(result.map(|()| EXIT_OK)?),
    }
}

#[cfg(test)]
mod tests;
