//! Whether a regression is narrow: one agent or one tenant, and not the version as a whole.
//!
//! A slice stands out when most of the excess failures are in it and most of the traffic is not.
//! That alone clears nobody: the tests run again on the sessions without the slice, and what is
//! left must not even be suspect. So a narrow regression can only ever stop a rollback that the
//! whole has earned, and never cause one.

use std::collections::BTreeMap;

use super::counts::Counts;
use super::share::Share;

/// The least share of the excess failures that a slice must hold.
const EXCESS_SHARE_MIN: f64 = 0.8;

/// The share of the candidate's sessions that a slice must stay below.
const TRAFFIC_SHARE_MAX: f64 = 0.5;

/// The sessions that share a label's value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slice {
    /// One of the rule's `narrow_by`.
    pub label: String,
    /// Its value.
    pub value: String,
}

/// Whether a regression sits in one slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Breadth {
    /// It does not, or there is nothing to tell it by.
    Wide,
    /// It was not asked yet; the next look asks.
    Unknown,
    /// It does.
    Narrow(Slice),
}

/// A slice that stands out.
#[derive(Clone, Debug, PartialEq)]
pub struct Standout {
    /// Which one.
    pub slice: Slice,
    /// Its part of the failures beyond what was to be expected; above 1 where others have fewer.
    pub excess_share: f64,
    /// Its part of the sessions started.
    pub traffic_share: f64,
}

/// The slices of one label that stand out, the largest excess first.
///
/// `candidate` and `control` hold the sums over the observation by the label's value; what has no
/// value, or belongs to no slice, stands under the empty one and is never a slice. Expected is,
/// for each value, the control's share of it, or of the control as a whole where it had no such
/// session; and the ceiling where there is no control.
#[must_use]
pub fn standouts(
    label: &str,
    candidate: &BTreeMap<String, Counts>,
    control: &BTreeMap<String, Counts>,
    ceiling: Option<Share>,
) -> Vec<Standout> {
    let sum = |side: &BTreeMap<String, Counts>| {
        side.values().fold(Counts::default(), |sum, counts| sum + *counts)
    };
    let started = sum(candidate).started as f64;
    let Some(overall) = share(&sum(control)).or(ceiling.map(Share::get)) else { return Vec::new() };
    let excess = |(value, counts): (&String, &Counts)| {
        let expected = control.get(value).and_then(share).unwrap_or(overall);
        counts.failed as f64 - counts.started as f64 * expected
    };
    let in_all: f64 = candidate.iter().map(excess).sum();
    if in_all <= 0.0 {
        return Vec::new();
    }
    let shares = candidate.iter().filter(|(value, _)| !value.is_empty()).map(|entry| Standout {
        slice: Slice { label: label.to_owned(), value: entry.0.clone() },
        excess_share: excess(entry) / in_all,
        traffic_share: entry.1.started as f64 / started.max(1.0),
    });
    let stands_out = |slice: &Standout| {
        slice.excess_share >= EXCESS_SHARE_MIN && slice.traffic_share < TRAFFIC_SHARE_MAX
    };
    let mut found: Vec<Standout> = shares.filter(stands_out).collect();
    found.sort_by(|a, b| b.excess_share.total_cmp(&a.excess_share));
    found
}

fn share(counts: &Counts) -> Option<f64> {
    (counts.started > 0).then(|| counts.failed as f64 / counts.started as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Side = &'static [(&'static str, u64, u64)];

    fn side(slices: Side) -> BTreeMap<String, Counts> {
        let counts = |&(value, started, failed): &(&str, u64, u64)| {
            (value.to_owned(), Counts { started, failed, live: 0.0 })
        };
        slices.iter().map(counts).collect()
    }

    #[test]
    fn a_slice_stands_out_with_most_of_the_excess_and_little_of_the_traffic() {
        const EVEN: Side = &[("a", 400, 8), ("b", 400, 8), ("c", 200, 4)];
        const SICK_C: Side = &[("a", 400, 8), ("b", 400, 8), ("c", 200, 100)];
        #[rustfmt::skip]
        let cases: &[(&str, Side, Side, Option<&str>)] = &[
            ("all in one of three",              SICK_C,                                             EVEN, Some("c")),
            ("nothing is beyond the control",    EVEN,                                               EVEN, None),
            ("spread over all",                  &[("a", 400, 80), ("b", 400, 80), ("c", 200, 40)],  EVEN, None),
            ("four fifths of it, just",          &[("a", 400, 13), ("b", 400, 8), ("c", 200, 24)],   EVEN, Some("c")),
            ("a little less",                    &[("a", 400, 14), ("b", 400, 8), ("c", 200, 24)],   EVEN, None),
            ("half of the traffic",              &[("a", 500, 10), ("c", 500, 100)],                 EVEN, None),
            ("it fails on the baseline too",     SICK_C,                                           SICK_C, None),
            ("sick before, and another is now",  &[("a", 400, 8), ("b", 300, 60), ("c", 200, 100)], SICK_C, Some("b")),
            ("the baseline never had it",        &[("a", 800, 16), ("new", 200, 50)],                EVEN, Some("new")),
            ("failures of no slice",             &[("a", 800, 16), ("", 200, 50)],                   EVEN, None),
            ("a worker that died is no slice's", &[("", 0, 9), ("a", 800, 16), ("c", 200, 24)],      EVEN, None),
            ("no control: against the ceiling",  SICK_C,                                              &[], Some("c")),
        ];
        for (name, candidate, control, want) in cases {
            let ceiling = Share::new(0.05).ok();
            let found = standouts("tenant", &side(candidate), &side(control), ceiling);
            let found = found.first().map(|standout| standout.slice.value.as_str());
            assert_eq!(found, *want, "{name}");
        }
        assert_eq!(standouts("tenant", &side(SICK_C), &side(&[]), None), [], "nothing to go by");
        let best = standouts("tenant", &side(SICK_C), &side(EVEN), None).remove(0);
        assert!((best.excess_share - 1.0).abs() < 1e-9 && (best.traffic_share - 0.2).abs() < 1e-9);
    }
}
