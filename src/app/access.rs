//! Who may do what, from the config's words and the files it names.

use std::path::Path;

use anyhow::{Context, bail};
use tracing::{info, warn};

use crate::config::web::WebConfig;
use crate::config::{AuthConfig, Config, Holders};
use crate::domain::role::{Role, Roles};
use crate::http::{Access, User};

/// A shorter token is guessed sooner than it should be.
const TOKEN_CHARS_MIN: usize = 16;

/// Reads the tokens, and takes the users. `loopback`: only this machine can speak to it.
///
/// # Errors
/// When a file cannot be read or holds no token.
pub(super) fn access(auth: &AuthConfig, web: &WebConfig, loopback: bool) -> anyhow::Result<Access> {
    let mut access = Access::anonymous(anonymous(auth, web, loopback));
    for role in Role::ALL {
        for path in &auth.holders(role).token_files {
            let token = token(path).with_context(|| {
                format!("auth.{}: token file {}", role.as_str(), path.display())
            })?;
            access = access.with_token(&token, Roles::NONE.and(role));
        }
        for name in &auth.holders(role).users {
            if !web.users.contains_key(name) {
                warn!(role = role.as_str(), "`auth` names a user that there is not: {name}");
            }
        }
    }
    let users = web.users.iter().map(|(name, hash)| {
        let user = User { hash: hash.expose().to_owned(), roles: roles_of(auth, name) };
        (name.clone(), user)
    });
    let headers = web.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    Ok(access.with_users(users.collect()).with_headers(headers))
}

/// What a user may do: what `auth` says, or else look.
fn roles_of(auth: &AuthConfig, name: &str) -> Roles {
    let has = |role: &Role| auth.holders(*role).users.iter().any(|user| user == name);
    let roles: Roles = Role::ALL.into_iter().filter(has).collect();
    if roles == Roles::NONE { Roles::NONE.and(Role::Read) } else { roles }
}

fn token(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path)?;
    let token = text.trim();
    if token.len() < TOKEN_CHARS_MIN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        bail!("expected one line of at least {TOKEN_CHARS_MIN} ASCII characters without a space");
    }
    Ok(token.to_owned())
}

/// What those may do who name no credentials.
///
/// Where only this machine can speak, all; elsewhere, look. As soon as there are credentials, what
/// they were made for needs them; with users, everything does, as with the exporter-toolkit.
fn anonymous(auth: &AuthConfig, web: &WebConfig, loopback: bool) -> Roles {
    if let Some(roles) = auth.anonymous {
        let allowed = |role: &Role| loopback || *role != Role::Operate;
        return roles.iter().filter(allowed).collect();
    }
    let tokens = Role::ALL.map(|role| !auth.holders(role).token_files.is_empty());
    match tokens {
        _ if !web.users.is_empty() => Roles::NONE,
        [false, false, false] if loopback => Roles::NONE.and(Role::Operate),
        [false, _, _] => Roles::NONE.and(Role::Read),
        [true, _, _] => Roles::NONE,
    }
}

/// Says at the start who may do what.
pub(super) fn tell(config: &Config, access: &Access, tls: bool) {
    let AuthConfig { alert, operate, .. } = &config.auth;
    let roles = access.without_credentials();
    let words: Vec<_> = roles.iter().map(Role::as_str).collect();
    let words = if words.is_empty() { "nothing".to_owned() } else { words.join(", ") };
    info!(tls, without_credentials = words, "who may do what");
    if config.listen.ip().is_loopback() {
        return;
    }
    let listen = config.listen;
    if roles.has(Role::Alert) {
        warn!(%listen, "alerts are taken without credentials from whoever reaches it");
    }
    let nobody = |holders: &Holders| holders.token_files.is_empty() && holders.users.is_empty();
    if !roles.has(Role::Alert) && nobody(alert) && nobody(operate) {
        warn!(%listen, "no alert is taken: `auth` names nobody who may post one");
    }
    if !tls && access.has_credentials() {
        warn!(%listen, "credentials are sent in the clear: there is no TLS (`web_config_file`)");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;
    use crate::config::parse::parse;

    const MINIMAL: &str = include_str!("../../tests/fixtures/config/minimal.yml");

    fn config(listen: &str, auth: &str) -> Config {
        let text = MINIMAL.replace("127.0.0.1:9788", listen);
        let parsed = parse(&format!("{text}auth: {auth}\n"), Path::new("rollbackd.yml"));
        parsed.config.unwrap_or_else(|| panic!("{:?}", parsed.problems))
    }

    #[test]
    fn who_needs_no_credentials_depends_on_who_can_speak_and_who_has_some() {
        let (here, anywhere) = ("127.0.0.1:9788", "\"0.0.0.0:9788\"");
        let alert = "{alert: {token_files: [a]}}";
        let read = "{read: {token_files: [a]}}";
        #[rustfmt::skip]
        let cases = [
            ("only this machine",          here,     "{}",                          &Role::ALL[..]),
            ("any machine",                anywhere, "{}",                          &[Role::Read]),
            ("any, and told otherwise",    anywhere, "{anonymous: [read, alert]}",  &[Role::Read, Role::Alert]),
            ("a token to alert",           here,     alert,                         &[Role::Read]),
            ("a token to alert, anywhere", anywhere, alert,                         &[Role::Read]),
            ("a token to read",            here,     read,                          &[]),
            ("nobody",                     here,     "{anonymous: []}",             &[]),
            ("told to operate, here",      here,     "{alert: {token_files: [a]}, anonymous: [operate]}", &Role::ALL),
        ];
        for (name, listen, auth, want) in cases {
            let config = config(listen, auth);
            let roles =
                anonymous(&config.auth, &WebConfig::default(), config.listen.ip().is_loopback());
            let roles: Vec<_> = roles.iter().collect();
            assert_eq!(roles, want, "{name}");
        }
    }

    #[test]
    fn a_config_that_says_loopback_after_the_start_lets_no_stranger_operate() {
        let config = config("127.0.0.1:9788", "{anonymous: [alert, operate]}");
        let roles = anonymous(&config.auth, &WebConfig::default(), false);
        assert!(roles.has(Role::Alert) && !roles.has(Role::Operate));
    }

    #[test]
    fn a_token_file_that_holds_no_token_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let config =
            config("127.0.0.1:9788", &format!("{{read: {{token_files: ['{}']}}}}", path.display()));
        for (text, want) in [
            (None, "No such file"),
            (Some(""), "at least 16"),
            (Some("fifteen-chars-x"), "at least 16"),
            (Some("two tokens are not one token"), "without a space"),
            (Some("ein-schlüssel-für-alle"), "ASCII"),
        ] {
            if let Some(text) = text {
                std::fs::write(&path, text).unwrap();
            }
            let error =
                format!("{:#}", access(&config.auth, &WebConfig::default(), true).unwrap_err());
            assert!(error.starts_with("auth.read: token file ") && error.contains(want), "{error}");
            assert!(text.is_none_or(|text| text.is_empty() || !error.contains(text)), "{error}");
        }
        std::fs::write(&path, "  sixteen-chars-xx\n").unwrap();
        access(&config.auth, &WebConfig::default(), true).unwrap();
    }

    #[test]
    fn users_may_look_unless_auth_says_otherwise_and_nobody_else_may_anything() {
        let users = ["grafana", "alertmanager", "ada"]
            .map(|name| (name.to_owned(), Secret::new("$2y$10$unused".to_owned())));
        let web = WebConfig { users: users.into(), ..WebConfig::default() };
        let auth = "{alert: {users: [alertmanager]}, operate: {users: [ada]}}\nweb_config_file: w";
        let config = config("127.0.0.1:9788", auth);
        let roles = |name| roles_of(&config.auth, name).iter().collect::<Vec<_>>();
        assert_eq!(roles("grafana"), [Role::Read]);
        assert_eq!(roles("alertmanager"), [Role::Alert]);
        assert_eq!(roles("ada"), Role::ALL);
        assert_eq!(anonymous(&config.auth, &web, true), Roles::NONE);
    }
}
