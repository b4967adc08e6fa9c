//! One simulated rollout, judged as a real one would be.

use super::traffic::Rollout;
use crate::domain::evidence::DetectorSettings;
use crate::domain::observation::Observation;
use crate::domain::verdict::Verdict;

/// How rollouts are judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judge {
    /// What the detector is made with.
    pub settings: DetectorSettings,
    /// The dispersion is measured on the history.
    pub measured: bool,
    /// `log10(1/α)` of one test.
    pub threshold_log10: f64,
}

/// What became of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Convicted in this tick, counted from 0.
    Convicted(usize),
    /// Not convicted, and suspect when the observation was over.
    Suspect,
    /// Not convicted, and not suspect either.
    Cleared,
}

/// A rollout and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial {
    /// How it ended.
    pub end: End,
    /// Sessions that the candidate had started by then.
    pub started: u64,
    /// Sessions that the candidate had failed by then.
    pub failed: u64,
}

impl Judge {
    /// Watches the rollout until it is convicted or over.
    #[must_use]
    pub fn judge(&self, rollout: &Rollout) -> Trial {
        let mut watch = Observation::new(self.settings, self.measured, rollout.history.clone());
        let both = rollout.candidate.iter().zip(&rollout.baseline);
        let convicted = both.enumerate().find_map(|(tick, (candidate, baseline))| {
            watch.observe(Some(candidate.counts), Some(baseline.counts));
            (watch.verdict(self.threshold_log10) == Verdict::Regressed).then_some(tick)
        });
        let end = match (convicted, watch.verdict(self.threshold_log10)) {
            (Some(tick), _) => End::Convicted(tick),
            (None, Verdict::Suspect) => End::Suspect,
            (None, Verdict::Healthy | Verdict::NoData | Verdict::Outage | Verdict::Regressed) => {
                End::Cleared
            }
        };
        let total = watch.total().candidate;
        Trial { end, started: total.started, failed: total.failed }
    }
}
