//! An operator's word: checked against what is, recorded with who and why, and only then done.

use serde_json::Map;
use tracing::warn;

use crate::domain::decision::{AWAITS_APPROVAL, Decision, ONE_OF_MANY};
use crate::domain::history::Happening;
use crate::domain::rollback::State;
use crate::domain::time::Timestamp;
use crate::domain::version::Version;
use crate::ledger::record::Draft;
use crate::ports::inbox::{Act, Order, Refusal};
use crate::ports::ledger::Ledger;
use crate::ports::metrics::MetricSource;
use crate::ports::platform::Platform;

use super::fleet::Fleet;
use super::{Controller, Stop};

/// What an order comes to.
#[derive(Debug, PartialEq)]
enum Step {
    /// This has happened.
    Happens(Happening),
    /// A rollback of this version begins; `event` is the record of the word.
    RollsBack { bad: Version, to: Option<Version>, event: &'static str },
}

impl Step {
    /// The version and the rollback that it is about, for the log.
    fn about(&self) -> (Option<String>, Option<String>) {
        match self {
            Self::Happens(Happening::Allowed { version }) => (Some(version.to_string()), None),
            Self::Happens(Happening::RollbackMoved { id, .. }) => (None, Some(id.clone())),
            Self::Happens(_) => (None, None),
            Self::RollsBack { bad, .. } => (Some(bad.to_string()), None),
        }
    }
}

impl<S: MetricSource, P: Platform, L: Ledger> Controller<S, P, L> {
    /// Carries out an order, and says in a sentence what was done.
    pub(super) async fn take_order(
        &mut self,
        order: &Order,
    ) -> Result<Result<String, Refusal>, Stop> {
        let (name, now) = (order.fleet.as_str(), self.ports.clock.now());
        let known = self.config_of(name).is_some();
        let Some(fleet) = self.fleets.get(name).filter(|_| known) else {
            return Ok(Err(Refusal::UnknownFleet(name.to_owned())));
        };
        let step = match plan(fleet, &order.act, now) {
            Ok(step) => step,
            Err(why) => return Ok(Err(Refusal::Conflict(why))),
        };
        let (version, rollback) = step.about();
        let (recorded, done) = match step {
            Step::Happens(happening) => {
                let done = sentence(&happening);
                let ends = matches!(happening, Happening::RollbackMoved { .. });
                let recorded = self.record_by(Some(order), name, Vec::new(), happening).await?;
                if let Some(fleet) = self.fleets.get_mut(name).filter(|_| recorded && ends) {
                    fleet.effect = None;
                    self.ports.metrics.rollback_finished(name, State::Abandoned.name());
                }
                (recorded, done)
            }
            Step::RollsBack { bad, to, event } => {
                let rollout = fleet.observed.history.rollouts().get(&bad);
                let workers = rollout.map_or(0, |rollout| rollout.baseline_workers);
                let reason = format!("on the word of {}: {}", order.actor, order.reason);
                let drafts = vec![word(order, event, &bad, now)];
                let to = to.as_ref();
                let recorded = self.choose(name, &bad, to, workers, drafts, reason, now).await?;
                (recorded, format!("rolling back {bad}"))
            }
        };
        if !recorded {
            let failing = self.ledger_failing.clone().unwrap_or_default();
            return Ok(Err(Refusal::NotRecorded(failing)));
        }
        let (actor, reason) = (&order.actor, &order.reason);
        warn!(fleet = name, version, rollback, actor, reason, done, "on an operator's word");
        Ok(Ok(done))
    }
}

/// What an order comes to in the fleet's state; the error says why it comes to nothing.
fn plan(fleet: &Fleet, act: &Act, now: Timestamp) -> Result<Step, String> {
    let history = &fleet.observed.history;
    match act {
        Act::Pause { until } => match history.paused(now) {
            Some(_) => Err("it is paused already; resume it first".to_owned()),
            None if until.is_some_and(|until| until <= now) => {
                Err("the pause would be over already".to_owned())
            }
            None => Ok(Step::Happens(Happening::Paused { until: *until })),
        },
        Act::Resume if history.paused(now).is_none() => Err("it is not paused".to_owned()),
        Act::Resume => Ok(Step::Happens(Happening::Resumed)),
        Act::Allow { version } => match history.rollback() {
            _ if !history.denied().contains(version) => {
                Err(format!("version {version} is not denied"))
            }
            Some(rollback) if rollback.bad == *version => {
                Err(format!("its rollback {} is under way; abandon that first", rollback.id))
            }
            _ => Ok(Step::Happens(Happening::Allowed { version: version.clone() })),
        },
        Act::Abandon => match history.rollback() {
            None => Err("no rollback is under way".to_owned()),
            Some(rollback) => Ok(Step::Happens(Happening::RollbackMoved {
                id: rollback.id.clone(),
                state: State::Abandoned,
            })),
        },
        Act::Approve { version } => {
            // The verdict may no longer stand; `rollback` needs none.
            if let Some(why) = &fleet.holding {
                return Err(format!("nothing can be approved now: {why}"));
            }
            let waits = |v: &&Version| {
                let ground = fleet.told.get(*v).and_then(Decision::ground);
                ground.is_some_and(|ground| [AWAITS_APPROVAL, ONE_OF_MANY].contains(&ground.reason))
            };
            let waiting: Vec<&Version> = history.rollouts().keys().filter(waits).collect();
            let bad = only(version.as_ref(), &waiting, "waits for approval")?;
            roll_back(fleet, bad, None, "operator.approved", now)
        }
        Act::RollBack { version, to } => {
            let candidates: Vec<&Version> = history.rollouts().keys().collect();
            let known =
                fleet.observed.seen.keys().chain(history.last_good()).chain(history.denied());
            let bad = match version {
                Some(version) => only(
                    Some(version),
                    &candidates.into_iter().chain(known).collect::<Vec<_>>(),
                    "is known here",
                )?,
                None => only(None, &candidates, "is under observation")?,
            };
            roll_back(fleet, bad, to.as_ref(), "operator.rolled_back", now)
        }
    }
}

fn roll_back(
    fleet: &Fleet,
    bad: &Version,
    to: Option<&Version>,
    event: &'static str,
    now: Timestamp,
) -> Result<Step, String> {
    let history = &fleet.observed.history;
    if let Some(rollback) = history.rollback() {
        return Err(format!("the rollback {} is under way", rollback.id));
    }
    // How many workers must take over is told by those that are seen.
    if fleet.is_unseen() {
        return Err("no worker of this fleet is seen now, so it is not known how many must take \
                    over; say it again once rollbackd sees them"
            .to_owned());
    }
    // One that came back too often to be drained again by itself is a person's to drain.
    if history.denied().contains(bad) && fleet.workers_of(bad, now) == 0 {
        return Err(format!("version {bad} is denied already, and none of its workers is seen"));
    }
    if let Some(to) = to
        && (to == bad || !history.was_promoted(to) || history.denied().contains(to))
    {
        return Err(format!("version {to} is not known as good"));
    }
    match history.last_good_except(Some(bad)) {
        Some(_) => Ok(Step::RollsBack { bad: bad.clone(), to: to.cloned(), event }),
        None => Err(format!("there is no last good version but {bad} to go back to")),
    }
}

/// The version named, if it is among `those`, or the only one of them.
fn only<'a>(
    named: Option<&Version>,
    those: &[&'a Version],
    what: &str,
) -> Result<&'a Version, String> {
    match (named, those) {
        (Some(named), _) => {
            let found = those.iter().find(|version| **version == named);
            found.copied().ok_or_else(|| format!("no version {named} {what}"))
        }
        (None, []) => Err(format!("no version {what}")),
        (None, [one]) => Ok(one),
        (None, several) => {
            let all: Vec<&str> = several.iter().map(|version| version.as_str()).collect();
            Err(format!("more than one version {what}; say which of {}", all.join(", ")))
        }
    }
}

fn sentence(happening: &Happening) -> String {
    match happening {
        Happening::Paused { until: None } => "paused until resumed".to_owned(),
        Happening::Paused { until: Some(until) } => {
            format!("paused until {}", crate::ledger::record::rfc3339(*until))
        }
        Happening::Resumed => "resumed".to_owned(),
        Happening::Allowed { version } => format!("{version} is allowed again"),
        Happening::RollbackMoved { id, .. } => {
            format!("abandoned {id}; its bad version stays denied until it is allowed")
        }
        Happening::BaselineAdopted { .. }
        | Happening::RolloutStarted { .. }
        | Happening::RolloutEnded { .. }
        | Happening::Regressed { .. }
        | Happening::HeldBack { .. }
        | Happening::Promoted { .. }
        | Happening::RollbackChosen { .. } => String::new(),
    }
}

/// The record of a word that begins a rollback.
fn word(order: &Order, event: &str, bad: &Version, at: Timestamp) -> Draft {
    let mut extra = Map::new();
    extra.insert("fleet".to_owned(), order.fleet.as_str().into());
    extra.insert("reason".to_owned(), order.reason.as_str().into());
    extra.insert("actor_proven".to_owned(), order.actor_proven.into());
    Draft {
        at,
        event: event.to_owned(),
        actor: order.actor.clone(),
        target: order.fleet.clone(),
        result: "ok".to_owned(),
        version: Some(bad.to_string()),
        extra,
    }
}
