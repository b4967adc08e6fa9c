//! How sure a share is, given how few sessions it was counted from.

/// The normal quantile of a two-sided interval of 95 %.
const Z_95: f64 = 1.959_963_985;

/// Wilson's interval of 95 % for a share (Wilson, 1927), from counts.
///
/// `dispersion` is how many times more the counts vary than independent sessions would; it leaves
/// so many fewer of them to count. To look at, not to decide by: what is looked at again and again
/// is not covered by it. `None` without a session.
#[must_use]
pub fn wilson(failed: u64, started: u64, dispersion: f64) -> Option<(f64, f64)> {
    if started == 0 {
        return None;
    }
    let sessions = started as f64 / dispersion.max(1.0);
    let share = (failed as f64 / started as f64).min(1.0);
    let z2 = Z_95 * Z_95;
    let middle = share + z2 / (2.0 * sessions);
    let reach = Z_95 * (share * (1.0 - share) / sessions + z2 / (4.0 * sessions * sessions)).sqrt();
    let scale = 1.0 + z2 / sessions;
    Some((((middle - reach) / scale).max(0.0), ((middle + reach) / scale).min(1.0)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_interval_is_wilsons() {
        // As R prints for prop.test(19, 89, correct = FALSE), and so on.
        let cases =
            [(19, 89, 0.141_148, 0.309_528), (0, 10, 0.0, 0.277_533), (10, 10, 0.722_467, 1.0)];
        for (failed, started, low, high) in cases {
            let (found_low, found_high) = wilson(failed, started, 1.0).unwrap();
            assert!((found_low - low).abs() < 1e-5, "{failed} of {started}: {found_low}");
            assert!((found_high - high).abs() < 1e-5, "{failed} of {started}: {found_high}");
        }
        assert_eq!(wilson(0, 0, 1.0), None);
    }

    proptest! {
        #[test]
        fn it_holds_the_share_and_widens_with_the_dispersion(
            started in 1_u64..1_000_000, part in 0.0..=1.0_f64, dispersion in 1.0..20.0_f64,
        ) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part")]
            let failed = (part * started as f64) as u64;
            let share = failed as f64 / started as f64;
            let (low, high) = wilson(failed, started, 1.0).unwrap();
            let (wider_low, wider_high) = wilson(failed, started, dispersion).unwrap();
            prop_assert!(0.0 <= low && low <= share + 1e-9 && share <= high + 1e-9 && high <= 1.0);
            prop_assert!(wider_low <= low + 1e-9 && high <= wider_high + 1e-9);
        }
    }
}
