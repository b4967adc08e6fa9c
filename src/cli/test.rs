//! `rollbackd test`: unit tests for rules, in promtool's manner.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;

use self::file::{Expected, Test, TestFile};
use self::run::{Figures, Moment, Story};
use super::{CommandError, EXIT_FAILED, EXIT_OK};

mod file;
mod inputs;
mod run;
mod series;

/// Moments shown before the one in question, and after it.
const SHOWN: (usize, usize) = (6, 2);

/// Test rules on series written by hand.
///
/// A test file has the shape of promtool's: `rule_files`, and `tests` with `input_series` in
/// promtool's notation (`0+10x40`, `_`, `stale`). What is expected at a time is a verdict of a rule
/// (`verdict_test`) or the decision on a version (`decision_test`). See docs/trying-rules.md.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Exit codes: 0 every test passes, 1 one fails, 2 a file does not read.\n\n\
    Example:\n  rollbackd test rules/*.test.yml")]
pub struct TestArgs {
    /// The test files.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

/// Runs every test of every file; gives the exit code.
///
/// # Errors
/// When `out` cannot be written, or what is decided contradicts itself.
pub fn run(args: &TestArgs, out: &mut impl Write) -> Result<u8, CommandError> {
    let (mut tests, mut failed, mut unread) = (0_usize, 0_usize, 0_usize);
    for path in &args.files {
        let file = match file::read(path) {
            Ok(file) => file,
            Err(problems) => {
                unread += 1;
                problems.iter().try_for_each(|problem| writeln!(out, "{problem}"))?;
                continue;
            }
        };
        for test in &file.tests {
            tests += 1;
            let story = run::run(&file, test)
                .map_err(|why| CommandError::Contradiction(format!("{}: {why}", test.name)))?;
            let wrong = examine(&path.display().to_string(), &file, test, &story, out)?;
            failed += usize::from(wrong);
        }
    }
    let counted = |count: usize, noun| super::counted(count, noun);
    if unread > 0 {
        let (unread, tests) = (counted(unread, "file"), counted(tests, "test"));
        writeln!(out, "not read: {unread}; {failed} of {tests} in the others failed")?;
        return Ok(2);
    }
    if failed > 0 {
        writeln!(out, "failed: {failed} of {}", counted(tests, "test"))?;
        return Ok(EXIT_FAILED);
    }
    writeln!(out, "ok: {} in {}", counted(tests, "test"), counted(args.files.len(), "file"))?;
    Ok(EXIT_OK)
}

/// Tells what is not as expected; whether there is anything.
fn examine(
    path: &str,
    file: &TestFile,
    test: &Test,
    story: &Story,
    out: &mut impl Write,
) -> io::Result<bool> {
    let mut wrong = false;
    for expected in &test.expected {
        let key = (expected.fleet.clone(), expected.version.clone());
        let moments = story.get(&key).map_or(&[][..], Vec::as_slice);
        let found = found(moments, expected);
        if found == expected.text() || expected.slice.is_none() && word(&found) == expected.word {
            continue;
        }
        wrong = true;
        let what = match &expected.rule {
            Some(rule) => format!("verdict of {rule} on {}", expected.version),
            None => format!("decision on {}", expected.version),
        };
        writeln!(
            out,
            "{path}:{}:{}: \"{}\": {what} at {}: expected {}, got {found}",
            expected.place.line,
            expected.place.column,
            test.name,
            expected.eval_time,
            expected.text(),
        )?;
        write!(out, "{}", evidence(moments, expected, file, story))?;
    }
    Ok(wrong)
}

/// The last moment that is not after the time in question.
fn before(moments: &[Moment], expected: &Expected) -> usize {
    moments.partition_point(|moment| moment.at <= expected.at)
}

/// The verdict, or the decision with the slice that it is about.
fn found(moments: &[Moment], expected: &Expected) -> String {
    let last = before(moments, expected).checked_sub(1).and_then(|index| moments.get(index));
    let Some(moment) = last else { return "none".to_owned() };
    match &expected.rule {
        None => moment.said(),
        Some(rule) => {
            let said = moment.rules.iter().find(|said| said.rule == *rule);
            said.map_or("none", |said| said.verdict).to_owned()
        }
    }
}

/// A decision without the slice that it is about.
fn word(decision: &str) -> &str {
    decision.split(' ').next().unwrap_or_default()
}

/// A table of the looks around the time in question.
fn evidence(moments: &[Moment], expected: &Expected, file: &TestFile, story: &Story) -> String {
    if moments.is_empty() {
        let judged: Vec<String> =
            story.keys().map(|(fleet, version)| format!("{version} of {fleet}")).collect();
        let judged = if judged.is_empty() { "nothing".to_owned() } else { judged.join(", ") };
        let fleets: Vec<&str> = file.fleets.iter().map(|config| config.name.as_str()).collect();
        return format!(
            "    {} of {} was never under observation; {judged} was (fleets: {})\n",
            expected.version,
            expected.fleet,
            fleets.join(", "),
        );
    }
    let middle = before(moments, expected);
    let shown = middle.saturating_sub(SHOWN.0)..(middle + SHOWN.1).min(moments.len());
    let mut lines = format!(
        "    {:<9} {:<11} {:<9} {:>9} {:>9}  {:<17} {:<17} {:<10} rule\n",
        "time",
        "decision",
        "verdict",
        "baseline",
        "ceiling",
        "candidate failed",
        "control failed",
        "control"
    );
    for (index, moment) in moments.iter().enumerate().take(shown.end).skip(shown.start) {
        let mark = if index + 1 == middle { ">" } else { " " };
        let of_rule = |said: &&run::Said| expected.rule.as_ref().is_none_or(|r| *r == said.rule);
        for said in moment.rules.iter().filter(of_rule) {
            lines.push_str(&row(mark, moment, said));
        }
    }
    lines
}

fn row(mark: &str, moment: &Moment, said: &run::Said) -> String {
    let seconds = std::time::Duration::from_secs_f64(moment.at.as_seconds().max(0.0));
    let time = humantime::format_duration(seconds).to_string().replace(' ', "");
    let head = format!("  {mark} {time:<9} {:<11} {:<9}", moment.decision.name(), said.verdict);
    let log10 = |log10: Option<f64>| log10.map_or("-".to_owned(), |log10| format!("{log10:.2}"));
    match &said.of {
        Figures::Value(value) => {
            let value = value.map_or("no value".to_owned(), |value| value.to_string());
            format!("{head} {value:>9} {:>9}  {:<17} {:<17} {:<10} {}\n", "", "", "", "", said.rule)
        }
        Figures::Sessions { evidence, candidate, control, control_kind } => format!(
            "{head} {:>9} {:>9}  {:<17} {:<17} {control_kind:<10} {}\n",
            log10(evidence.baseline_log10),
            log10(evidence.ceiling_log10),
            format!("{} of {}", candidate.failed, candidate.started),
            format!("{} of {}", control.failed, control.started),
            said.rule,
        ),
    }
}

#[cfg(test)]
mod tests;
