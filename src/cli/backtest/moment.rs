//! A point in time, as people write it.

use std::str::FromStr;
use std::time::Duration;

use crate::domain::time::Timestamp;

/// A time, or how long before now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    At(Timestamp),
    Before(Duration),
}

impl Moment {
    pub(super) fn at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Before(duration) => now - duration,
        }
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "now" {
            return Ok(Self::Before(Duration::ZERO));
        }
        if let Some(duration) = text.strip_prefix('-')
            && let Ok(duration) = humantime::parse_duration(duration)
        {
            return Ok(Self::Before(duration));
        }
        if let Ok(seconds) = text.parse::<u32>() {
            return Ok(Self::At(Timestamp::from_millis(i64::from(seconds) * 1000)));
        }
        let at: Result<jiff::Timestamp, _> = text.parse();
        at.map(|at| Self::At(Timestamp::from_millis(at.as_millisecond()))).map_err(|_| {
            "expected RFC 3339 with its zone, Unix seconds, `now`, or a time before it such as \
             `-24h`"
                .to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_in_every_form_and_nothing_else() {
        let now = Timestamp::from_millis(1_764_000_000_000);
        let at = |text: &str| text.parse::<Moment>().unwrap().at(now).as_millis();
        assert_eq!(at("now"), now.as_millis());
        assert_eq!(at("-1h30m"), now.as_millis() - 5_400_000);
        assert_eq!(at("1763900000"), 1_763_900_000_000);
        assert_eq!(at("2025-11-24T16:00:00Z"), 1_764_000_000_000);
        assert_eq!(at("2025-11-24T17:00:00+01:00"), 1_764_000_000_000);
        for bad in ["", "yesterday", "-1", "2025-11-24", "2025-11-24T16:00:00", "1e9"] {
            assert!(bad.parse::<Moment>().is_err(), "{bad}");
        }
    }
}
