//! When to look, and what to ask: one entry of the config after the other, in tasks of their own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use crate::config::FleetConfig;
use crate::domain::fleet::entry_of;
use crate::domain::time::Timestamp;
use crate::evaluate::observed::{self, GroupWatch};
use crate::evaluate::plan::{self, GroupPlan, Plan, Span};
use crate::evaluate::slices;
use crate::ports::ledger::Ledger;
use crate::ports::metrics::{MetricError, MetricSource};
use crate::ports::platform::Platform;
use crate::rules::{Group, RuleSet};

use super::fleet::Fleet;
use super::{Controller, Report};

/// Two looks out of turn are at least this far apart: a flood of webhooks is one look a second.
const OUT_OF_TURN_GAP: Duration = Duration::from_secs(1);

/// The longest nap, so that a clock that jumps is noticed.
const NAP_MAX: Duration = Duration::from_secs(5);

/// A config entry and the rules for it.
pub(super) struct Entry {
    pub(super) config: Arc<FleetConfig>,
    pub(super) groups: Arc<Vec<Group>>,
    pub(super) interval: Duration,
    pub(super) looking: bool,
    pub(super) out_of_turn: bool,
    pub(super) last_look: Timestamp,
    pub(super) next_look: Timestamp,
    /// Why the last look had no answer, if it had none.
    pub(super) unanswered: Option<String>,
}

impl Entry {
    pub(super) fn new(config: Arc<FleetConfig>, rules: &RuleSet, now: Timestamp) -> Self {
        let groups = rules.groups.iter().filter(|group| group.fleet == config.name);
        let groups: Vec<Group> = groups.cloned().collect();
        let interval = groups.iter().map(|group| group.interval).min();
        Self {
            config,
            interval: interval.unwrap_or(Duration::from_secs(15)),
            groups: Arc::new(groups),
            looking: false,
            out_of_turn: false,
            last_look: Timestamp::from_millis(0),
            next_look: now,
            unanswered: None,
        }
    }

    /// How long after the end of a tick its last scrape, or the marker of a target that went, may
    /// still arrive: a scrape interval and a tenth, of which a tick has at least one, and a second.
    /// Until then a tick counts as not over; it is looked at all the same.
    pub(super) fn settle(&self) -> Duration {
        self.interval + self.interval / 10 + Duration::from_secs(1)
    }
}

impl<S: MetricSource, P: Platform, L: Ledger> Controller<S, P, L> {
    pub(super) fn nap(&self) -> Duration {
        let now = self.ports.clock.now();
        let until = |entry: &Entry| {
            let turn = entry.next_look.since(now);
            let early = (entry.last_look + OUT_OF_TURN_GAP).since(now);
            if entry.out_of_turn { early.min(turn) } else { turn }
        };
        let waiting = self.entries.iter().filter(|entry| !entry.looking);
        waiting.map(until).min().unwrap_or(NAP_MAX).min(NAP_MAX)
    }

    /// Starts every look that is due.
    pub(super) fn start_looks(&mut self) {
        let now = self.ports.clock.now();
        for index in 0..self.entries.len() {
            let Some(entry) = self.entries.get(index).filter(|entry| !entry.looking) else {
                continue;
            };
            let early = entry.out_of_turn && now >= entry.last_look + OUT_OF_TURN_GAP;
            // A turn further away than a tick is a clock that jumped back.
            let turn = now >= entry.next_look || entry.next_look > now + entry.interval * 2;
            if early || turn {
                let plan = self.plan(index, now.align_down(Duration::from_secs(1)));
                self.start_look(plan, now);
            }
        }
    }

    fn start_look(&mut self, plan: Plan, now: Timestamp) {
        let Some(entry) = self.entries.get_mut(plan.entry) else { return };
        entry.looking = true;
        entry.out_of_turn = false;
        entry.last_look = now;
        entry.next_look = now.align_down(entry.interval) + entry.interval;
        let (source, reports) = (self.ports.source.clone(), self.reports.0.clone());
        let (config, groups, reloads) = (entry.config.clone(), entry.groups.clone(), self.reloads);
        tokio::spawn(async move {
            let began = tokio::time::Instant::now();
            let answer = plan::look(&*source, &config, &groups, &plan).await;
            let report = Report::Looked { plan, reloads, took: began.elapsed(), answer };
            // Only a controller that has stopped does not take reports.
            drop(reports.send(report).await);
        });
    }

    pub(super) fn plan(&self, index: usize, now: Timestamp) -> Plan {
        let Some(entry) = self.entries.get(index) else {
            let seen = Span::instant(now);
            return Plan { entry: index, at: now, seen, lineage: None, groups: Vec::new() };
        };
        let fleets: Vec<&Fleet> = self.fleets_of(entry).map(|(_, fleet)| fleet).collect();
        let unknown =
            fleets.is_empty() || fleets.iter().any(|f| f.observed.history.last_good().is_none());
        let lineage = unknown.then(|| Span::history(now, entry.config.history, 240));
        let groups = entry.groups.iter().enumerate().map(|(group, rules)| {
            let watches = fleets.iter().flat_map(|fleet| fleet.observed.watches.values());
            let watches = watches.filter_map(|watch| watch.groups.get(&group));
            let watches: Vec<&GroupWatch> = watches.collect();
            let values = watches.iter().map(|watch| watch.values_cursor).min();
            let values = values.filter(|_| !rules.values.is_empty());
            let (read, unread): (Vec<_>, Vec<_>) =
                watches.into_iter().partition(|watch| watch.rules.is_some());
            let until = now - entry.settle();
            let oldest = |watches: &[&GroupWatch]| watches.iter().map(|w| w.cursor).min();
            let cursor = oldest(&read).into_iter().chain(oldest(&unread)).min();
            let due = cursor.and_then(|cursor| Span::due(cursor, until, rules.interval));
            let newest = due.map(|span| span.last).or(cursor);
            let ticks = observed::observation_ticks(entry.config.observe_for, rules.interval);
            let mut histories: Vec<Span> = unread
                .iter()
                .map(|watch| Span::history(watch.cursor, entry.config.history, ticks))
                .collect();
            histories.sort_unstable_by_key(|span| span.last);
            histories.dedup();
            GroupPlan {
                group,
                due,
                unfinished: newest.and_then(|cursor| Span::unfinished(cursor, now)),
                histories,
                slices: slices::plan(
                    fleets.iter().map(|fleet| &fleet.observed),
                    &entry.config,
                    rules,
                    newest,
                ),
                values: values.and_then(|cursor| Span::due(cursor, now, rules.interval)),
            }
        });
        let seen = Span::instant(now);
        Plan { entry: index, at: now, seen, lineage, groups: groups.collect() }
    }

    pub(super) fn fleets_of<'a>(
        &'a self,
        entry: &'a Entry,
    ) -> impl Iterator<Item = (&'a String, &'a Fleet)> {
        self.fleets.iter().filter(|(name, _)| belongs(name, entry))
    }

    /// Prometheus did not answer: nothing is decided, and people can see why.
    pub(super) fn hold_all(&mut self, index: usize, error: &MetricError) {
        let Some(entry) = self.entries.get_mut(index) else { return };
        let reason = format!("no evidence: {error}");
        for (name, fleet) in &mut self.fleets {
            if belongs(name, entry) {
                fleet.holding = Some(reason.clone());
            }
        }
        if entry.unanswered.as_ref() != Some(&reason) {
            warn!(fleet = %entry.config.name, %error, "holding: no decision without an answer");
        }
        entry.unanswered = Some(reason);
    }
}

/// Whether a fleet is one of an entry's.
pub(super) fn belongs(name: &str, entry: &Entry) -> bool {
    entry_of(name) == entry.config.name.as_str()
}

/// Whether an alert may speak of an entry's fleets: nothing in it says otherwise.
pub(super) fn concerns(labels: &BTreeMap<String, String>, entry: &Entry) -> bool {
    labels
        .get("fleet")
        .is_none_or(|fleet| fleet == entry.config.name.as_str() || belongs(fleet, entry))
}
