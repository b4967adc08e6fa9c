//! `rollbackd judge`: the detector on a file of counts. Nothing else is needed.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;

use self::counts::{CountsFile, Labels, TickCounts};
use self::past::Past;
use self::terms::Terms;
use self::text::{document, exact, field, shown};
use super::{CommandError, EXIT_OK};
use crate::domain::evidence::{DetectorSettings, POOL_SESSIONS};
use crate::domain::narrow::{SliceWatch, Standout};
use crate::domain::observation::Observation;
use crate::domain::share::{Share, Tolerance};
use crate::domain::verdict::Verdict;

mod counts;
mod past;
mod terms;
mod text;

pub use counts::Malformed;
pub use terms::NoRule;

/// The candidate is convicted.
const EXIT_REGRESSED: u8 = 3;

/// It is convicted, and one slice of its sessions alone fails.
const EXIT_NARROW: u8 = 4;

/// Judge a candidate by a file of counts, tick by tick, as `run` would.
///
/// The file is CSV with the columns `time,version,started,failed`, `live` if it is known, and any
/// further ones, by which rows of the same time and version are told apart and summed. Each value
/// of such a column is a slice: what one of them fails alone is told as such. `time` is RFC 3339 or
/// in seconds, and a row has what happened since the time before.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Exit codes: 0 not convicted, 3 regressed, 4 regressed in one slice alone, \
    2 the file does not read (what was read up to there is printed) or has no row of a version \
    that is named.\n\nExample:\n  rollbackd judge counts.csv --baseline v1 \
    --candidate v2 --ceiling 5% --tolerance 1.5x\n  \
    rollbackd judge counts.csv --baseline v1 --candidate v2 --rules rules/openrtc.yml"
)]
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
    /// The columns whose values are slices; a rule's `narrow_by` with `--rules`, else all further
    /// ones if left out.
    #[arg(long, value_name = "COLUMN", value_delimiter = ',', conflicts_with = "rules")]
    narrow_by: Option<Vec<String>>,
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
/// When a file does not read, with its line, or has no row of a version that is judged; ticks
/// before that have been written by then.
pub fn run(args: &JudgeArgs, out: &mut impl Write) -> Result<u8, CommandError> {
    let mut out = io::BufWriter::new(out);
    let terms = Terms::of(args)?;
    let mut file = open(args, &args.file, &terms.labels)?;
    let labels = file.labels().to_vec();
    let history = match &args.history {
        Some(path) => Past::read(args, path, &labels)?,
        None => Past::default(),
    };
    let needs_baseline = terms.tolerance.is_some() && !history.has_baseline;
    let mut judge = Judge {
        args,
        terms,
        labels,
        history,
        watched: None,
        first: None,
        regressed_at: None,
        narrow_at: None,
        standout: None,
    };
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
    if let Err(error) = file.names_found(needs_baseline) {
        out.flush()?;
        return Err(error.into());
    }
    let code = judge.finish(&mut out, "")?;
    out.flush()?;
    Ok(code)
}

fn open(
    args: &JudgeArgs,
    path: &Path,
    labels: &Labels,
) -> Result<CountsFile<Box<dyn Read>>, CommandError> {
    let from: Box<dyn Read> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        let file = File::open(path).map_err(|error| counts::Malformed {
            place: path.display().to_string(),
            reason: error.to_string(),
        })?;
        Box::new(BufReader::new(file))
    };
    let versions = [&args.baseline, &args.candidate];
    Ok(CountsFile::new(path, from, versions, args.cumulative, labels)?)
}

/// What is known of the candidate.
struct Watched {
    observation: Observation,
    /// None: nothing tells slices apart.
    slices: Option<SliceWatch>,
}

struct Judge<'a> {
    args: &'a JudgeArgs,
    terms: Terms,
    /// The columns whose values are slices.
    labels: Vec<String>,
    history: Past,
    /// Made when two times are known, and with them the length of a tick.
    watched: Option<Watched>,
    first: Option<TickCounts>,
    /// When it was first convicted as a whole, …
    regressed_at: Option<String>,
    /// … and with one slice alone to blame.
    narrow_at: Option<String>,
    /// That slice as of the last tick.
    standout: Option<Standout>,
}

impl Judge<'_> {
    fn begin(&self, interval_seconds: f64) -> Watched {
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
        let (past, by_slice) = self.history.chunked(observation_ticks);
        let (labels, measured) = (&self.labels, self.terms.dispersion.is_none());
        let slices =
            (!labels.is_empty()).then(|| SliceWatch::new(labels, settings, measured, by_slice));
        Watched { observation: Observation::new(settings, measured, past), slices }
    }

    fn take(&mut self, tick: TickCounts, out: &mut impl Write) -> io::Result<()> {
        if let Some(mut watched) = self.watched.take() {
            self.observe(&mut watched, tick, out)?;
            self.watched = Some(watched);
        } else if let Some(first) = self.first.take() {
            let mut watched = self.begin(tick.at - first.at);
            self.observe(&mut watched, first, out)?;
            self.observe(&mut watched, tick, out)?;
            self.watched = Some(watched);
        } else {
            self.first = Some(tick);
        }
        Ok(())
    }

    fn observe(
        &mut self,
        Watched { observation, slices }: &mut Watched,
        tick: TickCounts,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let threshold = self.terms.threshold_log10;
        observation.observe(tick.candidate, tick.baseline);
        let verdict = observation.verdict(threshold);
        let mut of_slice = None;
        if let Some(slices) = slices {
            slices.observe(tick.parts);
            if verdict == Verdict::Regressed {
                of_slice = slices.narrow(observation, threshold);
            }
        }
        if verdict == Verdict::Regressed {
            let at = if of_slice.is_some() { &mut self.narrow_at } else { &mut self.regressed_at };
            at.get_or_insert_with(|| tick.time.clone());
        }
        self.standout = of_slice;
        let slice = self.standout.as_ref().map(|standout| &standout.slice);
        let evidence = observation.evidence();
        let sides = [tick.candidate, tick.baseline].map(Option::unwrap_or_default);
        let (time, verdict, control) = (&tick.time, verdict.name(), observation.control().name());
        let [c, b] = sides;
        match self.args.format {
            Format::Table => writeln!(
                out,
                "{time:<26} {verdict:<10} {:>9} {:>9}  {:>7} of {:<7} {:>7} of {:<7} {}",
                shown(evidence.baseline_log10),
                shown(evidence.ceiling_log10),
                c.failed,
                c.started,
                b.failed,
                b.started,
                match slice {
                    Some(slice) => format!("{control:<10} {slice}"),
                    None => control.to_owned(),
                },
            ),
            Format::Csv => writeln!(
                out,
                "{time},{verdict},{},{},{control}{}",
                exact(evidence.baseline_log10),
                exact(evidence.ceiling_log10),
                if self.labels.is_empty() { String::new() } else { format!(",{}", field(slice)) },
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
                    "slice": document(slice),
                })
            ),
        }
    }

    fn head(&self, out: &mut impl Write) -> io::Result<()> {
        match self.args.format {
            Format::Table => writeln!(
                out,
                "{:<26} {:<10} {:>9} {:>9}  {:<18} {:<18} {}",
                "time",
                "verdict",
                "baseline",
                "ceiling",
                "candidate failed",
                "baseline failed",
                if self.labels.is_empty() { "control" } else { "control    slice" },
            ),
            Format::Csv => {
                let slice = if self.labels.is_empty() { "" } else { ",slice" };
                writeln!(out, "time,verdict,baseline_log10,ceiling_log10,control{slice}")
            }
            Format::Json => Ok(()),
        }
    }

    /// The sentence at the end, after `mark`; gives the exit code.
    fn finish(&mut self, out: &mut impl Write, mark: &str) -> io::Result<u8> {
        if let Some(first) = self.first.take() {
            // One tick alone: it is the whole observation.
            let mut watched = self.begin(self.args.observe_for.as_secs_f64());
            self.observe(&mut watched, first, out)?;
            self.watched = Some(watched);
        }
        let threshold = self.terms.threshold_log10;
        let Some(Watched { observation, .. }) = &self.watched else {
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
                 evidence 10^{strongest:.1}, convicting at 10^{threshold:.1}, dispersion {:.2}{}",
                self.args.candidate,
                match (&self.regressed_at, &self.narrow_at, &self.standout) {
                    (Some(time), ..) => format!("regressed at {time}"),
                    (None, Some(time), Some(now)) => {
                        format!("regressed at {time} in {} alone", now.slice)
                    }
                    (None, Some(time), None) => {
                        format!("regressed at {time} in one slice alone")
                    }
                    (None, None, _) => verdict.to_owned(),
                },
                observation.ticks().len(),
                total.candidate.failed,
                total.candidate.started,
                total.control.failed,
                total.control.started,
                observation.settings().dispersion,
                match (&self.regressed_at, &self.standout) {
                    (None, Some(standout)) => format!("; {standout}"),
                    (Some(_), _) | (None, None) => String::new(),
                },
            )?,
            Format::Json => writeln!(
                out,
                "{}",
                json!({
                    "candidate": self.args.candidate,
                    "verdict": verdict,
                    "regressed_at": self.regressed_at,
                    "narrow_at": self.narrow_at,
                    "slice": document(self.standout.as_ref().map(|standout| &standout.slice)),
                    "ticks": observation.ticks().len(),
                    "threshold_log10": threshold,
                    "dispersion": observation.settings().dispersion,
                    "partial": !mark.is_empty(),
                })
            )?,
            Format::Csv => {}
        }
        Ok(match (&self.regressed_at, &self.narrow_at) {
            (Some(_), _) => EXIT_REGRESSED,
            (None, Some(_)) => EXIT_NARROW,
            (None, None) => EXIT_OK,
        })
    }
}

#[cfg(test)]
mod tests;
