//! Whom notices are posted to.

use std::future::Future;

/// Why a notice was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotifyError {
    /// Nobody answered, or the answer says to try again.
    #[error("{0}")]
    Failed(String),
    /// The answer says that this notice will never be taken.
    #[error("{0}")]
    Refused(String),
}

/// A server, or several of the same, that take notices as JSON over HTTP.
pub trait Notifier: Send + Sync + 'static {
    /// Posts `body` to `path` below each server's URL. Not repeated here when it fails.
    fn post(
        &self,
        path: &str,
        headers: &[(&'static str, String)],
        body: Vec<u8>,
    ) -> impl Future<Output = Result<(), NotifyError>> + Send;
}
