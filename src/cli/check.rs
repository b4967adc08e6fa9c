//! `rollbackd check`: is the configuration good, and the rules with it?

use std::io::{self, Write};
use std::path::PathBuf;

use crate::config::{Config, parse as config};
use crate::rules::parse::{self as rules, Fleets};

/// Arguments of `check`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The configuration file; its rule files are checked too
    #[arg(long, short, value_name = "FILE", default_value = "rollbackd.yml")]
    pub config: PathBuf,
}

/// Prints every problem of the config and its rules to `out`, or how much is good.
///
/// Gives the exit code: 0 if there is no problem, else 1.
///
/// # Errors
/// When `out` cannot be written.
pub fn run(args: &Args, out: &mut impl Write) -> io::Result<u8> {
    let config = config::read(&args.config);
    let fleets = config.config.as_ref().map(fleets);
    let rules = rules::read(&config.rule_files, fleets.as_ref());
    let problems = config.problems.iter().chain(&rules.problems);
    let mut good = true;
    for problem in problems {
        good = false;
        writeln!(out, "{problem}")?;
    }
    if !good {
        return Ok(1);
    }
    let groups = &rules.rules.groups;
    let count: usize = groups.iter().map(|group| group.sessions.len() + group.values.len()).sum();
    writeln!(
        out,
        "ok: {}, {} in {}",
        counted(config.config.map_or(0, |config| config.fleets.len()), "fleet"),
        counted(count, "rule"),
        counted(rules.files, "file"),
    )?;
    Ok(0)
}

/// What the rules need to know of the config.
#[must_use]
pub fn fleets(config: &Config) -> Fleets {
    config.fleets.iter().map(|fleet| (fleet.name.clone(), fleet.observe_for)).collect()
}

fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}
