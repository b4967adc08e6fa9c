//! The loop: one task owns all state, and everything that can happen reaches it as one event.
//!
//! ```text
//! timer, webhook ─► plan ─► look (a task of its own) ─► Looked ─► take ticks ─► decide ─► record
//! heartbeat, reload, shutdown ─► apply                    effects (tasks) ◄── then act ◄──┘
//! ```
//!
//! There are no locks around state, and a test can feed events by hand. It costs that nothing may
//! take long here: queries and effects run in tasks and report back; only the ledger is waited
//! for, because nothing may be done before it is recorded.
//!
//! **Invariant:** the state that decides changes only by happenings that are in the ledger.

mod act;
mod breaker;
mod chronicle;
mod comeback;
mod decide;
mod evidence;
mod fleet;
mod log;
mod operate;
mod ready;
mod show;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::config::FleetConfig;
use crate::domain::breaker::Breaker;
use crate::domain::history::Impossible;
use crate::domain::membership::{Heartbeat, Member};
use crate::domain::time::Timestamp;
use crate::domain::version::Version;
use crate::evaluate::observed::{self, GroupWatch};
use crate::evaluate::plan::{self, Answer, GroupPlan, Plan, Span};
use crate::evaluate::slices;
use crate::ledger::event::{self, Unreadable};
use crate::ledger::record::{Draft, Record};
use crate::metrics::Metrics;
use crate::ports::Clock;
use crate::ports::inbox::Message;
use crate::ports::ledger::{Ledger, LedgerError};
use crate::ports::manifest::SignedManifest;
use crate::ports::metrics::{MetricError, MetricSource};
use crate::ports::platform::{Platform, PlatformError};
use crate::ports::view::View;
use crate::rules::{Group, RuleSet};
use crate::signing::Signer;

use chronicle::Chronicle;
use fleet::Fleet;

/// Two looks out of turn are at least this far apart: a flood of webhooks is one look a second.
const OUT_OF_TURN_GAP: Duration = Duration::from_secs(1);

/// The longest nap, so that a clock that jumps is noticed.
const NAP_MAX: Duration = Duration::from_secs(5);

/// Finished tasks that may wait for the loop.
const REPORTS_MAX: usize = 1024;

/// Signed manifests, by fleet.
pub type Manifests = BTreeMap<String, SignedManifest>;

/// Reads the rule files again; the error is what is wrong with them, for people.
pub type LoadRules = Box<dyn Fn() -> Result<RuleSet, String> + Send>;

/// What the controller works with.
pub struct Ports<S, P, L> {
    /// Prometheus.
    pub source: Arc<S>,
    /// Whatever starts and drains workers.
    pub platform: Arc<P>,
    /// The record.
    pub ledger: Arc<L>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The key that signs manifests.
    pub signer: Signer,
    /// Its own metrics.
    pub metrics: Arc<Metrics>,
    /// What the API shows.
    pub view: watch::Sender<Arc<View>>,
    /// What workers are told.
    pub manifests: watch::Sender<Arc<Manifests>>,
    /// Where rules come from on a reload.
    pub load_rules: LoadRules,
}

/// Why the controller cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// Another process writes the same ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A record does not read.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// The records verify and tell an impossible story.
    #[error("record {seq}: {why}")]
    Impossible {
        /// The record.
        seq: u64,
        /// What is impossible.
        why: Impossible,
    },
}

/// What a task reports back.
enum Report {
    Looked { plan: Plan, took: Duration, answer: Result<Answer, MetricError> },
    Effect { fleet: String, effect: String, result: Result<(), PlatformError> },
    Checked { fleet: String, version: Version, result: Result<(), PlatformError> },
}

/// A config entry and the rules for it.
struct Entry {
    config: Arc<FleetConfig>,
    groups: Arc<Vec<Group>>,
    interval: Duration,
    looking: bool,
    out_of_turn: bool,
    last_look: Timestamp,
    next_look: Timestamp,
    /// Why the last look had no answer, if it had none.
    unanswered: Option<String>,
}

impl Entry {
    fn new(config: Arc<FleetConfig>, rules: &RuleSet, now: Timestamp) -> Self {
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
    fn settle(&self) -> Duration {
        self.interval + self.interval / 10 + Duration::from_secs(1)
    }
}

/// The controller.
pub struct Controller<S, P, L> {
    ports: Ports<S, P, L>,
    entries: Vec<Entry>,
    rules: RuleSet,
    breaker: Breaker,
    fleets: BTreeMap<String, Fleet>,
    last_seq: u64,
    chronicle: Chronicle,
    ready: bool,
    /// Why the ledger takes no records.
    ledger_failing: Option<String>,
    reports: (mpsc::Sender<Report>, mpsc::Receiver<Report>),
}

impl<S: MetricSource, P: Platform, L: Ledger> Controller<S, P, L> {
    /// A controller that remembers nothing; [`Controller::replay`] tells it what was recorded.
    #[must_use]
    pub fn new(ports: Ports<S, P, L>, configs: Vec<FleetConfig>, rules: RuleSet) -> Self {
        let now = ports.clock.now();
        let entries = configs.into_iter().map(|c| Entry::new(Arc::new(c), &rules, now)).collect();
        Self {
            ports,
            entries,
            rules,
            breaker: Breaker::default(),
            fleets: BTreeMap::new(),
            last_seq: 0,
            chronicle: Chronicle::default(),
            ready: false,
            ledger_failing: None,
            reports: mpsc::channel(REPORTS_MAX),
        }
    }

    /// Holds when so many fleets regress at once, instead of the config's default.
    #[must_use]
    pub fn with_breaker(self, breaker: Breaker) -> Self {
        Self { breaker, ..self }
    }

    /// Takes the next record of the ledger, from the first on, before it runs.
    ///
    /// # Errors
    /// When the record does not read or cannot have happened.
    pub fn replay(&mut self, record: &Record) -> Result<(), Stop> {
        self.last_seq = record.seq;
        self.chronicle.take(record);
        if let Some(told) = event::from_record(record)? {
            let fleet = self.fleets.entry(told.fleet).or_default();
            fleet
                .observed
                .history
                .apply(record.seq, told.at, &told.happening)
                .map_err(|why| Stop::Impossible { seq: record.seq, why })?;
        }
        Ok(())
    }

    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// When another process writes the same ledger: this one must not act any more.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<Message>) -> Result<(), Stop> {
        self.note("controller.started", "started").await?;
        self.publish();
        self.show();
        loop {
            let nap = self.nap();
            tokio::select! {
                // In this order, so that a run depends on nothing but what happens. Reports first:
                // there are never more than the looks and effects under way, so they cannot starve
                // the inbox, as a flood of messages could starve them.
                biased;
                Some(report) = self.reports.1.recv() => self.take_report(report).await?,
                message = inbox.recv() => match message {
                    None | Some(Message::Shutdown) => break,
                    Some(message) => self.take_message(message).await?,
                },
                () = tokio::time::sleep(nap) => {}
            }
            self.start_looks();
        }
        self.note("controller.stopped", "ok").await
    }

    async fn note(&mut self, event: &str, result: &str) -> Result<(), Stop> {
        let draft = Draft {
            at: self.ports.clock.now(),
            event: event.to_owned(),
            actor: event::ACTOR.to_owned(),
            target: event::ACTOR.to_owned(),
            result: result.to_owned(),
            version: None,
            extra: serde_json::Map::new(),
        };
        self.append(vec![draft]).await.map(|_| ())
    }

    fn nap(&self) -> Duration {
        let now = self.ports.clock.now();
        let until = |entry: &Entry| {
            let turn = entry.next_look.since(now);
            let early = (entry.last_look + OUT_OF_TURN_GAP).since(now);
            if entry.out_of_turn { early.min(turn) } else { turn }
        };
        let waiting = self.entries.iter().filter(|entry| !entry.looking);
        waiting.map(until).min().unwrap_or(NAP_MAX).min(NAP_MAX)
    }

    async fn take_message(&mut self, message: Message) -> Result<(), Stop> {
        match message {
            Message::Alerted(alerts) => {
                for entry in &mut self.entries {
                    entry.out_of_turn |= alerts.iter().any(|labels| concerns(labels, entry));
                }
            }
            Message::Heartbeat(heartbeat) => self.hear(heartbeat),
            Message::WorkerRejected { fleet, worker_id, version, reason } => {
                warn!(fleet, worker_id, version, reason, "worker refused");
                let draft =
                    show::rejected(self.ports.clock.now(), &fleet, worker_id, version, reason);
                self.append(vec![draft]).await?;
            }
            Message::Order(order, reply) => {
                let done = self.take_order(&order).await?;
                // The caller may have gone; what was done is recorded all the same.
                drop(reply.send(done));
                self.show();
            }
            Message::Reload(reply) => {
                let result = self.reload();
                // The caller may have gone; the reload has happened all the same.
                drop(reply.send(result));
            }
            Message::Told(told, reply) => {
                let recorded = self.append(vec![show::told(self.ports.clock.now(), &told)]).await?;
                // One that has gone will ask the ledger when it is back.
                let _asker_may_be_gone = reply.send(recorded);
            }
            Message::Shutdown => {}
        }
        Ok(())
    }

    fn hear(&mut self, heartbeat: Heartbeat) {
        let heard_at = self.ports.clock.now();
        // A fleet that no look has seen is none of ours yet.
        if let Some(fleet) = self.fleets.get_mut(&heartbeat.fleet) {
            fleet.hear(Member {
                worker_id: heartbeat.worker_id,
                version: heartbeat.version,
                draining: heartbeat.draining,
                active_sessions: heartbeat.active_sessions,
                heard_at,
            });
        }
    }

    fn reload(&mut self) -> Result<(), String> {
        let rules = (self.ports.load_rules)()?;
        if rules == self.rules {
            return Ok(());
        }
        let now = self.ports.clock.now();
        self.entries = self
            .entries
            .iter()
            .map(|entry| Entry::new(entry.config.clone(), &rules, now))
            .collect();
        // Judged again from the beginning of each rollout, by the new rules.
        for fleet in self.fleets.values_mut() {
            fleet.observed.watches.clear();
        }
        self.rules = rules;
        info!(groups = self.rules.groups.len(), "rules reloaded");
        self.show();
        Ok(())
    }

    /// Starts every look that is due.
    fn start_looks(&mut self) {
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
        let (config, groups) = (entry.config.clone(), entry.groups.clone());
        tokio::spawn(async move {
            let began = tokio::time::Instant::now();
            let answer = plan::look(&*source, &config, &groups, &plan).await;
            let report = Report::Looked { plan, took: began.elapsed(), answer };
            // Only a controller that has stopped does not take reports.
            drop(reports.send(report).await);
        });
    }

    fn plan(&self, index: usize, now: Timestamp) -> Plan {
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

    fn fleets_of<'a>(&'a self, entry: &'a Entry) -> impl Iterator<Item = (&'a String, &'a Fleet)> {
        self.fleets.iter().filter(|(name, _)| belongs(name, entry))
    }

    async fn take_report(&mut self, report: Report) -> Result<(), Stop> {
        match report {
            Report::Looked { plan, took, answer } => {
                if let Some(entry) = self.entries.get_mut(plan.entry) {
                    entry.looking = false;
                    if answer.is_ok() && entry.unanswered.take().is_some() {
                        info!(fleet = %entry.config.name, "there are answers again");
                    }
                }
                self.check_what_is_written().await?;
                match answer {
                    Ok(answer) => self.take_answer(&plan, took, &answer).await?,
                    Err(error) => self.hold_all(plan.entry, &error),
                }
                self.check_last_good(plan.entry);
                self.ready = true;
                self.show();
            }
            Report::Effect { fleet, effect, result } => {
                self.take_effect(&fleet, &effect, result).await?;
                self.show();
            }
            Report::Checked { fleet, version, result } => {
                self.take_check(&fleet, &version, result);
                self.show();
            }
        }
        Ok(())
    }

    /// Prometheus did not answer: nothing is decided, and people can see why.
    fn hold_all(&mut self, index: usize, error: &MetricError) {
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
fn belongs(name: &str, entry: &Entry) -> bool {
    name.split(':').next() == Some(entry.config.name.as_str())
}

/// Whether an alert may speak of an entry's fleets: nothing in it says otherwise.
fn concerns(labels: &BTreeMap<String, String>, entry: &Entry) -> bool {
    labels
        .get("fleet")
        .is_none_or(|fleet| fleet == entry.config.name.as_str() || belongs(fleet, entry))
}
