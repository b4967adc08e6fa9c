//! The rules in force, and how they stand.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::layout::Place;
use super::{Page, fleet, layout};
use crate::domain::fleet::entry_of;
use crate::ports::view::RuleView;

/// Rules on the first page; `/rules` has all.
const SHORT_MAX: usize = 20;

/// `/rules`
pub(super) fn page(page: &Page) -> Markup {
    let content = html! {
        h1 { "Rules" }
        section #rules data-live { (table(page, None, true)) }
    };
    layout::page(page, Place::Rules, "Rules", "", &content)
}

/// The rules for one fleet, or all; with their queries, or without.
pub(super) fn table(page: &Page, fleet: Option<&str>, whole: bool) -> Markup {
    let entry = fleet.map(entry_of);
    let rules = || {
        let rules = page.view.rules.iter();
        rules.filter(move |rule| entry.is_none_or(|entry| rule.fleet == entry))
    };
    let shown = if whole { usize::MAX } else { SHORT_MAX };
    html! {
        @if rules().next().is_none() { p.quiet { "No rule is in force: nothing is judged." } }
        @else {
            div.scroll tabindex="0" role="group" aria-label="Rules in force" {
                table {
                    thead { tr {
                        th scope="col" { "rule" } th scope="col" { "fleet" }
                        th scope="col" { "state" } th scope="col" { "file" }
                        th scope="col" { "digest" }
                    } }
                    tbody { @for rule in rules().take(shown) {
                        tr {
                            th scope="row" {
                                (rule.group) "/" (rule.name)
                                @if whole { (queries(rule)) }
                            }
                            td { (rule.fleet) }
                            td { (state(page, rule, fleet)) }
                            td { span title=(rule.file) { (rule.file.rsplit('/').next().unwrap_or_default()) } }
                            td { code title=(rule.digest) { (rule.digest.get(..12).unwrap_or(&rule.digest)) } }
                        }
                    } }
                }
            }
            @if rules().count() > shown { p { a href="/rules" { "All rules" } } }
        }
    }
}

fn queries(rule: &RuleView) -> Markup {
    html! {
        details id={ "rule-" (rule.digest) } {
            summary { "its queries" }
            @for (what, query) in &rule.queries { p { (what) ": " code { (query) } } }
        }
    }
}

/// How a rule stands with every candidate that it watches.
fn state(page: &Page, rule: &RuleView, fleet: Option<&str>) -> Markup {
    let name = format!("{}/{}", rule.group, rule.name);
    let mut counts = BTreeMap::<&str, usize>::new();
    let is_its = |of: &str| fleet.map_or_else(|| entry_of(of) == rule.fleet, |fleet| of == fleet);
    for one in page.view.fleets.values().filter(|one| is_its(&one.fleet)) {
        for rollout in &one.rollouts {
            let sessions = rollout.verdicts.iter().map(|v| (&v.rule, v.verdict.as_str()));
            let values = rollout.values.iter().map(|v| (&v.rule, v.verdict.as_str()));
            for (_, verdict) in sessions.chain(values).filter(|(rule, _)| **rule == name) {
                *counts.entry(verdict).or_default() += 1;
            }
        }
    }
    html! {
        @if counts.is_empty() { span.quiet { "watches nothing now" } }
        @for (verdict, count) in counts {
            (fleet::mark(verdict)) @if count > 1 { " × " (count) } " "
        }
    }
}
