//! The result of `simulate` in figures.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::json;

use super::{Format, Row, Setting, SimulateArgs};
use crate::domain::share::{Share, Tolerance};
use crate::simulate::statistics::{quantile, wilson};

pub(super) fn write(
    args: &SimulateArgs,
    setting: &Setting,
    rows: &[Row],
    out: &mut impl Write,
) -> io::Result<()> {
    match args.format {
        Format::Table => {
            head(args, setting, out)?;
            for row in rows {
                writeln!(out, "{}", line(row))?;
            }
            tail(setting, rows, out)
        }
        Format::Csv => csv(rows, out),
        Format::Json => {
            let rows: Vec<_> = rows.iter().map(document).collect();
            let all = json!({
                "tolerance": setting.tolerance.map(Tolerance::get),
                "ceiling": setting.ceiling.map(Share::get),
                "false_rollback_rate": setting.false_rollback_rate.get(),
                "threshold_log10": setting.threshold_log10,
                "observe_for_seconds": setting.observe_for.as_secs_f64(),
                "history_seconds": setting.history.as_secs_f64(),
                "interval_seconds": setting.interval.as_secs_f64(),
                "sessions_per_second": args.rate.get(),
                "session_seconds": args.session_length.as_secs_f64(),
                "baseline_ratio": args.baseline_ratio.get(),
                "seed": args.seed,
                "rows": rows,
            });
            writeln!(out, "{all:#}")
        }
    }
}

fn head(args: &SimulateArgs, setting: &Setting, out: &mut impl Write) -> io::Result<()> {
    let tests = [
        setting.ceiling.map(|ceiling| format!("ceiling {ceiling}")),
        setting.tolerance.map(|tolerance| format!("tolerance {tolerance}")),
    ];
    let tests: Vec<String> = tests.into_iter().flatten().collect();
    let shape = args.share.shape();
    let percent = |share: f64| format!("{:.3}", share * 100.0);
    let percent = |share| percent(share).trim_end_matches('0').trim_end_matches('.').to_owned();
    let takes = if shape.first.total_cmp(&shape.last).is_eq() {
        format!("{}%", percent(shape.first))
    } else {
        format!("{}%, in the end {}%", percent(shape.first), percent(shape.last))
    };
    writeln!(
        out,
        "{}; at most {} false rollbacks: convicting at 10^{:.1}",
        tests.join(", "),
        setting.false_rollback_rate,
        setting.threshold_log10,
    )?;
    writeln!(
        out,
        "{} sessions/s, {} long; the baseline fails {}; the candidate takes {takes}",
        args.rate.get(),
        text(args.session_length),
        args.baseline_ratio,
    )?;
    writeln!(
        out,
        "observed for {} every {}, {} of history; {} rollouts a row, seed {}\n",
        text(setting.observe_for),
        text(setting.interval),
        text(setting.history),
        args.runs,
        args.seed,
    )?;
    writeln!(
        out,
        "{:<11} {:>7} {:>8} {:>10} {:<15} {:>8}  {:>8} {:>8} {:>9} {:>9} {:>7}",
        "regression",
        "fails",
        "allowed",
        "convicted",
        "(95 %)",
        "suspect",
        "time p50",
        "p95",
        "sessions",
        "p95",
        "failed",
    )
}

fn line(row: &Row) -> String {
    let (low, high) = wilson(row.convicted(), row.runs);
    let share = |count: usize| 100.0 * count as f64 / row.runs as f64;
    let time = |q| quantile(&row.seconds, q).map_or_else(dash, |s| text(whole_seconds(s)));
    let count = |of: &[u64], q| quantile(of, q).map_or_else(dash, |count| count.to_string());
    let name = if row.factor > 1.0 { format!("{}x", round(row.factor)) } else { "none".to_owned() };
    format!(
        "{name:<11} {:>6}% {:>8} {:>8.2} % {:<15} {:>6.2} %  {:>8} {:>8} {:>9} {:>9} {:>7}",
        round(row.ratio * 100.0),
        if row.allowed { "yes" } else { "no" },
        share(row.convicted()),
        format!("({:.2}–{:.2})", low * 100.0, high * 100.0),
        share(row.suspect),
        time(0.5),
        time(0.95),
        count(&row.started, 0.5),
        count(&row.started, 0.95),
        count(&row.failed, 0.5),
    )
}

/// What the columns mean, and which rows show a wrong decision.
fn tail(setting: &Setting, rows: &[Row], out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "\nTime, and the candidate's sessions and failed sessions until then, are of the convicted \
         rollouts.\nSuspect: not convicted within {}, and ten to one against it: `when_unsure` \
         decides.\nWhere the rule allows the regression, a conviction is a false rollback.",
        text(setting.observe_for)
    )?;
    let missed = |row: &&Row| !row.allowed && row.convicted() * 2 < row.runs;
    if let Some(row) = rows.iter().filter(missed).max_by(|a, b| a.factor.total_cmp(&b.factor)) {
        writeln!(
            out,
            "A regression of {}x is found in fewer than half of the rollouts: observe for longer, \
             give the candidate more sessions, or allow less.",
            round(row.factor)
        )?;
    }
    Ok(())
}

fn csv(rows: &[Row], out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "factor,ratio,allowed,runs,convicted,convicted_low,convicted_high,suspect,\
         seconds_p50,seconds_p95,sessions_p50,sessions_p95,failed_p50,failed_p95"
    )?;
    for row in rows {
        let (low, high) = wilson(row.convicted(), row.runs);
        let seconds = |q| quantile(&row.seconds, q).map_or_else(String::new, |s| s.to_string());
        let count = |of: &[u64], q| quantile(of, q).map_or_else(String::new, |c| c.to_string());
        writeln!(
            out,
            "{},{},{},{},{},{low:.6},{high:.6},{},{},{},{},{},{},{}",
            round(row.factor),
            round(row.ratio),
            row.allowed,
            row.runs,
            row.convicted(),
            row.suspect,
            seconds(0.5),
            seconds(0.95),
            count(&row.started, 0.5),
            count(&row.started, 0.95),
            count(&row.failed, 0.5),
            count(&row.failed, 0.95),
        )?;
    }
    Ok(())
}

fn document(row: &Row) -> serde_json::Value {
    let (low, high) = wilson(row.convicted(), row.runs);
    json!({
        "factor": row.factor,
        "ratio": row.ratio,
        "allowed": row.allowed,
        "runs": row.runs,
        "convicted": row.convicted(),
        "convicted_interval": [low, high],
        "suspect": row.suspect,
        "seconds": { "p50": quantile(&row.seconds, 0.5), "p95": quantile(&row.seconds, 0.95) },
        "sessions": { "p50": quantile(&row.started, 0.5), "p95": quantile(&row.started, 0.95) },
        "failed": { "p50": quantile(&row.failed, 0.5), "p95": quantile(&row.failed, 0.95) },
    })
}

fn text(duration: Duration) -> String {
    humantime::format_duration(duration).to_string().replace(' ', "")
}

fn whole_seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.round()).unwrap_or_default()
}

fn dash() -> String {
    "-".to_owned()
}

/// Without the digits that are only a float's error.
fn round(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}
