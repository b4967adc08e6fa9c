//! `rollbackd judge`: the detector on a file of counts. Nothing else is needed.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;

use self::counts::{CountsFile, TickCounts};
use self::terms::Terms;
use super::{CommandError, EXIT_OK};
use crate::domain::counts::Counts;
use crate::domain::evidence::{DetectorSettings, POOL_SESSIONS};
use crate::domain::observation::Observation;
use crate::domain::share::{Share, Tolerance};
use crate::domain::verdict::Verdict;

mod counts;
mod terms;

pub use counts::Malformed;
pub use terms::NoRule;

/// The candidate is convicted.
const EXIT_REGRESSED: u8 = 3;

/// Judge a candidate by a file of counts, tick by tick, as `run` would.
///
/// The file is CSV with the columns `time,version,started,failed`, `live` if it is known, and any
/// further ones, by which rows of the same time and version are told apart and summed. `time` is
/// RFC 3339 or in seconds, and a row has what happened since the time before.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Exit codes: 0 not convicted, 3 regressed, 2 the file does not read (what \
    was read up to there is printed).\n\nExample:\n  rollbackd judge counts.csv --baseline v1 \
    --candidate v2 --ceiling 5% --tolerance 1.5x\n  \
    rollbackd judge counts.csv --baseline v1 --candidate v2 --rules rules/openrtc.yml")]
pub struct JudgeArgs {
    /// The counts; `-` reads the standard input.
    #[arg(value_name = "COUNTS.csv")]
    file: PathBuf,
    /// The last good version.
    #[arg(long, value_name = "VERSION")]
    baseline: String,
    /// The version to judge.
    #[arg(long, value_name = "VERSION")]
    candidate: String,
    /// Counts of the baseline from before the rollout, in the same columns.
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// The file has counters since the start of each version, not counts of each tick. The first
    /// time of the file is where they begin.
    #[arg(long)]
    cumulative: bool,
    /// Judge by a rule of this file: its ceiling, tolerance and dispersion. The false rollback rate
    /// is shared by all tests of the file's rules for the same fleet, as in `run`.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ceiling", "tolerance", "dispersion"])]
    rules: Option<PathBuf>,
    /// Which rule, as `rule` or `group/rule`; may be left out where there is only one.
    #[arg(long, value_name = "NAME", requires = "rules")]
    rule: Option<String>,
    /// Never more than this share may fail.
    #[arg(long, value_name = "SHARE")]
    ceiling: Option<Share>,
    /// Never more than this times the baseline's share; 1x if there is no ceiling either.
    #[arg(long, value_name = "FACTOR")]
    tolerance: Option<Tolerance>,
    /// The chance that a healthy candidate is convicted, over all looks.
    #[arg(long, value_name = "SHARE", default_value = "0.1%")]
    false_rollback_rate: Share,
    /// How long a candidate is observed.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    observe_for: Duration,
    /// How much more failures scatter than chance; measured on the history if left out.
    #[arg(long, value_name = "FACTOR", value_parser = dispersion)]
    dispersion: Option<f64>,
    /// How each tick is written.
    #[arg(long, default_value = "table")]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Columns for people.
    Table,
    /// One line a tick.
    Csv,
    /// One JSON object a line.
    Json,
}

fn dispersion(text: &str) -> Result<f64, String> {
    let factor = text.parse().ok().filter(|factor| (1.0..1e6).contains(factor));
    factor.ok_or_else(|| "expected a factor of at least 1".to_owned())
}

/// Runs the command; gives the exit code.
///
/// # Errors
/// When a file does not read, with its line; ticks before that line have been written by then.
pub fn run(args: &JudgeArgs, out: &mut impl Write) -> Result<u8, CommandError> {
    let mut out = io::BufWriter::new(out);
    let terms = Terms::of(args)?;
    let history = match &args.history {
        Some(path) => read_history(args, path)?,
        None => Vec::new(),
    };
    let mut judge =
        Judge { args, terms, history, observation: None, first: None, regressed_at: None };
    let mut file = open(args, &args.file)?;
    judge.head(&mut out)?;
    loop {
        match file.next_tick() {
            Ok(Some(tick)) => judge.take(tick, &mut out)?,
            Ok(None) => break,
            Err(error) => {
                judge.finish(&mut out, "partial: ")?;
                out.flush()?;
                return Err(error.into());
            }
        }
    }
    let code = judge.finish(&mut out, "")?;
    out.flush()?;
    Ok(code)
}

fn open(args: &JudgeArgs, path: &Path) -> Result<CountsFile<Box<dyn Read>>, CommandError> {
    let from: Box<dyn Read> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        let file = File::open(path).map_err(|error| counts::Malformed {
            place: path.display().to_string(),
            reason: error.to_string(),
        })?;
        Box::new(BufReader::new(file))
    };
    Ok(CountsFile::new(path, from, [&args.baseline, &args.candidate], args.cumulative)?)
}

/// The baseline's past, a chunk a tick of the file.
fn read_history(args: &JudgeArgs, path: &Path) -> Result<Vec<Counts>, CommandError> {
    let mut file = open(args, path)?;
    let mut past = Vec::new();
    while let Some(tick) = file.next_tick()? {
        past.push(tick.baseline.unwrap_or_default());
    }
    Ok(past)
}

/// `past`, put together to at most `chunks` chunks of the same number of ticks.
fn chunked(past: &[Counts], chunks: u32) -> Vec<Counts> {
    let chunks = usize::try_from(chunks).unwrap_or(usize::MAX).max(1);
    let size = past.len().div_ceil(chunks).max(1);
    // Live sessions add up as in a pooled tick: they are at risk for all of the chunk.
    let sum = |ticks: &[Counts]| ticks.iter().fold(Counts::default(), |sum, tick| sum + *tick);
    past.chunks(size).map(sum).collect()
}

struct Judge<'a> {
    args: &'a JudgeArgs,
    terms: Terms,
    history: Vec<Counts>,
    /// Made when two times are known, and with them the length of a tick.
    observation: Option<Observation>,
    first: Option<TickCounts>,
    regressed_at: Option<String>,
}

impl Judge<'_> {
    fn begin(&mut self, interval_seconds: f64) -> Observation {
        let ticks = (self.args.observe_for.as_secs_f64() / interval_seconds).clamp(1.0, 1e9);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
        let observation_ticks = ticks as u32;
        let settings = DetectorSettings {
            observation_ticks,
            tolerance: self.terms.tolerance,
            ceiling: self.terms.ceiling,
            dispersion: self.terms.dispersion.unwrap_or(1.0),
            pool_sessions: POOL_SESSIONS,
        };
        let past = chunked(&self.history, observation_ticks);
        Observation::new(settings, self.terms.dispersion.is_none(), past)
    }

    fn take(&mut self, tick: TickCounts, out: &mut impl Write) -> io::Result<()> {
        if let Some(mut observation) = self.observation.take() {
            self.observe(&mut observation, &tick, out)?;
            self.observation = Some(observation);
        } else if let Some(first) = self.first.take() {
            let mut observation = self.begin(tick.at - first.at);
            self.observe(&mut observation, &first, out)?;
            self.observe(&mut observation, &tick, out)?;
            self.observation = Some(observation);
        } else {
            self.first = Some(tick);
        }
        Ok(())
    }

    fn observe(
        &mut self,
        observation: &mut Observation,
        tick: &TickCounts,
        out: &mut impl Write,
    ) -> io::Result<()> {
        observation.observe(tick.candidate, tick.baseline);
        let verdict = observation.verdict(self.terms.threshold_log10);
        if verdict == Verdict::Regressed && self.regressed_at.is_none() {
            self.regressed_at = Some(tick.time.clone());
        }
        let evidence = observation.evidence();
        let sides = [tick.candidate, tick.baseline].map(Option::unwrap_or_default);
        let (time, verdict, control) = (&tick.time, verdict.name(), observation.control().name());
        let [c, b] = sides;
        match self.args.format {
            Format::Table => writeln!(
                out,
                "{time:<26} {verdict:<10} {:>9} {:>9}  {:>7} of {:<7} {:>7} of {:<7} {control}",
                shown(evidence.baseline_log10),
                shown(evidence.ceiling_log10),
                c.failed,
                c.started,
                b.failed,
                b.started,
            ),
            Format::Csv => writeln!(
                out,
                "{time},{verdict},{},{},{control}",
                exact(evidence.baseline_log10),
                exact(evidence.ceiling_log10),
            ),
            Format::Json => writeln!(
                out,
                "{}",
                json!({
                    "time": time,
                    "verdict": verdict,
                    "baseline_log10": evidence.baseline_log10,
                    "ceiling_log10": evidence.ceiling_log10,
                    "control": control,
                })
            ),
        }
    }

    fn head(&self, out: &mut impl Write) -> io::Result<()> {
        match self.args.format {
            Format::Table => writeln!(
                out,
                "{:<26} {:<10} {:>9} {:>9}  {:<18} {:<18} control",
                "time", "verdict", "baseline", "ceiling", "candidate failed", "baseline failed"
            ),
            Format::Csv => writeln!(out, "time,verdict,baseline_log10,ceiling_log10,control"),
            Format::Json => Ok(()),
        }
    }

    /// The sentence at the end, after `mark`; gives the exit code.
    fn finish(&mut self, out: &mut impl Write, mark: &str) -> io::Result<u8> {
        if let Some(first) = self.first.take() {
            // One tick alone: it is the whole observation.
            let mut observation = self.begin(self.args.observe_for.as_secs_f64());
            self.observe(&mut observation, &first, out)?;
            self.observation = Some(observation);
        }
        let threshold = self.terms.threshold_log10;
        let Some(observation) = &self.observation else {
            if self.args.format == Format::Table {
                writeln!(
                    out,
                    "\n{mark}no tick of {} or {}",
                    self.args.candidate, self.args.baseline
                )?;
            }
            return Ok(EXIT_OK);
        };
        let total = observation.total();
        let verdict = observation.verdict(threshold).name();
        let strongest = observation.evidence().strongest_log10().unwrap_or(f64::NEG_INFINITY);
        match self.args.format {
            Format::Table => writeln!(
                out,
                "\n{mark}{}: {} after {} ticks; {} of {} sessions failed, of its control {} of {}; \
                 evidence 10^{strongest:.1}, convicting at 10^{threshold:.1}, dispersion {:.2}",
                self.args.candidate,
                match &self.regressed_at {
                    Some(time) => format!("regressed at {time}"),
                    None => verdict.to_owned(),
                },
                observation.ticks().len(),
                total.candidate.failed,
                total.candidate.started,
                total.control.failed,
                total.control.started,
                observation.settings().dispersion,
            )?,
            Format::Json => writeln!(
                out,
                "{}",
                json!({
                    "candidate": self.args.candidate,
                    "verdict": verdict,
                    "regressed_at": self.regressed_at,
                    "ticks": observation.ticks().len(),
                    "threshold_log10": threshold,
                    "dispersion": observation.settings().dispersion,
                    "partial": !mark.is_empty(),
                })
            )?,
            Format::Csv => {}
        }
        Ok(if self.regressed_at.is_some() { EXIT_REGRESSED } else { EXIT_OK })
    }
}

fn shown(log10: Option<f64>) -> String {
    log10.map_or_else(|| "-".to_owned(), |log10| format!("{log10:.2}"))
}

fn exact(log10: Option<f64>) -> String {
    log10.map_or_else(String::new, |log10| format!("{log10:.6}"))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: JudgeArgs,
    }

    fn judge(csv: &str, more: &[&str]) -> (Result<u8, String>, String) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("counts.csv");
        std::fs::write(&path, csv).unwrap();
        let all = ["judge", path.to_str().unwrap(), "--baseline", "v1", "--candidate", "v2"];
        let line = Line::try_parse_from(all.iter().chain(more)).unwrap();
        let mut out = Vec::new();
        let code = run(&line.args, &mut out).map_err(|error| error.to_string());
        let place = directory.path().display().to_string() + "/";
        (code.map_err(|error| error.replace(&place, "")), String::from_utf8(out).unwrap())
    }

    fn ticks(count: u64, v2: impl Fn(u64) -> (u64, u64)) -> String {
        let mut csv = "time,version,started,failed\n".to_owned();
        for tick in 0..count {
            let (started, failed) = v2(tick);
            write!(csv, "{},v1,20,0\n{},v2,{started},{failed}\n", tick * 15, tick * 15).unwrap();
        }
        csv
    }

    #[test]
    fn a_regression_is_told_with_its_time_and_exit_code() {
        let (code, out) = judge(&ticks(4, |tick| (20, if tick < 2 { 0 } else { 9 })), &[]);
        assert_eq!(code, Ok(EXIT_REGRESSED));
        insta::assert_snapshot!(out, @r"
        time                       verdict     baseline   ceiling  candidate failed   baseline failed    control
        0                          healthy        -0.30         -        0 of 20            0 of 20      concurrent
        15                         healthy        -0.30         -        0 of 20            0 of 20      concurrent
        30                         suspect         1.87         -        9 of 20            0 of 20      concurrent
        45                         regressed       4.38         -        9 of 20            0 of 20      concurrent

        v2: regressed at 45 after 4 ticks; 18 of 80 sessions failed, of its control 0 of 80; evidence 10^4.4, convicting at 10^3.0, dispersion 1.00
        ");
    }

    #[test]
    fn a_healthy_version_is_not_convicted() {
        let (code, out) = judge(&ticks(40, |_| (20, 0)), &["--ceiling", "5%", "--format", "csv"]);
        assert_eq!(code, Ok(EXIT_OK));
        assert_eq!(out.lines().filter(|line| line.contains(",healthy,")).count(), 40, "{out}");
    }

    #[test]
    fn a_rule_of_a_file_says_what_is_allowed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rules.yml");
        let rule = |name: &str, key: &str| {
            format!("      - {{ name: {name}, started: a, failed: b, {key} }}\n")
        };
        let group = "  - name: g\n    fleet: voice\n    regressions:\n";
        let text =
            format!("groups:\n{group}{}{}", rule("A", "ceiling: 30%"), rule("B", "tolerance: 1x"));
        std::fs::write(&path, text).unwrap();
        let counts = ticks(4, |tick| (20, if tick < 2 { 0 } else { 9 }));
        let rules = ["--rules", path.to_str().unwrap()];
        let by = |name: &str| judge(&counts, &[&rules[..], &["--rule", name]].concat());
        let (code, out) = by("g/A");
        assert_eq!(code, Ok(EXIT_OK), "{out}");
        assert!(out.contains("convicting at 10^3.3"), "two tests share the rate: {out}");
        assert_eq!(by("B").0, Ok(EXIT_REGRESSED));
        let error = by("C").0.unwrap_err();
        assert!(error.ends_with("no session rule is called `C`; there are g/A, g/B"), "{error}");
        let error = judge(&counts, &rules).0.unwrap_err();
        assert!(
            error.ends_with("it has more than one session rule: say `--rule` g/A, g/B"),
            "{error}"
        );
        std::fs::write(&path, "groups: [{}]").unwrap();
        assert!(by("A").0.unwrap_err().contains("rules.yml:1:10: "));
    }

    #[test]
    fn counters_and_counts_are_judged_alike() {
        let counts = ticks(8, |tick| (20, tick));
        let mut cumulative = "time,version,started,failed,agent\n0,v1,500,3,a\n".to_owned();
        // Each version's counters in two slices; v2's restarts once.
        let (mut started, mut failed) = (0, 0);
        for tick in 0..8_u64 {
            let time = (tick + 1) * 15;
            if tick == 4 {
                (started, failed) = (0, 0);
            }
            (started, failed) = (started + 20, failed + tick);
            writeln!(cumulative, "{time},v1,{},3,a", 500 + (tick + 1) * 20).unwrap();
            writeln!(cumulative, "{time},v2,{started},{failed},a\n{time},v2,0,0,b").unwrap();
        }
        let evidence = |out: &str| -> Vec<String> {
            out.lines().skip(1).map(|l| l.split(',').nth(2).unwrap().to_owned()).collect()
        };
        let (_, of_counts) = judge(&counts, &["--format", "csv"]);
        let (_, of_counters) = judge(&cumulative, &["--format", "csv", "--cumulative"]);
        assert_eq!(evidence(&of_counts), evidence(&of_counters));
        assert_eq!(evidence(&of_counts).len(), 8);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_with_its_line_and_what_was_read_is_kept() {
        #[rustfmt::skip]
        let cases = [
            ("",                                              "counts.csv:1: the column `time` is missing"),
            ("time,version,started\n",                        "counts.csv:1: the column `failed` is missing"),
            ("time,version,started,failed\n0,v1,x,0\n",       "counts.csv:2: `started`: `x` is no whole number"),
            ("time,version,started,failed\n0,v1,-1,0\n",      "counts.csv:2: `started`: `-1` is no whole number"),
            ("time,version,started,failed\nsoon,v1,1,0\n",    "counts.csv:2: `time`: `soon` is neither RFC 3339 nor seconds"),
            ("time,version,started,failed\n15,v1,1,0\n0,v1,1,0\n", "counts.csv:3: `time`: `0` is before the row above"),
            ("time,version,started,failed,live\n0,v1,1,0,NaN\n",   "counts.csv:2: `live`: `NaN` is no number of at least 0"),
            ("time,version,started,failed\n0,v1,1\n",         "counts.csv:2: expected 4 fields, found 3"),
        ];
        for (csv, want) in cases {
            assert_eq!(judge(csv, &[]).0, Err(want.to_owned()), "{csv}");
        }
        let (code, out) = judge(&(ticks(3, |_| (20, 0)) + "60,v1,x,0\n"), &[]);
        assert_eq!(code, Err("counts.csv:8: `started`: `x` is no whole number".to_owned()));
        assert!(out.contains("partial: v2: healthy after"), "{out}");
    }
}
