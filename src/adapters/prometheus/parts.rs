//! A long range, asked for in parts.
//!
//! A server evaluates all steps of a query before it answers. With thousands of series, a candidate's
//! whole history does not fit into the time that one query may take; a part of it does. Each step
//! is evaluated on its own, so the parts put together are what one query would have answered.

use std::collections::BTreeMap;

use crate::ports::metrics::{RangeQuery, Series};

/// Steps that are asked for at once, unless there were more than [`PARTS_MAX`] parts then.
const STEPS: u32 = 30;
/// Parts of a query, so that the number of queries is bounded whatever a range covers.
const PARTS_MAX: u32 = 8;

/// The query itself, or the parts of its range, one after the other.
pub(super) fn of(query: &RangeQuery) -> Vec<RangeQuery> {
    let step_millis = query.step.as_millis().max(1);
    let further = query.end.since(query.start).as_millis() / step_millis;
    let all = u32::try_from(further).unwrap_or(u32::MAX).saturating_add(1);
    let steps = STEPS.max(all.div_ceil(PARTS_MAX));
    let starts = (0..all.div_ceil(steps)).map(|part| query.start + query.step * (part * steps));
    let part = |start| RangeQuery {
        start,
        end: query.end.min(start + query.step * (steps - 1)),
        ..query.clone()
    };
    starts.map(part).collect()
}

/// The parts' answers as one, the points of each series in time order.
pub(super) fn join(mut answers: Vec<Vec<Series>>) -> Vec<Series> {
    if answers.len() <= 1 {
        return answers.pop().unwrap_or_default();
    }
    let mut joined: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for Series { labels, points } in answers.into_iter().flatten() {
        joined.entry(labels).or_default().extend(points);
    }
    joined.into_iter().map(|(labels, points)| Series { labels, points }).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::time::Timestamp;

    const STEP: Duration = Duration::from_secs(15);

    fn range(steps: u32) -> RangeQuery {
        let start = Timestamp::from_millis(1_700_000_000_000);
        RangeQuery { expr: "up".to_owned(), start, end: start + STEP * (steps - 1), step: STEP }
    }

    proptest! {
        #[test]
        fn every_step_is_in_one_part_and_there_are_few(steps in 1_u32..20_000) {
            let query = range(steps);
            let parts = of(&query);
            prop_assert!(parts.len() <= 8 && (steps > 30 || parts.len() == 1), "{parts:?}");
            let mut next = query.start;
            for part in &parts {
                prop_assert_eq!(part.start, next);
                prop_assert!(part.end >= part.start);
                next = part.end + STEP;
            }
            prop_assert_eq!(next, query.end + STEP);
        }
    }

    #[test]
    fn what_is_in_one_part_only_is_there_and_what_is_in_several_is_one_series() {
        let series = |version: &str, seconds: &[i64]| Series {
            labels: BTreeMap::from([("version".to_owned(), version.to_owned())]),
            points: seconds.iter().map(|s| (Timestamp::from_millis(s * 1000), 1.0)).collect(),
        };
        let answers = vec![
            vec![series("v1", &[0, 15])],
            vec![series("v1", &[30]), series("v2", &[30])],
            vec![series("v2", &[45, 60])],
        ];
        assert_eq!(join(answers), [series("v1", &[0, 15, 30]), series("v2", &[30, 45, 60])]);
        assert_eq!(join(vec![Vec::new(); 3]), []);
    }
}
