//! Everything outside that can reach the controller.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use crate::domain::membership::Heartbeat;
use crate::domain::time::Timestamp;
use crate::domain::version::Version;

/// What an operator wants of a fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Start no rollback and promote nothing by itself, until then or until resumed.
    Pause {
        /// The end; none: an operator resumes.
        until: Option<Timestamp>,
    },
    /// End the pause.
    Resume,
    /// Roll back a candidate that waits for a person's word.
    Approve {
        /// Which; none: the only one that waits.
        version: Option<Version>,
    },
    /// Roll back a version, whatever the evidence says.
    RollBack {
        /// Which; none: the only candidate.
        version: Option<Version>,
        /// Back to which version that was good before; none: the last good one.
        to: Option<Version>,
    },
    /// Lift a version's denial: it may start, and is observed as a new candidate.
    Allow {
        /// Which.
        version: Version,
    },
    /// End the rollback under way as it stands.
    Abandon,
}

/// An operator's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The fleet, as its id writes itself.
    pub fleet: String,
    /// What to do.
    pub act: Act,
    /// Who says so.
    pub actor: String,
    /// Whether credentials proved that name; else it is the caller's word.
    pub actor_proven: bool,
    /// Why.
    pub reason: String,
}

/// Why an order was not carried out. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such fleet is configured or seen.
    #[error("there is no fleet `{0}`")]
    UnknownFleet(String),
    /// The fleet is not in a state for it; the text says what it is in.
    #[error("{0}")]
    Conflict(String),
    /// The ledger takes no record now, so nothing may be done.
    #[error("the ledger takes no record: {0}")]
    NotRecorded(String),
}

/// How far a system outside has been told of records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Which system: `cdevents`.
    pub sink: &'static str,
    /// It has every event among the records up to this one.
    pub up_to_seq: u64,
    /// How it took the last one.
    pub outcome: Outcome,
}

/// How a system took what it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is told from here on; of what came before, nothing.
    Begun,
    /// It has it.
    Delivered,
    /// It will never take it, and says why.
    Refused(String),
}

/// One thing that happened outside; sent over a bounded channel.
#[derive(Debug)]
pub enum Message {
    /// Alertmanager says that alerts fire. Each map is one firing alert's labels.
    Alerted(Vec<BTreeMap<String, String>>),
    /// A worker spoke, and its token verified.
    Heartbeat(Heartbeat),
    /// A worker was refused; the sender limits the rate per worker.
    WorkerRejected {
        /// The fleet it named.
        fleet: String,
        /// The worker it named.
        worker_id: String,
        /// The version it named.
        version: String,
        /// Why it was refused.
        reason: String,
    },
    /// An operator's word; the answer says in a sentence what was done.
    Order(Order, oneshot::Sender<Result<String, Refusal>>),
    /// Read the rule files again; the answer is what is wrong with them.
    Reload(oneshot::Sender<Result<(), String>>),
    /// A system that is told of records has them up to this one; the answer is whether that is
    /// recorded, so that it is not told again after a restart.
    Told(Told, oneshot::Sender<bool>),
    /// Finish what is in hand and stop.
    Shutdown,
}
