//! Reading who may do what.

use std::path::PathBuf;

use super::parse::Base;
use crate::domain::role::{Role, Roles};
use crate::yaml::Map;
use crate::yaml::values;

/// Who may do what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthConfig {
    /// Who may see what rollbackd shows of itself.
    pub read: Holders,
    /// Who may post alerts.
    pub alert: Holders,
    /// Who may say an operator's word, and all else.
    pub operate: Holders,
    /// What those may do who name no credentials; `None`: what is usual for where it listens and
    /// for what else is configured.
    pub anonymous: Option<Roles>,
}

impl AuthConfig {
    /// Who has a role.
    #[must_use]
    pub fn holders(&self, role: Role) -> &Holders {
        match role {
            Role::Read => &self.read,
            Role::Alert => &self.alert,
            Role::Operate => &self.operate,
        }
    }
}

/// Who has a role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holders {
    /// Files of bearer tokens.
    pub token_files: Vec<PathBuf>,
    /// Users of the web config file.
    pub users: Vec<String>,
}

/// Reads the section. `loopback`: only this machine can speak to it.
pub(super) fn read(mut map: Map<'_, '_>, base: &Base, loopback: bool) -> AuthConfig {
    let mut holders = |role| map.child(role).map(|map| of_role(map, base)).unwrap_or_default();
    let (read, alert, operate) = (holders("read"), holders("alert"), holders("operate"));
    let anonymous = map.list("anonymous", |node| {
        let text = values::text(node)?;
        let role = Role::ALL.into_iter().find(|role| role.as_str() == text);
        let role =
            role.ok_or_else(|| format!("expected `read` or `alert` or `operate`, found `{text}`"))?;
        if role == Role::Operate && !loopback {
            return Err("nobody operates without credentials but on a loopback address".to_owned());
        }
        Ok::<_, String>(role)
    });
    let anonymous = map.has("anonymous").then(|| anonymous.into_iter().collect());
    map.finish();
    AuthConfig { read, alert, operate, anonymous }
}

fn of_role(mut map: Map<'_, '_>, base: &Base) -> Holders {
    let token_files = map.list("token_files", |node| base.path(node));
    let users = map.list("users", values::text);
    if !map.has("token_files") && !map.has("users") {
        map.fault_whole("expected `token_files`, `users`, or both");
    }
    map.finish();
    Holders { token_files, users }
}
