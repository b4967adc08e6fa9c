//! The version of a deployment.

use std::fmt;
use std::str::FromStr;

/// A deployment version, as the workers label it.
///
/// Not a semver: compared for equality, never ordered. "Earlier" is a fact
/// about the ledger, not about the string. (`Ord` is there for maps only.)
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(String);

/// Why a text is not a [`Version`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("version must have 1 to {VERSION_BYTES_MAX} bytes and no control characters")]
pub struct InvalidVersion;

/// The longest version label accepted, in bytes.
pub const VERSION_BYTES_MAX: usize = 256;

impl Version {
    /// The label's value.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Version {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let well_formed = !text.is_empty()
            && text.len() <= VERSION_BYTES_MAX
            && !text.chars().any(char::is_control);
        if well_formed { Ok(Self(text.to_owned())) } else { Err(InvalidVersion) }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
