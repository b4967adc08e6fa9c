//! Reading how servers are reached, as in Prometheus' own `http_config`.

use reqwest::header::{HeaderName, HeaderValue};

use super::parse::Base;
use super::{Authorization, BasicAuth, Secret, SecretSource, TlsConfig};
use crate::yaml::values::{self, Read};
use crate::yaml::{Map, Node, Value};

/// An `http` or `https` URL, without a slash at the end.
pub(super) fn url(node: &Node) -> Read<String> {
    let text = values::text(node)?;
    let url = reqwest::Url::parse(&text).map_err(|error| format!("`{text}` is no URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("expected an `http` or `https` URL, found `{}:`", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a URL shows in logs; put user and password into `basic_auth`".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("`{text}` must end with its path"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// One URL or a list of them under `url`.
pub(super) fn urls(map: &mut Map<'_, '_>) -> Vec<String> {
    match map.node("url") {
        Some(Node { value: Value::List(_), .. }) => {
            map.require_some("url", "URL");
            map.list("url", url)
        }
        _ => map.optional("url", url).into_iter().collect(),
    }
}

pub(super) fn authorization(mut map: Map<'_, '_>, base: &Base) -> Option<Authorization> {
    let type_ = map.optional("type", |node| {
        let scheme = values::text(node)?;
        match HeaderName::from_bytes(scheme.as_bytes()) {
            Ok(_) => Ok(scheme),
            Err(_) => Err(format!("`{scheme}` is not a scheme such as `Bearer`")),
        }
    });
    let credentials = secret(&mut map, "credentials", "credentials_file", base);
    map.finish();
    let type_ = type_.unwrap_or_else(|| "Bearer".to_owned());
    Some(Authorization { type_, credentials: credentials? })
}

pub(super) fn basic_auth(mut map: Map<'_, '_>, base: &Base) -> Option<BasicAuth> {
    let username = map.required("username", values::text);
    let password = secret(&mut map, "password", "password_file", base);
    map.finish();
    Some(BasicAuth { username: username?, password: password? })
}

fn secret(
    map: &mut Map<'_, '_>,
    inline: &'static str,
    file: &'static str,
    base: &Base,
) -> Option<SecretSource> {
    let text =
        map.optional(inline, values::text).map(|text| SecretSource::Inline(Secret::new(text)));
    let path = map.optional(file, |node| base.path(node)).map(SecretSource::File);
    match (map.has(inline), map.has(file)) {
        (true, true) => {
            map.fault_whole(format!("both `{inline}` and `{file}` are given; use one"));
        }
        (false, false) => map.fault_whole(format!("`{inline}` or `{file}` is missing")),
        (true, false) | (false, true) => {}
    }
    text.or(path)
}

pub(super) fn tls(mut map: Map<'_, '_>, base: &Base) -> TlsConfig {
    let config = TlsConfig {
        ca_file: map.optional("ca_file", |node| base.path(node)),
        cert_file: map.optional("cert_file", |node| base.path(node)),
        key_file: map.optional("key_file", |node| base.path(node)),
        insecure_skip_verify: map
            .optional("insecure_skip_verify", values::boolean)
            .unwrap_or(false),
    };
    if map.has("cert_file") != map.has("key_file") {
        map.fault_whole("`cert_file` and `key_file` need each other");
    }
    map.finish();
    config
}

/// Checks one header.
pub(super) fn header(name: &str, value: &str) -> Result<(), &'static str> {
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| "not a header name")?;
    if name == reqwest::header::AUTHORIZATION {
        return Err("use `authorization` or `basic_auth`");
    }
    HeaderValue::from_str(value).map(drop).map_err(|_| "not a header value")
}
