//! One rule watching one candidate: which control it is compared with, and what came of it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::counts::{Counts, Tick};
use super::evidence::{Detector, DetectorSettings, Evidence, SUSPECT_LOG10, dispersion};
use super::outage::Outage;
use super::verdict::Verdict;

/// Past ticks over which the baseline must carry its part of the traffic to serve as the control.
const CONCURRENT_TICKS: usize = 4;

/// The part: a quarter of the candidate's sessions.
const CONCURRENT_DIVISOR: u64 = 4;

/// Successive ticks without a sample of the candidate after which its data counts as missing.
const SILENT_TICKS_MAX: u32 = 4;

/// Ticks kept for the record. A candidate that nothing may be decided about is observed for as long
/// as it is there; then the older half is let go.
const TICKS_MAX: usize = 20_000;

/// What the candidate was compared with in a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlKind {
    /// The baseline, at the same time.
    Concurrent,
    /// The baseline, before the rollout.
    History,
    /// Nothing: only a ceiling can judge.
    None,
}

impl ControlKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Concurrent, Self::History, Self::None];

    /// The kind's name in ledger and API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Concurrent => "concurrent",
            Self::History => "history",
            Self::None => "none",
        }
    }
}

/// One rule's observation of one candidate. `Clone` to look ahead at a tick that is not over.
#[derive(Clone, Debug)]
pub struct Observation {
    detector: Detector,
    outage: Outage,
    /// Shared by the copies that look ahead.
    history: Arc<[Counts]>,
    recent: VecDeque<(u64, u64)>,
    ticks: Vec<Tick>,
    /// What each tick was compared with.
    controls: Vec<ControlKind>,
    ticks_left_out: usize,
    total: Tick,
    silent_ticks: u32,
    seen_ticks: u32,
}

impl Observation {
    /// Begins with the baseline's past, cut into as many chunks as the observation has ticks.
    /// `live` of a chunk is summed over its ticks, as in a pooled one.
    ///
    /// The dispersion is measured on that past unless `settings.dispersion` is above 1 already.
    #[must_use]
    pub fn new(mut settings: DetectorSettings, measured: bool, history: Vec<Counts>) -> Self {
        if measured {
            settings.dispersion = dispersion(&history);
        }
        Self {
            detector: Detector::new(settings),
            outage: Outage::new(settings),
            history: history.into(),
            recent: VecDeque::with_capacity(CONCURRENT_TICKS + 1),
            ticks: Vec::new(),
            controls: Vec::new(),
            ticks_left_out: 0,
            total: Tick::default(),
            silent_ticks: 0,
            seen_ticks: 0,
        }
    }

    /// Takes the next tick: the candidate's counts and the baseline's at the same time. `None`
    /// is a side of which there was no sample: nothing is concluded from that.
    pub fn observe(&mut self, candidate: Option<Counts>, baseline: Option<Counts>) -> Evidence {
        self.silent_ticks = match candidate {
            Some(_) => 0,
            None => self.silent_ticks.saturating_add(1),
        };
        self.seen_ticks = self.seen_ticks.saturating_add(u32::from(candidate.is_some()));
        let candidate = candidate.unwrap_or_default();
        let concurrent = baseline.unwrap_or_default();
        let (control, kind) = self.choose_control(concurrent);
        if self.recent.len() == CONCURRENT_TICKS {
            self.recent.pop_front();
        }
        self.recent.push_back((candidate.started, concurrent.started));
        self.take(Tick { candidate, control }, kind)
    }

    fn take(&mut self, tick: Tick, kind: ControlKind) -> Evidence {
        if self.ticks.len() == TICKS_MAX {
            self.ticks.drain(..TICKS_MAX / 2);
            self.controls.drain(..TICKS_MAX / 2);
            self.ticks_left_out += TICKS_MAX / 2;
        }
        self.ticks.push(tick);
        self.controls.push(kind);
        self.total.candidate += tick.candidate;
        self.total.control += tick.control;
        let evidence = self.detector.observe(&tick);
        let concurrent = kind == ControlKind::Concurrent;
        self.outage.observe(&tick, concurrent);
        evidence
    }

    /// One that took these ticks, as they were recorded with what each was compared with. The last
    /// `silent_ticks` had no sample of the candidate.
    #[must_use]
    pub fn recorded(
        settings: DetectorSettings,
        ticks: impl IntoIterator<Item = (Tick, ControlKind)>,
        silent_ticks: u32,
    ) -> Self {
        let mut observation = Self::new(settings, false, Vec::new());
        for (tick, kind) in ticks {
            observation.take(tick, kind);
        }
        Self { silent_ticks, ..observation }
    }

    /// Looks only at ticks already past, so that the choice cannot lean on what it will count.
    fn choose_control(&self, concurrent: Counts) -> (Counts, ControlKind) {
        let started = |side: fn(&(u64, u64)) -> u64| -> u64 { self.recent.iter().map(side).sum() };
        let of_candidate = started(|(candidate, _)| *candidate);
        let of_baseline = started(|(_, baseline)| *baseline);
        let past = self.history.get(self.ticks_left_out + self.ticks.len()).copied();
        if of_baseline.saturating_mul(CONCURRENT_DIVISOR) >= of_candidate {
            return (concurrent, ControlKind::Concurrent);
        }
        match past {
            Some(chunk) => (chunk, ControlKind::History),
            None => (Counts::default(), ControlKind::None),
        }
    }

    /// The verdict after the last tick. `threshold_log10` is `log10(1/α)` of one test.
    #[must_use]
    pub fn verdict(&self, threshold_log10: f64) -> Verdict {
        let has_data = self.silent_ticks < SILENT_TICKS_MAX;
        let evidence = self.detector.evidence();
        let Some(ceiling_log10) = evidence.ceiling_log10 else {
            return Verdict::of(&evidence, threshold_log10, has_data);
        };
        let mut left_log10 = self.outage.left_log10(ceiling_log10);
        if left_log10 >= threshold_log10 && !self.outage.is_ruled_out() {
            left_log10 = SUSPECT_LOG10;
        }
        let without_outage = Evidence { ceiling_log10: Some(left_log10), ..evidence };
        match Verdict::of(&without_outage, threshold_log10, has_data) {
            Verdict::Regressed => Verdict::Regressed,
            verdict if ceiling_log10 < SUSPECT_LOG10 || left_log10 >= SUSPECT_LOG10 => verdict,
            Verdict::Healthy | Verdict::NoData | Verdict::Suspect | Verdict::Outage => {
                Verdict::Outage
            }
        }
    }

    /// Whether there were samples of the candidate in at least half as many ticks as an observation
    /// has. Before that its time is not over: what nobody saw speaks for no version.
    #[must_use]
    pub fn was_seen(&self) -> bool {
        self.seen_ticks >= self.detector.settings().observation_ticks.div_ceil(2)
    }

    /// The evidence after the last tick.
    #[must_use]
    pub fn evidence(&self) -> Evidence {
        self.detector.evidence()
    }

    /// What the last tick was compared with.
    #[must_use]
    pub fn control(&self) -> ControlKind {
        self.controls.last().copied().unwrap_or(ControlKind::None)
    }

    /// What each tick was compared with.
    #[must_use]
    pub fn controls(&self) -> &[ControlKind] {
        &self.controls
    }

    /// How many of the last ticks had no sample of the candidate.
    #[must_use]
    pub fn silent_ticks(&self) -> u32 {
        self.silent_ticks
    }

    /// Everything observed so far, summed. `live` is a sum of means and of no meaning here.
    #[must_use]
    pub fn total(&self) -> &Tick {
        &self.total
    }

    /// Every tick, as the detector took it, but for the first [`Self::ticks_left_out`].
    #[must_use]
    pub fn ticks(&self) -> &[Tick] {
        &self.ticks
    }

    /// The last ticks that together have `sessions_min` sessions of the candidate, or all of
    /// them: how many they are, and their sum (`live` sums means).
    #[must_use]
    pub fn recent(&self, sessions_min: u64) -> (usize, Tick) {
        let mut sum = Tick::default();
        for (taken, tick) in self.ticks.iter().rev().enumerate() {
            if sum.candidate.started >= sessions_min {
                return (taken, sum);
            }
            sum.candidate += tick.candidate;
            sum.control += tick.control;
        }
        (self.ticks.len(), sum)
    }

    /// Ticks no longer kept, before the first of [`Self::ticks`]: without them the evidence cannot
    /// be derived again.
    #[must_use]
    pub fn ticks_left_out(&self) -> usize {
        self.ticks_left_out
    }

    /// What the detector was made with, the dispersion measured.
    #[must_use]
    pub fn settings(&self) -> &DetectorSettings {
        self.detector.settings()
    }
}

#[cfg(test)]
mod tests {
    use super::super::evidence::POOL_SESSIONS;
    use super::super::share::{Share, Tolerance};
    use super::*;

    fn counts(started: u64, failed: u64) -> Counts {
        Counts { started, failed, live: 0.0 }
    }

    fn observation(history: Vec<Counts>) -> Observation {
        let settings = DetectorSettings {
            observation_ticks: 240,
            tolerance: Some(Tolerance::NONE),
            ceiling: Some(Share::new(0.05).unwrap()),
            dispersion: 1.0,
            pool_sessions: POOL_SESSIONS,
        };
        Observation::new(settings, true, history)
    }

    #[test]
    fn the_past_serves_only_when_the_baseline_no_longer_carries_a_quarter() {
        let past = Counts { started: 50, failed: 1, live: 0.0 };
        let mut watch = observation(vec![past; 240]);
        watch.observe(Some(counts(40, 0)), Some(counts(10, 0)));
        assert_eq!(watch.control(), ControlKind::Concurrent);
        watch.observe(Some(counts(40, 0)), Some(counts(9, 0)));
        assert_eq!(watch.control(), ControlKind::Concurrent, "exactly a quarter is enough");
        watch.observe(Some(counts(40, 0)), Some(counts(40, 0)));
        assert_eq!(watch.control(), ControlKind::History, "only past ticks count");
        assert_eq!(watch.ticks()[2].control, past);
    }

    #[test]
    fn without_a_past_and_without_a_baseline_nothing_is_the_control() {
        let mut watch = observation(Vec::new());
        watch.observe(Some(counts(40, 0)), None);
        watch.observe(Some(counts(40, 0)), None);
        assert_eq!(watch.control(), ControlKind::None);
    }

    #[test]
    fn missing_samples_become_no_data_and_never_evidence() {
        let mut watch = observation(Vec::new());
        watch.observe(Some(counts(40, 1)), Some(counts(40, 1)));
        let before = watch.evidence();
        for _ in 0..4 {
            assert_eq!(watch.verdict(3.3), Verdict::Healthy);
            watch.observe(None, Some(counts(40, 1)));
        }
        assert_eq!(watch.verdict(3.3), Verdict::NoData);
        assert!(watch.evidence().strongest_log10() <= before.strongest_log10().map(|e| e + 0.1));
        watch.observe(Some(counts(40, 1)), Some(counts(40, 1)));
        assert_eq!(watch.verdict(3.3), Verdict::Healthy);
    }

    #[test]
    fn an_observation_that_saw_little_is_not_over() {
        let mut watch = observation(Vec::new());
        for tick in 0..240 {
            watch.observe((tick % 2 == 1).then(|| counts(40, 1)), None);
            assert_eq!(watch.was_seen(), tick == 239, "tick {tick}");
        }
    }

    #[test]
    fn the_recent_ticks_are_the_last_ones_with_enough_sessions() {
        let mut watch = observation(Vec::new());
        assert_eq!(watch.recent(50).0, 0);
        for failed in 0..5 {
            watch.observe(Some(counts(20, failed)), Some(counts(10, 0)));
        }
        let (ticks, sum) = watch.recent(50);
        assert_eq!((ticks, sum.candidate.started, sum.candidate.failed), (3, 60, 4 + 3 + 2));
        assert_eq!(watch.recent(1000).0, 5);
    }

    #[test]
    fn an_observation_without_an_end_keeps_a_bounded_number_of_ticks() {
        let past = Counts { started: 50, failed: 1, live: 0.0 };
        let mut watch = observation(vec![past; TICKS_MAX * 2]);
        for _ in 0..=TICKS_MAX {
            watch.observe(Some(counts(1, 0)), None);
        }
        assert_eq!(watch.ticks().len(), TICKS_MAX / 2 + 1);
        assert_eq!(watch.ticks_left_out() + watch.ticks().len(), TICKS_MAX + 1);
        assert_eq!(watch.total().candidate.started, TICKS_MAX as u64 + 1);
        assert_eq!(watch.control(), ControlKind::History, "the past goes on where it was");
    }

    #[test]
    fn an_outage_of_both_versions_is_absorbed_by_the_control() {
        let mut watch = observation(Vec::new());
        for _ in 0..60 {
            watch.observe(Some(counts(30, 20)), Some(counts(30, 20)));
        }
        assert!(watch.evidence().ceiling_log10 > Some(3.0), "the ceiling alone would convict");
        assert_eq!(watch.verdict(3.0), Verdict::Outage);
    }

    #[test]
    fn an_outage_does_not_shield_a_version_that_fails_more_than_its_baseline() {
        let mut watch = observation(Vec::new());
        for _ in 0..60 {
            watch.observe(Some(counts(30, 28)), Some(counts(30, 10)));
        }
        assert_eq!(watch.verdict(3.0), Verdict::Regressed);
    }

    #[test]
    fn what_was_recorded_says_the_same_again() {
        let past = Counts { started: 50, failed: 1, live: 2.5 };
        let mut watch = observation(vec![past; 240]);
        for tick in 0..60 {
            let candidate = (tick % 7 != 3).then(|| counts(30, tick % 4));
            let baseline = (tick < 20).then(|| counts(30, 1));
            watch.observe(candidate, baseline);
            let ticks = watch.ticks().iter().copied().zip(watch.controls().iter().copied());
            let again = Observation::recorded(*watch.settings(), ticks, watch.silent_ticks());
            assert_eq!(again.evidence(), watch.evidence());
            assert_eq!(again.verdict(2.0), watch.verdict(2.0));
            assert_eq!((again.control(), again.total()), (watch.control(), watch.total()));
        }
    }
}
