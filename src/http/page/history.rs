//! Rollouts and rollbacks of the past, each with its records.

use maud::{Markup, html};

use super::layout::{Place, date_time, record, time};
use super::{Page, layout};
use crate::http::paging::escaped;

/// One line.
struct Line<'a> {
    at: &'a str,
    seq: Option<u64>,
    fleet: &'a str,
    what: Markup,
    ended: Option<(&'a str, u64)>,
}

/// `/history`
pub(super) fn page(page: &Page) -> Markup {
    let content = html! {
        h1 { "Rollouts and rollbacks" }
        section #past data-live { (table(page, None, usize::MAX)) }
        p.quiet { "Newest first, as many as are kept in memory. " a href="/ledger" { "The ledger" } " has all." }
    };
    layout::page(page, Place::History, "History", "", &content)
}

/// The newest first; of one fleet, or of all.
pub(super) fn table(page: &Page, fleet: Option<&str>, lines_max: usize) -> Markup {
    let mut lines: Vec<Line> = rollouts(page).chain(rollbacks(page)).collect();
    lines.retain(|line| fleet.is_none_or(|fleet| line.fleet == fleet));
    lines.sort_by(|a, b| b.at.cmp(a.at));
    html! {
        @if lines.is_empty() { p.quiet { "None yet." } }
        @else {
            div.scroll tabindex="0" role="group" aria-label="Rollouts and rollbacks" {
                table {
                    thead { tr {
                        th scope="col" { "began" } th scope="col" { "fleet" }
                        th scope="col" { "what" } th scope="col" { "record" }
                        th scope="col" { "ended" }
                    } }
                    tbody { @for line in lines.iter().take(lines_max) {
                        tr {
                            td { (date_time(line.at)) }
                            td { a href={ "/fleets/" (escaped(line.fleet)) } { (line.fleet) } }
                            td.what { (line.what) }
                            td { @if let Some(seq) = line.seq { (record(seq)) } }
                            td {
                                @if let Some((at, seq)) = line.ended { (time(at)) " " (record(seq)) }
                                @else { "goes on" }
                            }
                        }
                    } }
                }
            }
        }
    }
}

fn rollouts(page: &Page) -> impl Iterator<Item = Line<'_>> {
    page.view.rollouts.iter().map(|rollout| {
        let outcome = match rollout.outcome.as_str() {
            "observed" => "is observed",
            "promoted" => "was promoted",
            "left" => "left before it was judged",
            _ => "was rolled back",
        };
        Line {
            at: &rollout.started_at,
            seq: Some(rollout.started_seq),
            fleet: &rollout.fleet,
            what: html! {
                "rollout of " b { (rollout.candidate) }
                @if let Some(baseline) = &rollout.baseline { " against " (baseline) }
                ": " (outcome)
            },
            ended: rollout.ended_at.as_deref().zip(rollout.ended_seq),
        }
    })
}

fn rollbacks(page: &Page) -> impl Iterator<Item = Line<'_>> {
    page.view.rollbacks.iter().map(|rollback| Line {
        at: &rollback.started_at,
        seq: rollback.steps.first().map(|step| step.seq),
        fleet: &rollback.fleet,
        what: html! {
            "rollback from " b { (rollback.from_version) } " to " b { (rollback.version) } ": "
            (rollback.state)
            details id={ "reason-" (escaped(&rollback.id)) } {
                summary { "why, and its steps" }
                p { (rollback.reason) }
                p { @for step in &rollback.steps { (step.state) " " (record(step.seq)) " " } }
            }
        },
        ended: rollback.finished_at.as_deref().zip(rollback.steps.last().map(|step| step.seq)),
    })
}
