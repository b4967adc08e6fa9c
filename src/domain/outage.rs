//! Whether the baseline fails as the candidate does: an outage is no version's fault.
//!
//! The ceiling's test is about the candidate alone. Both versions' evidence against the ceiling
//! crosses any bar at different ticks, so two such tests side by side convict whichever is first.
//! Here the baseline is asked about the very ticks in which the candidate failed: does it fail as
//! often as the candidate, or no more than the ceiling? Until the latter is clear, the ceiling
//! does not convict. While the former is likelier, or the baseline fails more than the ceiling, the
//! candidate's test begins again with every tick, so that what the outage did does not count, and
//! what the candidate does after it counts from the first session on.

use std::f64::consts::LN_10;

use super::counts::{Counts, Tick};
use super::evidence::{Detector, DetectorSettings, SUSPECT_LOG10};

/// By how much the alternative that finds where the candidate's failing began multiplies the
/// ceiling's odds.
const BEGINNING_ODDS: f64 = 4.0;

/// At and below this, a hundred to one, the baseline does not share the candidate's failing.
const CLEAR_LOG10: f64 = -2.0;

/// At and above this, twice as likely as not, it does.
const SHARED_LOG10: f64 = std::f64::consts::LOG10_2;

/// The range in which that is kept, so that a baseline that recovers, or that an outage reaches
/// later, is soon believed.
const SHARED_LOG10_RANGE: (f64, f64) = (-3.0, 1.0);

/// How far the baseline's evidence must fall below its highest, a thousand to one, for it to fail
/// no more than the ceiling again. After a heavy outage a few good sessions do that; back below any
/// fixed bar it would be only after as many sessions as the outage had.
const RECOVERED_LOG10: f64 = 3.0;

/// Ticks for which an outage goes on after the last sign of it, and for which the baseline is still
/// asked after it was last beside the candidate: where sessions are few, not every tick has one.
const LINGERING_TICKS: u32 = 4;

/// The baseline beside the candidate, against one ceiling.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outage {
    /// The ceiling's test.
    settings: DetectorSettings,
    /// That test on the baseline, since it last recovered, in the ticks in which it was the control.
    baseline: Detector,
    /// The highest that has been, as log10.
    baseline_highest: f64,
    /// That test on the candidate, since the outage. None before there was one.
    since: Option<Detector>,
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
    /// Ticks since the baseline was beside the candidate.
    apart_ticks: u32,
    /// For how many ticks an outage goes on without another sign of it; 0 where there is none.
    ticks_left: u32,
}

impl Outage {
    pub(super) fn new(settings: DetectorSettings) -> Self {
        let settings = DetectorSettings { tolerance: None, ..settings };
        Self {
            settings,
            baseline: Detector::new(settings),
            baseline_highest: 0.0,
            since: None,
            beginning: 0.0,
            candidate: Counts::default(),
            shared_log10: 0.0,
            seen: false,
            apart_ticks: LINGERING_TICKS + 1,
            ticks_left: 0,
        }
    }

    /// Takes the next tick.
    pub(super) fn observe(&mut self, tick: &Tick, concurrent: bool) {
        let Some(ceiling) = self.settings.ceiling else { return };
        self.apart_ticks = if concurrent { 0 } else { self.apart_ticks.saturating_add(1) };
        if concurrent {
            self.seen |= tick.control.started > 0;
            self.compare(tick, ceiling.get());
            self.judge_baseline(&tick.control);
        }
        let was_on = self.ticks_left > 0;
        self.ticks_left = if concurrent && self.is_seen_failing() {
            // This tick is the first of them.
            LINGERING_TICKS + 1
        } else {
            self.ticks_left.saturating_sub(1)
        };
        if self.ticks_left > 0 {
            self.since = Some(Detector::new(self.settings));
        } else if was_on {
            // Over: what the two did in it says nothing of what the candidate does now.
            self.beginning = 0.0;
        } else if let Some(since) = &mut self.since {
            since.observe(&Tick { candidate: tick.candidate, control: Counts::default() });
        }
    }

    fn judge_baseline(&mut self, control: &Counts) {
        let tick = Tick { candidate: *control, control: Counts::default() };
        let log10 = self.baseline.observe(&tick).ceiling_log10.unwrap_or(0.0);
        self.baseline_highest = self.baseline_highest.max(log10);
        let recovered = log10 <= self.baseline_highest - RECOVERED_LOG10;
        if recovered && self.baseline_highest >= SUSPECT_LOG10 {
            self.baseline = Detector::new(self.settings);
            self.baseline_highest = 0.0;
        }
    }

    /// Whether the baseline beside the candidate fails as it does, or more than the ceiling.
    fn is_seen_failing(&self) -> bool {
        let over = self.baseline.evidence().ceiling_log10 >= Some(SUSPECT_LOG10);
        over || self.seen && self.shared_log10 >= SHARED_LOG10
    }

    fn is_beside(&self) -> bool {
        self.apart_ticks <= LINGERING_TICKS
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

    /// Of the candidate's evidence against the ceiling, as log10, what no outage accounts for.
    pub(super) fn left_log10(&self, ceiling_log10: f64) -> f64 {
        let since = self.since.as_ref().and_then(|since| since.evidence().ceiling_log10);
        since.map_or(ceiling_log10, |since| since.min(ceiling_log10))
    }

    /// Whether the ceiling may convict: the baseline beside the candidate does not fail so, or
    /// there is none to ask.
    pub(super) fn is_ruled_out(&self) -> bool {
        !self.is_beside() || !self.seen || self.shared_log10 <= CLEAR_LOG10
    }
}

/// Sessions that can have failed. More fail than start where traffic falls.
fn trials(counts: &Counts) -> f64 {
    counts.started.max(counts.failed) as f64
}

#[cfg(test)]
mod tests {
    use super::super::evidence::POOL_SESSIONS;
    use super::super::share::Share;
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
        for both in ticks {
            outage.observe(&tick(*both), true);
        }
        outage
    }

    fn tick((candidate, control): Both) -> Tick {
        let counts = |(started, failed)| Counts { started, failed, live: 0.0 };
        Tick { candidate: counts(candidate), control: counts(control) }
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
            assert_eq!(outage.left_log10(5.0) < 5.0, *excused, "{name}");
        }
    }

    #[test]
    fn a_candidate_that_fails_after_an_outage_is_convicted_soon() {
        // Twenty ticks of half failed: long afterwards the baseline's evidence is still there.
        let mut after = outage(&[((8, 4), (8, 4)); 20]);
        for _ in 0..8 {
            after.observe(&tick(((8, 0), (8, 0))), true);
        }
        assert!(after.left_log10(60.0) < 0.0, "what it failed in the outage does not count");
        for _ in 0..3 {
            after.observe(&tick(((8, 6), (8, 0))), true);
        }
        assert!(after.is_ruled_out() && after.left_log10(60.0) > 3.0, "{after:?}");
    }

    #[test]
    fn an_outage_ends_soon_after_the_baseline_is_no_longer_beside_the_candidate() {
        let mut after = outage(&[((8, 4), (8, 4)); 20]);
        let alone = tick(((16, 12), (0, 0)));
        for _ in 0..LINGERING_TICKS {
            after.observe(&alone, false);
            assert!(!after.is_ruled_out(), "where sessions are few, it may only seem to be gone");
        }
        for _ in 0..3 {
            after.observe(&alone, false);
        }
        assert!(after.is_ruled_out() && after.left_log10(60.0) > 3.0, "{after:?}");
    }

    #[test]
    fn no_outage_makes_more_of_the_evidence_than_there_is() {
        let after = outage(&[((8, 4), (8, 4)), ((8, 0), (8, 0)), ((8, 8), (8, 0))]);
        assert!(after.left_log10(-2.0) <= -2.0);
        assert!(outage(&[((8, 8), (8, 0))]).left_log10(1.5).total_cmp(&1.5).is_eq());
    }
}
