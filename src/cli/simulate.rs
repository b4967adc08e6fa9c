//! `rollbackd simulate`: what a rule would do to rollouts like yours, many times over.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;

use self::given::{Failures, PerSecond, SharePath};
use super::{CommandError, EXIT_OK};
use crate::domain::evidence::{DetectorSettings, POOL_SESSIONS};
use crate::domain::share::{Share, Tolerance};
use crate::evaluate::observed::observation_ticks;
use crate::simulate::traffic::{Scenario, Traffic, random};
use crate::simulate::trial::{End, Judge, Trial};

mod given;
mod picture;
mod rule;
mod table;

pub use rule::NoSuchRule;

/// Simulate rollouts under a rule: how often a healthy one is rolled back, and how soon a bad one.
///
/// For choosing `observe_for`, `tolerance`, `ceiling` and `false_rollback_rate`. Sessions arrive
/// at random, last an exponential time and fail at set-up or in mid-call; each run is judged tick
/// by tick as `run` would judge it. No Prometheus is needed.
///
/// The rule is one of the config's (`--rule`), or made of the options; with `--rule`, options
/// overrule what the config says.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  rollbackd simulate --rate 0.2/s --baseline-ratio 1% --ceiling 5%\n  \
    rollbackd simulate --rule SessionsFailing --rate 30/m --session-length 4m \\\n    \
    --baseline-ratio 2% --share 5%..95% --plot rule.svg"
)]
pub struct SimulateArgs {
    /// Sessions started by both versions together: `2/s`, `30/m` or `500/h`.
    #[arg(long, value_name = "RATE")]
    rate: PerSecond,
    /// The share of sessions that the baseline fails.
    #[arg(long, value_name = "SHARE")]
    baseline_ratio: Share,
    /// The mean length of a session.
    #[arg(long, value_name = "DURATION", default_value = "3m", value_parser = given::duration)]
    session_length: Duration,
    /// The candidate's share of new sessions; `5%..95%` moves from one to the other.
    #[arg(long, value_name = "SHARE", default_value = "50%")]
    share: SharePath,
    /// When sessions fail.
    #[arg(long, value_name = "WHEN", default_value = "mixed")]
    failures: Failures,
    /// How many times the baseline's share bad candidates fail.
    #[arg(
        long,
        value_name = "FACTORS",
        value_delimiter = ',',
        default_value = "1.5x,2x,3x,5x,10x"
    )]
    regressions: Vec<Tolerance>,
    /// Bad candidates are as good as the baseline for so long.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = humantime::parse_duration)]
    worse_after: Duration,

    /// A rule of the config, `NAME` or `GROUP/NAME`.
    #[arg(long, value_name = "RULE")]
    rule: Option<String>,
    /// The config that `--rule` is looked up in.
    #[arg(long, short, value_name = "FILE", default_value = "rollbackd.yml")]
    config: PathBuf,
    /// Never more than this share may fail.
    #[arg(long, value_name = "SHARE")]
    ceiling: Option<Share>,
    /// Never more than this times the baseline's share; 1x if there is no ceiling either.
    #[arg(long, value_name = "FACTOR")]
    tolerance: Option<Tolerance>,
    /// The chance that a healthy candidate is convicted, over all tests and looks [default: 0.1%]
    #[arg(long, value_name = "SHARE")]
    false_rollback_rate: Option<Share>,
    /// How long a candidate is observed [default: 1h]
    #[arg(long, value_name = "DURATION", value_parser = given::duration)]
    observe_for: Option<Duration>,
    /// How much of the baseline's past may serve as control [default: 6h]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    history: Option<Duration>,
    /// The length of a tick [default: 15s]
    #[arg(long, value_name = "DURATION", value_parser = given::duration)]
    interval: Option<Duration>,

    /// Runs for each row of the table.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    runs: u64,
    /// The same seed gives the same runs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How the result is written.
    #[arg(long, default_value = "table")]
    format: Format,
    /// Draws the result into this file: `.svg`, or `.html`.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Columns for people.
    Table,
    /// One JSON document.
    Json,
    /// One line for each size of a regression.
    Csv,
}

/// The rule and the fleet's settings, wherever they came from.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Setting {
    tolerance: Option<Tolerance>,
    ceiling: Option<Share>,
    dispersion: Option<f64>,
    false_rollback_rate: Share,
    observe_for: Duration,
    history: Duration,
    interval: Duration,
    threshold_log10: f64,
}

/// What came of all runs with one size of a regression.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    /// Times the baseline's share; 1 for a candidate no worse.
    factor: f64,
    /// The share that the candidate fails.
    ratio: f64,
    /// Whether the rule allows that much: then every conviction is a false one.
    allowed: bool,
    runs: usize,
    suspect: usize,
    /// Of the convicted, each sorted: seconds until then, sessions and failed sessions by then.
    seconds: Vec<f64>,
    started: Vec<u64>,
    failed: Vec<u64>,
}

/// Runs the command; gives the exit code.
///
/// # Errors
/// When the rule cannot be had, or the output or the plot cannot be written.
pub fn run(args: &SimulateArgs, out: &mut impl Write) -> Result<u8, CommandError> {
    let setting = args.setting()?;
    let mut factors: Vec<f64> = args.regressions.iter().map(|factor| factor.get()).collect();
    factors.insert(0, 1.0);
    factors.sort_by(f64::total_cmp);
    factors.dedup();
    let progress = progress(args.runs * factors.len() as u64);
    let rows: Vec<Row> =
        factors.iter().map(|factor| args.row(&setting, *factor, &progress)).collect();
    progress.finish_and_clear();
    table::write(args, &setting, &rows, out)?;
    if let Some(path) = &args.plot {
        picture::write(path, &setting, &rows)?;
    }
    Ok(EXIT_OK)
}

/// On stderr, and only if that is a terminal.
fn progress(steps: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {percent} % of {len} rollouts, {eta} left");
    let bar = ProgressBar::new(steps);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

impl SimulateArgs {
    fn row(&self, setting: &Setting, factor: f64, progress: &ProgressBar) -> Row {
        let baseline = self.baseline_ratio.get();
        let ratio = (baseline * factor).min(1.0);
        let ticks = observation_ticks(setting.observe_for, setting.interval);
        let tick_seconds = setting.interval.as_secs_f64();
        let scenario = Scenario {
            traffic: Traffic {
                rate: self.rate.get(),
                session_seconds: self.session_length.as_secs_f64(),
                at_set_up: self.failures.at_set_up(),
            },
            shape: self.share.shape(),
            baseline_share: baseline,
            candidate_share: ratio,
            worse_from: whole_ticks(self.worse_after, setting.interval),
            ticks: usize::try_from(ticks).unwrap_or(usize::MAX),
            tick_seconds,
            history_seconds: setting.history.as_secs_f64(),
        };
        let judge = Judge {
            settings: DetectorSettings {
                observation_ticks: ticks,
                tolerance: setting.tolerance,
                ceiling: setting.ceiling,
                dispersion: setting.dispersion.unwrap_or(1.0),
                pool_sessions: POOL_SESSIONS,
            },
            measured: setting.dispersion.is_none(),
            threshold_log10: setting.threshold_log10,
        };
        let one = |run| {
            // The same draws for every size of a regression: rows differ by that alone.
            let trial = judge.judge(&scenario.draw(&mut random(self.seed, 0, run)));
            progress.inc(1);
            trial
        };
        let trials: Vec<Trial> = (0..self.runs).into_par_iter().map(one).collect();
        Row::new(factor, ratio, setting.allows(factor, ratio), &trials, tick_seconds)
    }
}

fn whole_ticks(duration: Duration, interval: Duration) -> usize {
    usize::try_from(duration.as_millis() / interval.as_millis().max(1)).unwrap_or(usize::MAX)
}

impl Setting {
    fn allows(&self, factor: f64, ratio: f64) -> bool {
        self.tolerance.is_none_or(|tolerance| factor <= tolerance.get())
            && self.ceiling.is_none_or(|ceiling| ratio <= ceiling.get())
    }
}

impl Row {
    fn new(factor: f64, ratio: f64, allowed: bool, trials: &[Trial], tick_seconds: f64) -> Self {
        let mut row = Self {
            factor,
            ratio,
            allowed,
            runs: trials.len(),
            suspect: 0,
            seconds: Vec::new(),
            started: Vec::new(),
            failed: Vec::new(),
        };
        for trial in trials {
            match trial.end {
                End::Convicted(tick) => {
                    row.seconds.push((tick + 1) as f64 * tick_seconds);
                    row.started.push(trial.started);
                    row.failed.push(trial.failed);
                }
                End::Suspect => row.suspect += 1,
                End::Cleared => {}
            }
        }
        row.seconds.sort_by(f64::total_cmp);
        row.started.sort_unstable();
        row.failed.sort_unstable();
        row
    }

    fn convicted(&self) -> usize {
        self.seconds.len()
    }
}

#[cfg(test)]
mod tests;
