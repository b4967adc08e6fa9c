//! The result of `simulate` in two charts.

use std::path::Path;

use super::super::CommandError;
use super::{Row, Setting};
use crate::plot::{self, CannotDraw, Chart, Ink, Line, Stroke};
use crate::simulate::statistics::{quantile, wilson};

/// In pixels.
const HEIGHT: u32 = 300;

/// Draws into `path`: a page if its name says so, else an SVG.
pub(super) fn write(path: &Path, setting: &Setting, rows: &[Row]) -> Result<(), CommandError> {
    let page = path.extension().is_some_and(|end| end == "html" || end == "htm");
    let drawn = if page { html(setting, rows)? } else { both(rows)? };
    std::fs::write(path, drawn).map_err(|error| CommandError::File {
        path: path.display().to_string(),
        reason: error.to_string(),
    })
}

fn html(setting: &Setting, rows: &[Row]) -> Result<String, CannotDraw> {
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>rollbackd simulate</title>\n\
         <style>{}body{{font-family:sans-serif;max-width:780px;margin:2em auto;\
         padding:0 1em}}svg{{max-width:100%;height:auto}}</style>\n\
         <h1>rollbackd simulate</h1>\n<p>At most {} false rollbacks; convicting at \
         10^{:.1}.</p>\n{}\n{}\n</html>\n",
        plot::STYLE,
        setting.false_rollback_rate,
        setting.threshold_log10,
        chart(rows, shares(rows))?,
        chart(rows, times(rows))?,
    ))
}

/// Both charts, one above the other.
fn both(rows: &[Row]) -> Result<String, CannotDraw> {
    let (upper, lower) = (chart(rows, shares(rows))?, chart(rows, times(rows))?);
    Ok(plot::stack(&[upper, lower], HEIGHT))
}

/// What differs between the charts.
struct Part {
    title: &'static str,
    y_name: &'static str,
    lines: Vec<Line>,
}

fn chart(rows: &[Row], part: Part) -> Result<String, CannotDraw> {
    let factor = |ln: f64| format!("{:.1}x", ln.exp());
    let number = |value: f64| format!("{value:.0}");
    let allowed = rows.iter().filter(|row| row.allowed).map(|row| row.factor.ln());
    let allowed = allowed.fold(f64::NEG_INFINITY, f64::max);
    let mark = (allowed, Ink::Good, "the largest the rule allows".to_owned());
    plot::svg(&Chart {
        title: part.title,
        x_name: "times the baseline's failures",
        y_name: part.y_name,
        x_format: &factor,
        y_format: &number,
        y_reaches: (0.0, 1.0),
        lines: part.lines,
        marks: if allowed.is_finite() { vec![mark] } else { Vec::new() },
        height: HEIGHT,
    })
}

fn shares(rows: &[Row]) -> Part {
    let percent = |of: fn(&Row) -> f64| {
        rows.iter().map(|row| (row.factor.ln(), 100.0 * of(row))).collect::<Vec<_>>()
    };
    let share = percent(|row| row.convicted() as f64 / row.runs as f64);
    let line =
        |name: &str, ink, stroke, points| Line { name: name.to_owned(), ink, stroke, points };
    Part {
        title: "Rollouts convicted",
        y_name: "%",
        lines: vec![
            line("", Ink::Baseline, Stroke::Dashed, percent(|r| wilson(r.convicted(), r.runs).0)),
            line(
                "95 % interval",
                Ink::Baseline,
                Stroke::Dashed,
                percent(|r| wilson(r.convicted(), r.runs).1),
            ),
            line("", Ink::Candidate, Stroke::Points, share.clone()),
            line("convicted", Ink::Candidate, Stroke::Solid, share),
        ],
    }
}

fn times(rows: &[Row]) -> Part {
    let minutes = |q: f64| {
        let found = |row: &Row| Some((row.factor.ln(), quantile(&row.seconds, q)? / 60.0));
        // A handful of false convictions has no typical time.
        rows.iter().filter(|row| row.convicted() >= 20).filter_map(found).collect::<Vec<_>>()
    };
    let line =
        |name: &str, ink, stroke, points| Line { name: name.to_owned(), ink, stroke, points };
    Part {
        title: "Time to the conviction",
        y_name: "minutes",
        lines: vec![
            line("", Ink::Candidate, Stroke::Points, minutes(0.5)),
            line("half are convicted by", Ink::Candidate, Stroke::Solid, minutes(0.5)),
            line("95 % are convicted by", Ink::Other(0), Stroke::Dashed, minutes(0.95)),
        ],
    }
}
