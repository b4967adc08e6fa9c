//! What is not one version's alone, in sentences: a slice, many fleets, a comeback.

use super::About;
use super::rule;
use super::words::{counted, share};
use crate::domain::comeback::COMEBACKS_MAX;
use crate::domain::decision::{AWAITS_APPROVAL, ONE_OF_MANY};
use crate::ports::view::{NarrowView, RolloutView, VerdictView, VersionView};

/// Fleets that are named; more are counted.
const NAMED_MAX: usize = 10;

impl About<'_> {
    /// Many fleets regress at once: how many, which, and what to do.
    pub(super) fn many(&self) -> Option<String> {
        let breaker = self.view.breaker.open.then_some(&self.view.breaker)?;
        let names = &breaker.regressed_fleets;
        let mut told: Vec<String> = names.iter().take(NAMED_MAX).cloned().collect();
        if names.len() > NAMED_MAX {
            told.push(format!("and {} more", names.len() - NAMED_MAX));
        }
        Some(format!(
            "Many fleets regress at once, {} of {}: {}. That is not one version's fault, so none \
             is rolled back by itself. Look for what they have in common; if it is the version \
             after all, approve each (`rollbackd approve {} --reason …`).",
            breaker.regressed,
            breaker.fleets,
            told.join(", "),
            self.fleet.fleet
        ))
    }

    /// Denied versions that run again, and are not on their way back.
    pub(super) fn comebacks(&self) -> Vec<String> {
        let leaving = super::state::under_way(self.view, self.fleet);
        let leaving = leaving.map(|rollback| rollback.from_version.as_str());
        let back = |seen: &&VersionView| {
            seen.denied && seen.workers > 0 && Some(seen.version.as_str()) != leaving
        };
        self.fleet.versions.iter().filter(back).map(|seen| self.comeback(seen)).collect()
    }

    fn comeback(&self, seen: &VersionView) -> String {
        let (version, fleet) = (&seen.version, &self.fleet.fleet);
        let workers = counted(u64::from(seen.workers), "worker");
        let of_it = self
            .view
            .rollbacks
            .iter()
            .filter(|rollback| rollback.fleet == *fleet && rollback.from_version == *version);
        let abandoned = of_it.clone().next_back().is_some_and(|last| last.state == "abandoned");
        let times = counted(of_it.count() as u64, "time");
        let what = match &seen.returned {
            _ if abandoned => "An operator ended its rollback, so they are left alone.".to_owned(),
            Some(why) => format!(
                "It is not drained at the moment: {why}. Stop what starts it, or allow it \
                 (`rollbackd allow {fleet} --version {version} --reason …`)."
            ),
            None => format!(
                "It is drained again at the next look; coming back {COMEBACKS_MAX} times in an \
                 hour, it is left and people are told."
            ),
        };
        format!(
            "{version} is denied and has come back: it has {workers}, and was rolled back {times} \
             as far as is remembered. {what}"
        )
    }

    /// What a person does about a candidate that waits for one.
    pub(super) fn approval(&self, rollout: &RolloutView) -> Option<String> {
        let held = rollout.held.as_deref()?;
        let (fleet, candidate) = (&self.fleet.fleet, &rollout.candidate);
        let approve = format!("`rollbackd approve {fleet} --version {candidate} --reason …`");
        match held {
            AWAITS_APPROVAL => Some(format!("{approve} begins the rollback.")),
            ONE_OF_MANY => Some(format!(
                "That holds when the other fleets are over it, too: {approve} begins the rollback."
            )),
            _ => None,
        }
    }
}

/// One slice fails and the rest does not: what is done.
pub(super) fn slice(narrow: &NarrowView, candidate: &str) -> String {
    format!(
        "One slice of {candidate}'s sessions fails, and not the version as a whole: {} {} has {} of \
         the failures beyond those expected, in {} of the sessions. Nothing is rolled back: that \
         slice is to be mended forward. {candidate} is watched on, and rolled back once the rest is \
         suspect as well.",
        narrow.label,
        narrow.value,
        share(narrow.excess_share.clamp(0.0, 1.0)),
        share(narrow.traffic_share)
    )
}

/// What is said of the rest, under the name of that.
pub(super) fn rest_of_rule(rollout: &RolloutView) -> Option<VerdictView> {
    let NarrowView { label, value, rest, .. } = rollout.narrow.as_ref()?;
    Some(VerdictView { rule: format!("{} without {label} {value}", rest.rule), ..rest.clone() })
}

/// What the rule that convicts says of the rest.
pub(super) fn rest(narrow: &NarrowView, candidate: &str, baseline: &str) -> Vec<String> {
    let mut sentences = rule::now(&narrow.rest, candidate, baseline, None);
    if let Some(first) = sentences.first_mut() {
        *first = format!("Without {} {}, {first}", narrow.label, narrow.value);
    }
    sentences
}
