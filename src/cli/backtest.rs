//! `rollbackd backtest`: what the rules would have decided over a time that is past.
//!
//! ```text
//! fetch (query_range, in chunks) ─► replay (as the controller does) ─► stories ─► summary, page
//! ```
//!
//! Discovery, ticks, judgement and the decision table are the controller's own (`evaluate`,
//! `domain`), so what it shows is what would have happened.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};

use self::fetch::Progress;
use self::known::Known;
use self::replay::{Entry, Replayed};
use self::report::Report;
use super::{CommandError, EXIT_OK};
use crate::config::Config;
use crate::domain::time::Timestamp;
use crate::ports::metrics::{MetricError, MetricSource};
use crate::rules::RuleSet;

mod fetch;
mod figures;
mod known;
mod moment;
mod page;
mod replay;
mod report;
mod story;
mod summary;

pub use known::Unreadable;
use moment::Moment;

/// A decision was wrong by what `--known` says, or some part of the time could not be had.
const EXIT_WRONG: u8 = super::EXIT_FAILED;

/// The range was replayed in part only.
const EXIT_PARTIAL: u8 = 2;

/// Entries replayed at a time; each asks several queries at once.
const ENTRIES_AT_A_TIME: usize = 2;

/// Replay the rules over a time that is past, and tell what they would have decided.
///
/// Every appearance of a new version is a rollout, judged look by look as `run` would have judged
/// it with the same config, except that `mode` is taken as `automatic`. Nothing is changed
/// anywhere; only Prometheus is asked.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Exit codes: 0 replayed, 1 a decision is wrong by --known, 2 replayed in \
    part or not at all.\n\nExamples:\n  rollbackd backtest --from -24h\n  rollbackd backtest \
    --from 2026-11-01T00:00:00Z --to 2026-11-08T00:00:00Z \\\n    --known known.yml --html \
    backtest.html")]
pub struct BacktestArgs {
    /// The config file.
    #[arg(short, long, default_value = "rollbackd.yml", value_name = "FILE")]
    pub config: PathBuf,
    /// Where the time begins: RFC 3339, Unix seconds, or before now as in `-24h`.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Moment,
    /// Where it ends.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, default_value = "now")]
    to: Moment,
    /// Only this fleet entry of the config.
    #[arg(long, value_name = "NAME")]
    fleet: Option<String>,
    /// What people know of past versions; see docs/choosing-rules.md.
    #[arg(long, value_name = "FILE")]
    known: Option<PathBuf>,
    /// Writes one self-contained page with plots.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// How the result is written.
    #[arg(long, default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// One JSON document.
    Json,
}

/// Why there is nothing to replay.
#[derive(Debug, thiserror::Error)]
pub enum NoBacktest {
    /// `--to` is not after `--from`.
    #[error("from {from} to {to} is no time: --to must come after --from")]
    EmptyRange {
        /// The beginning.
        from: String,
        /// The end.
        to: String,
    },
    /// More than is sensible to ask for.
    #[error("{ticks} ticks of {interval:?} are more than {max}; ask for less time")]
    TooLong {
        /// How many.
        ticks: u64,
        /// The shortest tick.
        interval: Duration,
        /// The bound.
        max: u64,
    },
    /// No entry of the name.
    #[error("the config has no fleet `{0}`")]
    NoSuchFleet(String),
    /// No worker of any fleet was seen.
    #[error("no worker of {fleets} was seen from {from} to {to}: does Prometheus keep that long?")]
    NoData {
        /// The entries' names.
        fleets: String,
        /// The beginning.
        from: String,
        /// The end.
        to: String,
    },
    /// Nothing at all could be had.
    #[error("nothing could be replayed: {0}")]
    Unanswered(#[from] MetricError),
}

/// Looks that one entry may take at most: a year of 15 s.
const LOOKS_MAX: u64 = 2_200_000;

/// Runs the command; gives the exit code.
///
/// # Errors
/// When there is nothing to replay, or a file does not read or cannot be written.
pub async fn run(
    args: &BacktestArgs,
    config: &Config,
    rules: &RuleSet,
    source: &impl MetricSource,
    now: Timestamp,
    out: &mut impl Write,
) -> Result<u8, CommandError> {
    let known = match &args.known {
        Some(path) => known::read(path)?,
        None => Known::default(),
    };
    let range = (args.from.at(now), args.to.at(now));
    let entries = entries(args, config, rules, range)?;
    let progress = progress(entries.iter().map(|entry| entry.looks(range)).sum());
    let replays = entries.iter().map(|entry| fetch::replay(source, entry, range, &progress));
    let replays = futures::stream::iter(replays).buffered(ENTRIES_AT_A_TIME);
    let replays: Vec<Replayed> = replays.collect().await;
    progress.finish();
    let mut report = Report::new(range, replays, known);
    report.check(&entries)?;
    match args.format {
        Format::Text => summary::write(&report, out)?,
        Format::Json => summary::write_json(&report, out)?,
    }
    if let Some(path) = &args.html {
        std::fs::write(path, page::page(&report)?).map_err(|error| CommandError::File {
            path: path.display().to_string(),
            reason: error.to_string(),
        })?;
    }
    Ok(if report.is_partial() {
        EXIT_PARTIAL
    } else if report.wrong() > 0 {
        EXIT_WRONG
    } else {
        EXIT_OK
    })
}

fn entries(
    args: &BacktestArgs,
    config: &Config,
    rules: &RuleSet,
    (from, to): (Timestamp, Timestamp),
) -> Result<Vec<Entry>, NoBacktest> {
    if from >= to {
        let (from, to) = (figures::time(from), figures::time(to));
        return Err(NoBacktest::EmptyRange { from, to });
    }
    let wanted = |name: &str| args.fleet.as_ref().is_none_or(|fleet| fleet == name);
    let fleets = config.fleets.iter().filter(|fleet| wanted(fleet.name.as_str()));
    let entries: Vec<Entry> =
        fleets.map(|fleet| Entry::new(fleet, rules, config.breaker)).collect();
    if let (Some(fleet), true) = (&args.fleet, entries.is_empty()) {
        return Err(NoBacktest::NoSuchFleet(fleet.clone()));
    }
    for entry in &entries {
        let ticks = entry.looks((from, to));
        if ticks > LOOKS_MAX {
            let interval = entry.interval;
            return Err(NoBacktest::TooLong { ticks, interval, max: LOOKS_MAX });
        }
    }
    Ok(entries)
}

/// On stderr, and only if that is a terminal.
fn progress(looks: u64) -> Progress {
    let style = "{bar:40} {percent} % of {len} looks, {eta} left";
    let bar = ProgressBar::new(looks);
    Progress(match ProgressStyle::with_template(style) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    })
}
