//! The result of a backtest on a terminal, and as JSON.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::figures;
use super::known::Truth;
use super::report::{Report, aftermath, ending};
use super::story::Story;
use crate::domain::version::Version;
use crate::ledger::record::rfc3339;

pub(super) fn write(report: &Report, out: &mut impl Write) -> io::Result<()> {
    for story in &report.stories {
        of_story(report, story, out)?;
    }
    writeln!(out, "{} to {}", figures::time(report.from), figures::time(report.to))?;
    for sum in report.sums() {
        writeln!(out, "{sum}")?;
    }
    Ok(())
}

fn of_story(report: &Report, story: &Story, out: &mut impl Write) -> io::Result<()> {
    let rollout = &story.rollout;
    let after = rollout.baseline.as_ref().map_or_else(String::new, |b| format!(" after {b}"));
    let (end, at) = ending(story);
    let end = match at {
        Some(at) => format!("{end} after {}", figures::duration(at.since(rollout.started_at))),
        None => end.to_owned(),
    };
    let opinion = match (report.label(story), report.opinion(story).name()) {
        (None, _) => String::new(),
        (Some(label), opinion) => {
            let truth = if label.truth == Truth::Good { "good" } else { "bad" };
            let note = label.note.as_ref().map_or_else(String::new, |note| format!(", {note}"));
            let opinion = if opinion.is_empty() { "" } else { &format!(": {opinion}") };
            format!("  [known to be {truth}{note}{opinion}]")
        }
    };
    writeln!(
        out,
        "{}  {}{after}, from {}: {end}{opinion}",
        story.fleet,
        rollout.candidate,
        figures::time(rollout.started_at),
    )?;
    for told in story.told.iter().filter(|told| !told.text.is_empty()) {
        let since = figures::duration(told.at.since(rollout.started_at));
        writeln!(out, "    after {since}: {}: {}", told.decision, told.text)?;
    }
    if let Some(text) = aftermath(story) {
        writeln!(out, "    it ran on {text}")?;
    }
    writeln!(out)
}

pub(super) fn write_json(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let all = json!({
        "from": rfc3339(report.from),
        "to": rfc3339(report.to),
        "partial": report.is_partial(),
        "sessions_saved": report.saved(),
        "rollouts": report.stories.iter().map(|story| document(report, story)).collect::<Vec<_>>(),
        "notes": report.sums(),
    });
    writeln!(out, "{all:#}")
}

fn document(report: &Report, story: &Story) -> Value {
    let (end, at) = ending(story);
    let totals = story.totals();
    let told = story.told.iter().map(|told| {
        let slice = told.slice.as_ref();
        json!({
            "at": rfc3339(told.at),
            "decision": told.decision,
            "text": told.text,
            "slice": slice.map(|slice| json!({ "label": slice.label, "value": slice.value })),
        })
    });
    let evidence = story.traces.values().map(|trace| {
        let last = trace.points.last().map(|(_, evidence)| *evidence).unwrap_or_default();
        json!({
            "rule": trace.name,
            "baseline_log10": last.baseline_log10.filter(|log10| log10.is_finite()),
            "ceiling_log10": last.ceiling_log10.filter(|log10| log10.is_finite()),
            "threshold_log10": trace.threshold_log10,
            "dispersion": trace.dispersion,
        })
    });
    json!({
        "fleet": story.fleet,
        "candidate": story.rollout.candidate.as_str(),
        "baseline": story.rollout.baseline.as_ref().map(Version::as_str),
        "started_at": rfc3339(story.rollout.started_at),
        "end": end,
        "ended_at": at.map(rfc3339),
        "decisions": told.collect::<Vec<_>>(),
        "evidence": evidence.collect::<Vec<_>>(),
        "until_then": {
            "candidate": { "started": totals.candidate.started, "failed": totals.candidate.failed },
            "control": { "started": totals.control.started, "failed": totals.control.failed },
            "dropped": story.dropped(),
        },
        "afterwards": {
            "started": story.after.started,
            "failed": story.after.failed,
            "dropped": story.after.dropped,
            "saved": story.after.saved(),
            "until": story.after.last.map(rfc3339),
            "served_on_as_baseline": story.kept,
        },
        "known": report.label(story).map(|label| json!({
            "verdict": if label.truth == Truth::Good { "good" } else { "bad" },
            "note": label.note,
        })),
        "opinion": report.opinion(story).name(),
    })
}
