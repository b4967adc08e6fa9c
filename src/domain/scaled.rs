//! Positive numbers far beyond what an `f64` holds: a mantissa and a power of two.
//!
//! Evidence multiplies thousands of likelihood ratios. Kept as logarithms, every addition would
//! cost an exponential and a logarithm; kept so, it costs a few bit operations.

use std::f64::consts::{LN_2, LOG2_E, LOG10_2};
use std::ops::{Add, Mul};

/// Bits between two summands above which the smaller one no longer shows.
const INVISIBLE_BITS: i64 = 64;

/// `mantissa · 2^exponent`, not negative. The mantissa is 0 or in `[1, 2)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scaled {
    mantissa: f64,
    exponent: i64,
}

impl Scaled {
    /// 0.
    pub(super) const ZERO: Self = Self { mantissa: 0.0, exponent: 0 };

    /// From a number of at least 0; anything else is 0.
    pub(super) fn new(value: f64) -> Self {
        if value > 0.0 && value.is_finite() {
            // A subnormal number has no exponent of its own.
            let (value, exponent) =
                if value.is_normal() { (value, 0) } else { (value * power_of_two(200), -200) };
            Self { mantissa: value, exponent }.normalized()
        } else {
            Self::ZERO
        }
    }

    /// `e^ln`; 0 where `ln` is no finite number.
    #[expect(clippy::cast_possible_truncation, reason = "rounded, and far inside 64 bits")]
    pub(super) fn exp(ln: f64) -> Self {
        if !ln.is_finite() {
            return Self::ZERO;
        }
        let exponent = (ln * LOG2_E).round();
        Self { mantissa: exponent.mul_add(-LN_2, ln).exp(), exponent: exponent as i64 }.normalized()
    }

    /// `log10`; minus infinity for 0.
    pub(super) fn log10(self) -> f64 {
        (self.mantissa.log2() + self.exponent as f64) * LOG10_2
    }

    fn normalized(self) -> Self {
        if self.mantissa == 0.0 {
            return Self::ZERO;
        }
        let bits = self.mantissa.to_bits();
        let exponent = (bits >> 52).cast_signed() - 1023;
        let mantissa = f64::from_bits(bits & !(0x7FF << 52) | (1023 << 52));
        Self { mantissa, exponent: self.exponent + exponent }
    }
}

/// `2^exponent`, which is to be a normal number: `-1022..=1023`.
fn power_of_two(exponent: i64) -> f64 {
    f64::from_bits((exponent + 1023).cast_unsigned() << 52)
}

impl Mul for Scaled {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        let mantissa = self.mantissa * other.mantissa;
        Self { mantissa, exponent: self.exponent + other.exponent }.normalized()
    }
}

impl Add for Scaled {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let (large, small) =
            if self.exponent >= other.exponent { (self, other) } else { (other, self) };
        if large.mantissa == 0.0 {
            return small;
        }
        let bits = large.exponent - small.exponent;
        if small.mantissa == 0.0 || bits > INVISIBLE_BITS {
            return large;
        }
        let mantissa = small.mantissa.mul_add(power_of_two(-bits), large.mantissa);
        Self { mantissa, exponent: large.exponent }.normalized()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `log10(10^a + 10^b)`, the long way.
    fn log_add(a: f64, b: f64) -> f64 {
        let (large, small) = if a >= b { (a, b) } else { (b, a) };
        large + 10_f64.powf(small - large).ln_1p() / std::f64::consts::LN_10
    }

    #[test]
    fn small_and_large_numbers_come_back() {
        for value in [1.0, 0.5, 3.0, 1e-300, 1e300, f64::MIN_POSITIVE, 5e-324, f64::MAX] {
            assert!((Scaled::new(value).log10() - value.log10()).abs() < 1e-9, "{value}");
        }
        assert!(Scaled::new(0.0).log10() < f64::MIN);
        assert_eq!(Scaled::new(f64::NAN), Scaled::ZERO);
        assert_eq!(Scaled::exp(f64::NEG_INFINITY), Scaled::ZERO);
    }

    proptest! {
        #[test]
        fn sums_and_products_are_those_of_logarithms(a in -1e6..1e6_f64, b in -1e6..1e6_f64, near in -40.0..40.0_f64) {
            let ln10 = std::f64::consts::LN_10;
            let product = Scaled::exp(a) * Scaled::exp(b);
            prop_assert!((product.log10() - (a + b) / ln10).abs() < 1e-8);
            for b in [b, a + near] {
                let sum = Scaled::exp(a) + Scaled::exp(b);
                prop_assert!((sum.log10() - log_add(a / ln10, b / ln10)).abs() < 1e-8);
            }
            prop_assert_eq!(Scaled::exp(a) + Scaled::ZERO, Scaled::exp(a));
            prop_assert_eq!(Scaled::exp(a) * Scaled::ZERO, Scaled::ZERO);
        }
    }
}
