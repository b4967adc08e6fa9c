//! Where a fleet stands, in a word and a shape.

use crate::ports::view::{FleetView, RollbackView, View};

/// In the order in which people want to see them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// A rollback waits, and people must see to it.
    Stuck,
    /// A rollback is under way.
    RollingBack,
    /// A rollback waits for a person's word.
    AwaitsApproval,
    /// The evidence convicts, and nothing is done about it.
    Regressed,
    /// Nothing can be decided.
    Holding,
    /// The evidence speaks against a candidate.
    Suspect,
    /// An operator has paused it.
    Paused,
    /// A candidate is watched.
    Observing,
    /// Nothing is under way.
    Steady,
}

impl Standing {
    pub(super) fn of(view: &View, fleet: &FleetView) -> Self {
        let verdict = |name: &str| {
            fleet.rollouts.iter().flat_map(|r| &r.verdicts).any(|verdict| verdict.verdict == name)
        };
        let value = |name: &str| {
            fleet.rollouts.iter().flat_map(|r| &r.values).any(|value| value.verdict == name)
        };
        let awaits = fleet.rollouts.iter().any(awaits_approval);
        match under_way(view, fleet) {
            Some(rollback) if rollback.state == "stuck" => Self::Stuck,
            Some(_) => Self::RollingBack,
            None if awaits => Self::AwaitsApproval,
            None if verdict("regressed") || value("regressed") => Self::Regressed,
            None if fleet.holding.is_some() => Self::Holding,
            None if verdict("suspect") || value("over") => Self::Suspect,
            None if fleet.paused => Self::Paused,
            None if !fleet.rollouts.is_empty() => Self::Observing,
            None => Self::Steady,
        }
    }

    /// In words, a shape, and the class that colours it.
    pub(super) fn said(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Stuck => ("stuck", "■", "bad"),
            Self::RollingBack => ("rolling back", "◀", "bad"),
            Self::AwaitsApproval => ("waits for approval", "▲", "bad"),
            Self::Regressed => ("regressed", "▲", "bad"),
            Self::Holding => ("holding", "○", "warn"),
            Self::Suspect => ("suspect", "◆", "warn"),
            Self::Paused => ("paused", "‖", "warn"),
            Self::Observing => ("observing", "◐", "busy"),
            Self::Steady => ("steady", "●", "good"),
        }
    }
}

/// Whether a candidate's rollback waits for a person's word.
pub(super) fn awaits_approval(rollout: &crate::ports::view::RolloutView) -> bool {
    rollout.held.as_deref() == Some(crate::domain::decision::AWAITS_APPROVAL)
}

/// The rollback of a fleet that is not over.
pub(super) fn under_way<'a>(view: &'a View, fleet: &FleetView) -> Option<&'a RollbackView> {
    let id = fleet.rollback.as_ref()?;
    view.rollbacks.iter().find(|rollback| rollback.id == *id)
}
