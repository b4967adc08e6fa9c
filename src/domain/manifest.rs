//! What a fleet admits and denies.

use std::collections::BTreeSet;

use super::time::Timestamp;
use super::version::Version;

/// The statement that workers act on; signed by the adapter that publishes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The fleet, as [`super::fleet::FleetId`] writes itself.
    pub fleet: String,
    /// Only grows. The `seq` of the ledger record that last changed what is admitted or denied.
    pub serial: u64,
    /// Versions under observation or already good.
    pub admitted: BTreeSet<Version>,
    /// Versions that may not start.
    pub denied: BTreeSet<Version>,
    /// The denied versions whose running workers must drain now. Apart from `denied`, so that a
    /// version can be gated before the good one is able to carry its load.
    pub draining: BTreeSet<Version>,
    /// The version a rollback would choose.
    pub last_good: Option<Version>,
    /// When it was signed.
    pub issued_at: Timestamp,
    /// When a worker must stop believing it.
    pub expires_at: Timestamp,
}
