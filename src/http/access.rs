//! What proves who somebody is, and which roles that gives.

use std::collections::BTreeMap;
use std::fmt;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use base64::prelude::{BASE64_STANDARD, Engine};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::passwords::{Passwords, User};
use crate::domain::role::Roles;

/// The credentials that are believed, and what each may do.
///
/// Tokens are kept as their hashes: they cannot be shown, and comparing them takes the same time
/// whatever was sent.
#[derive(Default)]
pub struct Access {
    tokens: Vec<([u8; 32], Roles)>,
    passwords: Option<Passwords>,
    anonymous: Roles,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("anonymous", &self.anonymous).finish_non_exhaustive()
    }
}

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// The user, where the credentials name one.
    pub name: Option<String>,
    /// What the caller may do.
    pub roles: Roles,
    /// Whether no credentials were given.
    pub anonymous: bool,
}

/// Why credentials are not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unproven {
    /// They are not what they should be.
    Wrong,
    /// Too many are being checked.
    Busy,
}

impl Access {
    /// Believes nobody, and gives those without credentials these roles.
    #[must_use]
    pub fn anonymous(roles: Roles) -> Self {
        Self { anonymous: roles, ..Self::default() }
    }

    /// And believes who has this bearer token.
    #[must_use]
    pub fn with_token(mut self, token: &str, roles: Roles) -> Self {
        self.tokens.push((Sha256::digest(token).into(), roles));
        self
    }

    /// And believes these users, by name, who have their passwords.
    #[must_use]
    pub fn with_users(mut self, users: BTreeMap<String, User>) -> Self {
        self.passwords = Passwords::new(users);
        self
    }

    /// And has every answer carry these headers; what is no header is left out.
    #[must_use]
    pub fn with_headers<'a>(mut self, headers: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let parsed =
            headers.filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)));
        self.headers.extend(parsed);
        self
    }

    /// What those may do who name no credentials.
    #[must_use]
    pub fn without_credentials(&self) -> Roles {
        self.anonymous
    }

    /// Whether there are any to give.
    #[must_use]
    pub fn has_credentials(&self) -> bool {
        !self.challenges().is_empty()
    }

    /// What every answer carries.
    pub(super) fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    /// How credentials may be given, for `WWW-Authenticate`; empty if there are none to give.
    pub(super) fn challenges(&self) -> &'static [&'static str] {
        const BEARER: &str = "Bearer realm=\"rollbackd\"";
        const BASIC: &str = "Basic realm=\"rollbackd\", charset=\"UTF-8\"";
        match (self.tokens.is_empty(), self.passwords.is_none()) {
            (true, true) => &[],
            (false, true) => &[BEARER],
            (true, false) => &[BASIC],
            (false, false) => &[BASIC, BEARER],
        }
    }

    /// Who sends these headers.
    pub(super) async fn identify(&self, headers: &HeaderMap) -> Result<Caller, Unproven> {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let Some(value) = values.next() else {
            return Ok(Caller { name: None, roles: self.anonymous, anonymous: true });
        };
        if values.next().is_some() {
            return Err(Unproven::Wrong);
        }
        let (scheme, credentials) = parts(value).ok_or(Unproven::Wrong)?;
        if scheme.eq_ignore_ascii_case("bearer") {
            let roles = self.roles_of_token(credentials).ok_or(Unproven::Wrong)?;
            return Ok(Caller { name: None, roles, anonymous: false });
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Err(Unproven::Wrong);
        }
        let passwords = self.passwords.as_ref().ok_or(Unproven::Wrong)?;
        let (name, password) = user(credentials).ok_or(Unproven::Wrong)?;
        let roles = passwords.check(&name, &password).await.map_err(|_| Unproven::Busy)?;
        let roles = roles.ok_or(Unproven::Wrong)?;
        Ok(Caller { name: Some(name), roles, anonymous: false })
    }

    fn roles_of_token(&self, token: &str) -> Option<Roles> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        // Every token is compared: how long it takes does not tell which one was nearly right.
        self.tokens.iter().fold(None, |found, (known, roles)| {
            let same = bool::from(known.ct_eq(&hash));
            if same { Some(found.unwrap_or(Roles::NONE).or(*roles)) } else { found }
        })
    }
}

fn parts(value: &HeaderValue) -> Option<(&str, &str)> {
    let (scheme, credentials) = value.to_str().ok()?.split_once(' ')?;
    Some((scheme, credentials.trim()))
}

/// Name and password out of the credentials of basic authentication (RFC 7617).
fn user(credentials: &str) -> Option<(String, String)> {
    let text = String::from_utf8(BASE64_STANDARD.decode(credentials).ok()?).ok()?;
    let (name, password) = text.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::role::Role::{Alert, Operate, Read};

    fn access() -> Access {
        let of = |roles: &[_]| roles.iter().copied().collect::<Roles>();
        Access::anonymous(of(&[Read]))
            .with_token("reads-a-lot-of-things", of(&[Read]))
            .with_token("alerts-now-and-then", of(&[Alert]))
            .with_token("alerts-now-and-then", of(&[Read]))
            .with_token("operates-it-at-night", of(&[Operate]))
            .with_users(BTreeMap::from([(
                "ada".to_owned(),
                User { hash: bcrypt::hash("her:own", 4).unwrap(), roles: of(&[Operate]) },
            )]))
    }

    async fn identify(authorization: &[&str]) -> Result<Vec<crate::domain::role::Role>, Unproven> {
        let mut headers = HeaderMap::new();
        for value in authorization {
            headers.append(header::AUTHORIZATION, value.parse().unwrap());
        }
        access().identify(&headers).await.map(|caller| caller.roles.iter().collect())
    }

    #[tokio::test]
    async fn a_token_gives_its_roles_and_a_wrong_one_none_at_all() {
        #[rustfmt::skip]
        let cases = [
            ("none",          &[][..],                                Ok(vec![Read])),
            ("read",          &["Bearer reads-a-lot-of-things"][..],  Ok(vec![Read])),
            ("two roles",     &["bearer alerts-now-and-then"],        Ok(vec![Read, Alert])),
            ("operate",       &["BEARER  operates-it-at-night"],      Ok(vec![Read, Alert, Operate])),
            ("a part",        &["Bearer operates-it-at-nigh"],        Err(Unproven::Wrong)),
            ("longer",        &["Bearer operates-it-at-nightt"],      Err(Unproven::Wrong)),
            ("empty",         &["Bearer "],                           Err(Unproven::Wrong)),
            ("no scheme",     &["operates-it-at-night"],              Err(Unproven::Wrong)),
            ("other scheme",  &["Token operates-it-at-night"],        Err(Unproven::Wrong)),
            ("a user",        &["Basic YWRhOmhlcjpvd24="],            Ok(vec![Read, Alert, Operate])),
            ("a guess",       &["Basic YWRhOmhlcjpvd24y"],            Err(Unproven::Wrong)),
            ("no password",   &["Basic YWRh"],                        Err(Unproven::Wrong)),
            ("no base64",     &["Basic ada:her:own"],                 Err(Unproven::Wrong)),
            ("two headers",   &["Bearer operates-it-at-night", "Bearer operates-it-at-night"], Err(Unproven::Wrong)),
        ];
        for (name, authorization, want) in cases {
            assert_eq!(identify(authorization).await, want, "{name}");
        }
    }

    #[test]
    fn a_token_is_not_shown() {
        let shown = format!("{:?}", access());
        assert!(!shown.contains("operates"), "{shown}");
    }
}
