//! How strongly the ticks speak against "no worse than allowed".
//!
//! Both tests are e-processes: mixtures over five sizes of a regression and over the tick in which
//! it began. By Ville's inequality a candidate no worse than allowed *ever* reaches evidence
//! `1/α` with a chance of at most `α`, however often anyone looks. `docs/detection.md` derives
//! the formulas that this module names.
//!
//! **Invariant:** one update allocates nothing ([`Detector`] is `Copy`), and evidence is kept as
//! `Scaled`, so that a million failing sessions neither overflow nor lose digits.

use super::counts::{Counts, Tick};
use super::scaled::Scaled;
use super::share::{Share, Tolerance};

mod growth;

pub use growth::growth_log10;

/// By how much an alternative multiplies the odds of a failure.
const ALTERNATIVES: [f64; 5] = [1.5, 2.2, 4.0, 10.0, 50.0];

/// The alternatives' natural logarithms.
#[expect(clippy::excessive_precision, reason = "all digits that an f64 has")]
const LN_ALTERNATIVES: [f64; 5] = [
    0.405_465_108_108_164_38,
    0.788_457_360_364_270_17,
    1.386_294_361_119_890_62,
    std::f64::consts::LN_10,
    3.912_023_005_428_146_06,
];

/// Sessions started on both sides together that close a pooled tick, unless a rule says otherwise.
pub const POOL_SESSIONS: u64 = 100;

/// Evidence at which a candidate is suspect: ten to one.
pub const SUSPECT_LOG10: f64 = 1.0;

/// What a [`Detector`] is told before the first tick.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DetectorSettings {
    /// `T`: how many ticks an observation has; at least 1.
    pub observation_ticks: u32,
    /// Compare with the control, allowing this much more; none: no such test.
    pub tolerance: Option<Tolerance>,
    /// Compare with this share; none: no such test.
    pub ceiling: Option<Share>,
    /// `φ`: how much more failures scatter than independent ones would; at least 1.
    pub dispersion: f64,
    /// Sessions started on both sides together that close a pooled tick.
    pub pool_sessions: u64,
}

/// The evidence after a tick, the open pooled tick included, as log10 of the e-value.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evidence {
    /// Against the baseline's share; none without a tolerance.
    pub baseline_log10: Option<f64>,
    /// Against the ceiling; none without one.
    pub ceiling_log10: Option<f64>,
}

impl Evidence {
    /// The stronger of the two; `None` only for a detector without tests.
    #[must_use]
    pub fn strongest_log10(&self) -> Option<f64> {
        match (self.baseline_log10, self.ceiling_log10) {
            (Some(baseline), Some(ceiling)) => Some(baseline.max(ceiling)),
            (one, other) => one.or(other),
        }
    }
}

/// Both tests of one rule on one candidate. Look ahead on a copy.
#[derive(Clone, Copy, Debug)]
pub struct Detector {
    settings: DetectorSettings,
    /// The ceiling's [`shifts`]: they depend on nothing else.
    ceiling_shifts: [f64; 5],
    ticks_seen: u32,
    /// Sessions live on the candidate in the tick before.
    live_before: f64,
    baseline: Mixture,
    ceiling: Mixture,
    evidence: Evidence,
}

/// One test's evidence: `S_g` of each alternative, and the open pooled tick.
///
/// The two tests pool apart: the one against the baseline until both sides together have started
/// enough sessions, the one against the ceiling until enough of the candidate's were at risk.
#[derive(Clone, Copy, Debug)]
struct Mixture {
    sums: [Scaled; 5],
    open: Open,
}

/// The pooled tick that has not closed yet.
#[derive(Clone, Copy, Debug, Default)]
struct Open {
    candidate: Counts,
    control: Counts,
    /// The candidate's sessions at risk, summed over the parts: `max(started, ended)`, because
    /// starts alone would accuse a version whose traffic is falling and ends alone one whose
    /// sessions are young.
    at_risk: f64,
    weight: f64,
}

impl Detector {
    /// A detector that has seen nothing.
    #[must_use]
    pub fn new(settings: DetectorSettings) -> Self {
        let nothing = Mixture { sums: [Scaled::ZERO; 5], open: Open::default() };
        let ceiling_odds = settings.ceiling.map_or(0.0, |share| share.get() / (1.0 - share.get()));
        Self {
            settings,
            ceiling_shifts: shifts(ceiling_odds),
            ticks_seen: 0,
            live_before: 0.0,
            baseline: nothing,
            ceiling: nothing,
            evidence: Evidence {
                baseline_log10: settings.tolerance.map(|_| 0.0),
                ceiling_log10: settings.ceiling.map(|_| 0.0),
            },
        }
    }

    /// Takes the next tick and returns the evidence after it.
    pub fn observe(&mut self, tick: &Tick) -> Evidence {
        self.ticks_seen = self.ticks_seen.saturating_add(1);
        let weight = self.change_weight();
        let candidate = tick.candidate;
        let ended = candidate.started as f64 - (candidate.live - self.live_before);
        self.live_before = candidate.live;
        let at_risk = ended.max(candidate.started as f64);
        let DetectorSettings { tolerance, ceiling, dispersion, pool_sessions, .. } = self.settings;
        let pool = pool_sessions as f64;
        if let Some(tolerance) = tolerance {
            let part = Open { candidate, control: tick.control, at_risk, weight };
            let exponents = |open: &Open| baseline_exponents(open, tolerance, dispersion);
            let started = |open: &Open| (open.candidate + open.control).started as f64;
            let log10 = self.baseline.take(&part, exponents, |open| started(open) >= pool);
            self.evidence.baseline_log10 = Some(log10);
        }
        if ceiling.is_some() {
            let part = Open { candidate, control: Counts::default(), at_risk, weight };
            let shifts = &self.ceiling_shifts;
            let exponents = |open: &Open| ceiling_exponents(open, shifts, dispersion);
            let log10 = self.ceiling.take(&part, exponents, |open| open.at_risk >= pool);
            self.evidence.ceiling_log10 = Some(log10);
        }
        self.evidence
    }

    /// The evidence after the last tick; 1 (log10 0) before the first.
    #[must_use]
    pub fn evidence(&self) -> Evidence {
        self.evidence
    }

    /// What it was made with.
    #[must_use]
    pub fn settings(&self) -> &DetectorSettings {
        &self.settings
    }

    /// How many ticks it has taken.
    #[must_use]
    pub fn ticks_seen(&self) -> u32 {
        self.ticks_seen
    }

    /// Prior probability that the regression began in this tick: half on the first, the other
    /// half spread evenly over the rest of the observation.
    fn change_weight(&self) -> f64 {
        match self.ticks_seen {
            1 => 0.5,
            t if t <= self.settings.observation_ticks => {
                0.5 / f64::from(self.settings.observation_ticks - 1)
            }
            _ => 0.0,
        }
    }
}

impl Mixture {
    /// Adds a tick to the open one, closes that when it is full, and returns log10 of the mean
    /// over the alternatives.
    fn take(
        &mut self,
        part: &Open,
        exponents: impl Fn(&Open) -> [f64; 5],
        is_full: impl Fn(&Open) -> bool,
    ) -> f64 {
        self.open.candidate += part.candidate;
        self.open.control += part.control;
        self.open.at_risk += part.at_risk;
        self.open.weight += part.weight;
        let (after, log10) = mix(&self.sums, self.open.weight, &exponents(&self.open));
        if is_full(&self.open) {
            *self = Self { sums: after, open: Open::default() };
        }
        log10
    }
}

/// `o`: how many times the control's risk the candidate carries. `None` where the control cannot
/// tell, which makes the tick uninformative.
fn risk_odds(open: &Open) -> Option<f64> {
    let (candidate, control) = (&open.candidate, &open.control);
    let sides =
        [(candidate.started as f64, control.started as f64), (candidate.live, control.live)];
    let mut odds: Option<f64> = None;
    for (of_candidate, of_control) in sides {
        if of_control > 0.0 {
            let share = of_candidate / of_control;
            odds = Some(odds.map_or(share, |larger| larger.max(share)));
        } else if of_candidate > 0.0 {
            return None;
        }
    }
    odds
}

/// ln of each alternative's likelihood ratio, candidate's failures among all failures.
fn baseline_exponents(open: &Open, tolerance: Tolerance, dispersion: f64) -> [f64; 5] {
    let Some(odds) = risk_odds(open) else { return [0.0; 5] };
    let failed = open.candidate.failed as f64;
    let failed_in_all = failed + open.control.failed as f64;
    exponents(failed, failed_in_all, &shifts(tolerance.get() * odds), dispersion)
}

/// ln of each alternative's likelihood ratio, candidate's failures among its sessions at risk.
fn ceiling_exponents(open: &Open, shifts: &[f64; 5], dispersion: f64) -> [f64; 5] {
    let failed = (open.candidate.failed as f64).min(open.at_risk);
    exponents(failed, open.at_risk, shifts, dispersion)
}

/// `ln((1+odds)/(1+g·odds))` for each alternative: what a trial adds that is no hit.
fn shifts(null_odds: f64) -> [f64; 5] {
    ALTERNATIVES.map(|g| ((1.0 + null_odds) / (1.0 + g * null_odds)).ln())
}

/// `ln [ (q_g/q_0)^hits · ((1−q_g)/(1−q_0))^(trials−hits) ]^(1/φ)` with odds `g·odds` and `odds`,
/// as `(hits·ln g + trials·shift) / φ`.
fn exponents(hits: f64, trials: f64, shifts: &[f64; 5], dispersion: f64) -> [f64; 5] {
    let mut exponents = [0.0; 5];
    for (exponent, (ln_g, shift)) in exponents.iter_mut().zip(LN_ALTERNATIVES.iter().zip(shifts)) {
        *exponent = (hits * ln_g + trials * shift) / dispersion;
    }
    exponents
}

/// `LR_g · (S_g + w)` for each alternative, and log10 of their mean.
fn mix(sums: &[Scaled; 5], weight: f64, exponents: &[f64; 5]) -> ([Scaled; 5], f64) {
    let weight = Scaled::new(weight);
    let mut after = [Scaled::ZERO; 5];
    let mut total = Scaled::ZERO;
    for (after, (sum, exponent)) in after.iter_mut().zip(sums.iter().zip(exponents)) {
        *after = (*sum + weight) * Scaled::exp(*exponent);
        total = total + *after;
    }
    (after, (total * Scaled::new(1.0 / sums.len() as f64)).log10())
}

/// `φ`: how much more the failures of `chunks` scatter than independent sessions' would.
///
/// `max(1, Σ (e_i − n_i p̂)² / (n_i p̂ (1 − p̂)) / (k − 1))` over the `k` chunks with sessions;
/// 1 where it cannot be known.
#[must_use]
pub fn dispersion(chunks: &[Counts]) -> f64 {
    let busy = || chunks.iter().filter(|chunk| chunk.started > 0);
    let total = busy().fold(Counts::default(), |sum, chunk| sum + *chunk);
    let share = total.failed as f64 / total.started as f64;
    let chunks_busy = busy().count();
    // A share of 0 or 1 has no scatter to measure, and NaN (no sessions) fails the comparison too.
    if chunks_busy < 2 || !(share > 0.0 && share < 1.0) {
        return 1.0;
    }
    let scatter: f64 = busy()
        .map(|chunk| {
            let expected = chunk.started as f64 * share;
            (chunk.failed as f64 - expected).powi(2) / (expected * (1.0 - share))
        })
        .sum();
    (scatter / (chunks_busy - 1) as f64).max(1.0)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn counts(value: &Value) -> Counts {
        Counts {
            started: value["started"].as_u64().unwrap(),
            failed: value["failed"].as_u64().unwrap(),
            live: value["live"].as_f64().unwrap_or(0.0),
        }
    }

    fn vectors() -> Value {
        serde_json::from_str(include_str!("../../tests/vectors/detection.json")).unwrap()
    }

    #[test]
    fn the_reference_evidence_is_reproduced_to_a_millionth() {
        let mut compared = 0;
        for case in vectors()["cases"].as_array().unwrap() {
            let number = |key: &str| case[key].as_f64();
            let mut detector = Detector::new(DetectorSettings {
                observation_ticks: case["observation_ticks"].as_u64().unwrap().try_into().unwrap(),
                tolerance: number("tolerance").map(|r| Tolerance::new(r).unwrap()),
                ceiling: number("ceiling").map(|c| Share::new(c).unwrap()),
                dispersion: number("dispersion").unwrap(),
                pool_sessions: case["pool"].as_u64().unwrap(),
            });
            for (index, tick) in case["ticks"].as_array().unwrap().iter().enumerate() {
                let evidence = detector.observe(&Tick {
                    candidate: counts(&tick["candidate"]),
                    control: counts(&tick["control"]),
                });
                let want = [&tick["baseline_log10"], &tick["ceiling_log10"]].map(Value::as_f64);
                let got = [evidence.baseline_log10, evidence.ceiling_log10];
                for (want, got) in want.into_iter().zip(got) {
                    let (Some(want), Some(got)) = (want, got) else {
                        assert_eq!(want, got, "{} tick {index}", case["name"]);
                        continue;
                    };
                    let name = &case["name"];
                    assert!((want - got).abs() <= 1e-6, "{name} tick {index}: {got} for {want}");
                    compared += 1;
                }
            }
        }
        assert!(compared > 500, "only {compared} values compared");
    }

    #[test]
    fn the_reference_dispersions_are_reproduced_to_a_millionth() {
        let vectors = vectors();
        let cases = vectors["dispersion"].as_array().unwrap();
        assert!(!cases.is_empty());
        for case in cases {
            let chunks: Vec<Counts> =
                case["chunks"].as_array().unwrap().iter().map(counts).collect();
            let want = case["dispersion"].as_f64().unwrap();
            assert!((dispersion(&chunks) - want).abs() <= 1e-6);
        }
    }

    #[test]
    fn dispersion_is_one_where_it_cannot_be_known() {
        let chunk = |started, failed| Counts { started, failed, live: 0.0 };
        #[rustfmt::skip]
        let cases: &[(&str, &[Counts])] = &[
            ("no history", &[]),
            ("no sessions", &[chunk(0, 0), chunk(0, 0)]),
            ("one chunk", &[chunk(100, 3)]),
            ("nothing ever failed", &[chunk(100, 0), chunk(90, 0)]),
            ("everything failed", &[chunk(10, 10), chunk(20, 20)]),
        ];
        for (name, chunks) in cases {
            assert!((dispersion(chunks) - 1.0).abs() < f64::EPSILON, "{name}");
        }
    }

    #[test]
    fn a_gap_in_the_data_neither_clears_nor_accuses() {
        let mut detector = Detector::new(DetectorSettings {
            observation_ticks: 240,
            tolerance: Some(Tolerance::NONE),
            ceiling: Some(Share::new(0.05).unwrap()),
            dispersion: 1.0,
            pool_sessions: POOL_SESSIONS,
        });
        for _ in 0..240 {
            let evidence = detector.observe(&Tick::default());
            assert!(evidence.strongest_log10().unwrap() <= 1e-12);
        }
        assert!(detector.evidence().strongest_log10().unwrap() > -1e-9);
    }

    #[test]
    fn a_version_whose_every_session_fails_is_convicted_within_two_ticks() {
        // 1 session/s, 15 s ticks, 1 h of observation; no control: only the ceiling can tell.
        let mut detector = Detector::new(DetectorSettings {
            observation_ticks: 240,
            tolerance: Some(Tolerance::NONE),
            ceiling: Some(Share::new(0.05).unwrap()),
            dispersion: 1.0,
            pool_sessions: POOL_SESSIONS,
        });
        let tick = Tick {
            candidate: Counts { started: 15, failed: 15, live: 0.0 },
            control: Counts::default(),
        };
        detector.observe(&tick);
        assert!(detector.observe(&tick).ceiling_log10.unwrap() >= 3.31);
    }
}
