//! `audit checkpoint` and `audit rotate-key`: what needs a signing key.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::super::{CommandError, EXIT_FAILED, EXIT_OK};
use super::{held, verified};
use crate::adapters::clock::SystemClock;
use crate::adapters::ledger::{SqliteLedger, lock};
use crate::ledger::checkpoint::{Checkpoint, verifier_key};
use crate::ledger::rotation::{self, Word};
use crate::ledger::verify::Trust;
use crate::ports::Clock;
use crate::ports::ledger::Ledger;
use crate::signing::Signer;

/// Arguments of `audit checkpoint`.
#[derive(Args, Clone, Debug)]
pub struct CheckpointArgs {
    /// The ledger's database file.
    #[arg(long, value_name = "FILE", default_value = "rollbackd.db")]
    pub ledger: PathBuf,
    /// The key in force, which signs.
    #[arg(long, value_name = "FILE", default_value = "rollbackd.key")]
    pub signing_key: PathBuf,
    /// Write what other tools for signed notes take as the key, instead.
    #[arg(long)]
    pub verifier_key: bool,
}

/// Arguments of `audit rotate-key`.
#[derive(Args, Clone, Debug)]
pub struct RotateArgs {
    /// The ledger's database file.
    #[arg(long, value_name = "FILE", default_value = "rollbackd.db")]
    pub ledger: PathBuf,
    /// The key in force.
    #[arg(long, value_name = "FILE", default_value = "rollbackd.key")]
    pub signing_key: PathBuf,
    /// The key that takes over, made by `rollbackd keygen`.
    #[arg(long, value_name = "FILE")]
    pub new_key: PathBuf,
    /// Why: it goes into the ledger.
    #[arg(long, short, value_name = "TEXT")]
    pub reason: String,
    /// Who: it goes into the ledger.
    #[arg(long, value_name = "NAME", env = "USER", default_value = "anonymous")]
    pub actor: String,
}

/// Writes a checkpoint of a ledger that holds.
///
/// # Errors
/// When the ledger or the key cannot be read or the output not written.
pub(super) async fn checkpoint(
    args: &CheckpointArgs,
    out: &mut impl Write,
) -> Result<u8, CommandError> {
    let signer = Signer::load(&args.signing_key)?;
    let ledger = SqliteLedger::open_read_only(&args.ledger).await?;
    let trust = Trust::EndingWith(signer.public_key().to_owned());
    let mut first = None;
    let records = verified(&ledger, trust, |record| {
        first.get_or_insert(record.hash);
    })
    .await;
    ledger.close().await;
    let Some(summary) = held(records, out)? else { return Ok(EXIT_FAILED) };
    let Some(first) = first else {
        writeln!(out, "{}: there is no record yet", args.ledger.display())?;
        return Ok(EXIT_FAILED);
    };
    let checkpoint = Checkpoint::new(&first, summary.records, &summary.head);
    if args.verifier_key {
        writeln!(out, "{}", verifier_key(&checkpoint.origin, signer.public_key()))?;
    } else {
        write!(out, "{}", checkpoint.sign(&signer))?;
    }
    Ok(EXIT_OK)
}

/// Appends the record by which the new key takes over.
///
/// # Errors
/// When another rollbackd uses the ledger, it or a key cannot be read, or nothing be written.
pub(super) async fn rotate(args: &RotateArgs, out: &mut impl Write) -> Result<u8, CommandError> {
    let (old, new) = (Signer::load(&args.signing_key)?, Signer::load(&args.new_key)?);
    if old.public_key() == new.public_key() {
        writeln!(out, "both files hold the same key")?;
        return Ok(EXIT_FAILED);
    }
    let _lock = lock(&args.ledger)?;
    // Looked at first: a ledger is not made where there is none.
    let reading = SqliteLedger::open_read_only(&args.ledger).await?;
    let trust = Trust::EndingWith(old.public_key().to_owned());
    let records = verified(&reading, trust, drop).await;
    reading.close().await;
    let Some(summary) = held(records, out)? else { return Ok(EXIT_FAILED) };
    let word = Word { actor: args.actor.clone(), reason: args.reason.clone() };
    let key = old.public_key().to_owned();
    let draft = rotation::draft(SystemClock.now(), &key, &new, &summary.head, word);
    let ledger = SqliteLedger::open(&args.ledger, old).await?;
    let appended = ledger.append(summary.records, vec![draft]).await;
    ledger.close().await;
    appended?;
    writeln!(
        out,
        "record {}: {} takes over from {key}; put it into `signing_key_file`, then start rollbackd",
        summary.records + 1,
        new.public_key()
    )?;
    Ok(EXIT_OK)
}
