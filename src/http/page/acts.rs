//! What an operator can do from the page: buttons, and one dialog that asks for a reason.
//!
//! Without JavaScript there is neither: the page only shows. Whether an act is allowed is decided
//! where it arrives; here only what makes no sense is left out.

use maud::{Markup, html};

use super::Page;
use super::standing::{awaits_approval, under_way};
use crate::ports::view::FleetView;

/// How many earlier good versions are offered to go back to. The command and the API take any.
const EARLIER_MAX: usize = 3;

/// One act.
struct Offer<'a> {
    act: &'static str,
    label: String,
    version: Option<&'a str>,
    /// Back to which version, where that is not for rollbackd to choose.
    to: Option<&'a str>,
    /// What will be so afterwards.
    effect: String,
}

impl Offer<'_> {
    /// Names the button, so that it is found again on the page as it will be then.
    fn id(&self, fleet: &str) -> String {
        let (version, to) = (self.version.unwrap_or_default(), self.to.unwrap_or_default());
        format!("act-{fleet}-{}-{version}-{to}", self.act)
    }
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
                button type="button" id=(offer.id(name))
                    data-act=(offer.act) data-fleet=(name) data-version=[offer.version]
                    data-to=[offer.to] data-effect=(offer.effect)
                    class=(if matches!(offer.act, "rollback" | "approve") { "strong" } else { "" }) {
                    (offer.label) " …"
                }
            }
        }
    }
}

fn offers<'a>(page: &'a Page, fleet: &'a FleetView) -> Vec<Offer<'a>> {
    let offer =
        |act, label: String, version, effect| Offer { act, label, version, to: None, effect };
    let name = &fleet.fleet;
    let rollback = under_way(&page.view, fleet);
    let mut offers = if rollback.is_none() { rollbacks(fleet) } else { Vec::new() };
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

/// The rollbacks that could begin: of each candidate, of the last good version to an earlier one,
/// and of denied versions whose workers run.
fn rollbacks(fleet: &FleetView) -> Vec<Offer<'_>> {
    let mut offers = Vec::new();
    let Some((last_good, earlier)) = fleet.good.split_first() else { return offers };
    let mut offer = |act, label, version, to, effect| {
        offers.push(Offer { act, label, version: Some(version), to, effect });
    };
    for rollout in &fleet.rollouts {
        let candidate = rollout.candidate.as_str();
        if awaits_approval(rollout) {
            let label = format!("Approve the rollback of {candidate}");
            let effect =
                format!("{candidate} is rolled back to {last_good}, as the evidence asks.");
            offer("approve", label, candidate, None, effect);
        }
        let effect = format!(
            "{candidate} is denied and drained, and {last_good} takes over, whatever the evidence says."
        );
        offer("rollback", format!("Roll back {candidate}"), candidate, None, effect);
    }
    for version in fleet.versions.iter().filter(|version| version.denied && version.workers > 0) {
        let denied = version.version.as_str();
        let effect = format!("{denied} is drained again, and {last_good} takes over.");
        offer("rollback", format!("Roll back {denied} again"), denied, None, effect);
    }
    for to in earlier.iter().take(EARLIER_MAX) {
        let effect = format!(
            "{last_good} is denied and drained, and {to} takes over: it is the last good version then."
        );
        let label = format!("Roll back {last_good} to {to}");
        offer("rollback", label, last_good.as_str(), Some(to.as_str()), effect);
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
