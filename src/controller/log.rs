//! What is logged of what happens: once it is recorded, and with the same fields everywhere.
//!
//! `fleet`; `version`, the one it is about, which in a rollback is the bad one; `rollback`, its id.

use tracing::{info, warn};

use crate::domain::history::Happening;
use crate::domain::rollback::Rollback;

/// A happening that is in the ledger; `rollback`: the one that was under way before.
pub(super) fn happened(fleet: &str, happening: &Happening, rollback: Option<&Rollback>) {
    match happening {
        Happening::BaselineAdopted { version } => info!(fleet, %version, "taken as good"),
        Happening::RolloutStarted { rollout } => {
            let baseline = rollout.baseline.as_ref().map(tracing::field::display);
            info!(fleet, version = %rollout.candidate, baseline, "under observation");
        }
        Happening::RolloutEnded { candidate } => {
            info!(fleet, version = %candidate, "has left before it was judged");
        }
        Happening::Regressed { candidate } => warn!(fleet, version = %candidate, "regressed"),
        Happening::Promoted { version } => info!(fleet, %version, "promoted"),
        Happening::RollbackChosen { rollback: chosen } => {
            let (id, reason) = (&chosen.id, &chosen.reason);
            warn!(fleet, version = %chosen.bad, to = %chosen.good, rollback = id, reason, "rolling back");
        }
        Happening::RollbackMoved { id, state } => {
            let state = state.name();
            let version = rollback.map(|rollback| tracing::field::display(&rollback.bad));
            let to = rollback.map(|rollback| tracing::field::display(&rollback.good));
            info!(fleet, version, to, rollback = id, state, "rollback moved");
        }
        // Logged where they are decided or ordered, with why.
        Happening::HeldBack { .. }
        | Happening::Paused { .. }
        | Happening::Resumed
        | Happening::Allowed { .. } => {}
    }
}
