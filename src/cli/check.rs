//! `rollbackd check`: is the configuration good, and the rules with it? And with `--online`: do
//! they fit what Prometheus has?

use std::io::Write;
use std::path::PathBuf;

use clap::ValueEnum;

use self::finding::{Finding, Level};
use super::{CommandError, EXIT_FAILED, EXIT_OK, counted};
use crate::config::{Config, ServerConfig, parse as config};
use crate::domain::time::Timestamp;
use crate::rules::{RuleSet, parse as rules};

mod finding;
mod online;
mod traffic;

pub use online::Server;

/// Report every problem of a config file and its rules.
///
/// With `--online` it also asks Prometheus: whether each series exists, carries its labels and is
/// a counter or a gauge as it must be, whether a ceiling lies below what the baseline fails by
/// itself, and how long a regression would take to be found at this fleet's own traffic.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 good, 1 there is an error or Prometheus refused a question, 2 \
    Prometheus gave no answer (what was found before that is printed).\n\nExamples:\n  rollbackd check --online\n  rollbackd check --format github   # annotations for a \
    pull request"
)]
pub struct Args {
    /// The configuration file; its rule files are checked too
    #[arg(long, short, value_name = "FILE", default_value = "rollbackd.yml")]
    pub config: PathBuf,
    /// Ask Prometheus too
    #[arg(long)]
    pub online: bool,
    /// How findings are written
    #[arg(long, default_value = "text")]
    pub format: Format,
}

/// How findings are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A line each, for people.
    Text,
    /// One JSON object.
    Json,
    /// Workflow commands, which GitHub shows beside the lines of a pull request.
    Github,
}

/// Prints every finding on the config and its rules to `out`, or how much is good. `server` is
/// asked for with `--online`.
///
/// Gives the exit code: 0 if there is no error, else 1.
///
/// # Errors
/// When `out` cannot be written, or Prometheus gives no answer; what was found before has been
/// printed by then.
pub async fn run<S: Server>(
    args: &Args,
    server: impl FnOnce(&ServerConfig) -> Result<S, String>,
    now: Timestamp,
    out: &mut impl Write,
) -> Result<u8, CommandError> {
    let mut checked = read(&args.config);
    let mut broke_off = None;
    if let Some((config, rules)) = checked.good.as_ref().filter(|_| args.online) {
        let server = server(&config.prometheus).map_err(CommandError::Unconnected)?;
        let file = args.config.display().to_string();
        let examined = online::examine(&server, (&file, config), rules, now).await;
        checked.findings.extend(examined.findings);
        checked.partial = examined.refused || examined.broke_off.is_some();
        broke_off = examined.broke_off;
    }
    match args.format {
        Format::Text => text(&checked, broke_off.is_none(), out)?,
        Format::Json => finding::json(&checked.findings, checked.partial, out)?,
        Format::Github => finding::github(&checked.findings, out)?,
    }
    if let Some(error) = broke_off {
        return Err(error.into());
    }
    let wrong = checked.findings.iter().any(|finding| finding.level == Level::Error);
    Ok(if wrong { EXIT_FAILED } else { EXIT_OK })
}

struct Checked {
    findings: Vec<Finding>,
    /// If there is no problem.
    good: Option<(Config, RuleSet)>,
    files: usize,
    /// Whether Prometheus did not say all that it was asked.
    partial: bool,
}

fn read(path: &std::path::Path) -> Checked {
    let config = config::read(path);
    let fleets = config.config.as_ref().map(Config::fleet_traits);
    let rules = rules::read(&config.rule_files, fleets.as_ref());
    let problems = config.problems.into_iter().chain(rules.problems);
    let findings: Vec<Finding> = problems.map(Finding::error).collect();
    let good = config.config.filter(|_| findings.is_empty()).map(|config| (config, rules.rules));
    Checked { findings, good, files: rules.files, partial: false }
}

/// The findings and, if all was asked, how good it is as a whole.
fn text(checked: &Checked, all_asked: bool, out: &mut impl Write) -> std::io::Result<()> {
    for finding in &checked.findings {
        writeln!(out, "{finding}")?;
    }
    let good = checked.good.as_ref().filter(|_| all_asked);
    let Some((config, rules)) = good else { return Ok(()) };
    let groups = &rules.groups;
    let count: usize = groups.iter().map(|group| group.sessions.len() + group.values.len()).sum();
    let count_of = |level| checked.findings.iter().filter(|finding| finding.level == level).count();
    let (errors, warnings) = (count_of(Level::Error), count_of(Level::Warning));
    let verdict = match (errors, warnings) {
        (0, 0) => "ok".to_owned(),
        (0, warnings) => format!("ok, with {}", counted(warnings, "warning")),
        (errors, _) => counted(errors, "error"),
    };
    writeln!(
        out,
        "{verdict}: {}, {} in {}",
        counted(config.fleets.len(), "fleet"),
        counted(count, "rule"),
        counted(checked.files, "file"),
    )
}

#[cfg(test)]
mod tests;
