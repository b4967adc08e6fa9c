//! Whether the baseline fails as the candidate does: an outage is no version's fault.
//!
//! The ceiling's test is about the candidate alone. Both versions' evidence against the ceiling
//! crosses any bar at different ticks, so two such tests side by side convict whichever is first.
//! Here the baseline is asked about the very ticks in which the candidate failed: does it fail as
//! often as the candidate, or no more than the ceiling? Until the latter is clear, the ceiling
//! does not convict, and what it gained while the former was likelier does not count.

use std::f64::consts::LN_10;

use super::counts::{Counts, Tick};
use super::evidence::{Detector, DetectorSettings, SUSPECT_LOG10};
use super::share::Share;

/// By how much the alternative that finds where the candidate's failing began multiplies the
/// ceiling's odds.
const BEGINNING_ODDS: f64 = 4.0;

/// At and below this, a hundred to one, the baseline does not share the candidate's failing.
const CLEAR_LOG10: f64 = -2.0;

/// The range in which that is kept, so that a baseline that recovers, or that an outage reaches
/// later, is soon believed.
const SHARED_LOG10_RANGE: (f64, f64) = (-3.0, 1.0);

/// The baseline beside the candidate, against one ceiling.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outage {
    ceiling: Option<Share>,
    /// The ceiling's test on the baseline itself, in the ticks in which it was the control.
    baseline: Detector,
    /// ln of the evidence that the candidate fails more than the ceiling allows, from 0 at least
    /// (a CUSUM): where it left 0 is where the failing began.
    beginning: f64,
    /// The candidate since then.
    candidate: Counts,
    /// log10 of how much likelier the baseline's counts since then are if it fails as often as
    /// the candidate than if it fails as the ceiling allows.
    shared_log10: f64,
    /// The baseline took a session while it was the control.
    seen: bool,
    /// The last tick had the baseline beside the candidate.
    concurrent: bool,
    excused_log10: f64,
}

impl Outage {
    pub(super) fn new(settings: DetectorSettings) -> Self {
        Self {
            ceiling: settings.ceiling,
            baseline: Detector::new(DetectorSettings { tolerance: None, ..settings }),
            beginning: 0.0,
            candidate: Counts::default(),
            shared_log10: 0.0,
            seen: false,
            concurrent: false,
            excused_log10: 0.0,
        }
    }

    /// Takes the next tick, after which the candidate's evidence against the ceiling is
    /// `ceiling_log10`.
    pub(super) fn observe(&mut self, tick: &Tick, concurrent: bool, ceiling_log10: Option<f64>) {
        self.concurrent = concurrent;
        let (Some(ceiling), Some(ceiling_log10)) = (self.ceiling, ceiling_log10) else { return };
        if concurrent {
            self.baseline.observe(&Tick { candidate: tick.control, control: Counts::default() });
            self.seen |= tick.control.started > 0;
            self.compare(tick, ceiling.get());
        }
        let over = self.baseline.evidence().ceiling_log10 >= Some(SUSPECT_LOG10);
        let shared = concurrent && self.seen && self.shared_log10 > 0.0;
        if over || shared {
            self.excused_log10 = ceiling_log10.max(0.0);
        }
    }

    fn compare(&mut self, tick: &Tick, ceiling: f64) {
        if self.beginning <= 0.0 {
            self.candidate = Counts::default();
            self.shared_log10 = 0.0;
        }
        let odds = ceiling / (1.0 - ceiling);
        let shift = ((1.0 + odds) / (1.0 + BEGINNING_ODDS * odds)).ln();
        let gained = tick.candidate.failed as f64 * BEGINNING_ODDS.ln();
        self.beginning = (self.beginning + gained + trials(&tick.candidate) * shift).max(0.0);
        self.candidate += tick.candidate;
        // Laplace's rule: the few failures that convict are more than its share will turn out.
        let share = (self.candidate.failed as f64 + 1.0) / (trials(&self.candidate) + 2.0);
        let share = share.max(ceiling);
        let failed = tick.control.failed as f64;
        let good = trials(&tick.control) - failed;
        let ln = failed * (share / ceiling).ln() + good * ((1.0 - share) / (1.0 - ceiling)).ln();
        let (low, high) = SHARED_LOG10_RANGE;
        self.shared_log10 = (self.shared_log10 + ln / LN_10).clamp(low, high);
    }

    /// The evidence against the ceiling, as log10, that was there when the baseline was last seen
    /// to fail as the candidate does.
    pub(super) fn excused_log10(&self) -> f64 {
        self.excused_log10
    }

    /// Whether the ceiling may convict: the baseline beside the candidate does not fail so, or
    /// there is none to ask.
    pub(super) fn is_ruled_out(&self) -> bool {
        !self.concurrent || !self.seen || self.shared_log10 <= CLEAR_LOG10
    }
}

/// Sessions that can have failed. More fail than start where traffic falls.
fn trials(counts: &Counts) -> f64 {
    counts.started.max(counts.failed) as f64
}

#[cfg(test)]
mod tests {
    use super::super::evidence::POOL_SESSIONS;
    use super::*;

    /// Started and failed.
    type Side = (u64, u64);
    /// Candidate and control.
    type Both = (Side, Side);

    fn outage(ticks: &[Both]) -> Outage {
        let mut outage = Outage::new(DetectorSettings {
            observation_ticks: 240,
            tolerance: None,
            ceiling: Some(Share::new(0.05).unwrap()),
            dispersion: 1.0,
            pool_sessions: POOL_SESSIONS,
        });
        let counts = |(started, failed)| Counts { started, failed, live: 0.0 };
        for (candidate, control) in ticks {
            let tick = Tick { candidate: counts(*candidate), control: counts(*control) };
            outage.observe(&tick, true, Some(5.0));
        }
        outage
    }

    #[test]
    fn the_baseline_is_asked_about_the_ticks_in_which_the_candidate_failed() {
        #[rustfmt::skip]
        let cases: &[(&str, &[Both], bool, bool)] = &[
            ("nobody to ask",                   &[((8, 8), (0, 0))],                    true,  false),
            ("a baseline without a failure",    &[((8, 8), (8, 0))],                    true,  false),
            ("too few sessions to tell",        &[((3, 3), (1, 0))],                    false, false),
            ("a baseline that fails as well",   &[((8, 4), (8, 3))],                    false, true),
            ("a good hour does not clear it",   &[((900, 0), (900, 0)), ((8, 4), (8, 2))], false, true),
            ("nor does a baseline's recovery count before it is seen",
                                                &[((8, 4), (8, 4)), ((8, 8), (2, 0))],  false, true),
            ("once seen it does",               &[((8, 4), (8, 4)), ((8, 8), (8, 0))],  true,  true),
        ];
        for (name, ticks, ruled_out, excused) in cases {
            let outage = outage(ticks);
            assert_eq!(outage.is_ruled_out(), *ruled_out, "{name}: {}", outage.shared_log10);
            assert_eq!(outage.excused_log10() > 0.0, *excused, "{name}");
        }
    }
}
