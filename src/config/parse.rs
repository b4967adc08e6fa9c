//! Reading the configuration file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Breaker, CdEventsConfig, CheckpointConfig, Config, FleetConfig, ServerConfig};
use super::{auth, fleet, http};
use crate::domain::template;
use crate::yaml::values::{self, Read};
use crate::yaml::{self, Map, Node, Problem, Problems, Scope};

/// What could be read of a configuration file.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The configuration, if it has no problem.
    pub config: Option<Config>,
    /// The globs of rule files, as far as they could be read.
    pub rule_files: Vec<String>,
    /// By place.
    pub problems: Vec<Problem>,
}

/// Reads the configuration file at `path`.
///
/// # Errors
/// All problems of the file, by place.
pub fn load(path: &Path) -> Result<Config, Vec<Problem>> {
    let parsed = read(path);
    parsed.config.ok_or(parsed.problems)
}

/// Reads the configuration file at `path`, keeping what can be kept of a bad one.
#[must_use]
pub fn read(path: &Path) -> Parsed {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text, path),
        Err(error) => Parsed {
            config: None,
            rule_files: Vec::new(),
            problems: vec![Problem::of_file(
                path.display().to_string(),
                format!("failed to read: {error}"),
            )],
        },
    }
}

/// Reads a configuration from its text; `path` gives the name for problems and the directory.
#[must_use]
pub fn parse(text: &str, path: &Path) -> Parsed {
    let problems = Problems::of(path.display().to_string());
    let base = Base::of(path);
    let mut rule_files = Vec::new();
    let config = yaml::parse(text, &problems)
        .and_then(|node| {
            Map::of(&node, Scope::Path(String::new()), &problems)
                .map(|map| top(map, &base, &mut rule_files))
        })
        .flatten()
        .filter(|_| problems.is_empty());
    Parsed { config, rule_files, problems: problems.into_sorted() }
}

/// The directory that relative paths start from.
pub(super) struct Base(PathBuf);

impl Base {
    /// For what is read from the file at `path`.
    pub(super) fn of(path: &Path) -> Self {
        Self(path.parent().unwrap_or(Path::new("")).to_owned())
    }

    /// Reads a path.
    pub(super) fn path(&self, node: &Node) -> Read<PathBuf> {
        values::text(node).map(|text| self.0.join(text))
    }

    fn glob(&self, node: &Node) -> Read<String> {
        let pattern = values::text(node)?;
        glob::Pattern::new(&pattern)
            .map_err(|e| format!("`{pattern}` is not a glob: {}", e.msg))?;
        let base = glob::Pattern::escape(&self.0.to_string_lossy());
        Ok(Path::new(&base).join(pattern).to_string_lossy().into_owned())
    }

    fn ledger(&self, node: &Node) -> Read<PathBuf> {
        let text = values::text(node)?;
        let path = text.strip_prefix("sqlite:").map(|rest| rest.strip_prefix("//").unwrap_or(rest));
        match path {
            Some(":memory:") => Err("must be a file, to outlive a restart".into()),
            Some(path) if !path.is_empty() => Ok(self.0.join(path)),
            _ => Err(format!("expected `sqlite:` and a path, found `{text}`")),
        }
    }

    fn directory(&self) -> PathBuf {
        if self.0.as_os_str().is_empty() { PathBuf::from(".") } else { self.0.clone() }
    }
}

fn top(mut map: Map<'_, '_>, base: &Base, rule_files: &mut Vec<String>) -> Option<Config> {
    let listen = map.required("listen", listen);
    let loopback = listen.is_none_or(|listen| listen.ip().is_loopback());
    let auth = map.child("auth").map(|map| auth::read(map, base, loopback)).unwrap_or_default();
    let web_config_file = map.optional("web_config_file", |node| base.path(node));
    let users = [&auth.read, &auth.alert, &auth.operate].map(|holders| holders.users.len());
    if users.iter().sum::<usize>() > 0 && !map.has("web_config_file") {
        map.fault("auth", "there are no users without a `web_config_file` that names them");
    }
    map.require("prometheus");
    let prometheus = map.child("prometheus").map(|map| prometheus(map, base));
    map.require("rule_files");
    *rule_files = map.list("rule_files", |node| base.glob(node));
    map.require_some("rule_files", "file");
    let ledger = map.required("ledger", |node| base.ledger(node));
    let signing_key_file = map.required("signing_key_file", |node| base.path(node));
    let checkpoint = map.child("checkpoint").and_then(|map| checkpoint(map, base));
    let alertmanager = map.child("alertmanager").map(|map| alertmanager(map, base));
    let cdevents = map.child("cdevents").and_then(|map| cdevents(map, base));
    let breaker = map.child("breaker").map(breaker).unwrap_or_default();
    let fleets = fleets(&mut map, base);
    map.finish();
    Some(Config {
        directory: base.directory(),
        listen: listen?,
        auth,
        web_config_file,
        prometheus: prometheus?,
        rule_files: rule_files.clone(),
        ledger: ledger?,
        signing_key_file: signing_key_file?,
        checkpoint,
        alertmanager,
        cdevents,
        breaker,
        fleets,
    })
}

fn fleets(map: &mut Map<'_, '_>, base: &Base) -> Vec<FleetConfig> {
    map.require("fleets");
    let mut fleets: Vec<FleetConfig> = Vec::new();
    let mut names = std::collections::BTreeSet::new();
    for mut entry in map.children("fleets") {
        let name = entry.required("name", values::parsed);
        if let Some(name) = &name
            && !names.insert(Clone::clone(name))
        {
            entry.fault("name", format!("there is already a fleet `{name}`"));
        }
        fleets.extend(fleet::read(entry, name, base));
    }
    map.require_some("fleets", "fleet");
    fleets
}

fn listen(node: &Node) -> Read<SocketAddr> {
    let text = values::text(node)?;
    text.parse().map_err(|_| {
        format!("expected an address and port such as `127.0.0.1:9788`, found `{text}`")
    })
}

fn checkpoint(mut map: Map<'_, '_>, base: &Base) -> Option<CheckpointConfig> {
    let file = map.required("file", |node| base.path(node));
    let every = map.optional("every", values::duration).unwrap_or(Duration::from_hours(1));
    map.finish();
    Some(CheckpointConfig { file: file?, every })
}

fn cdevents(mut map: Map<'_, '_>, base: &Base) -> Option<CdEventsConfig> {
    let server = server_of(&mut map, base);
    let source = map.optional("source", |node| {
        let text = values::text(node)?;
        let plain = |c: char| c.is_ascii_graphic() && !"\"<>\\^`{|}".contains(c);
        if text.is_empty() || !text.chars().all(plain) {
            return Err(format!("`{text}` is no URI reference such as `/rollbackd/eu`"));
        }
        Ok(text)
    });
    let environment = map.required("environment", values::text);
    let artifact = map.optional("artifact", |node| {
        let text = values::text(node)?;
        template::check(&text, ARTIFACT_PLACEHOLDERS).map_err(|error| error.to_string())?;
        if !text.starts_with("pkg:") {
            return Err(format!("expected a package URL such as `{ARTIFACT}`, found `{text}`"));
        }
        Ok(text)
    });
    map.finish();
    Some(CdEventsConfig {
        server,
        source: source.unwrap_or_else(|| "/rollbackd".to_owned()),
        environment: environment?,
        artifact: artifact.unwrap_or_else(|| ARTIFACT.to_owned()),
    })
}

/// What an artifact is called unless the config says so.
const ARTIFACT: &str = "pkg:generic/{{fleet}}@{{version}}";

/// What may stand in an artifact's name.
const ARTIFACT_PLACEHOLDERS: &[&str] = &["fleet", "version"];

fn breaker(mut map: Map<'_, '_>) -> Breaker {
    let default = Breaker::default();
    let fleets_max = map.optional("fleets", |node| values::whole(node, 1, 100_000));
    let share_max = map.optional("share", values::share);
    let within = map.optional("within", values::duration);
    map.finish();
    Breaker {
        fleets_max: fleets_max.unwrap_or(default.fleets_max),
        share_max: share_max.unwrap_or(default.share_max),
        within: within.unwrap_or(default.within),
    }
}

fn prometheus(mut map: Map<'_, '_>, base: &Base) -> ServerConfig {
    let retries = map.optional("retries", |node| values::whole(node, 0, 10)).unwrap_or(2);
    let server = server_of(&mut map, base);
    map.finish();
    ServerConfig { retries, ..server }
}

fn alertmanager(mut map: Map<'_, '_>, base: &Base) -> ServerConfig {
    let server = server_of(&mut map, base);
    map.finish();
    server
}

/// The keys of a server, where there are further ones beside them.
fn server_of(map: &mut Map<'_, '_>, base: &Base) -> ServerConfig {
    map.require("url");
    let urls = http::urls(map);
    let timeout = map.optional("timeout", values::duration).unwrap_or(Duration::from_secs(10));
    let authorization = map.child("authorization").and_then(|map| http::authorization(map, base));
    let basic_auth = map.child("basic_auth").and_then(|map| http::basic_auth(map, base));
    if map.has("authorization") && map.has("basic_auth") {
        map.fault("basic_auth", "both `authorization` and `basic_auth` are given; use one");
    }
    let tls_config = map.child("tls_config").map(|map| http::tls(map, base)).unwrap_or_default();
    let headers = map.texts("headers", http::header);
    ServerConfig { urls, timeout, retries: 0, authorization, basic_auth, tls_config, headers }
}

#[cfg(test)]
mod tests;
