//! How fast evidence grows, if things go on as they are.

use super::{DetectorSettings, Evidence, LN_ALTERNATIVES, risk_odds, shifts};
use super::{Open, Tick};

/// log10 of what each further session of the candidate multiplies the evidence by, in the long
/// run, while both sides go on as in `recent`: the growth of the alternative that grows fastest,
/// at the mean. Not above 0 where the candidate fails no more than is allowed.
///
/// `recent` sums some ticks. Sessions at risk are taken as those started, which holds while the
/// traffic is steady. A test that is not there, or has nothing to go by, is `None`.
#[must_use]
pub fn growth_log10(settings: &DetectorSettings, recent: &Tick) -> Evidence {
    let Tick { candidate, control } = *recent;
    let started = candidate.started as f64;
    if candidate.started == 0 {
        return Evidence::default();
    }
    let per_session = |hits: u64, trials: f64, null_odds: f64| {
        let of_alternative = |(ln_g, shift): (&f64, &f64)| hits as f64 * ln_g + trials * shift;
        let shifts = shifts(null_odds);
        let all = LN_ALTERNATIVES.iter().zip(&shifts).map(of_alternative);
        let fastest = all.fold(f64::NEG_INFINITY, f64::max);
        fastest / started / settings.dispersion / std::f64::consts::LN_10
    };
    let open = Open { candidate, control, at_risk: started, weight: 0.0 };
    let baseline = settings.tolerance.zip(risk_odds(&open)).map(|(tolerance, odds)| {
        let failed = (candidate.failed.saturating_add(control.failed)) as f64;
        per_session(candidate.failed, failed, tolerance.get() * odds)
    });
    let ceiling = settings.ceiling.map(|ceiling| {
        let failed = candidate.failed.min(candidate.started);
        per_session(failed, started, ceiling.get() / (1.0 - ceiling.get()))
    });
    Evidence { baseline_log10: baseline, ceiling_log10: ceiling }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::counts::Counts;
    use crate::domain::evidence::{Detector, POOL_SESSIONS};
    use crate::domain::share::{Share, Tolerance};

    fn settings(tolerance: f64, ceiling: f64, dispersion: f64) -> DetectorSettings {
        DetectorSettings {
            observation_ticks: 240,
            tolerance: Tolerance::new(tolerance).ok(),
            ceiling: Share::new(ceiling).ok(),
            dispersion,
            pool_sessions: POOL_SESSIONS,
        }
    }

    fn counts(started: u64, failed: u64) -> Counts {
        Counts { started, failed, live: 0.0 }
    }

    #[test]
    fn evidence_grows_in_the_detector_as_fast_as_foretold() {
        let cases = [
            ("a fifth fails against one in a hundred", (100, 20), (100, 1), 1.0),
            ("bursts slow it down", (100, 20), (100, 1), 2.5),
            ("little control", (200, 20), (50, 1), 1.0),
        ];
        for (name, candidate, control, dispersion) in cases {
            let settings = settings(1.5, 0.05, dispersion);
            let tick = Tick {
                candidate: counts(candidate.0, candidate.1),
                control: counts(control.0, control.1),
            };
            let growth = growth_log10(&settings, &tick);
            let mut detector = Detector::new(settings);
            let early = (0..20).map(|_| detector.observe(&tick)).last().unwrap();
            let late = (0..20).map(|_| detector.observe(&tick)).last().unwrap();
            let grown = |log10: fn(&Evidence) -> Option<f64>| {
                let per_session = 20.0 * candidate.0 as f64;
                (log10(&late).unwrap() - log10(&early).unwrap()) / per_session
            };
            for (got, want) in [
                (grown(|e| e.baseline_log10), growth.baseline_log10.unwrap()),
                (grown(|e| e.ceiling_log10), growth.ceiling_log10.unwrap()),
            ] {
                assert!((got / want - 1.0).abs() < 0.02, "{name}: {got} for {want}");
            }
        }
    }

    #[test]
    fn evidence_does_not_grow_against_a_candidate_no_worse_than_allowed() {
        let tick = Tick { candidate: counts(1000, 12), control: counts(1000, 10) };
        let growth = growth_log10(&settings(1.5, 0.05, 1.0), &tick);
        assert!(growth.strongest_log10().unwrap() <= 0.0, "{growth:?}");
    }

    #[test]
    fn where_there_is_nothing_to_go_by_nothing_is_foretold() {
        let settings = settings(1.5, 0.05, 1.0);
        assert_eq!(growth_log10(&settings, &Tick::default()), Evidence::default());
        let alone = Tick { candidate: counts(10, 1), control: Counts::default() };
        assert_eq!(growth_log10(&settings, &alone).baseline_log10, None);
    }
}
