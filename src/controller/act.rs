//! Recording, and only then acting.
//!
//! **Invariant:** an effect starts only after the record of the state that asks for it is on disk,
//! and carries the rollback's id and step, so that a repetition is harmless.

use std::time::Duration;

use tracing::{error, info, warn};

use crate::config::FleetConfig;
use crate::config::OnStartTimeout;
use crate::domain::fleet::FleetId;
use crate::domain::history::Happening;
use crate::domain::rollback::{Awaiting, Effect, Event, Policy, Rollback, State, step};
use crate::domain::time::Timestamp;
use crate::ledger::event;
use crate::ledger::record::{Draft, rfc3339};
use crate::ports::inbox::Order;
use crate::ports::ledger::{Ledger, LedgerError};
use crate::ports::metrics::MetricSource;
use crate::ports::platform::{DrainRequest, Platform, PlatformError, StartRequest};

use super::fleet::EffectState;
use super::{Controller, Report, Stop, belongs, log};

/// Ticks after which workers that have not come up are asked for again.
const START_REPEAT_TICKS: u32 = 10;

/// The least time before they are.
const START_REPEAT_MIN: Duration = Duration::from_secs(10);

impl<S: MetricSource, P: Platform, L: Ledger> Controller<S, P, L> {
    /// Appends records. `false`: the ledger takes none now, and what depends on them must wait.
    pub(super) async fn append(&mut self, drafts: Vec<Draft>) -> Result<bool, Stop> {
        let count = drafts.len() as u64;
        match self.ports.ledger.append(self.last_seq, drafts).await {
            Ok(records) => {
                for record in &records {
                    self.chronicle.take(record);
                }
                self.last_seq += count;
                self.ports.metrics.records_appended(count);
                if self.ledger_failing.take().is_some() {
                    info!("the ledger takes records again");
                }
                Ok(true)
            }
            Err(conflict @ LedgerError::Conflict { .. }) => Err(conflict.into()),
            Err(failure @ LedgerError::Storage { .. }) => {
                let text = failure.to_string();
                if self.ledger_failing.as_ref() != Some(&text) {
                    error!(reason = text, "not acting: the ledger takes no record");
                }
                self.ledger_failing = Some(text);
                Ok(false)
            }
        }
    }

    /// After a failed append it is not known what is on disk, and it may hold what was said not to
    /// be recorded. Going on without it would act on another state than the ledger's, so whoever
    /// starts next has to read it.
    pub(super) async fn check_what_is_written(&mut self) -> Result<(), Stop> {
        if self.ledger_failing.is_none() {
            return Ok(());
        }
        match self.ports.ledger.read(self.last_seq, 1).await {
            Ok(written) if !written.is_empty() => {
                let found = self.last_seq + written.len() as u64;
                Err(LedgerError::Conflict { expected: self.last_seq, found }.into())
            }
            // Nothing more, or it cannot be read either: the next look asks again.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Records a happening, after the drafts that explain it, and lets it take effect on the
    /// state. `false`: it is not recorded, so it has not happened.
    pub(super) async fn record(
        &mut self,
        name: &str,
        drafts: Vec<Draft>,
        happening: Happening,
    ) -> Result<bool, Stop> {
        self.record_by(None, name, drafts, happening).await
    }

    /// The same, on an operator's word: the record names who, and why.
    pub(super) async fn record_by(
        &mut self,
        order: Option<&Order>,
        name: &str,
        mut drafts: Vec<Draft>,
        happening: Happening,
    ) -> Result<bool, Stop> {
        let at = self.ports.clock.now();
        let rollback = self.fleets.get(name).and_then(|f| f.observed.history.rollback().cloned());
        let mut draft = event::to_draft(name, at, &happening, rollback.as_ref());
        if let Some(order) = order {
            draft.actor.clone_from(&order.actor);
            draft.extra.insert("reason".to_owned(), order.reason.as_str().into());
            draft.extra.insert("actor_proven".to_owned(), order.actor_proven.into());
        }
        drafts.push(draft);
        if !self.append(drafts).await? {
            return Ok(false);
        }
        let seq = self.last_seq;
        let fleet = self.fleets.entry(name.to_owned()).or_default();
        fleet
            .observed
            .history
            .apply(seq, at, &happening)
            .map_err(|why| Stop::Impossible { seq, why })?;
        log::happened(name, &happening, rollback.as_ref());
        self.publish_one(name);
        Ok(true)
    }

    /// Shows a rollback what the last look saw, and repeats an effect that has not been accepted.
    pub(super) async fn see_rollback(&mut self, name: &str, now: Timestamp) -> Result<(), Stop> {
        let interval = self.entries.iter().find(|entry| belongs(name, entry)).map(|e| e.interval);
        let Some(fleet) = self.fleets.get_mut(name) else { return Ok(()) };
        let Some(rollback) = fleet.observed.history.rollback().cloned() else { return Ok(()) };
        // A look from before the last step shows workers that have gone, and none of those to go:
        // one that was under way, or one by a clock that was put back.
        if now < rollback.state_since.align_down(Duration::from_secs(1)) {
            if self.ports.clock.now() < rollback.state_since {
                let since = rfc3339(rollback.state_since);
                fleet.holding = Some(format!("the clock is behind: the rollback moved at {since}"));
            }
            return Ok(());
        }
        let sighting = fleet.sighting(&rollback.good, &rollback.bad, now);
        // A look out of turn may see the same scrape again: one scrape is not two.
        if rollback.state.drains() && !now.is_past(fleet.confirmed_at, interval.unwrap_or_default())
        {
            return Ok(());
        }
        fleet.confirmed_at = now;
        // Workers that were there when the platform was asked may have left since.
        let patience = (interval.unwrap_or_default() * START_REPEAT_TICKS).max(START_REPEAT_MIN);
        let asked = fleet.effect.as_ref().filter(|effect| effect.accepted);
        let waits = rollback.state.effect() == Some(Effect::Start);
        if waits && asked.is_some_and(|effect| now.is_past(effect.asked_at, patience)) {
            fleet.effect = None;
        }
        let (bad, live) = (rollback.bad.clone(), sighting.bad_live);
        self.ports.metrics.set_draining_sessions(name, bad.as_str(), live);
        fleet.saw_live(&rollback.id, now, live);
        if !self.drive(name, Event::Seen(sighting), now).await? {
            // What was seen asks for another step than the one that would settle.
            return Ok(());
        }
        // After a restart, or where a step settles by itself and its record failed before.
        self.drive(name, Event::Settled, now).await?;
        self.drain_newcomers(name);
        Ok(())
    }

    /// Asks workers of the bad version to drain that have come since the platform was asked. Their
    /// manifest tells them; a drain command has not.
    fn drain_newcomers(&mut self, name: &str) {
        let commands = self.config_of(name).is_some_and(|config| config.drain.command.is_some());
        let Some(fleet) = self.fleets.get_mut(name).filter(|_| commands) else { return };
        let Some(rollback) = fleet.observed.history.rollback().cloned() else { return };
        let waits = match rollback.state {
            State::Confirming { .. } | State::Stuck(Awaiting::Emptiness { .. }) => true,
            State::Chosen
            | State::Gated
            | State::Starting
            | State::Capable
            | State::Draining
            | State::Recorded
            | State::Clean
            | State::Stuck(Awaiting::Capacity)
            | State::Abandoned => false,
        };
        let under_way = fleet.effect.as_ref().is_some_and(|effect| !effect.accepted);
        let seen = fleet.observed.seen.get(&rollback.bad).map_or(&[][..], |seen| &seen.workers);
        // One of the same name that comes again later is another.
        fleet.asked_to_drain.retain(|worker| seen.contains(worker));
        let new = seen.iter().any(|worker| !fleet.asked_to_drain.contains(worker));
        if waits && new && !under_way {
            fleet.effect = None;
            self.ask(name, &rollback, Effect::Drain);
        }
    }

    /// Takes a rollback as far as it goes without waiting for anything. `false`: a step could not
    /// be recorded, so it was not taken.
    pub(super) async fn drive(
        &mut self,
        name: &str,
        first: Event,
        now: Timestamp,
    ) -> Result<bool, Stop> {
        let mut event = first;
        loop {
            let Some(policy) = self.policy(name) else { return Ok(true) };
            let Some(fleet) = self.fleets.get_mut(name) else { return Ok(true) };
            let Some(rollback) = fleet.observed.history.rollback().cloned() else {
                return Ok(true);
            };
            let settled = event == Event::Settled;
            if settled && !fleet.has_settled(&rollback) {
                self.perform(name, &rollback);
                return Ok(true);
            }
            let (next, _) = step(&rollback, event, now, &policy);
            if next.name() == rollback.state.name() {
                fleet.observed.history.count_empty_look(next);
                return Ok(true);
            }
            let took = now.since(rollback.state_since);
            let moved = Happening::RollbackMoved { id: rollback.id.clone(), state: next };
            if !self.record(name, Vec::new(), moved).await? {
                return Ok(false);
            }
            self.ports.metrics.rollback_step_finished(rollback.state.name(), took);
            if next.is_final() {
                self.ports.metrics.rollback_finished(name, next.name());
            }
            // Past the gate only by what is seen from now on: what the last look saw may be long
            // gone, where Prometheus has not answered since and a person asked for this.
            event = Event::Settled;
        }
    }

    fn policy(&self, name: &str) -> Option<Policy> {
        let config = self.config_of(name)?;
        Some(Policy {
            start_timeout: config.start_timeout,
            proceed_without_capacity: config.on_start_timeout == OnStartTimeout::Proceed,
            drain_deadline: config.drain_deadline,
        })
    }

    pub(super) fn config_of(&self, name: &str) -> Option<&FleetConfig> {
        self.entries.iter().find(|entry| belongs(name, entry)).map(|entry| &*entry.config)
    }

    /// Starts the effect of the rollback's state, unless it is under way or accepted already.
    fn perform(&mut self, name: &str, rollback: &Rollback) {
        if let Some(effect) = rollback.state.effect() {
            self.ask(name, rollback, effect);
        }
    }

    fn ask(&mut self, name: &str, rollback: &Rollback, effect: Effect) {
        let id = rollback.effect_id(effect);
        let Some(config) = self.config_of(name) else { return };
        let fleet_id = fleet_id(name, config);
        let Some(fleet) = self.fleets.get_mut(name) else { return };
        let now = self.ports.clock.now();
        if fleet.effect.as_ref().is_some_and(|known| known.effect == id) {
            return;
        }
        fleet.effect = Some(EffectState { effect: id.clone(), accepted: false, asked_at: now });
        let workers = fleet.observed.seen.get(&rollback.bad).map(|seen| seen.workers.clone());
        if effect == Effect::Drain {
            fleet.asked_to_drain = workers.iter().flatten().cloned().collect();
        }
        let asked = match effect {
            Effect::Start => Asked::Start(StartRequest {
                effect: id.clone(),
                fleet: fleet_id,
                version: rollback.good.clone(),
                count: rollback.workers_needed,
            }),
            Effect::Drain => Asked::Drain(DrainRequest {
                effect: id.clone(),
                fleet: fleet_id,
                version: rollback.bad.clone(),
                workers: workers.unwrap_or_default(),
            }),
        };
        let (platform, reports) = (self.ports.platform.clone(), self.reports.0.clone());
        let name = name.to_owned();
        tokio::spawn(async move {
            let result = match asked {
                Asked::Start(request) => platform.start(request).await,
                Asked::Drain(request) => platform.drain(request).await,
            };
            // Only a controller that has stopped does not take reports.
            drop(reports.send(Report::Effect { fleet: name, effect: id, result }).await);
        });
    }

    pub(super) async fn take_effect(
        &mut self,
        name: &str,
        effect: &str,
        result: Result<(), PlatformError>,
    ) -> Result<(), Stop> {
        let Some(fleet) = self.fleets.get_mut(name) else { return Ok(()) };
        let Some(known) = fleet.effect.as_mut().filter(|known| known.effect == effect) else {
            return Ok(());
        };
        match result {
            Ok(()) => {
                known.accepted = true;
                self.drive(name, Event::Settled, self.ports.clock.now()).await.map(|_| ())
            }
            Err(reason) => {
                // The next look asks again.
                let rollback = fleet.observed.history.rollback();
                let id = rollback.map(|rollback| rollback.id.as_str());
                let version = rollback.map(|rollback| tracing::field::display(&rollback.bad));
                let message = "the platform did not accept an effect";
                warn!(fleet = name, version, rollback = id, effect, %reason, message);
                fleet.effect = None;
                fleet.asked_to_drain.clear();
                Ok(())
            }
        }
    }
}

/// A request to the platform.
enum Asked {
    Start(StartRequest),
    Drain(DrainRequest),
}

pub(super) fn fleet_id(name: &str, config: &FleetConfig) -> FleetId {
    let unescape = |part: &str| part.replace("%3A", ":").replace("%2F", "/").replace("%25", "%");
    FleetId { name: config.name.clone(), by: name.split(':').skip(1).map(unescape).collect() }
}
