//! What the options of `simulate` are written in.

use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;

use crate::simulate::traffic::Shape;

/// More is no fleet, and would take for ever.
const RATE_MAX: f64 = 10_000.0;

/// Sessions a second, written with its unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct PerSecond(f64);

impl PerSecond {
    pub(super) fn get(self) -> f64 {
        self.0
    }
}

impl FromStr for PerSecond {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let units = [("/s", 1.0), ("/m", 60.0), ("/h", 3600.0)];
        let read = units.iter().find_map(|(unit, seconds)| {
            let number: f64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
            Some(number / seconds)
        });
        match read {
            Some(rate) if rate > 0.0 && rate <= RATE_MAX => Ok(Self(rate)),
            Some(_) => Err(format!("expected more than 0 and at most {RATE_MAX}/s")),
            None => Err("expected a rate such as `2/s`, `30/m` or `500/h`".to_owned()),
        }
    }
}

/// The candidate's share of new sessions, from the first tick to the last.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct SharePath(Shape);

impl SharePath {
    pub(super) fn shape(self) -> Shape {
        self.0
    }
}

impl FromStr for SharePath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once("..").unwrap_or((text, text));
        let share = |text: &str| {
            let (digits, scale) = text.strip_suffix('%').map_or((text, 1.0), |d| (d, 100.0));
            let share: Option<f64> = digits.parse().ok().map(|share: f64| share / scale);
            share.filter(|share| (0.0..=1.0).contains(share))
        };
        match (share(first), share(last)) {
            (Some(first), Some(last)) if first + last > 0.0 => Ok(Self(Shape { first, last })),
            _ => Err("expected a share such as `50%`, or two as in `5%..95%`".to_owned()),
        }
    }
}

/// When sessions fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Failures {
    /// At once.
    SetUp,
    /// At any moment of the session.
    MidCall,
    /// Half at once, half at any moment.
    Mixed,
}

impl Failures {
    pub(super) fn at_set_up(self) -> f64 {
        match self {
            Self::SetUp => 1.0,
            Self::MidCall => 0.0,
            Self::Mixed => 0.5,
        }
    }
}

/// A duration of at least a second.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration >= Duration::from_secs(1) => Ok(duration),
        Ok(_) => Err("expected at least a second".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
