//! All fleets, and one.

use maud::{Markup, html};

use super::layout::Place;
use super::standing::Standing;
use super::{Page, fleet, history, layout, rules};
use crate::http::paging::escaped;
use crate::ports::view::FleetView;

/// Fleets shown with everything; further ones are a line each.
const WHOLE_MAX: usize = 3;

/// Lines of fleets on the page; the API has all of them.
const LINES_MAX: usize = 100;

/// Rollouts and rollbacks in the short history.
const HISTORY_SHORT: usize = 8;

/// `/`
pub(super) fn page(page: &Page) -> Markup {
    let mut fleets: Vec<_> =
        page.view.fleets.values().map(|fleet| (Standing::of(&page.view, fleet), fleet)).collect();
    fleets.sort_by_key(|(standing, _)| *standing);
    let (whole, lines) = fleets.split_at(fleets.len().min(WHOLE_MAX));
    let headline = headline(&fleets);
    let content = html! {
        h1 #headline data-live { (headline) }
        div #many data-live {
            @if page.view.breaker.open {
                p.alarm {
                    span aria-hidden="true" { "■ " }
                    (page.view.breaker.regressed) " of " (page.view.breaker.fleets)
                    " fleets regress at once. That is not one version's fault: rollbackd holds \
                     back and rolls no further one back by itself."
                }
            }
        }
        div #fleets .fleets data-live {
            @for (standing, one) in whole { (fleet::card(page, one, *standing)) }
        }
        // Always there, so that the script has a place for what comes later.
        div #further data-live { @if !lines.is_empty() { (further(lines)) } }
        section #past aria-labelledby="past-title" data-live {
            h2 #past-title { "Rollouts and rollbacks" }
            (history::table(page, None, HISTORY_SHORT))
            p { a href="/history" { "All that are kept" } }
        }
        section #rules aria-labelledby="rules-title" data-live {
            h2 #rules-title { "Rules" }
            (rules::table(page, None, false))
        }
    };
    layout::page(page, Place::Fleets, "Fleets", &headline, &content)
}

/// `/fleets/{fleet}`
pub(super) fn fleet_page(page: &Page, one: &FleetView) -> Markup {
    let standing = Standing::of(&page.view, one);
    let headline = alone(standing, one);
    let content = html! {
        h1 #headline data-live { (headline) }
        div #fleets .fleets data-live { (fleet::card(page, one, standing)) }
        section #past aria-labelledby="past-title" data-live {
            h2 #past-title { "Rollouts and rollbacks" }
            (history::table(page, Some(&one.fleet), usize::MAX))
        }
        section #rules aria-labelledby="rules-title" data-live {
            h2 #rules-title { "Rules" }
            (rules::table(page, Some(&one.fleet), true))
        }
    };
    layout::page(page, Place::Fleets, &one.fleet, &headline, &content)
}

/// What a person wants to know first, in a sentence.
fn headline(fleets: &[(Standing, &FleetView)]) -> String {
    let Some((worst, first)) = fleets.first() else {
        return "No fleet has been seen yet".to_owned();
    };
    let same = fleets.iter().filter(|(standing, _)| standing == worst).count();
    let word = worst.said().0;
    match (fleets.len(), same) {
        (1, _) => alone(*worst, first),
        (all, same) if all == same => format!("{all} fleets, all {word}"),
        (all, 1) => format!("1 of {all} fleets {word}: {}", first.fleet),
        (all, same) => format!("{same} of {all} fleets {word}"),
    }
}

/// The headline where there is only one fleet.
fn alone(standing: Standing, fleet: &FleetView) -> String {
    let (name, word) = (&fleet.fleet, standing.said().0);
    match standing {
        Standing::AwaitsApproval => format!("{name} {word}"),
        Standing::Observing | Standing::Suspect | Standing::Regressed => {
            let candidates: Vec<&str> =
                fleet.rollouts.iter().map(|rollout| rollout.candidate.as_str()).collect();
            format!("{name} is {word}: {}", candidates.join(", "))
        }
        Standing::Stuck
        | Standing::RollingBack
        | Standing::Holding
        | Standing::Paused
        | Standing::Steady => format!("{name} is {word}"),
    }
}

fn further(lines: &[(Standing, &FleetView)]) -> Markup {
    html! {
        section aria-labelledby="further-title" {
            h2 #further-title { "Further fleets" }
            div.scroll tabindex="0" role="group" aria-labelledby="further-title" {
                table {
                    thead { tr {
                        th scope="col" { "fleet" } th scope="col" { "state" }
                        th scope="col" { "last good" } th scope="col" { "observed" }
                        th.number scope="col" { "workers" } th.number scope="col" { "live" }
                    } }
                    tbody { @for (standing, fleet) in lines.iter().take(LINES_MAX) {
                        tr {
                            th scope="row" {
                                a href={ "/fleets/" (escaped(&fleet.fleet)) } { (fleet.fleet) }
                            }
                            td { (fleet::chip(*standing)) }
                            td { (fleet.last_good.as_deref().unwrap_or("–")) }
                            td {
                                @for rollout in &fleet.rollouts { (rollout.candidate) " " }
                            }
                            td.number { (fleet.versions.iter().map(|v| v.workers).sum::<u32>()) }
                            td.number {
                                (format!("{:.0}", fleet.versions.iter().map(|v| v.live).sum::<f64>()))
                            }
                        }
                    } }
                }
            }
            @if lines.len() > LINES_MAX {
                p { (lines.len() - LINES_MAX) " more are in " a href="/api/v1/fleets" { "the API" } "." }
            }
        }
    }
}
