//! What a worker says of itself.

use super::time::Timestamp;
use super::version::Version;

/// A worker's heartbeat, its token not yet verified.
#[derive(Clone, Debug, PartialEq)]
pub struct Heartbeat {
    /// The fleet, as [`super::fleet::FleetId`] writes itself.
    pub fleet: String,
    /// Unique among the fleet's workers.
    pub worker_id: String,
    /// The version it runs.
    pub version: Version,
    /// Takes no new sessions any more.
    pub draining: bool,
    /// Sessions in progress.
    pub active_sessions: u64,
    /// When the worker says it was sent, in seconds since the Unix epoch: part of what is signed,
    /// kept as the float that was signed.
    pub timestamp_seconds: f64,
    /// `OpenRTC`'s `sign_membership`: hex HMAC-SHA256.
    pub token: String,
}

/// A worker that has spoken, with a token that verified.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Unique among the fleet's workers.
    pub worker_id: String,
    /// The version it runs.
    pub version: Version,
    /// Takes no new sessions any more.
    pub draining: bool,
    /// Sessions in progress.
    pub active_sessions: u64,
    /// When it was last heard, by our clock.
    pub heard_at: Timestamp,
}
