//! What proves who somebody is, and which roles that gives.

use axum::http::{HeaderMap, HeaderValue, header};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::domain::role::Roles;

/// The credentials that are believed, and what each may do.
///
/// Tokens are kept as their hashes: they cannot be shown, and comparing them takes the same time
/// whatever was sent.
#[derive(Clone, Debug, Default)]
pub struct Access {
    tokens: Vec<([u8; 32], Roles)>,
    anonymous: Roles,
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

/// The credentials are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadCredentials;

impl Access {
    /// Believes nobody, and gives those without credentials these roles.
    #[must_use]
    pub fn anonymous(roles: Roles) -> Self {
        Self { tokens: Vec::new(), anonymous: roles }
    }

    /// And believes who has this bearer token.
    #[must_use]
    pub fn with_token(mut self, token: &str, roles: Roles) -> Self {
        self.tokens.push((Sha256::digest(token).into(), roles));
        self
    }

    /// How credentials may be given, for `WWW-Authenticate`; empty if there are none to give.
    pub(super) fn challenges(&self) -> &'static [&'static str] {
        if self.tokens.is_empty() { &[] } else { &["Bearer realm=\"rollbackd\""] }
    }

    /// Who sends these headers.
    pub(super) fn identify(&self, headers: &HeaderMap) -> Result<Caller, BadCredentials> {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let Some(value) = values.next() else {
            return Ok(Caller { name: None, roles: self.anonymous, anonymous: true });
        };
        if values.next().is_some() {
            return Err(BadCredentials);
        }
        let (scheme, credentials) = parts(value).ok_or(BadCredentials)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(BadCredentials);
        }
        let roles = self.roles_of_token(credentials).ok_or(BadCredentials)?;
        Ok(Caller { name: None, roles, anonymous: false })
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
    }

    fn identify(authorization: &[&str]) -> Result<Vec<crate::domain::role::Role>, BadCredentials> {
        let mut headers = HeaderMap::new();
        for value in authorization {
            headers.append(header::AUTHORIZATION, value.parse().unwrap());
        }
        access().identify(&headers).map(|caller| caller.roles.iter().collect())
    }

    #[test]
    fn a_token_gives_its_roles_and_a_wrong_one_none_at_all() {
        #[rustfmt::skip]
        let cases = [
            ("none",          &[][..],                                Ok(vec![Read])),
            ("read",          &["Bearer reads-a-lot-of-things"][..],  Ok(vec![Read])),
            ("two roles",     &["bearer alerts-now-and-then"],        Ok(vec![Read, Alert])),
            ("operate",       &["BEARER  operates-it-at-night"],      Ok(vec![Read, Alert, Operate])),
            ("a part",        &["Bearer operates-it-at-nigh"],        Err(BadCredentials)),
            ("longer",        &["Bearer operates-it-at-nightt"],      Err(BadCredentials)),
            ("empty",         &["Bearer "],                           Err(BadCredentials)),
            ("no scheme",     &["operates-it-at-night"],              Err(BadCredentials)),
            ("other scheme",  &["Token operates-it-at-night"],        Err(BadCredentials)),
            ("two headers",   &["Bearer operates-it-at-night", "Bearer operates-it-at-night"], Err(BadCredentials)),
        ];
        for (name, authorization, want) in cases {
            assert_eq!(identify(authorization), want, "{name}");
        }
    }

    #[test]
    fn a_token_is_not_shown() {
        let shown = format!("{:?}", access());
        assert!(!shown.contains("operates"), "{shown}");
    }
}
