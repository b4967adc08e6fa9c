//! Where a fleet and its versions stand, in sentences.

use super::words::{clock, counted, span, until};
use super::{About, many, rule};
use crate::domain::comeback::CAME_BACK;
use crate::domain::fleet::entry_of;
use crate::ports::view::{FleetView, PastView, RollbackView, RolloutView, View};

/// The rollback of a fleet that is not over.
pub(super) fn under_way<'a>(view: &'a View, fleet: &FleetView) -> Option<&'a RollbackView> {
    let id = fleet.rollback.as_ref()?;
    view.rollbacks.iter().find(|rollback| rollback.id == *id)
}

impl About<'_> {
    /// What holds for the fleet as a whole.
    pub(super) fn fleet_sentences(&self) -> Vec<String> {
        let fleet = self.fleet;
        let mut sentences = Vec::new();
        if let Some(why) = &fleet.holding {
            sentences.push(format!(
                "Nothing is decided at the moment: {why}. It goes on by itself once that is over."
            ));
        }
        if fleet.paused {
            let until = match &fleet.paused_until {
                Some(until) => format!("until {}", clock(until)),
                None => "until it is resumed".to_owned(),
            };
            sentences.push(format!(
                "An operator has paused it {until}: it is watched, and nothing is promoted or \
                 rolled back by itself."
            ));
        }
        let mode = match fleet.mode.as_str() {
            "observe" => {
                Some("Its mode is observe: rollbackd says what it would do and does nothing.")
            }
            "approve" => Some("Its mode is approve: a person confirms each rollback."),
            _ => None,
        };
        sentences.extend(mode.map(ToOwned::to_owned));
        if let Some(rollback) = under_way(self.view, fleet) {
            sentences.push(format!(
                "It is being rolled back from {} to {}; no other rollback begins before that is \
                 over.",
                rollback.from_version, rollback.version
            ));
        }
        sentences.extend(self.many());
        sentences.extend(self.comebacks());
        if fleet.rollouts.is_empty() && fleet.rollback.is_none() {
            sentences.push(self.quiet());
        }
        if !self.view.rules.iter().any(|rule| entry_of(&fleet.fleet) == rule.fleet) {
            sentences.push("No rule judges it.".to_owned());
        }
        sentences
    }

    /// No rollout and no rollback.
    fn quiet(&self) -> String {
        let Some(good) = &self.fleet.last_good else {
            return "No version of it is known as good yet, so none can be judged.".to_owned();
        };
        let last = self.fleet.past.iter().max_by_key(|past| past.seq);
        let last = last.map_or_else(String::new, |past| {
            let (version, at) = (&past.version, clock(&past.at));
            match past.outcome.as_str() {
                "promoted" => format!(" {version} was promoted at {at}."),
                "rolled_back" => format!(" {version} was rolled back at {at}."),
                "left" => format!(" {version} left at {at} before it was judged."),
                _ => format!(" {version} carried the fleet when it was first seen, at {at}."),
            }
        });
        format!("No version is under observation. {good} is the last good one.{last}")
    }

    /// A candidate: what is done about it, until when, and what each rule says.
    pub(super) fn observed(&self, rollout: &RolloutView) -> Vec<String> {
        let baseline = rollout.baseline.as_deref().unwrap_or("its baseline");
        let left = until(&rollout.observe_until, self.now);
        let mut sentences = vec![standing(rollout)];
        sentences.extend(self.approval(rollout));
        sentences.push(self.outlook(rollout, left.is_some()));
        if rollout.verdicts.is_empty() && rollout.values.is_empty() {
            sentences.push("No rule has compared it with the past yet.".to_owned());
        }
        for verdict in &rollout.verdicts {
            sentences.extend(rule::now(verdict, &rollout.candidate, baseline, left));
        }
        if let Some(narrow) = &rollout.narrow {
            sentences.extend(many::rest(narrow, &rollout.candidate, baseline));
        }
        sentences.extend(rollout.values.iter().map(|value| rule::value(value, &rollout.candidate)));
        sentences
    }

    /// What comes of it at the end of its observation, as it stands.
    fn outlook(&self, rollout: &RolloutView, goes_on: bool) -> String {
        let end = clock(&rollout.observe_until);
        let against = rollout.baseline.as_ref().map(|b| format!(" against {b}"));
        let since = format!(
            "It is observed{} since {}",
            against.unwrap_or_default(),
            clock(&rollout.started_at)
        );
        let counted = match &rollout.counted_until {
            Some(counted) => format!(", counted until {}", clock(counted)),
            None => String::new(),
        };
        if !goes_on {
            return format!("{since}{counted}; its time was over at {end}.");
        }
        let then = if is(rollout, "regressed") {
            "While it fails so, it is not promoted then."
        } else if !is(rollout, "suspect") {
            "If nothing speaks against it then, it is promoted."
        } else if self.fleet.when_unsure == "rollback" {
            "If it is still suspect then, it is rolled back (`when_unsure: rollback`)."
        } else {
            "If it is still suspect then, it stays and people are told (`when_unsure: hold`)."
        };
        let left = until(&rollout.observe_until, self.now).map(span).unwrap_or_default();
        format!("{since}{counted}, and for another {left}, until {end}. {then}")
    }

    /// A version that was taken back, or is on its way.
    pub(super) fn rolled_back(&self, past: &PastView, rollback: &RollbackView) -> Vec<String> {
        let (bad, good) = (&rollback.from_version, &rollback.version);
        let at = clock(&past.at);
        let first = if rollback.reason == CAME_BACK {
            format!(
                "{bad} is denied, and came back: at {at} it was taken back to {good} once more, by \
                 a rollback of its own."
            )
        } else {
            format!("{bad} was rolled back to {good} at {at}: {}.", rollback.reason)
        };
        let mut sentences = vec![first, step(rollback)];
        if self.fleet.denied.contains(bad) {
            sentences.push(format!(
                "{bad} is denied: no worker of it may start until an operator allows it \
                 (`rollbackd allow {} --version {bad} --reason …`).",
                self.fleet.fleet
            ));
        }
        sentences
    }

    /// A version that was judged, or needed not to be.
    pub(super) fn judged(&self, past: &PastView) -> Vec<String> {
        let (version, at) = (&past.version, clock(&past.at));
        let mut sentences = vec![match past.outcome.as_str() {
            "promoted" => format!(
                "{version} was promoted at {at}: it was observed, and nothing spoke against it."
            ),
            "left" => format!(
                "{version} left at {at} before it was judged. If it comes back, it is observed \
                 from the beginning."
            ),
            "rolled_back" => format!("{version} was rolled back at {at}."),
            _ => format!(
                "{version} carried the fleet when rollbackd first saw it, at {at}, and was taken \
                 as good without being judged."
            ),
        }];
        if self.fleet.last_good.as_ref() == Some(version) {
            sentences.push(format!("{version} is the last good version now."));
        }
        sentences
    }

    /// A version with workers, about which nothing was ever decided.
    pub(super) fn unjudged(&self, version: &str) -> String {
        let seen = self.fleet.versions.iter().find(|seen| seen.version == version);
        let workers = counted(seen.map_or(0, |seen| u64::from(seen.workers)), "worker");
        let why = match &self.fleet.holding {
            Some(why) => format!(": {why}"),
            None => String::new(),
        };
        format!("{version} has {workers} and is not under observation{why}.")
    }
}

/// What is done about a candidate, and why.
fn standing(rollout: &RolloutView) -> String {
    let candidate = &rollout.candidate;
    let reason = rollout.held.as_deref().unwrap_or("no reason was given");
    let started: u64 = rollout.verdicts.iter().map(|verdict| verdict.started).sum();
    if let Some(narrow) = &rollout.narrow {
        return many::slice(narrow, candidate);
    }
    match rollout.decision.as_str() {
        "hold" => format!("Nothing is done about {candidate}: {reason}."),
        "escalate" => format!("A person must decide on {candidate}: {reason}."),
        "wait" if is(rollout, "regressed") => format!(
            "{candidate} fails more than allowed. Before anything is done, it is asked whether \
             that sits in one slice of its sessions."
        ),
        _ if started == 0 => format!(
            "Nothing is done about {candidate}: no session of it has been counted yet, and it \
             is promoted only after one was."
        ),
        _ if is(rollout, "suspect") => format!(
            "Nothing is done about {candidate} yet: it is suspect, and the evidence is not \
             strong enough to act without a person."
        ),
        _ => format!("Nothing is done about {candidate}: nothing speaks against it so far."),
    }
}

fn is(rollout: &RolloutView, verdict: &str) -> bool {
    rollout.verdicts.iter().any(|view| view.verdict == verdict)
}

/// Where a rollback is, and what it waits for.
fn step(rollback: &RollbackView) -> String {
    let (bad, good) = (&rollback.from_version, &rollback.version);
    let since = clock(&rollback.state_since);
    let left = format!(
        "{} and {} of {bad} are left",
        counted(u64::from(rollback.bad_workers), "worker"),
        sessions(rollback.bad_live),
    );
    let able = format!(
        "{} of {good} can take sessions, of {} needed",
        counted(u64::from(rollback.good_workers), "worker"),
        rollback.workers_needed
    );
    match (rollback.state.as_str(), rollback.awaiting.as_deref()) {
        ("chosen" | "gated" | "starting", _) => format!(
            "Before anything is drained, {good} must be seen able to carry the load: {able}."
        ),
        ("capable", _) => format!("{good} can carry the load; {bad} is drained next."),
        ("draining", _) => format!(
            "The platform has been asked since {since} to drain {bad}, and has not accepted yet: \
             {left}. It is asked again with each look; the log says why it refuses."
        ),
        ("recorded" | "confirming", _) => format!(
            "{bad} takes no new session and lets the live ones end: {left}. It waits for that as \
             long as it takes."
        ),
        ("stuck", Some("capacity")) => format!(
            "It is stuck since {since}: {able}. Nothing is drained before; it goes on by itself \
             once enough workers of {good} are seen. Start them, or end the rollback \
             (`rollbackd abandon {}`).",
            rollback.fleet
        ),
        ("stuck", _) => format!(
            "It is stuck since {since}, past its drain deadline: {left}. It still waits, and never \
             ends a session by force."
        ),
        ("clean", _) => format!("It ended at {since}: nothing of {bad} was left."),
        ("abandoned", _) => format!("An operator ended it at {since} as it stood."),
        (other, _) => format!("It is {other} since {since}."),
    }
}

fn sessions(live: f64) -> String {
    counted(if live > 0.0 { whole(live) } else { 0 }, "live session")
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before")]
fn whole(value: f64) -> u64 {
    value.ceil().clamp(0.0, 9e15) as u64
}
