//! One rule watching one candidate's sessions by slice, tick by tick.
//!
//! What is left without a slice goes through [`Observation`] like the whole does, so there is no
//! second kind of evidence.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::counts::Counts;
use super::super::evidence::{DetectorSettings, SUSPECT_LOG10};
use super::super::observation::{ControlKind, Observation};
use super::super::verdict::Verdict;
use super::{Slice, Standout, sort, standouts};

/// Sessions that share their labels' values.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// In the order of the labels; empty where they have none.
    pub values: Arc<[String]>,
    /// What they came to.
    pub counts: Counts,
}

/// One tick by slice. A side without any part has no sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SlicedTick {
    /// The candidate's sessions.
    pub candidate: Vec<Part>,
    /// The baseline's, at the same time.
    pub baseline: Vec<Part>,
}

/// The least share of the whole's sessions that must be told apart. With less, what is missing
/// would make every slice that is there look smaller, or worse, than it is.
const TOLD_SHARE_MIN: f64 = 0.9;

/// Sums by a label's value; what has no value stands under the empty one.
type Sums = BTreeMap<String, Counts>;

/// A candidate's sessions by slice.
#[derive(Clone, Debug)]
pub struct SliceWatch {
    labels: Vec<String>,
    settings: DetectorSettings,
    measured: bool,
    past: Vec<Vec<Part>>,
    ticks: Vec<SlicedTick>,
    /// By label.
    of_past: Vec<Sums>,
    of_candidate: Vec<Sums>,
    of_baseline: Vec<Sums>,
    /// The rests that were asked for, with the ticks that each has taken.
    rests: BTreeMap<Slice, (Observation, usize)>,
}

impl SliceWatch {
    /// Begins with the baseline's past by slice, chunk by chunk; settings and `measured` are those
    /// of [`Observation::new`]. `labels` are the rule's `narrow_by`.
    #[must_use]
    pub fn new(
        labels: &[String],
        settings: DetectorSettings,
        measured: bool,
        past: Vec<Vec<Part>>,
    ) -> Self {
        let none = vec![Sums::new(); labels.len()];
        let mut of_past = none.clone();
        for chunk in &past {
            add(&mut of_past, chunk);
        }
        Self {
            labels: labels.to_vec(),
            settings,
            measured,
            past,
            ticks: Vec::new(),
            of_past,
            of_candidate: none.clone(),
            of_baseline: none,
            rests: BTreeMap::new(),
        }
    }

    /// Takes the next tick.
    pub fn observe(&mut self, tick: SlicedTick) {
        add(&mut self.of_candidate, &tick.candidate);
        add(&mut self.of_baseline, &tick.baseline);
        self.ticks.push(tick);
    }

    /// How many ticks it has taken.
    #[must_use]
    pub fn ticks(&self) -> usize {
        self.ticks.len()
    }

    /// The slice that a regression of the whole sits in: it stands out, and without it there is
    /// not even suspicion. `whole` has taken the same ticks.
    pub fn narrow(&mut self, whole: &Observation, threshold_log10: f64) -> Option<Standout> {
        let mut standing = self.standing(whole).into_iter();
        standing.find(|standout| is_clear(self.rest(&standout.slice), threshold_log10))
    }

    /// The same rule's observation of the sessions without a slice.
    pub fn rest(&mut self, slice: &Slice) -> &Observation {
        let Self { labels, settings, measured, past, ticks, rests, .. } = self;
        let label = labels.iter().position(|label| *label == slice.label);
        let without = |parts: &[Part]| -> Option<Counts> {
            let is_in = |part: &&Part| {
                label.is_some_and(|label| part.values.get(label) == Some(&slice.value))
            };
            let left = parts.iter().filter(|part| !is_in(part));
            left.map(|part| part.counts).reduce(|sum, counts| sum + counts)
        };
        let (rest, taken) = rests.entry(slice.clone()).or_insert_with(|| {
            let chunks: Vec<Option<Counts>> = past.iter().map(|chunk| without(chunk)).collect();
            // Without any sample in that time there is no past to compare with.
            let known = chunks.iter().any(Option::is_some);
            let past = chunks.into_iter().filter(|_| known).map(Option::unwrap_or_default);
            (Observation::new(*settings, *measured, past.collect()), 0)
        });
        for tick in ticks.iter().skip(*taken) {
            rest.observe(without(&tick.candidate), without(&tick.baseline));
        }
        *taken = ticks.len();
        rest
    }

    /// The slices that stand out, of all labels, the largest excess first.
    fn standing(&self, whole: &Observation) -> Vec<Standout> {
        let control = match whole.control() {
            _ if self.settings.tolerance.is_none() => &[],
            ControlKind::Concurrent => &self.of_baseline[..],
            ControlKind::History => &self.of_past[..],
            ControlKind::None => &[],
        };
        let (total, nobody) = (whole.total().candidate, Sums::new());
        let mut standing: Vec<Standout> = Vec::new();
        for (place, (label, sums)) in self.labels.iter().zip(&self.of_candidate).enumerate() {
            let mut candidate = sums.clone();
            // What the whole counted and no slice has is nobody's.
            let told = candidate.values().fold(Counts::default(), |sum, counts| sum + *counts);
            if (told.started as f64) < TOLD_SHARE_MIN * total.started as f64 {
                continue;
            }
            *candidate.entry(String::new()).or_default() += Counts {
                started: total.started.saturating_sub(told.started),
                failed: total.failed.saturating_sub(told.failed),
                live: 0.0,
            };
            let control = control.get(place).unwrap_or(&nobody);
            standing.extend(standouts(label, &candidate, control, self.settings.ceiling));
        }
        sort(&mut standing);
        standing
    }
}

/// Whether the rest is not even suspect. That its samples have ceased makes it no worse: a
/// candidate whose workers leave is not taken for one that fails everywhere.
#[must_use]
pub fn is_clear(rest: &Observation, threshold_log10: f64) -> bool {
    match rest.verdict(threshold_log10) {
        Verdict::Healthy => true,
        // It goes before suspicion, which missing data must not hide.
        Verdict::NoData => {
            rest.evidence().strongest_log10().is_some_and(|log10| log10 < SUSPECT_LOG10)
        }
        Verdict::Outage | Verdict::Suspect | Verdict::Regressed => false,
    }
}

fn add(sums: &mut [Sums], parts: &[Part]) {
    for part in parts {
        for (sums, value) in sums.iter_mut().zip(part.values.iter()) {
            match sums.get_mut(value) {
                Some(sum) => *sum += part.counts,
                None => drop(sums.insert(value.clone(), part.counts)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::evidence::POOL_SESSIONS;
    use super::super::super::share::{Share, Tolerance};
    use super::*;

    /// Tenant, started and failed.
    type Side = &'static [(&'static str, u64, u64)];

    const EVEN: Side = &[("a", 80, 1), ("b", 20, 0)];
    const SICK_B: Side = &[("a", 80, 1), ("b", 20, 15)];

    fn parts(side: Side) -> Vec<Part> {
        let part = |&(tenant, started, failed): &(&str, u64, u64)| Part {
            values: Arc::new([tenant.to_owned()]),
            counts: Counts { started, failed, live: 0.0 },
        };
        side.iter().map(part).collect()
    }

    fn settings(tolerance: bool) -> DetectorSettings {
        DetectorSettings {
            observation_ticks: 240,
            tolerance: tolerance.then_some(Tolerance::NONE),
            ceiling: Some(Share::new(0.05).unwrap()),
            dispersion: 1.0,
            pool_sessions: POOL_SESSIONS,
        }
    }

    /// What is narrow of a candidate, and how much of it the rest has taken.
    fn found(
        candidate: Side,
        baseline: Side,
        past: Side,
        tolerance: bool,
    ) -> Option<(String, u64)> {
        let chunks = vec![parts(past); if past.is_empty() { 0 } else { 240 }];
        let sum = |side: Side| {
            parts(side).into_iter().map(|part| part.counts).reduce(|sum, counts| sum + counts)
        };
        let history = chunks.iter().filter_map(|_| sum(past)).collect();
        let mut whole = Observation::new(settings(tolerance), true, history);
        let labels = ["tenant".to_owned()];
        let mut watch = SliceWatch::new(&labels, settings(tolerance), true, chunks);
        for _ in 0..12 {
            whole.observe(sum(candidate), sum(baseline));
            watch.observe(SlicedTick { candidate: parts(candidate), baseline: parts(baseline) });
        }
        assert_eq!(whole.verdict(3.0), Verdict::Regressed);
        let standout = watch.narrow(&whole, 3.0)?;
        let taken = watch.rest(&standout.slice).total().candidate.started;
        Some((standout.slice.to_string(), taken))
    }

    /// Candidate, baseline and past; whether there is a tolerance; what is found.
    type Case = (&'static str, Side, Side, Side, bool, Option<(String, u64)>);

    #[test]
    fn a_regression_is_narrow_while_the_rest_is_not_even_suspect() {
        const REST_TOO: Side = &[("a", 80, 8), ("b", 20, 15)];
        const NOBODYS: Side = &[("a", 80, 1), ("", 20, 15)];
        let b = Some(("tenant b".to_owned(), 12 * 80));
        #[rustfmt::skip]
        let cases: &[Case] = &[
            ("beside the baseline",        SICK_B,   EVEN,   &[],    true,  b.clone()),
            ("after it",                   SICK_B,   &[],    EVEN,   true,  b.clone()),
            ("against the ceiling alone",  SICK_B,   EVEN,   EVEN,   false, b),
            ("the rest is suspect",        REST_TOO, EVEN,   &[],    true,  None),
            ("it belongs to no tenant",    NOBODYS,  EVEN,   &[],    true,  None),
            ("it was as sick before",      REST_TOO, &[],    SICK_B, true,  None),
        ];
        for (name, candidate, baseline, past, tolerance, want) in cases {
            assert_eq!(found(candidate, baseline, past, *tolerance), *want, "{name}");
        }
    }

    #[test]
    fn a_narrow_regression_stays_narrow_while_its_version_leaves() {
        let labels = ["tenant".to_owned()];
        let mut whole = Observation::new(settings(true), true, Vec::new());
        let mut watch = SliceWatch::new(&labels, settings(true), true, Vec::new());
        let sum = |side| parts(side).into_iter().map(|part| part.counts).reduce(|a, b| a + b);
        for candidate in [SICK_B; 12].into_iter().chain([&[][..]; 8]) {
            whole.observe(sum(candidate), sum(EVEN));
            watch.observe(SlicedTick { candidate: parts(candidate), baseline: parts(EVEN) });
        }
        let slice = watch.narrow(&whole, 3.0).map(|standout| standout.slice.to_string());
        assert_eq!(slice.as_deref(), Some("tenant b"));
        let rest = Slice { label: "tenant".to_owned(), value: "b".to_owned() };
        assert_eq!(watch.rest(&rest).verdict(3.0), Verdict::NoData);
    }

    #[test]
    fn where_sessions_are_not_told_apart_no_slice_stands_out() {
        let labels = ["tenant".to_owned()];
        let none = |told: Side| {
            let mut whole = Observation::new(settings(true), true, Vec::new());
            let mut watch = SliceWatch::new(&labels, settings(true), true, Vec::new());
            for _ in 0..12 {
                let sum = |side: Side| {
                    parts(side).into_iter().map(|part| part.counts).reduce(|a, b| a + b)
                };
                whole.observe(sum(SICK_B), sum(EVEN));
                watch.observe(SlicedTick { candidate: parts(told), baseline: parts(EVEN) });
            }
            watch.narrow(&whole, 3.0).is_none()
        };
        assert!(!none(&[("a", 75, 1), ("b", 20, 15)]), "a few may be scraped in between");
        assert!(none(&[("a", 80, 1), ("b", 0, 15)]), "no answer for the sessions of b");
        assert!(none(&[("b", 20, 15)]), "no answer for those of a");
    }

    #[test]
    fn a_rest_whose_samples_ceased_is_clear_unless_it_was_suspect() {
        let clear_after = |failed| {
            let mut rest = Observation::new(settings(true), true, Vec::new());
            for tick in 0..10 {
                let counts = |failed| Counts { started: 20, failed, live: 0.0 };
                rest.observe((tick < 5).then(|| counts(failed)), Some(counts(0)));
            }
            assert_eq!(rest.verdict(9.0), Verdict::NoData);
            is_clear(&rest, 9.0)
        };
        assert!(clear_after(0) && !clear_after(3));
    }

    #[test]
    fn a_rest_goes_on_where_it_was() {
        let labels = ["tenant".to_owned()];
        let slice = Slice { label: "tenant".to_owned(), value: "b".to_owned() };
        let tick = |side| SlicedTick { candidate: parts(side), baseline: parts(EVEN) };
        let mut asked = SliceWatch::new(&labels, settings(true), true, Vec::new());
        let mut late = asked.clone();
        for side in [EVEN, SICK_B, EVEN, SICK_B] {
            asked.observe(tick(side));
            late.observe(tick(side));
            asked.rest(&slice);
        }
        let (asked, late) = (asked.rest(&slice), late.rest(&slice));
        assert_eq!(asked.ticks(), late.ticks());
        assert_eq!(asked.evidence(), late.evidence());
    }
}
