//! Who may do what: the three roles of those who speak to rollbackd.

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// See what rollbackd shows of itself: API, ledger, metrics.
    Read,
    /// Post alerts, which make it look at once.
    Alert,
    /// Say an operator's word, reload the rules; and all that the other two may.
    Operate,
}

impl Role {
    /// All of them, the least first.
    pub const ALL: [Self; 3] = [Self::Read, Self::Alert, Self::Operate];

    /// As config, API and log name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Alert => "alert",
            Self::Operate => "operate",
        }
    }
}

/// The roles one caller has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    read: bool,
    alert: bool,
    operate: bool,
}

impl Roles {
    /// None at all.
    pub const NONE: Self = Self { read: false, alert: false, operate: false };

    /// These, and one more.
    #[must_use]
    pub const fn and(mut self, role: Role) -> Self {
        match role {
            Role::Read => self.read = true,
            Role::Alert => self.alert = true,
            Role::Operate => self = Self { read: true, alert: true, operate: true },
        }
        self
    }

    /// What either has.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self {
            read: self.read || other.read,
            alert: self.alert || other.alert,
            operate: self.operate || other.operate,
        }
    }

    /// Whether the role is among them.
    #[must_use]
    pub const fn has(self, role: Role) -> bool {
        match role {
            Role::Read => self.read,
            Role::Alert => self.alert,
            Role::Operate => self.operate,
        }
    }

    /// One by one, the least first.
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |role| self.has(*role))
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        roles.into_iter().fold(Self::NONE, Self::and)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_operates_may_do_all_and_who_alerts_may_not_read() {
        let of = |role| Roles::NONE.and(role).iter().collect::<Vec<_>>();
        assert_eq!(of(Role::Read), [Role::Read]);
        assert_eq!(of(Role::Alert), [Role::Alert]);
        assert_eq!(of(Role::Operate), Role::ALL);
        let both = Roles::from_iter([Role::Read]).or(Roles::from_iter([Role::Alert]));
        assert!(both.has(Role::Read) && both.has(Role::Alert) && !both.has(Role::Operate));
    }
}
