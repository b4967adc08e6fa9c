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
mod look;
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
use crate::domain::version::Version;
use crate::evaluate::plan::{Answer, Plan};
use crate::ledger::event::{self, Unreadable};
use crate::ledger::record::{Draft, Record};
use crate::metrics::Metrics;
use crate::ports::Clock;
use crate::ports::inbox::Message;
use crate::ports::ledger::{Ledger, LedgerError};
use crate::ports::manifest::SignedManifest;
use crate::ports::metrics::{MetricError, MetricSource};
use crate::ports::platform::{Platform, PlatformError};
use crate::ports::view::{RuleView, View};
use crate::rules::RuleSet;
use crate::signing::Signer;

use chronicle::Chronicle;
use fleet::Fleet;
use look::{Entry, belongs, concerns};

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
    Looked {
        plan: Plan,
        /// How often the rules had been read again when it was asked.
        reloads: u64,
        took: Duration,
        answer: Result<Answer, MetricError>,
    },
    Effect {
        fleet: String,
        effect: String,
        result: Result<(), PlatformError>,
    },
    Checked {
        fleet: String,
        version: Version,
        result: Result<(), PlatformError>,
    },
}

/// The controller.
pub struct Controller<S, P, L> {
    ports: Ports<S, P, L>,
    entries: Vec<Entry>,
    rules: RuleSet,
    /// How often they have been read again.
    reloads: u64,
    /// Written once: looks come every few seconds, other rules hardly ever.
    rules_shown: Arc<[RuleView]>,
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
        let entry = |config| Entry::new(Arc::new(config), &rules, now);
        let entries: Vec<_> = configs.into_iter().map(entry).collect();
        Self {
            ports,
            rules_shown: show::rule_views(&entries),
            entries,
            rules,
            reloads: 0,
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
        self.rules_shown = show::rule_views(&self.entries);
        self.rules = rules;
        self.reloads += 1;
        info!(groups = self.rules.groups.len(), "rules reloaded");
        self.show();
        Ok(())
    }

    async fn take_report(&mut self, report: Report) -> Result<(), Stop> {
        match report {
            // By the rules before: its answers are to other questions.
            Report::Looked { reloads, .. } if reloads != self.reloads => {}
            Report::Looked { plan, took, answer, .. } => {
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
}
