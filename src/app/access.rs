//! Who may do what, from the config's words and the files it names.

use std::path::Path;

use anyhow::{Context, bail};
use tracing::{info, warn};

use crate::config::{AuthConfig, Config};
use crate::domain::role::{Role, Roles};
use crate::http::Access;

/// A shorter token is guessed sooner than it should be.
const TOKEN_CHARS_MIN: usize = 16;

/// Reads the tokens. `loopback`: only this machine can speak to where it listens *now*, whatever
/// the config may say by the time it is read again.
///
/// # Errors
/// When a file cannot be read or holds no token.
pub(super) fn access(auth: &AuthConfig, loopback: bool) -> anyhow::Result<Access> {
    let mut access = Access::anonymous(anonymous(auth, loopback));
    for role in Role::ALL {
        for path in &auth.holders(role).token_files {
            let token = token(path).with_context(|| {
                format!("auth.{}: token file {}", role.as_str(), path.display())
            })?;
            access = access.with_token(&token, Roles::NONE.and(role));
        }
    }
    Ok(access)
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
/// they were made for needs them.
fn anonymous(auth: &AuthConfig, loopback: bool) -> Roles {
    if let Some(roles) = auth.anonymous {
        let allowed = |role: &Role| loopback || *role != Role::Operate;
        return roles.iter().filter(allowed).collect();
    }
    let tokens = Role::ALL.map(|role| !auth.holders(role).token_files.is_empty());
    match tokens {
        [false, false, false] if loopback => Roles::NONE.and(Role::Operate),
        [false, _, _] => Roles::NONE.and(Role::Read),
        [true, _, _] => Roles::NONE,
    }
}

/// Says at the start who may do what.
pub(super) fn tell(config: &Config) {
    let loopback = config.listen.ip().is_loopback();
    let roles = anonymous(&config.auth, loopback);
    let listed: Vec<_> = roles.iter().map(Role::as_str).collect();
    let listed = if listed.is_empty() { "nothing".to_owned() } else { listed.join(", ") };
    info!(without_credentials = listed, "who may do what");
    if roles.has(Role::Alert) && !loopback {
        warn!(listen = %config.listen, "alerts are taken without credentials from whoever reaches it");
    }
    let alert = [&config.auth.alert, &config.auth.operate];
    if !roles.has(Role::Alert) && alert.iter().all(|holders| holders.token_files.is_empty()) {
        warn!(
            "no alert is taken: it does not listen on a loopback address only, and `auth` names \
             nobody who may post one"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
            let roles = anonymous(&config.auth, config.listen.ip().is_loopback());
            let roles: Vec<_> = roles.iter().collect();
            assert_eq!(roles, want, "{name}");
        }
    }

    #[test]
    fn a_config_that_says_loopback_after_the_start_lets_no_stranger_operate() {
        let config = config("127.0.0.1:9788", "{anonymous: [alert, operate]}");
        let roles = anonymous(&config.auth, false);
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
            let error = format!("{:#}", access(&config.auth, true).unwrap_err());
            assert!(error.starts_with("auth.read: token file ") && error.contains(want), "{error}");
            assert!(text.is_none_or(|text| text.is_empty() || !error.contains(text)), "{error}");
        }
        std::fs::write(&path, "  sixteen-chars-xx\n").unwrap();
        access(&config.auth, true).unwrap();
    }
}
