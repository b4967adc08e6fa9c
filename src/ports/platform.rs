//! How workers are started and drained.

use std::future::Future;

use crate::domain::fleet::FleetId;
use crate::domain::version::Version;

/// Start workers until `count` of `version` run. Repeating a request with the same `effect` must
/// be harmless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartRequest {
    /// `<rollback id>/<step>`: the same for every repetition.
    pub effect: String,
    /// Whose workers.
    pub fleet: FleetId,
    /// What they run.
    pub version: Version,
    /// How many should run in the end.
    pub count: u32,
}

/// Ask workers of `version` to drain. Repeating a request with the same `effect` must be harmless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainRequest {
    /// `<rollback id>/<step>`: the same for every repetition.
    pub effect: String,
    /// Whose workers.
    pub fleet: FleetId,
    /// What they run.
    pub version: Version,
    /// The workers known to run it.
    pub workers: Vec<String>,
}

/// Say whether `count` workers of `version` could be started. It changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckRequest {
    /// `<fleet>/check`.
    pub effect: String,
    /// Whose workers.
    pub fleet: FleetId,
    /// What they would run.
    pub version: Version,
    /// How many run now, of whatever version; at least 1.
    pub count: u32,
}

/// Why an effect did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{effect}: {reason}")]
pub struct PlatformError {
    /// The effect asked for.
    pub effect: String,
    /// What happened instead.
    pub reason: String,
}

/// Starts and drains workers, and nothing else.
pub trait Platform: Send + Sync + 'static {
    /// Returns when the platform has accepted the request, not when workers are alive.
    fn start(
        &self,
        request: StartRequest,
    ) -> impl Future<Output = Result<(), PlatformError>> + Send;

    /// Whether a start would be accepted.
    fn check(
        &self,
        request: CheckRequest,
    ) -> impl Future<Output = Result<(), PlatformError>> + Send;

    /// Returns when the platform has accepted the request, not when workers are empty.
    fn drain(
        &self,
        request: DrainRequest,
    ) -> impl Future<Output = Result<(), PlatformError>> + Send;
}
