//! Everything outside that can reach the controller.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use crate::domain::membership::Heartbeat;

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
    /// Read the rule files again; the answer is what is wrong with them.
    Reload(oneshot::Sender<Result<(), String>>),
    /// Finish what is in hand and stop.
    Shutdown,
}
