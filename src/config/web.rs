//! Reading the web config file: the format of Prometheus' exporter-toolkit, as far as it is for
//! a server that speaks HTTP/1.1.
//!
//! What cannot be done is a problem with a place, never passed over: who asks for client
//! certificates must not be served without.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rustls::crypto::ring;

use super::parse::Base;
use super::{Secret, SecretSource};
use crate::yaml::values::{self, Read};
use crate::yaml::{self, Map, Node, Problem, Problems, Scope, Value};

/// The largest cost of a bcrypt hash: twice as long as one of 13, which takes half a second.
const BCRYPT_COST_MAX: u32 = 14;

/// Headers that every answer may carry, and the values that are meant.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Content-Security-Policy", &[]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-XSS-Protection", &[]),
    ("Strict-Transport-Security", &[]),
];

/// TLS 1.3 has suites of its own, which are not for choosing: Go's names of them.
const TLS13_SUITES: [&str; 3] =
    ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];

/// Curves by their names in Go, as far as they can be spoken.
pub const CURVES: [&str; 3] = ["X25519", "CurveP256", "CurveP384"];

/// One web config file, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebConfig {
    /// Without it, plain HTTP is spoken.
    pub tls: Option<WebTls>,
    /// Every answer carries them.
    pub headers: BTreeMap<String, String>,
    /// Users of basic authentication, and the bcrypt hashes of their passwords.
    pub users: BTreeMap<String, Secret>,
}

/// How TLS is spoken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebTls {
    /// The server's certificate, with what is between it and its authority.
    pub cert: SecretSource,
    /// Its key.
    pub key: SecretSource,
    /// Which certificates clients must have.
    pub clients: WebClients,
    /// Whether TLS 1.2 is spoken.
    pub tls12: bool,
    /// Whether TLS 1.3 is spoken.
    pub tls13: bool,
    /// For TLS 1.2, by name; empty: all that are safe.
    pub cipher_suites: Vec<String>,
    /// Names out of [`CURVES`]; empty: all.
    pub curves: Vec<String>,
    /// Whether the order here goes before the client's.
    pub prefer_server_order: bool,
}

/// Which certificates clients must have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebClients {
    /// Whether clients are asked for one.
    pub asked: bool,
    /// Whether those are turned away that have none.
    pub required: bool,
    /// The authorities that a certificate must be from; `None`: any will do.
    pub ca: Option<SecretSource>,
    /// Names of which a certificate must have one; empty: any.
    pub allowed_sans: Vec<String>,
}

/// Reads the web config file at `path`.
///
/// # Errors
/// All problems of the file, by place.
pub fn load(path: &Path) -> Result<WebConfig, Vec<Problem>> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let file = path.display().to_string();
        vec![Problem::of_file(file, format!("failed to read: {error}"))]
    })?;
    parse(&text, path)
}

/// Reads a web config file from its text; `path` gives the name for problems and the directory.
///
/// # Errors
/// All problems, by place.
pub fn parse(text: &str, path: &Path) -> Result<WebConfig, Vec<Problem>> {
    let problems = Problems::of(path.display().to_string());
    let base = Base::of(path);
    let node = yaml::parse(text, &problems);
    let config = match &node {
        Some(Node { value: Value::Null, .. }) | None => WebConfig::default(),
        Some(node) => Map::of(node, Scope::Path(String::new()), &problems)
            .map(|map| top(map, &base))
            .unwrap_or_default(),
    };
    if problems.is_empty() { Ok(config) } else { Err(problems.into_sorted()) }
}

fn top(mut map: Map<'_, '_>, base: &Base) -> WebConfig {
    let tls = map.child("tls_server_config").and_then(|map| tls(map, base));
    let headers = map.child("http_server_config").map(http).unwrap_or_default();
    let users = map.texts("basic_auth_users", user);
    let users = users.into_iter().map(|(name, hash)| (name, Secret::new(hash))).collect();
    if map.node("rate_limit").is_some() {
        map.fault("rate_limit", "rollbackd has limits of its own, which cannot be set here");
    }
    map.finish();
    WebConfig { tls, headers, users }
}

fn user(name: &str, hash: &str) -> Result<(), String> {
    if name.contains(':') {
        return Err("a user's name cannot have a `:`".to_owned());
    }
    // What is wrong with it is not told with the hash in it.
    let parts: bcrypt::HashParts = hash
        .parse()
        .map_err(|_| "expected a bcrypt hash such as `htpasswd -nB` makes".to_owned())?;
    if parts.get_cost() > BCRYPT_COST_MAX {
        return Err(format!(
            "a bcrypt cost of {} would take seconds for each try; use {BCRYPT_COST_MAX} or less",
            parts.get_cost()
        ));
    }
    Ok(())
}

fn http(mut map: Map<'_, '_>) -> BTreeMap<String, String> {
    // HTTP/2 is never offered, and who may speak it need not.
    map.optional("http2", values::boolean);
    let headers = map.texts("headers", |name, value| {
        let Some((_, meant)) = HEADERS.iter().find(|(known, _)| *known == name) else {
            let known = HEADERS.map(|(name, _)| format!("`{name}`")).join(", ");
            return Err(format!("this header cannot be set; there are {known}"));
        };
        if !meant.is_empty() && !meant.contains(&value) {
            return Err(format!("expected `{}`", meant.join("` or `")));
        }
        super::http::header(name, value).map_err(str::to_owned)
    });
    map.finish();
    headers
}

fn tls(mut map: Map<'_, '_>, base: &Base) -> Option<WebTls> {
    let cert = pem(&mut map, "cert", "cert_file", base);
    let key = pem(&mut map, "key", "key_file", base);
    for (inline, file) in [("cert", "cert_file"), ("key", "key_file")] {
        if !map.has(inline) && !map.has(file) {
            map.fault_whole(format!("`{inline}` or `{file}` is missing"));
        }
    }
    let clients = clients(&mut map, base);
    let min = map.optional("min_version", version).unwrap_or(12);
    let max = map.optional("max_version", version).unwrap_or(13);
    if min > max {
        map.fault("max_version", "is below `min_version`");
    }
    let cipher_suites = map.list("cipher_suites", cipher_suite);
    let curves = map.list("curve_preferences", |node| known(node, &CURVES));
    let prefer = map.optional("prefer_server_cipher_suites", values::boolean);
    map.finish();
    Some(WebTls {
        cert: cert?,
        key: key?,
        clients,
        tls12: min == 12,
        tls13: max == 13,
        cipher_suites,
        curves,
        prefer_server_order: prefer.unwrap_or(true),
    })
}

fn clients(map: &mut Map<'_, '_>, base: &Base) -> WebClients {
    let ca = pem(map, "client_ca", "client_ca_file", base);
    let allowed_sans = map.list("client_allowed_sans", values::text);
    // Name, asked, required, verified.
    let kinds = [
        ("NoClientCert", false, false, false),
        ("RequestClientCert", true, false, false),
        ("RequireAnyClientCert", true, true, false),
        ("RequireClientCert", true, true, false),
        ("VerifyClientCertIfGiven", true, false, true),
        ("RequireAndVerifyClientCert", true, true, true),
    ];
    let kind = map.optional("client_auth_type", |node| {
        let text = values::text(node)?;
        let found = kinds.into_iter().find(|(name, ..)| *name == text);
        found.ok_or_else(|| {
            let names = kinds.map(|(name, ..)| format!("`{name}`")).join(" or ");
            format!("expected {names}, found `{text}`")
        })
    });
    let (_, asked, required, verified) = kind.unwrap_or(kinds[0]);
    if verified && ca.is_none() {
        map.fault("client_auth_type", "needs `client_ca` or `client_ca_file` to verify against");
    }
    let known = kind.is_some() || !map.has("client_auth_type");
    if known && !asked && ca.is_some() {
        map.fault_whole("authorities for clients are given, and no `client_auth_type` that asks");
    }
    if map.has("client_allowed_sans") && !required {
        map.fault(
            "client_allowed_sans",
            "needs a `client_auth_type` of `RequireAnyClientCert` or `RequireAndVerifyClientCert`",
        );
    }
    WebClients { asked, required, ca: ca.filter(|_| verified), allowed_sans }
}

/// A PEM text, here or in a file.
fn pem(
    map: &mut Map<'_, '_>,
    inline: &'static str,
    file: &'static str,
    base: &Base,
) -> Option<SecretSource> {
    let text = map.optional(inline, values::text);
    let path: Option<PathBuf> = map.optional(file, |node| base.path(node));
    if map.has(inline) && map.has(file) {
        map.fault_whole(format!("both `{inline}` and `{file}` are given; use one"));
    }
    path.map(SecretSource::File).or(text.map(|text| SecretSource::Inline(Secret::new(text))))
}

fn version(node: &Node) -> Read<u8> {
    match values::text(node)?.as_str() {
        "TLS12" => Ok(12),
        "TLS13" => Ok(13),
        "TLS10" | "TLS11" => Err("too old to be safe; use `TLS12` or `TLS13`".to_owned()),
        other => Err(format!("expected `TLS12` or `TLS13`, found `{other}`")),
    }
}

fn cipher_suite(node: &Node) -> Read<String> {
    let suites = ring::ALL_CIPHER_SUITES.iter().filter_map(|suite| suite.suite().as_str());
    let names: Vec<&str> =
        suites.filter(|name| !name.starts_with("TLS13_")).chain(TLS13_SUITES).collect();
    known(node, &names)
}

fn known(node: &Node, names: &[&str]) -> Read<String> {
    let text = values::text(node)?;
    if names.contains(&text.as_str()) {
        return Ok(text);
    }
    Err(format!("`{text}` is not known here; there are `{}`", names.join("`, `")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = include_str!("../../tests/fixtures/web/full.yml");
    const BAD: &str = include_str!("../../tests/fixtures/web/bad.yml");

    fn problems(text: &str) -> String {
        let problems = parse(text, Path::new("web.yml")).unwrap_err();
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn what_the_exporter_toolkit_documents_is_read() {
        let config = parse(FULL, Path::new("etc/web.yml")).unwrap();
        let tls = config.tls.unwrap();
        assert_eq!(tls.cert, SecretSource::File("etc/server.crt".into()));
        assert_eq!(tls.key, SecretSource::File("/etc/ssl/server.key".into()));
        assert!(tls.clients.asked && tls.clients.required);
        assert_eq!(tls.clients.ca, Some(SecretSource::File("etc/clients.pem".into())));
        assert_eq!(tls.clients.allowed_sans, ["grafana.example", "10.0.0.7"]);
        assert_eq!((tls.tls12, tls.tls13, tls.prefer_server_order), (true, true, false));
        assert_eq!(tls.cipher_suites.len(), 2);
        assert_eq!(config.headers["X-Frame-Options"], "deny");
        assert_eq!(config.users.keys().collect::<Vec<_>>(), ["alice", "bob"]);
        assert!(!format!("{:?}", config.users).contains("$2y$"));
    }

    #[test]
    fn an_empty_file_asks_for_nothing() {
        for text in ["", "# nothing\n", "basic_auth_users: {}"] {
            assert_eq!(parse(text, Path::new("web.yml")), Ok(WebConfig::default()), "{text}");
        }
    }

    #[test]
    fn every_problem_is_told_and_placed_and_no_secret_with_it() {
        insta::assert_snapshot!(problems(BAD), @r###"
        web.yml:2:3: tls_server_config: `key` or `key_file` is missing
        web.yml:2:14: tls_server_config.cert_file: expected text, found none
        web.yml:3:21: tls_server_config.client_auth_type: expected `NoClientCert` or `RequestClientCert` or `RequireAnyClientCert` or `RequireClientCert` or `VerifyClientCertIfGiven` or `RequireAndVerifyClientCert`, found `RequireSomething`
        web.yml:6:24: tls_server_config.client_allowed_sans: needs a `client_auth_type` of `RequireAnyClientCert` or `RequireAndVerifyClientCert`
        web.yml:6:28: tls_server_config.client_allowed_sans[1]: expected text, found a number; put it in quotes
        web.yml:8:16: tls_server_config.max_version: is below `min_version`
        web.yml:9:19: tls_server_config.cipher_suites[0]: `TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA` is not known here; there are `TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384`, `TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256`, `TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256`, `TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384`, `TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256`, `TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256`, `TLS_AES_128_GCM_SHA256`, `TLS_AES_256_GCM_SHA384`, `TLS_CHACHA20_POLY1305_SHA256`
        web.yml:10:23: tls_server_config.curve_preferences[0]: `CurveP521` is not known here; there are `X25519`, `CurveP256`, `CurveP384`
        web.yml:11:32: tls_server_config.prefer_server_cipher_suites: expected `true` or `false`, found text
        web.yml:12:3: tls_server_config: unknown key `server_name`; there are `cert`, `cert_file`, `key`, `key_file`, `client_ca`, `client_ca_file`, `client_allowed_sans`, `client_auth_type`, `min_version`, `max_version`, `cipher_suites`, `curve_preferences`, `prefer_server_cipher_suites`
        web.yml:14:10: http_server_config.http2: expected `true` or `false`, found text
        web.yml:16:22: http_server_config.headers.X-Frame-Options: expected `deny` or `sameorigin`
        web.yml:17:19: http_server_config.headers.X-Powered-By: this header cannot be set; there are `Content-Security-Policy`, `X-Frame-Options`, `X-Content-Type-Options`, `X-XSS-Protection`, `Strict-Transport-Security`
        web.yml:19:10: basic_auth_users.alice: expected a bcrypt hash such as `htpasswd -nB` makes
        web.yml:20:8: basic_auth_users.bob: a bcrypt cost of 20 would take seconds for each try; use 14 or less
        web.yml:21:10: basic_auth_users.a:b: a user's name cannot have a `:`
        web.yml:23:3: rate_limit: rollbackd has limits of its own, which cannot be set here
        web.yml:24:1: unknown key `tls_config`; there are `tls_server_config`, `http_server_config`, `basic_auth_users`, `rate_limit`
        "###);
        #[rustfmt::skip]
        let cases = [
            ("{cert: a, cert_file: b, key: sshh}",                 "both `cert` and `cert_file` are given; use one"),
            ("{cert: a, key: sshh, client_ca_file: d}",            "authorities for clients are given, and no `client_auth_type` that asks"),
            ("{cert: a, key: sshh, client_auth_type: VerifyClientCertIfGiven}", "needs `client_ca` or `client_ca_file` to verify against"),
            ("{cert: a, key: sshh, min_version: TLS10}",           "too old to be safe; use `TLS12` or `TLS13`"),
            ("{cert: a, key: {sshh: sshh}}",                       "expected text, found a map"),
        ];
        for (tls, want) in cases {
            let told = problems(&format!("tls_server_config: {tls}"));
            assert!(told.ends_with(want) && !told.contains("sshh"), "{told}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_broken_file_makes_it_panic(cut in 0..FULL.len(), skip in 0..9usize, put in "[\\[\\]{}:&*!|>'\"#a-z0-9 \n-]{0,6}") {
            let end = (cut + skip).min(FULL.len());
            drop(parse(&format!("{}{put}{}", &FULL[..cut], &FULL[end..]), Path::new("web.yml")));
        }
    }
}
