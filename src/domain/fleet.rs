//! What a fleet is called.

use std::fmt::{self, Write as _};
use std::str::FromStr;

/// A fleet entry's name in the config: letters, digits, `_` and `-`, at most 63.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FleetName(String);

/// Why a text is not a [`FleetName`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("fleet name must have 1 to 63 letters, digits, `_` or `-`")]
pub struct InvalidFleetName;

impl FleetName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FleetName {
    type Err = InvalidFleetName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if (1..=63).contains(&text.len()) && text.chars().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidFleetName)
        }
    }
}

impl fmt::Display for FleetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One fleet: a config entry and the values of its `by` labels, in the entry's order.
///
/// Written `voice` without `by`, `voice:eu:booking` with it; a `:` or `%` or `/` inside a
/// label value is percent-encoded, so that two fleets never share a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FleetId {
    /// The config entry.
    pub name: FleetName,
    /// The values of the entry's `by` labels, in its order.
    pub by: Vec<String>,
}

/// The config entry of a fleet, by the name a [`FleetId`] writes: `voice` of `voice:eu`.
#[must_use]
pub fn entry_of(fleet: &str) -> &str {
    fleet.split_once(':').map_or(fleet, |(entry, _)| entry)
}

impl fmt::Display for FleetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)?;
        for value in &self.by {
            f.write_str(":")?;
            for c in value.chars() {
                match c {
                    ':' => f.write_str("%3A")?,
                    '%' => f.write_str("%25")?,
                    '/' => f.write_str("%2F")?,
                    other => f.write_char(other)?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleets_entry_is_what_comes_before_its_labels() {
        for fleet in ["voice", "voice:eu", "voice:eu:a%3Ab"] {
            assert_eq!(entry_of(fleet), "voice");
        }
        assert_eq!((entry_of(""), entry_of(":eu")), ("", ""));
    }

    #[test]
    fn fleets_with_awkward_label_values_keep_names_of_their_own() {
        let id = |by: &[&str]| {
            FleetId {
                name: "voice".parse().unwrap(),
                by: by.iter().map(ToString::to_string).collect(),
            }
            .to_string()
        };
        assert_eq!(id(&[]), "voice");
        assert_eq!(id(&["eu", "b"]), "voice:eu:b");
        assert_ne!(id(&["a:b", "c"]), id(&["a", "b:c"]));
    }
}
