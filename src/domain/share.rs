//! Bounded numbers that rules are written in.

use std::fmt;
use std::str::FromStr;

/// A share of something: strictly between 0 and 1, written `5%` or `0.05`.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Share(f64);

/// Why a text or number is not a [`Share`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a share above 0 and below 1, such as `5%` or `0.05`")]
pub struct InvalidShare;

impl Share {
    /// 0.1 %, the false rollback rate unless said otherwise.
    pub const PER_MILLE: Self = Self(0.001);

    /// One in five.
    pub const FIFTH: Self = Self(0.2);

    /// A share from its value.
    ///
    /// # Errors
    /// When `value` is not strictly between 0 and 1.
    pub fn new(value: f64) -> Result<Self, InvalidShare> {
        if value > 0.0 && value < 1.0 { Ok(Self(value)) } else { Err(InvalidShare) }
    }

    /// The share as a number in (0, 1).
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

impl FromStr for Share {
    type Err = InvalidShare;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (digits, scale) = match text.strip_suffix('%') {
            Some(percent) => (percent.trim_end(), 100.0),
            None => (text, 1.0),
        };
        let value: f64 = digits.parse().map_err(|_| InvalidShare)?;
        Self::new(value / scale)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Rounded to a millionth of a percent, so that 0.05 * 100 does not print its float error.
        write!(f, "{}%", (self.0 * 1e8).round() / 1e6)
    }
}

/// How many times the baseline's share is allowed: 1 or more, written `1.5x`.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Tolerance(f64);

/// Why a text or number is not a [`Tolerance`].
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InvalidTolerance {
    /// Not a factor at all.
    #[error("expected a factor such as `1.5x`")]
    NotAFactor,
    /// A factor below 1 would convict a better version.
    #[error("tolerance {0}x would roll back a version better than its baseline; use 1x or more")]
    BelowOne(f64),
}

impl Tolerance {
    /// No worse than the baseline.
    pub const NONE: Self = Self(1.0);

    /// A tolerance from its factor.
    ///
    /// # Errors
    /// When `factor` is not a finite number of at least 1.
    pub fn new(factor: f64) -> Result<Self, InvalidTolerance> {
        if !factor.is_finite() || factor > 1e6 {
            Err(InvalidTolerance::NotAFactor)
        } else if factor < 1.0 {
            Err(InvalidTolerance::BelowOne(factor))
        } else {
            Ok(Self(factor))
        }
    }

    /// The factor, at least 1.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

impl FromStr for Tolerance {
    type Err = InvalidTolerance;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_suffix('x').unwrap_or(text);
        Self::new(digits.parse().map_err(|_| InvalidTolerance::NotAFactor)?)
    }
}

impl fmt::Display for Tolerance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_read_as_percent_or_fraction_and_refuse_the_rest() {
        assert_eq!("5%".parse(), Share::new(0.05));
        assert_eq!("0.05".parse(), Share::new(0.05));
        assert_eq!("5%".parse::<Share>().unwrap().to_string(), "5%");
        assert_eq!("0.1%".parse::<Share>().unwrap().to_string(), "0.1%");
        for bad in ["0", "0%", "1", "100%", "-1%", "NaN", "inf", "", "five", "5%%"] {
            assert!(bad.parse::<Share>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_tolerance_below_one_is_refused_with_its_reason() {
        assert_eq!("1.5x".parse(), Tolerance::new(1.5));
        assert_eq!("0.5x".parse::<Tolerance>(), Err(InvalidTolerance::BelowOne(0.5)));
        for bad in ["x", "", "NaNx", "infx", "twice"] {
            assert_eq!(bad.parse::<Tolerance>(), Err(InvalidTolerance::NotAFactor), "{bad}");
        }
    }
}
