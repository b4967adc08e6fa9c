//! Whether a regression is narrow: one agent or one tenant, and not the version as a whole.
//!
//! A slice stands out when most of the excess failures are in it and most of the traffic is not.
//! That alone clears nobody: the tests run again on the sessions without the slice, and what is
//! left must not even be suspect. So a narrow regression can only ever stop a rollback that the
//! whole has earned, and never cause one.

use std::collections::BTreeMap;
use std::fmt;

use super::counts::Counts;
use super::share::Share;

mod watch;

pub use watch::{Part, SliceWatch, SlicedTick, is_clear};

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

impl fmt::Display for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.label, self.value)
    }
}

/// The failures of some sessions, and how many of them were to be expected.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Excess {
    /// Sessions started.
    pub started: u64,
    /// How many of them failed.
    pub failed: u64,
    /// How many would have on the baseline.
    pub expected: f64,
}

impl Excess {
    /// Failures beyond those expected; below 0 where there are fewer.
    #[must_use]
    pub fn get(&self) -> f64 {
        self.failed as f64 - self.expected
    }
}

impl std::ops::AddAssign for Excess {
    fn add_assign(&mut self, other: Self) {
        self.started += other.started;
        self.failed += other.failed;
        self.expected += other.expected;
    }
}

/// A slice beside all sessions.
#[derive(Clone, Debug, PartialEq)]
pub struct Standout {
    /// Which one.
    pub slice: Slice,
    /// What its sessions came to.
    pub of_slice: Excess,
    /// What all of the candidate's came to, its own included.
    pub of_all: Excess,
}

impl Standout {
    /// Its part of the failures beyond what was to be expected; above 1 where others have fewer.
    /// 0 where all together have no such failures.
    #[must_use]
    pub fn excess_share(&self) -> f64 {
        let all = self.of_all.get();
        if all > 0.0 { self.of_slice.get() / all } else { 0.0 }
    }

    /// Its part of the sessions started.
    #[must_use]
    pub fn traffic_share(&self) -> f64 {
        self.of_slice.started as f64 / self.of_all.started.max(1) as f64
    }

    /// Whether it has most of the excess in less than half of the traffic.
    #[must_use]
    pub fn stands_out(&self) -> bool {
        self.excess_share() >= EXCESS_SHARE_MIN && self.traffic_share() < TRAFFIC_SHARE_MAX
    }
}

impl fmt::Display for Standout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} holds {:.0}% of the excess in {:.0}% of the sessions",
            self.slice,
            100.0 * self.excess_share().min(1.0),
            100.0 * self.traffic_share()
        )
    }
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
    let sum = control.values().fold(Counts::default(), |sum, counts| sum + *counts);
    let Some(overall) = share(&sum).or(ceiling.map(Share::get)) else { return Vec::new() };
    let excess = |(value, counts): (&String, &Counts)| Excess {
        started: counts.started,
        failed: counts.failed,
        expected: counts.started as f64 * control.get(value).and_then(share).unwrap_or(overall),
    };
    let mut of_all = Excess::default();
    for entry in candidate {
        of_all += excess(entry);
    }
    let named = candidate.iter().filter(|(value, _)| !value.is_empty());
    let slices = named.map(|entry| Standout {
        slice: Slice { label: label.to_owned(), value: entry.0.clone() },
        of_slice: excess(entry),
        of_all,
    });
    let mut found: Vec<Standout> = slices.filter(Standout::stands_out).collect();
    sort(&mut found);
    found
}

/// The largest excess first.
fn sort(found: &mut [Standout]) {
    found.sort_by(|a, b| b.excess_share().total_cmp(&a.excess_share()));
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
        assert!((best.excess_share() - 1.0).abs() < 1e-9);
        assert!((best.traffic_share() - 0.2).abs() < 1e-9);
        let said = "tenant c holds 100% of the excess in 20% of the sessions";
        assert_eq!(best.to_string(), said);
    }
}
