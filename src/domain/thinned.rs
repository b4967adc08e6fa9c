//! A series that keeps its shape in bounded memory.

use std::sync::Arc;

/// Points kept, and one more. Even, so that thinning never drops the last one. A plot is a few
/// hundred pixels wide.
pub const POINTS_MAX: usize = 96;

/// Every point, then every second, every fourth, …: evenly spread over all that was added, and
/// always with the last one.
///
/// Shared by those who look at it; who adds copies it only while somebody does.
#[derive(Clone, Debug)]
pub struct Thinned<T> {
    points: Arc<Vec<T>>,
    added: usize,
    stride: usize,
    /// The last point stays only until there is a later one.
    last_is_extra: bool,
}

impl<T> Default for Thinned<T> {
    fn default() -> Self {
        Self { points: Arc::default(), added: 0, stride: 1, last_is_extra: false }
    }
}

impl<T: Clone> Thinned<T> {
    /// Adds the next point.
    pub fn push(&mut self, point: T) {
        let points = Arc::make_mut(&mut self.points);
        if self.last_is_extra {
            points.pop();
        }
        points.push(point);
        self.last_is_extra = !self.added.is_multiple_of(self.stride);
        self.added += 1;
        if !self.last_is_extra && points.len() > POINTS_MAX {
            let mut keep = false;
            points.retain(|_| {
                keep = !keep;
                keep
            });
            self.stride *= 2;
        }
    }

    /// The points, for somebody to look at.
    #[must_use]
    pub fn points(&self) -> Arc<Vec<T>> {
        Arc::clone(&self.points)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_bounded_and_even_and_ends_with_the_last(count in 1_usize..5_000) {
            let mut series = Thinned::default();
            (0..count).for_each(|n| series.push(n));
            let points = series.points();
            prop_assert!(points.len() <= POINTS_MAX + 1);
            prop_assert!(count < POINTS_MAX || points.len() > POINTS_MAX / 2);
            prop_assert_eq!((points.first(), points.last()), (Some(&0), Some(&(count - 1))));
            let gaps: Vec<usize> = points.windows(2).map(|pair| pair[1] - pair[0]).collect();
            if let [even @ .., last] = gaps.as_slice() {
                prop_assert!(even.iter().all(|gap| gap == &even[0] && last <= gap));
            }
        }
    }
}
