//! What one rule says of one candidate.

use super::evidence::{Evidence, SUSPECT_LOG10};

/// Ordered by what it moves: the worst of several rules' verdicts is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// The evidence does not speak against the candidate.
    Healthy,
    /// Workers are alive and their sessions are not to be seen; never a reason to act.
    NoData,
    /// The candidate failed more than the ceiling allows while the baseline did as well.
    Outage,
    /// Ten to one against it, not enough to act.
    Suspect,
    /// Beyond the bound that was promised.
    Regressed,
}

impl Verdict {
    /// Reads the evidence. `threshold_log10` is `log10(1/α)` of one test.
    #[must_use]
    pub fn of(evidence: &Evidence, threshold_log10: f64, has_data: bool) -> Self {
        match evidence.strongest_log10() {
            Some(log10) if log10 >= threshold_log10 => Self::Regressed,
            _ if !has_data => Self::NoData,
            Some(log10) if log10 >= SUSPECT_LOG10 => Self::Suspect,
            Some(_) => Self::Healthy,
            None => Self::NoData,
        }
    }

    /// The verdict's name in ledger, API and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::NoData => "no_data",
            Self::Outage => "outage",
            Self::Suspect => "suspect",
            Self::Regressed => "regressed",
        }
    }
}
