//! What an operator can do from the page: buttons, and one dialog that asks for a reason.
//!
//! Without JavaScript there is neither: the page only shows. Whether an act is allowed is decided
//! where it arrives; here only what makes no sense is left out.

use maud::{Markup, html};

use super::Page;
use super::standing::{awaits_approval, under_way};
use crate::ports::view::FleetView;

/// One act.
struct Offer<'a> {
    act: &'static str,
    label: String,
    version: Option<&'a str>,
    /// What will be so afterwards.
    effect: String,
}

/// The acts that make sense now, for who may do them.
pub(super) fn buttons(page: &Page, fleet: &FleetView) -> Markup {
    if !page.may_act {
        return html! {};
    }
    let name = &fleet.fleet;
    html! {
        div.acts role="group" aria-label={ "Acts on " (name) } {
            @for offer in offers(page, fleet) {
                button type="button" id=(format!("act-{}-{}-{}", name, offer.act, offer.version.unwrap_or_default()))
                    data-act=(offer.act) data-fleet=(name) data-version=[offer.version]
                    data-effect=(offer.effect)
                    class=(if matches!(offer.act, "rollback" | "approve") { "strong" } else { "" }) {
                    (offer.label) " …"
                }
            }
        }
    }
}

fn offers<'a>(page: &'a Page, fleet: &'a FleetView) -> Vec<Offer<'a>> {
    let offer = |act, label: String, version: Option<&'a str>, effect: String| Offer {
        act,
        label,
        version,
        effect,
    };
    let name = &fleet.fleet;
    let mut offers = Vec::new();
    let rollback = under_way(&page.view, fleet);
    for rollout in fleet.rollouts.iter().filter(|_| rollback.is_none()) {
        let candidate = rollout.candidate.as_str();
        let to = fleet.last_good.as_deref().unwrap_or("the last good version");
        if awaits_approval(rollout) {
            let effect = format!("{candidate} is rolled back to {to}, as the evidence asks.");
            offers.push(offer(
                "approve",
                format!("Approve the rollback of {candidate}"),
                Some(candidate),
                effect,
            ));
        }
        let effect = format!(
            "{candidate} is denied and drained, and {to} takes over, whatever the evidence says."
        );
        offers.push(offer("rollback", format!("Roll back {candidate}"), Some(candidate), effect));
    }
    if fleet.paused {
        let effect = format!("rollbackd decides on {name} again.");
        offers.push(offer("resume", "Resume".to_owned(), None, effect));
    } else {
        let effect = format!(
            "{name} is watched, and nothing is promoted or rolled back by itself. A rollback under way goes on."
        );
        offers.push(offer("pause", "Pause".to_owned(), None, effect));
    }
    if let Some(rollback) = rollback {
        let bad = &rollback.from_version;
        let effect =
            format!("The rollback ends as it stands. {bad} stays denied until it is allowed.");
        offers.push(offer("abandon", "Abandon the rollback".to_owned(), None, effect));
    }
    let leaving = rollback.map(|rollback| rollback.from_version.as_str());
    for denied in fleet.denied.iter().filter(|denied| leaving != Some(denied.as_str())) {
        let effect =
            format!("Workers of {denied} may start again; it is observed as a new candidate.");
        offers.push(offer("allow", format!("Allow {denied}"), Some(denied), effect));
    }
    offers
}

/// Asks for a reason before anything is done.
pub(super) fn dialog(caller: Option<&str>) -> Markup {
    html! {
        dialog #act aria-labelledby="act-title" aria-describedby="act-effect" {
            form method="dialog" {
                h2 #act-title {}
                p #act-effect {}
                label for="act-reason" { "Reason, for the record" }
                input #act-reason name="reason" required maxlength="1000" autocomplete="off";
                div #act-lasting hidden {
                    label for="act-for" { "For how long, such as 2h; empty: until resumed" }
                    input #act-for name="for" maxlength="40" autocomplete="off";
                }
                @if let Some(name) = caller { p.quiet { "Recorded as said by " (name) "." } }
                @else {
                    label for="act-actor" { "Your name" }
                    input #act-actor name="actor" maxlength="100" autocomplete="username";
                }
                p #act-error role="alert" {}
                div.choices {
                    button #act-cancel type="button" { "Cancel" }
                    button #act-confirm .strong type="submit" { "Confirm" }
                }
            }
        }
    }
}
