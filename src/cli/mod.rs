//! One file a command. Each writes to the output it is given and gives its exit code.

use std::io;

use crate::plot::CannotDraw;
use crate::ports::ledger::LedgerError;
use crate::signing::KeyFileError;

pub mod audit;
pub mod backtest;
pub mod check;
pub mod client;
pub mod explain;
pub mod judge;
pub mod keygen;
pub mod operate;
pub mod packaging;
pub mod simulate;
pub mod test;

/// The command did what it was asked to.
pub const EXIT_OK: u8 = 0;

/// The command ran, and what it examined does not hold.
pub const EXIT_FAILED: u8 = 1;

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The ledger cannot be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A key cannot be read or made.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// A file of counts does not read.
    #[error(transparent)]
    Counts(#[from] judge::Malformed),
    /// There is nothing to replay.
    #[error(transparent)]
    Backtest(#[from] backtest::NoBacktest),
    /// The file of what is known does not read.
    #[error(transparent)]
    Known(#[from] backtest::Unreadable),
    /// There is no rule to judge by.
    #[error(transparent)]
    NoRule(#[from] judge::NoRule),
    /// There is no rule to simulate.
    #[error(transparent)]
    Rule(#[from] simulate::NoSuchRule),
    /// A plot cannot be drawn.
    #[error(transparent)]
    Plot(#[from] CannotDraw),
    /// A file that is needed cannot be used.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The running rollbackd did not answer.
    #[error("{url}: {reason}")]
    Unanswered {
        /// Where it was asked.
        url: String,
        /// What happened.
        reason: String,
    },
    /// The running rollbackd does not tell: it does not know it, or may not.
    #[error("{0}")]
    Unknown(String),
    /// Prometheus cannot be asked.
    #[error("{0}")]
    Unconnected(String),
    /// Prometheus gave no answer.
    #[error(transparent)]
    Unasked(#[from] crate::ports::metrics::MetricError),
    /// What a test decides contradicts what it decided before.
    #[error("{0}")]
    Contradiction(String),
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

/// `1 rule`, `2 rules`.
fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}
