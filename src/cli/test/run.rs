//! Runs a test: discovery, ticks, judgement and the decision table are those of `run`.
//!
//! Three things differ. A scrape has arrived the moment it was taken, so a look counts all ticks
//! up to its own time and need not look ahead. A rollback is over the moment it is decided. And
//! the slices of a convicted candidate are asked for by the same look, not by the next one.

use std::collections::{BTreeMap, BTreeSet};

use super::file::{Test, TestFile};
use crate::config::FleetConfig;
use crate::domain::counts::Counts;
use crate::domain::decision::{Decision, decide};
use crate::domain::evidence::Evidence;
use crate::domain::history::{Happening, Impossible, Rollout};
use crate::domain::narrow::Breadth;
use crate::domain::rollback::{Rollback, State};
use crate::domain::time::Timestamp;
use crate::domain::version::Version;
use crate::evaluate::answers::{Table, Values};
use crate::evaluate::judge::{Ahead, Judgement, judge, rule_name, threshold_log10};
use crate::evaluate::observed::{Observed, RuleWatch, observation_ticks};
use crate::evaluate::plan::Span;
use crate::evaluate::slices::{self, Subject};
use crate::rules::Group;

/// What came of one candidate at one look.
pub(super) struct Moment {
    pub(super) at: Timestamp,
    pub(super) decision: Decision,
    pub(super) rules: Vec<Said>,
}

impl Moment {
    /// The decision's word, and the slice where it is about one.
    pub(super) fn said(&self) -> String {
        let word = self.decision.name();
        if let Decision::FixForward(_, slice) = &self.decision {
            return format!("{word} of {slice}");
        }
        word.to_owned()
    }
}

/// What one rule said then.
pub(super) struct Said {
    /// `group/rule`.
    pub(super) rule: String,
    pub(super) verdict: &'static str,
    pub(super) of: Figures,
}

/// On what.
pub(super) enum Figures {
    /// A session rule: the evidence, and the last tick of both sides.
    Sessions { evidence: Evidence, candidate: Counts, control: Counts, control_kind: &'static str },
    /// A value rule: the last value.
    Value(Option<f64>),
}

/// By fleet and candidate, in the order of time.
pub(super) type Story = BTreeMap<(String, Version), Vec<Moment>>;

/// Runs a test up to the last time it asks about.
///
/// # Errors
/// When what is decided cannot follow what was: a defect, not a failing test.
pub(super) fn run(file: &TestFile, test: &Test) -> Result<Story, Impossible> {
    let until = test.expected.iter().map(|expected| expected.at).max();
    let until = until.unwrap_or_default().max(test.inputs.end());
    let mut story = Story::new();
    for config in &file.fleets {
        let groups = file.rules.groups.iter().filter(|group| group.fleet == config.name);
        let groups: Vec<Group> = groups.cloned().collect();
        let Some(interval) = groups.iter().map(|group| group.interval).min() else { continue };
        let mut entry = Entry { config, groups: &groups, test, fleets: BTreeMap::new(), seq: 0 };
        let begin = Timestamp::from_millis(0);
        for at in (Span { first: begin, last: until, window: interval }).ends() {
            entry.look(at, &mut story)?;
        }
    }
    Ok(story)
}

/// One entry of the config while the test runs.
struct Entry<'t> {
    config: &'t FleetConfig,
    groups: &'t [Group],
    test: &'t Test,
    fleets: BTreeMap<String, Observed>,
    seq: u64,
}

impl Entry<'_> {
    fn look(&mut self, at: Timestamp, story: &mut Story) -> Result<(), Impossible> {
        let mut seen = self.test.inputs.workers(self.config, self.groups, at);
        let names: BTreeSet<String> = self.fleets.keys().chain(seen.keys()).cloned().collect();
        for name in names {
            let versions = seen.remove(&name).unwrap_or_default();
            if !self.fleets.contains_key(&name) {
                let good = self.test.baseline.clone();
                let adopted = good.map(|version| Happening::BaselineAdopted { version });
                self.fleets.insert(name.clone(), Observed::default());
                self.happen(&name, at, adopted)?;
            }
            let interval = self.groups.iter().map(|group| group.interval).min();
            let Some(fleet) = self.fleets.get_mut(&name) else { continue };
            let interval = interval.unwrap_or_default();
            let found = fleet.discover(self.config, &versions, at, interval).happenings;
            let gone = fleet.count_absent(&versions);
            fleet.seen = versions;
            fleet.looked = true;
            let ended = gone.into_iter().map(|candidate| Happening::RolloutEnded { candidate });
            self.happen(&name, at, found.into_iter().chain(ended))?;
            self.take_ticks(&name, at);
            self.judge(&name, at, story)?;
        }
        Ok(())
    }

    /// The past of new rollouts, and every tick that is over by `at`.
    fn take_ticks(&mut self, name: &str, at: Timestamp) {
        let Some(fleet) = self.fleets.get_mut(name) else { return };
        let (config, inputs) = (self.config, &self.test.inputs);
        fleet.begin_watches(self.groups);
        for (index, group) in self.groups.iter().enumerate() {
            let tables = |span| -> Vec<Table> {
                let answers = group.sessions.iter().map(|rule| inputs.answer(rule, span));
                answers.map(|answer| Table::read(config, &answer)).collect()
            };
            let watches = || fleet.watches.values().filter_map(|watch| watch.groups.get(&index));
            let unread: Vec<Timestamp> =
                watches().filter(|watch| watch.rules.is_none()).map(|watch| watch.cursor).collect();
            let cursor = watches().map(|watch| watch.cursor.min(watch.values_cursor)).min();
            let ticks = observation_ticks(config.observe_for, group.interval);
            for begun in unread {
                let span = Span::history(begun, config.history, ticks);
                fleet.read_history(name, (index, group), config.observe_for, span, &tables(span));
            }
            let due = cursor.and_then(|cursor| Span::due(cursor, at, group.interval));
            if let Some(span) = due {
                fleet.take_ticks(name, index, span, &tables(span));
                let values = group.values.iter().map(|rule| {
                    Values::read(config, &inputs.values(&rule_name(group, &rule.name), span))
                });
                fleet.take_values(name, index, span, &values.collect::<Vec<_>>());
            }
        }
    }

    fn judge(&mut self, name: &str, at: Timestamp, story: &mut Story) -> Result<(), Impossible> {
        let threshold = threshold_log10(self.config.false_rollback_rate, self.groups);
        let Some(fleet) = self.fleets.get(name) else { return Ok(()) };
        let rollouts: Vec<Rollout> = fleet.history.rollouts().values().cloned().collect();
        for rollout in rollouts {
            let Some(fleet) = self.fleets.get_mut(name) else { return Ok(()) };
            let mut judgement =
                judge(fleet, name, self.groups, &rollout, threshold, &mut Ahead::new());
            let of = Slices { config: self.config, groups: self.groups, test: self.test };
            of.examine(fleet, name, &rollout, threshold, &mut judgement);
            let decision = decide(&fleet.situation(self.config, &rollout, &judgement, at));
            let rules = said(self.groups, &judgement, threshold);
            let moment = Moment { at, decision: decision.clone(), rules };
            let key = (name.to_owned(), rollout.candidate.clone());
            story.entry(key).or_default().push(moment);
            let happenings = carry_out(fleet, rollout, decision, at);
            self.happen(name, at, happenings)?;
        }
        Ok(())
    }

    fn happen(
        &mut self,
        name: &str,
        at: Timestamp,
        happenings: impl IntoIterator<Item = Happening>,
    ) -> Result<(), Impossible> {
        let Some(fleet) = self.fleets.get_mut(name) else { return Ok(()) };
        for happening in happenings {
            self.seq += 1;
            fleet.history.apply(self.seq, at, &happening)?;
        }
        Ok(())
    }
}

/// A test's series by slice.
struct Slices<'t> {
    config: &'t FleetConfig,
    groups: &'t [Group],
    test: &'t Test,
}

impl Slices<'_> {
    /// Whether what is convicted is narrow.
    fn examine(
        &self,
        fleet: &mut Observed,
        name: &str,
        rollout: &Rollout,
        threshold: f64,
        judgement: &mut Judgement,
    ) {
        let mut again = true;
        // Not known at first: the conviction has the slices asked for, and then it is.
        while std::mem::take(&mut again) || judgement.breadth == Breadth::Unknown {
            slices::examine(
                fleet,
                rollout,
                self.groups,
                threshold,
                judgement,
                |place, whole, counted| {
                    let (config, inputs) = (self.config, &self.test.inputs);
                    let group = self.groups.get(place.0)?;
                    let (rule, interval) = (group.sessions.get(place.1)?, group.interval);
                    let subject = Subject { config, fleet: name, rollout, rule, interval };
                    let past = subject.past();
                    let mut slices = subject.begin(past, &inputs.answer(rule, past));
                    if let Some(span) = Span::due(subject.start(), counted, interval) {
                        subject.take(&mut slices, &inputs.answer(rule, span), span.ends());
                    }
                    slices::narrow(&mut slices, whole, threshold)
                },
            );
        }
    }
}

/// What a decision comes to.
fn carry_out(
    fleet: &Observed,
    rollout: Rollout,
    decision: Decision,
    at: Timestamp,
) -> Vec<Happening> {
    match decision {
        Decision::Promote => vec![Happening::Promoted { version: rollout.candidate }],
        Decision::RollBack(ground) => {
            let Some(good) = fleet.history.last_good_except(Some(&rollout.candidate)) else {
                return Vec::new();
            };
            let id = format!("test-{}", rollout.candidate);
            let rollback = Rollback {
                id: id.clone(),
                bad: rollout.candidate,
                good: good.clone(),
                workers_needed: 1,
                reason: ground.reason.to_owned(),
                chosen_at: at,
                state: State::Chosen,
                state_since: at,
            };
            vec![
                Happening::RollbackChosen { rollback },
                Happening::RollbackMoved { id, state: State::Clean },
            ]
        }
        Decision::Wait | Decision::FixForward(..) | Decision::Escalate(_) | Decision::Hold(_) => {
            Vec::new()
        }
    }
}

fn said(groups: &[Group], judgement: &Judgement, threshold_log10: f64) -> Vec<Said> {
    let sessions = judgement.rules.iter().filter_map(|(group, place, watch)| {
        let group = groups.get(*group)?;
        let rule = rule_name(group, &group.sessions.get(*place)?.name);
        Some(of_watch(rule, watch, threshold_log10))
    });
    let values = judgement.values.iter().filter_map(|(group, place, watch)| {
        let group = groups.get(*group)?;
        Some(Said {
            rule: rule_name(group, &group.values.get(*place)?.name),
            verdict: watch.verdict().name(),
            of: Figures::Value(watch.value()),
        })
    });
    let rest = judgement.narrow.as_ref().and_then(|narrow| {
        let group = groups.get(narrow.rule.0)?;
        let rule = rule_name(group, &group.sessions.get(narrow.rule.1)?.name);
        let rule = format!("{rule} without {}", narrow.standout.slice);
        Some(of_watch(rule, &narrow.rest, threshold_log10))
    });
    sessions.chain(rest).chain(values).collect()
}

fn of_watch(rule: String, watch: &RuleWatch, threshold_log10: f64) -> Said {
    let observation = &watch.observation;
    let last = observation.ticks().last().copied().unwrap_or_default();
    Said {
        rule,
        verdict: observation.verdict(threshold_log10).name(),
        of: Figures::Sessions {
            evidence: observation.evidence(),
            candidate: last.candidate,
            control: last.control,
            control_kind: observation.control().name(),
        },
    }
}
