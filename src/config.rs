//! The configuration: what to watch, what may be done about it, and with which keys.
//!
//! Here are its types; [`parse`] reads them from a file and reports every problem at once.

mod auth;
mod fleet;
mod http;
pub mod parse;
pub mod web;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use self::auth::{AuthConfig, Holders};
pub use crate::domain::breaker::Breaker;
pub use crate::domain::decision::Mode;
use crate::domain::fleet::FleetName;
use crate::domain::share::Share;
use crate::rules::parse::{FleetTraits, Fleets};

/// One configuration file, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The directory of the file; every other path is already resolved against it.
    pub directory: PathBuf,
    /// Where the API, the metrics and the web page are served.
    pub listen: SocketAddr,
    /// Who may do what.
    pub auth: AuthConfig,
    /// TLS, client certificates and users, in the exporter-toolkit's format.
    pub web_config_file: Option<PathBuf>,
    /// Where measurements come from.
    pub prometheus: ServerConfig,
    /// Globs of rule files, resolved against `directory`.
    pub rule_files: Vec<String>,
    /// The `SQLite` file of the ledger.
    pub ledger: PathBuf,
    /// The Ed25519 key that signs the ledger and the manifests.
    pub signing_key_file: PathBuf,
    /// Where checkpoints of the ledger are kept.
    pub checkpoint: Option<CheckpointConfig>,
    /// Where notices go; without it, only to the log and the ledger.
    pub alertmanager: Option<ServerConfig>,
    /// Where events go; none: nowhere.
    pub cdevents: Option<CdEventsConfig>,
    /// How many fleets may regress at once before none is rolled back without a person.
    pub breaker: Breaker,
    /// At least one; the names are unique.
    pub fleets: Vec<FleetConfig>,
}

impl Config {
    /// The entry called `name`.
    #[must_use]
    pub fn fleet(&self, name: &FleetName) -> Option<&FleetConfig> {
        self.fleets.iter().find(|fleet| fleet.name == *name)
    }

    /// What rules must fit.
    #[must_use]
    pub fn fleet_traits(&self) -> Fleets {
        self.fleets.iter().map(|fleet| (fleet.name.clone(), fleet.traits())).collect()
    }
}

/// A server that is asked or told, or several of the same, and how to reach them.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerConfig {
    /// At least one `http` or `https` URL.
    pub urls: Vec<String>,
    /// Of one request, over all servers and retries.
    pub timeout: Duration,
    /// Further attempts after the first, over all URLs.
    pub retries: u32,
    /// The `Authorization` header. Never set together with `basic_auth`.
    pub authorization: Option<Authorization>,
    /// HTTP basic authentication.
    pub basic_auth: Option<BasicAuth>,
    /// How the connection is secured, when the URL is `https`.
    pub tls_config: TlsConfig,
    /// Sent with every request.
    pub headers: BTreeMap<String, String>,
}

/// An `Authorization` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    /// The scheme, `Bearer` by default.
    pub type_: String,
    /// What follows the scheme.
    pub credentials: SecretSource,
}

/// HTTP basic authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BasicAuth {
    /// The user.
    pub username: String,
    /// The user's password.
    pub password: SecretSource,
}

/// Where a secret is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// In the configuration itself.
    Inline(Secret),
    /// In a file, read again for every use so that it may be rotated.
    File(PathBuf),
}

/// A text that never shows in logs: its `Debug` is `<secret>`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps the text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// TLS towards a server, as in Prometheus' own `tls_config`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// PEM file of the authorities to trust instead of the platform's.
    pub ca_file: Option<PathBuf>,
    /// PEM file of the client's certificate; set together with `key_file`.
    pub cert_file: Option<PathBuf>,
    /// PEM file of the client's key.
    pub key_file: Option<PathBuf>,
    /// Trust any certificate.
    pub insecure_skip_verify: bool,
}

/// Where checkpoints of the ledger are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointConfig {
    /// Replaced by each new one.
    pub file: PathBuf,
    /// How often one is written.
    pub every: Duration,
}

/// Where events of deployments go, as `CDEvents`.
#[derive(Clone, Debug, PartialEq)]
pub struct CdEventsConfig {
    /// Tried in order.
    pub server: ServerConfig,
    /// A URI reference that names this rollbackd.
    pub source: String,
    /// The environment its fleets are in.
    pub environment: String,
    /// A package URL with `{{fleet}}` and `{{version}}`.
    pub artifact: String,
}

/// A fleet entry: one fleet, or many that `by` tells apart.
#[derive(Clone, Debug, PartialEq)]
pub struct FleetConfig {
    /// Unique in the configuration.
    pub name: FleetName,
    /// Label names; each combination of their values is a fleet of its own.
    pub by: Vec<String>,
    /// The label that carries the version.
    pub version_label: String,
    /// How far it may go on its own.
    pub mode: Mode,
    /// How long a candidate stays under observation.
    pub observe_for: Duration,
    /// How much of the baseline's past may serve as control; at least `observe_for`.
    pub history: Duration,
    /// The share of healthy rollouts that may be rolled back, over all rules and looks.
    pub false_rollback_rate: Share,
    /// What becomes of a candidate still suspect when observation ends.
    pub when_unsure: WhenUnsure,
    /// Selector with one series per worker alive.
    pub workers: String,
    /// Selector of a gauge that is 1 on workers that take no new sessions, else 0. Without it,
    /// every worker alive counts as able to.
    pub draining: Option<String>,
    /// Selector of the gauge of sessions in progress.
    pub live: Option<String>,
    /// How workers of a version are started; without it, someone else scales the fleet.
    pub start: Option<StartVia>,
    /// How workers are asked to drain.
    pub drain: DrainVia,
    /// How often it may act.
    pub limits: Limits,
    /// How long started workers may take to be ready.
    pub start_timeout: Duration,
    /// What happens when they are not ready by then.
    pub on_start_timeout: OnStartTimeout,
    /// After this, a drain not finished is reported. It is never forced.
    pub drain_deadline: Duration,
    /// Whose heartbeats are believed; without it, none are.
    pub membership: Option<MembershipConfig>,
}

impl FleetConfig {
    /// What its rules must fit.
    #[must_use]
    pub fn traits(&self) -> FleetTraits {
        FleetTraits {
            observe_for: self.observe_for,
            version_label: self.version_label.clone(),
            by: self.by.clone(),
            false_rollback_rate: self.false_rollback_rate,
        }
    }
}

/// What becomes of a candidate still suspect when observation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenUnsure {
    /// It is rolled back.
    Rollback,
    /// It stays, and people are told.
    Hold,
}

impl WhenUnsure {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rollback => "rollback",
            Self::Hold => "hold",
        }
    }
}

/// What happens when the good version cannot carry the load in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStartTimeout {
    /// The rollback stops there and people are told.
    Stuck,
    /// The bad version is drained all the same.
    Proceed,
}

/// A command that starts workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartVia {
    /// Program and arguments, not empty, with placeholders.
    pub command: Vec<String>,
    /// How long the command may run.
    pub timeout: Duration,
    /// Says whether it would work; without it, that is not known until it is needed.
    pub check: Option<StartCheck>,
}

/// A command that says whether workers could be started, and starts none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartCheck {
    /// Program and arguments, not empty, with the placeholders of `start`.
    pub command: Vec<String>,
    /// How often it runs.
    pub interval: Duration,
    /// How long it may run.
    pub timeout: Duration,
}

/// How workers are asked to drain: by the manifest, a command, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainVia {
    /// Workers read the signed manifest and drain when it denies their version.
    pub manifest: bool,
    /// Program and arguments, not empty, with placeholders; run once for each worker.
    pub command: Option<Vec<String>>,
}

/// How many rollbacks a fleet may have in a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// At least 1.
    pub rollbacks: u32,
    /// The while.
    pub per: Duration,
}

/// How worker heartbeats are verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MembershipConfig {
    /// Files with the shared secrets, at least one; a token signed with any of them is good.
    pub secret_files: Vec<PathBuf>,
    /// How old, or how far ahead, a heartbeat's timestamp may be.
    pub max_age: Duration,
}
