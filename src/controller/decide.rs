//! From an answer to decisions: discover, take the ticks, judge, and do what the table says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use crate::config::FleetConfig;
use crate::domain::decision::{AWAITS_APPROVAL, Decision, ONE_OF_MANY, Situation, decide};
use crate::domain::history::{Happening, Rollout};
use crate::domain::narrow::Breadth;
use crate::domain::rollback::{Event, Rollback, State};
use crate::domain::time::Timestamp;
use crate::domain::version::Version;
use crate::evaluate::answers::{self, Seen, Table, Values};
use crate::evaluate::judge::{Ahead, Judgement, judge, look_ahead, threshold_log10};
use crate::evaluate::plan::{Answer, Plan, RuleAnswer};
use crate::evaluate::slices::{self, Look};
use crate::ports::ledger::Ledger;
use crate::ports::metrics::MetricSource;
use crate::ports::platform::Platform;
use crate::rules::Group;

use super::fleet::Fleet;
use super::{Controller, Stop, belongs, evidence, show};

impl<S: MetricSource, P: Platform, L: Ledger> Controller<S, P, L> {
    pub(super) async fn take_answer(
        &mut self,
        plan: &Plan,
        took: Duration,
        answer: &Answer,
    ) -> Result<(), Stop> {
        let Some(entry) = self.entries.get(plan.entry) else { return Ok(()) };
        let (config, groups, interval) =
            (entry.config.clone(), entry.groups.clone(), entry.interval);
        let seen = answers::fleets_at(&config, &answer.fleet, plan.seen.last);
        let names: BTreeSet<String> = self.fleets_of(entry).map(|(name, _)| name.clone()).collect();
        let names: BTreeSet<String> = names.into_iter().chain(seen.keys().cloned()).collect();
        for name in &names {
            self.discover(name, &config, &seen, plan.at, interval).await?;
        }
        let look = Look { config: &config, groups: &groups, plan, answer };
        let mut ahead = self.take_ticks(&config, &groups, plan, answer, &names);
        for name in &names {
            if let Some(fleet) = self.fleets.get_mut(name) {
                fleet.put_back(plan.at);
                fleet.observed.begin_watches(&groups);
                // A rollout that has just begun is compared with its past at once.
                let unread =
                    fleet.observed.watches.values().flat_map(|watch| watch.groups.values());
                let unread = unread.into_iter().any(|watch| watch.rules.is_none());
                if let Some(entry) = self.entries.get_mut(plan.entry).filter(|_| unread) {
                    entry.out_of_turn = true;
                }
            }
        }
        self.judge_fleets(&names, look, &mut ahead).await?;
        for name in &names {
            // First: a rollback that it begins goes on by this look.
            self.see_comebacks(name, plan.at).await?;
            self.see_rollback(name, plan.at).await?;
            if let Some(fleet) = self.fleets.get_mut(name) {
                for version in fleet.let_go(plan.at) {
                    self.ports.metrics.forget_version(name, version.as_str());
                }
            }
        }
        self.ports.metrics.evaluation_finished(plan.at, took);
        Ok(())
    }

    async fn discover(
        &mut self,
        name: &str,
        config: &FleetConfig,
        seen: &Seen,
        at: Timestamp,
        interval: Duration,
    ) -> Result<(), Stop> {
        let versions = seen.get(name).cloned().unwrap_or_default();
        let fleet = self.fleets.entry(name.to_owned()).or_default();
        let found = fleet.observed.discover(config, &versions, at, interval);
        let gone = fleet.observed.count_absent(&versions);
        let nothing = versions.values().all(|version| version.workers.is_empty());
        fleet.holding = match found.unclear {
            Some(unclear) => Some(unclear.to_owned()),
            None if nothing => Some("no worker of this fleet is seen".to_owned()),
            None => None,
        };
        fleet.observed.seen = versions;
        fleet.observed.looked = true;
        let ended = gone.into_iter().map(|candidate| Happening::RolloutEnded { candidate });
        for happening in found.happenings.into_iter().chain(ended) {
            self.record(name, Vec::new(), happening).await?;
        }
        Ok(())
    }

    /// Takes what is over, and returns what the rules would say of what is not.
    fn take_ticks(
        &mut self,
        config: &FleetConfig,
        groups: &[Group],
        plan: &Plan,
        answer: &Answer,
        names: &BTreeSet<String>,
    ) -> Ahead {
        let read = |rules: &[RuleAnswer]| -> Vec<Table> {
            rules.iter().map(|rule| Table::read(config, rule)).collect()
        };
        let mut ahead = BTreeMap::new();
        for (group_plan, group_answer) in plan.groups.iter().zip(&answer.groups) {
            let index = group_plan.group;
            let Some(group) = groups.get(index) else { continue };
            for (span, rules) in group_plan.histories.iter().zip(&group_answer.histories) {
                let tables = read(rules);
                for (name, fleet) in select(&mut self.fleets, names) {
                    fleet.observed.read_history(
                        name,
                        (index, group),
                        config.observe_for,
                        *span,
                        &tables,
                    );
                }
            }
            if let Some(span) = group_plan.due {
                let tables = read(&group_answer.due);
                for (name, fleet) in select(&mut self.fleets, names) {
                    fleet.observed.take_ticks(name, index, span, &tables);
                }
            }
            if let Some(span) = group_plan.values {
                let each = group_answer.values.iter();
                let values: Vec<Values> = each.map(|rule| Values::read(config, rule)).collect();
                for (name, fleet) in select(&mut self.fleets, names) {
                    fleet.observed.take_values(name, index, span, &values);
                }
            }
            if let Some(span) = group_plan.unfinished {
                let tables = read(&group_answer.unfinished);
                for (name, fleet) in select(&mut self.fleets, names) {
                    look_ahead(&fleet.observed, name, index, span, &tables, &mut ahead);
                }
            }
        }
        ahead
    }

    /// Judges all candidates first and decides about them then, so that fleets which regress in
    /// the same look are known to be many before the first of them is taken back.
    async fn judge_fleets(
        &mut self,
        names: &BTreeSet<String>,
        look: Look<'_>,
        ahead: &mut Ahead,
    ) -> Result<(), Stop> {
        let Look { config, groups, plan, .. } = look;
        let threshold = threshold_log10(config.false_rollback_rate, groups);
        let (mut judged, mut unasked) = (Vec::new(), false);
        for name in names {
            let Some(fleet) = self.fleets.get_mut(name) else { continue };
            let observed = &mut fleet.observed;
            let rollouts: Vec<Rollout> = observed.history.rollouts().values().cloned().collect();
            let mut regressed = Vec::new();
            for rollout in rollouts {
                let mut judgement = judge(observed, name, groups, &rollout, threshold, ahead);
                slices::examine_look(observed, name, &rollout, look, threshold, &mut judgement);
                unasked |= judgement.breadth == Breadth::Unknown;
                show::count(&self.ports.metrics, name, &rollout, groups, &judgement, threshold);
                if observed.regresses(config, &rollout, &judgement, plan.at) {
                    regressed.push(rollout.candidate.clone());
                }
                judged.push((name, rollout, judgement));
            }
            for candidate in regressed {
                self.record(name, Vec::new(), Happening::Regressed { candidate }).await?;
            }
        }
        if let Some(entry) = self.entries.get_mut(plan.entry).filter(|_| unasked) {
            entry.out_of_turn = true;
        }
        let one_of_many = self.breaker_is_open(plan.at);
        for (name, rollout, judgement) in judged {
            let Some(fleet) = self.fleets.get(name) else { continue };
            let mut situation = fleet.observed.situation(config, &rollout, &judgement, plan.at);
            situation.one_of_many |= one_of_many;
            self.carry_out(name, look, &rollout, &judgement, &situation).await?;
        }
        Ok(())
    }

    async fn carry_out(
        &mut self,
        name: &str,
        look: Look<'_>,
        rollout: &Rollout,
        judgement: &Judgement,
        situation: &Situation,
    ) -> Result<(), Stop> {
        let (config, groups, at) = (look.config, look.groups, look.plan.at);
        let decision = decide(situation);
        let candidate = rollout.candidate.clone();
        let Some(fleet) = self.fleets.get_mut(name) else { return Ok(()) };
        let event = match &decision {
            Decision::Wait => {
                fleet.told.remove(&candidate);
                return Ok(());
            }
            Decision::Promote | Decision::RollBack(_) => "rollout.decided",
            Decision::FixForward(..) => "rollout.fix_forward",
            Decision::Escalate(ground) if ground.reason == AWAITS_APPROVAL => {
                "rollout.approval_requested"
            }
            Decision::Escalate(_) => "rollout.escalated",
            Decision::Hold(_) => "rollout.held",
        };
        let news = fleet.told.get(&candidate) != Some(&decision);
        let sentence = evidence::sentence(config, groups, rollout, judgement, &decision);
        let evidence = evidence::record(config, groups, judgement, situation);
        let draft = show::decided(at, name, event, rollout, &decision, &sentence, evidence);
        let ends = matches!(&decision, Decision::Promote | Decision::RollBack(_));
        if let Some(fleet) = self.fleets.get_mut(name).filter(|_| ends) {
            let threshold = threshold_log10(config.false_rollback_rate, groups);
            let judged = show::judged(fleet, rollout, groups, judgement, threshold, at);
            fleet.judged = Some(Arc::new(judged));
        }
        match &decision {
            Decision::Promote => {
                let promoted = Happening::Promoted { version: candidate };
                self.record(name, vec![draft], promoted).await?;
            }
            Decision::RollBack(_) => {
                let workers = rollout.baseline_workers;
                let bad = &rollout.candidate;
                self.choose(name, bad, None, workers, vec![draft], sentence, at).await?;
            }
            Decision::FixForward(ground, _)
            | Decision::Escalate(ground)
            | Decision::Hold(ground)
                if news =>
            {
                let (reason, rule) = (ground.reason, ground.rule.as_deref());
                let what = decision.name();
                let recorded = if reason == ONE_OF_MANY {
                    self.hold_back(name, &candidate, draft, at).await?
                } else {
                    self.append(vec![draft]).await?
                };
                if let Some(fleet) = self.fleets.get_mut(name).filter(|_| recorded) {
                    let version = &candidate;
                    warn!(fleet = name, %version, decision = what, reason, rule, "decided");
                    fleet.told.insert(candidate, decision);
                }
            }
            Decision::Wait
            | Decision::FixForward(..)
            | Decision::Escalate(_)
            | Decision::Hold(_) => {}
        }
        Ok(())
    }

    /// The first step: both versions, and how many workers must carry the load: as many as the
    /// bad version has, and no fewer than `workers_min`. `to`: a version that was good before, else
    /// the last good one. `false`: it is not recorded.
    #[expect(clippy::too_many_arguments, reason = "what a rollback is, and why")]
    pub(super) async fn choose(
        &mut self,
        name: &str,
        bad: &Version,
        to: Option<&Version>,
        workers_min: u32,
        drafts: Vec<crate::ledger::record::Draft>,
        reason: String,
        at: Timestamp,
    ) -> Result<bool, Stop> {
        let Some(fleet) = self.fleets.get(name) else { return Ok(false) };
        let last_good = fleet.observed.history.last_good_except(Some(bad));
        let Some(good) = to.or(last_good) else { return Ok(false) };
        let needed = fleet.workers_of(bad, at);
        let seq = self.last_seq + drafts.len() as u64 + 1;
        let rollback = Rollback {
            id: format!("{name}-{seq}"),
            bad: bad.clone(),
            good: good.clone(),
            workers_needed: needed.max(workers_min).max(1),
            reason,
            chosen_at: at,
            state: State::Chosen,
            state_since: at,
        };
        let recorded = self.record(name, drafts, Happening::RollbackChosen { rollback }).await?;
        if recorded {
            self.drive(name, Event::Settled, at).await?;
            // It goes on by what is seen from now on.
            if let Some(entry) = self.entries.iter_mut().find(|entry| belongs(name, entry)) {
                entry.out_of_turn = true;
            }
        }
        Ok(recorded)
    }
}

fn select<'a>(
    fleets: &'a mut BTreeMap<String, Fleet>,
    names: &'a BTreeSet<String>,
) -> impl Iterator<Item = (&'a String, &'a mut Fleet)> {
    fleets.iter_mut().filter(|(name, _)| names.contains(*name))
}
