//! What many runs say: shares and quantiles, with how far to trust them.

/// The normal quantile of a two-sided 95 % interval.
const Z: f64 = 1.959_963_984_540_054;

/// Wilson's 95 % interval for the share of which `hits` of `trials` is a sample.
///
/// Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
#[must_use]
pub fn wilson(hits: usize, trials: usize) -> (f64, f64) {
    if trials == 0 {
        return (0.0, 1.0);
    }
    let (n, p) = (trials as f64, hits as f64 / trials as f64);
    let middle = p + Z * Z / (2.0 * n);
    let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    // At the ends the formula gives 0 and 1 but for rounding.
    let low = if hits == 0 { 0.0 } else { (middle - half) / scale };
    let high = if hits == trials { 1.0 } else { (middle + half) / scale };
    (low, high)
}

/// The `q`-quantile of sorted values: the smallest with at least `q` of them at or below it.
/// `None` of nothing.
#[must_use]
pub fn quantile<T: Copy>(sorted: &[T], q: f64) -> Option<T> {
    sorted.get(rank(sorted.len(), q)).copied()
}

/// A 95 % interval for the `q`-quantile, from the order of the values alone.
#[must_use]
pub fn quantile_interval<T: Copy>(sorted: &[T], q: f64) -> Option<(T, T)> {
    let n = sorted.len() as f64;
    let half = Z * (q * (1.0 - q) / n.max(1.0)).sqrt();
    let low = quantile(sorted, (q - half).max(0.0))?;
    Some((low, quantile(sorted, (q + half).min(1.0))?))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the length")]
fn rank(length: usize, q: f64) -> usize {
    let rank = (q * length as f64).ceil() as usize;
    rank.clamp(1, length.max(1)) - 1
}

/// Sessions that a sequential test which knows both shares needs on average, at an error of
/// `alpha`: `ln(1/α) / KL(worse‖usual)`. No test with that error is faster in the mean.
///
/// Wald, "Sequential tests of statistical hypotheses", 1945.
#[must_use]
pub fn wald_sessions(alpha: f64, usual: f64, worse: f64) -> f64 {
    let part = |p: f64, q: f64| if p > 0.0 { p * (p / q).ln() } else { 0.0 };
    let divergence = part(worse, usual) + part(1.0 - worse, 1.0 - usual);
    (1.0 / alpha).ln() / divergence
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_holds_the_share_and_narrows_with_the_trials() {
        #[rustfmt::skip]
        let cases: &[(&str, usize, usize, f64, f64)] = &[
            // Reference: R, binom::binom.wilson.
            ("none of many",  0,  4000, 0.0,     0.000_959_4),
            ("half",          50, 100,  0.403_8, 0.596_2),
            ("all",           10, 10,   0.722_5, 1.0),
            ("nothing known", 0,  0,    0.0,     1.0),
        ];
        for (name, hits, trials, low, high) in cases {
            let got = wilson(*hits, *trials);
            assert!((got.0 - low).abs() < 1e-4 && (got.1 - high).abs() < 1e-4, "{name}: {got:?}");
        }
    }

    #[test]
    fn quantiles_are_values_that_occurred() {
        let values: Vec<u32> = (1..=100).collect();
        assert_eq!(quantile(&values, 0.5), Some(50));
        assert_eq!(quantile(&values, 0.95), Some(95));
        assert_eq!(quantile(&values, 1.0), Some(100));
        assert_eq!(quantile_interval(&values, 0.5), Some((41, 60)));
        assert_eq!(quantile::<u32>(&[], 0.5), None);
    }

    #[test]
    fn the_bound_is_the_divergence_of_the_two_shares() {
        // ln 1000 / (0.04 ln 2 + 0.96 ln (0.96 / 0.98))
        assert!((wald_sessions(0.001, 0.02, 0.04) - 868.9).abs() < 5.0);
        assert!((wald_sessions(0.001, 0.5, 1.0) - 1000_f64.ln() / 2_f64.ln()).abs() < 1e-9);
    }
}
