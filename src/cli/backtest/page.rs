//! The result of a backtest as one page that needs nothing else.

use std::collections::BTreeSet;

use super::figures;
use super::known::Truth;
use super::report::{Opinion, Report, aftermath, ending};
use super::story::{End, Story, Trace};
use crate::domain::time::Timestamp;
use crate::plot::{self, CannotDraw, Chart, Ink, Line, Stroke};

/// Rollouts that are drawn at most: more make a page that no browser likes.
const DRAWN_MAX: usize = 200;

/// Points of one curve at most.
const POINTS_MAX: usize = 120;

const LOOK: &str = "\
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink0);background:var(--paper);max-width:860px;\
margin:2em auto;padding:0 1em}:root{color-scheme:light dark;--paper:#fff}\
@media(prefers-color-scheme:dark){:root{--paper:#0d1117}}\
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.25em .6em;\
border-bottom:1px solid var(--ink1);vertical-align:top}svg{max-width:100%;height:auto}\
.bad{color:var(--ink4)}.good{color:var(--ink5)}.partial{border:2px solid var(--ink4);padding:.6em}\
summary{cursor:pointer}h2{margin-top:2em}";

/// The page.
///
/// # Errors
/// When a chart cannot be drawn.
pub(super) fn page(report: &Report) -> Result<String, CannotDraw> {
    let mut page = vec![format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>rollbackd backtest</title>\n\
         <style>{}{LOOK}</style>\n<h1>rollbackd backtest</h1>\n<p>{} to {}</p>\n",
        plot::STYLE,
        figures::time(report.from),
        figures::time(report.to),
    )];
    for sum in report.sums() {
        let class = if sum.starts_with("PARTIAL") { " class=\"partial\"" } else { "" };
        page.push(format!("<p{class}>{}</p>\n", escape(&sum)));
    }
    overview(report, &mut page);
    let fleets: BTreeSet<&str> = report.series.keys().map(|(fleet, _)| fleet.as_str()).collect();
    for fleet in fleets {
        page.push(format!("<h2>{}</h2>\n{}\n", escape(fleet), of_fleet(report, fleet)?));
        for (number, story) in report.stories.iter().enumerate() {
            if story.fleet == fleet {
                rollout(report, number, story, &mut page)?;
            }
        }
    }
    page.push("</html>\n".to_owned());
    Ok(page.concat())
}

fn overview(report: &Report, page: &mut Vec<String>) {
    page.push(
        "<table>\n<tr><th>fleet<th>version<th>began<th>would be<th>after<th>failed until \
              then<th>control<th>saved<th>known</tr>\n"
            .to_owned(),
    );
    for (number, story) in report.stories.iter().enumerate() {
        let (end, at) = ending(story);
        let class = match story.end {
            End::RolledBack { .. } => "bad",
            End::Promoted { .. } => "good",
            End::Open | End::Gone { .. } => "",
        };
        let after = at.map(|at| figures::duration(at.since(story.rollout.started_at)));
        let totals = story.totals();
        let known = report.label(story).map_or(String::new(), |label| {
            let truth = if label.truth == Truth::Good { "good" } else { "bad" };
            let note = label.note.as_deref().unwrap_or_default();
            let opinion = match report.opinion(story) {
                Opinion::Right | Opinion::None => String::new(),
                wrong @ (Opinion::False | Opinion::Missed) => {
                    format!(" <b class=\"bad\">{}</b>", wrong.name())
                }
            };
            format!("{truth} {}{opinion}", escape(note))
        });
        page.push(format!(
            "<tr><td>{}<td><a href=\"#r{number}\">{}</a><td>{}<td class=\"{class}\">{end}<td>{}\
             <td>{}<td>{}<td>{}<td>{known}</tr>\n",
            escape(&story.fleet),
            escape(story.rollout.candidate.as_str()),
            figures::time(story.rollout.started_at),
            after.unwrap_or_default(),
            figures::ratio(totals.candidate.failed, totals.candidate.started),
            figures::ratio(totals.control.failed, totals.control.started),
            story.after.saved(),
        ));
    }
    page.push("</table>\n".to_owned());
}

/// The failure ratio of each version of a fleet, with the decisions.
fn of_fleet(report: &Report, fleet: &str) -> Result<String, CannotDraw> {
    let mut lines = Vec::new();
    for (number, ((_, version), series)) in
        (0_u8..=255).cycle().zip(report.series.iter().filter(|((name, _), _)| name == fleet))
    {
        let points = series.ratios().into_iter();
        let points = points.map(|(at, ratio)| (at.as_seconds(), 100.0 * ratio)).collect();
        let name = version.to_string();
        lines.push(Line { name, ink: Ink::Other(number), stroke: Stroke::Solid, points });
    }
    let decided = report.stories.iter().filter(|story| story.fleet == fleet);
    let marks = decided.filter_map(|story| {
        let version = &story.rollout.candidate;
        match story.end {
            End::RolledBack { at } => {
                Some((at.as_seconds(), Ink::Bad, format!("{version} rolled back")))
            }
            End::Promoted { at } => {
                Some((at.as_seconds(), Ink::Good, format!("{version} promoted")))
            }
            End::Open | End::Gone { .. } => None,
        }
    });
    chart("Failure ratio of each version", "%", lines, marks.collect())
}

fn rollout(
    report: &Report,
    number: usize,
    story: &Story,
    page: &mut Vec<String>,
) -> Result<(), CannotDraw> {
    let (end, _) = ending(story);
    let open = if matches!(story.end, End::RolledBack { .. })
        || matches!(report.opinion(story), Opinion::Missed)
    {
        " open"
    } else {
        ""
    };
    let baseline = story.rollout.baseline.as_ref();
    let baseline = baseline.map_or(String::new(), |b| format!(" after {}", escape(b.as_str())));
    page.push(format!(
        "<details id=\"r{number}\"{open}>\n<summary><b>{}</b>{baseline}, from {}: {end}</summary>\n<ul>\n",
        escape(story.rollout.candidate.as_str()),
        figures::time(story.rollout.started_at),
    ));
    for told in story.told.iter().filter(|told| !told.text.is_empty()) {
        let since = figures::duration(told.at.since(story.rollout.started_at));
        let text = escape(&told.text);
        page.push(format!("<li>after {since}: {}: {text}</li>\n", told.decision));
    }
    if let Some(text) = aftermath(story) {
        page.push(format!("<li>it ran on {}</li>\n", escape(&text)));
    }
    page.push("</ul>\n".to_owned());
    if number < DRAWN_MAX {
        for trace in story.traces.values() {
            page.push(evidence(story, trace)?);
            page.push(ratios(story, trace)?);
        }
    } else {
        page.push("<p>Only the first rollouts are drawn; ask for less time.</p>\n".to_owned());
    }
    page.push("</details>\n".to_owned());
    Ok(())
}

/// The evidence of both tests, with the threshold.
fn evidence(story: &Story, trace: &Trace) -> Result<String, CannotDraw> {
    let thinned = |of: fn(&crate::domain::evidence::Evidence) -> Option<f64>| {
        let every = trace.points.len().div_ceil(POINTS_MAX).max(1);
        let last = trace.points.len().saturating_sub(1);
        let kept = trace.points.iter().enumerate().filter(|(n, _)| n % every == 0 || *n == last);
        // Below this there is nothing to see but how innocent it is.
        let points = kept.filter_map(|(_, (at, e))| Some((at.as_seconds(), of(e)?.max(-3.0))));
        points.collect::<Vec<_>>()
    };
    let line =
        |name: &str, ink, stroke, points| Line { name: name.to_owned(), ink, stroke, points };
    let span = [trace.points.first(), trace.points.last()];
    let level = |y: f64| span.iter().flatten().map(|(at, _)| (at.as_seconds(), y)).collect();
    let lines = vec![
        line("convicting", Ink::Bad, Stroke::Dashed, level(trace.threshold_log10)),
        line("suspect", Ink::Other(1), Stroke::Dashed, level(1.0)),
        line("against the baseline", Ink::Candidate, Stroke::Solid, thinned(|e| e.baseline_log10)),
        line("against the ceiling", Ink::Other(0), Stroke::Solid, thinned(|e| e.ceiling_log10)),
    ];
    let drawn = lines.into_iter().filter(|line: &Line| !line.points.is_empty()).collect();
    chart(&format!("{}: evidence, log10", trace.name), "log10", drawn, decision(story))
}

/// The failure ratio of candidate and control, over some ticks at a time.
fn ratios(story: &Story, trace: &Trace) -> Result<String, CannotDraw> {
    let every = trace.ticks.len().div_ceil(POINTS_MAX / 2).max(1);
    let began = story.rollout.started_at;
    let curve = |of: fn(&crate::domain::counts::Tick) -> (u64, u64)| {
        let bins = trace.ticks.chunks(every).enumerate();
        let points = bins.filter_map(|(bin, ticks)| {
            let sum = ticks.iter().map(of).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
            let ticks = u32::try_from(bin * every + ticks.len()).unwrap_or(u32::MAX);
            let at = began + trace.interval * ticks;
            (sum.1 > 0).then(|| (at.as_seconds(), 100.0 * sum.0 as f64 / sum.1 as f64))
        });
        points.collect::<Vec<_>>()
    };
    let line = |name: &str, ink, points| Line {
        name: name.to_owned(),
        ink,
        stroke: Stroke::Solid,
        points,
    };
    let lines = vec![
        line("control", Ink::Baseline, curve(|t| (t.control.failed, t.control.started))),
        line("candidate", Ink::Candidate, curve(|t| (t.candidate.failed, t.candidate.started))),
    ];
    chart(&format!("{}: sessions failed", trace.name), "%", lines, decision(story))
}

fn decision(story: &Story) -> Vec<(f64, Ink, String)> {
    match story.end {
        End::RolledBack { at } => vec![(at.as_seconds(), Ink::Bad, "rolled back".to_owned())],
        End::Promoted { at } => vec![(at.as_seconds(), Ink::Good, "promoted".to_owned())],
        End::Open | End::Gone { .. } => Vec::new(),
    }
}

fn chart(
    title: &str,
    y_name: &str,
    lines: Vec<Line>,
    marks: Vec<(f64, Ink, String)>,
) -> Result<String, CannotDraw> {
    plot::svg(&Chart {
        title,
        x_name: "UTC",
        y_name,
        x_format: &clock,
        y_format: &|value| format!("{value:.1}"),
        y_reaches: (0.0, 1.0),
        lines,
        marks,
        height: 260,
    })
}

#[expect(clippy::cast_possible_truncation, reason = "a time of this age")]
fn clock(seconds: f64) -> String {
    let at = Timestamp::from_millis((seconds * 1000.0) as i64);
    jiff::Timestamp::from_millisecond(at.as_millis())
        .map_or_else(|_| String::new(), |at| at.strftime("%m-%d %H:%M").to_string())
}

fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '&' => safe += "&amp;",
            '"' => safe += "&quot;",
            other => safe.push(other),
        }
    }
    safe
}
