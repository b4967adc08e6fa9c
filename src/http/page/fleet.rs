//! One fleet with everything there is to see of it.

use maud::{Markup, html};

use super::layout::{clock, date_time};
use super::standing::{self, Standing};
use super::{Page, acts, plot, rollback};
use crate::explain;
use crate::explain::words::{odds, part, thousands};
use crate::http::paging::escaped;
use crate::ports::view::{FleetView, RolloutView, ValueView, VerdictView};

/// A fleet's section.
pub(super) fn card(page: &Page, fleet: &FleetView, standing: Standing) -> Markup {
    let id = escaped(&fleet.fleet);
    let rollback = standing::under_way(&page.view, fleet);
    let judged = fleet.judged.as_ref().filter(|_| fleet.rollouts.is_empty());
    html! {
        section.card aria-labelledby={ "fleet-" (id) } {
            header {
                h2 id={ "fleet-" (id) } { a href={ "/fleets/" (id) } { (fleet.fleet) } }
                (chip(standing))
                span.quiet { "mode " (fleet.mode) }
                @if let Some(at) = &fleet.last_evaluation {
                    span.quiet { "looked at " (clock(at)) }
                }
            }
            (sentences(page, fleet))
            div.columns {
                div {
                    @if let Some(rollback) = rollback { (rollback::steps(rollback)) }
                    @for rollout in &fleet.rollouts { (observed(rollout)) }
                    @if let Some(judged) = judged.filter(|_| rollback.is_none()) { (observed(judged)) }
                }
                div {
                    (versions(page, fleet))
                    (acts::buttons(page, fleet))
                    @if let Some(judged) = judged.filter(|_| rollback.is_some()) { (plots(judged)) }
                }
            }
        }
    }
}

/// A standing, as a shape and a word.
pub(super) fn chip(standing: Standing) -> Markup {
    let (word, shape, class) = standing.said();
    html! { span.chip.(class) { span.shape aria-hidden="true" { (shape) } " " (word) } }
}

fn sentences(page: &Page, fleet: &FleetView) -> Markup {
    let told = explain::explain(&page.view, &fleet.fleet, None, &[], page.now);
    let Ok(told) = told else { return html! {} };
    html! {
        div.told {
            @for sentence in &told.sentences { p { (sentence) } }
            @for version in told.versions.iter().filter(|v| !v.sentences.is_empty()) {
                p { b { (version.version) } ": " @for sentence in version.sentences.iter().take(2) { (sentence) " " } }
                @if version.sentences.len() > 2 {
                    details id={ "why-" (escaped(&fleet.fleet)) "-" (escaped(&version.version)) } {
                        summary { "What each rule says of " (version.version) }
                        @for sentence in version.sentences.iter().skip(2) { p { (sentence) } }
                    }
                }
            }
        }
    }
}

fn versions(page: &Page, fleet: &FleetView) -> Markup {
    let bad = standing::under_way(&page.view, fleet).map(|rollback| &rollback.from_version);
    let is_good = |version: &str| fleet.last_good.as_deref() == Some(version);
    let unseen = fleet
        .denied
        .iter()
        .filter(|denied| !fleet.versions.iter().any(|version| version.version == **denied));
    let candidate =
        |version: &str| fleet.rollouts.iter().any(|rollout| rollout.candidate == version);
    html! {
        div.scroll tabindex="0" role="group" aria-label="Versions" {
            table.versions {
                caption { "Versions" }
                thead { tr {
                    th scope="col" { "version" } th scope="col" { "is" }
                    th.number scope="col" { "workers" } th.number scope="col" { "live" }
                } }
                tbody {
                    @for version in &fleet.versions {
                        tr {
                            th scope="row" { (version.version) }
                            td {
                                @if is_good(&version.version) { "last good" }
                                @else if bad == Some(&version.version) { "denied, leaving" }
                                @else if version.denied { "denied" }
                                @else if candidate(&version.version) { "observed" }
                                @else { "retiring" }
                            }
                            td.number { (version.workers) }
                            td.number { (thousands(version.live)) }
                        }
                    }
                    @for version in unseen {
                        tr {
                            th scope="row" { (version) } td { "denied, gone" }
                            td.number { "0" } td.number { "0" }
                        }
                    }
                }
            }
        }
    }
}

/// A candidate: its plots and what each rule found.
fn observed(rollout: &RolloutView) -> Markup {
    html! {
        section.rollout aria-label={ "Evidence on " (rollout.candidate) } {
            (plots(rollout))
            @if !rollout.verdicts.is_empty() || !rollout.values.is_empty() {
                div.scroll tabindex="0" role="group" aria-label="Findings" { (findings(rollout)) }
            }
            p.quiet {
                "Observed from " (date_time(&rollout.started_at)) " until "
                (date_time(&rollout.observe_until)) " UTC"
            }
        }
    }
}

fn plots(rollout: &RolloutView) -> Markup {
    html! {
        @for verdict in &rollout.verdicts {
            (plot::ratio(rollout, verdict))
            (plot::evidence(rollout, verdict))
        }
    }
}

fn findings(rollout: &RolloutView) -> Markup {
    html! {
        table {
            caption { "What the rules find of " (rollout.candidate) }
            thead { tr {
                th scope="col" { "rule" } th scope="col" { "verdict" }
                th scope="col" { (rollout.candidate) " failed" }
                th scope="col" { "its control failed" }
                th.number scope="col" { "evidence" }
            } }
            tbody {
                @for verdict in &rollout.verdicts { (session_rule(verdict)) }
                @for value in &rollout.values { (value_rule(value)) }
            }
        }
    }
}

fn session_rule(verdict: &VerdictView) -> Markup {
    html! {
        tr {
            th scope="row" { (verdict.rule) }
            td { (mark(&verdict.verdict)) }
            td { (part(verdict.failed, verdict.started, "")) }
            td { (part(verdict.control_failed, verdict.control_started, "")) " " span.quiet { (verdict.control) } }
            td.number { @match strongest(verdict) { Some(log10) => (odds(log10)), None => "–" } }
        }
    }
}

fn value_rule(value: &ValueView) -> Markup {
    html! {
        tr {
            th scope="row" { (value.rule) }
            td { (mark(&value.verdict)) }
            td colspan="2" {
                @match value.value { Some(value) => (value), None => "no value" }
                @if let Some(limit) = value.escalate_above { ", tells people above " (limit) }
                @if let Some(limit) = value.rollback_above { ", rolls back above " (limit) }
            }
            td.number { "–" }
        }
    }
}

/// The greater of a rule's two tests.
pub(super) fn strongest(verdict: &VerdictView) -> Option<f64> {
    let tests = [verdict.baseline_log10, verdict.ceiling_log10];
    tests.into_iter().flatten().max_by(f64::total_cmp)
}

/// A verdict, as a shape and a word.
pub(super) fn mark(verdict: &str) -> Markup {
    let (shape, class) = match verdict {
        "healthy" => ("●", "good"),
        "suspect" | "over" | "pending" | "outage" => ("◆", "warn"),
        "regressed" => ("▲", "bad"),
        _ => ("○", "warn"),
    };
    let word = verdict.replace('_', " ");
    html! { span.mark.(class) { span.shape aria-hidden="true" { (shape) } " " (word) } }
}
