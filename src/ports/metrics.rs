//! Where counts come from.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use crate::domain::time::Timestamp;

/// A query at every `step` from `start` to `end`, both included. An instant is `start == end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeQuery {
    /// PromQL.
    pub expr: String,
    /// First evaluation time.
    pub start: Timestamp,
    /// Last evaluation time, not before `start`.
    pub end: Timestamp,
    /// At least a millisecond.
    pub step: Duration,
}

/// One series of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Without the metric's name.
    pub labels: BTreeMap<String, String>,
    /// In time order; NaN and infinities are left out by the source.
    pub points: Vec<(Timestamp, f64)>,
}

/// Why there is no answer. Never an empty answer: that is `Ok` with no series.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetricError {
    /// No server answered in time, or the connection failed; a retry may help.
    #[error("{url} did not answer: {reason}")]
    Unreachable {
        /// The server, without credentials.
        url: String,
        /// What happened.
        reason: String,
    },
    /// The server refused the query; a retry will not help.
    #[error("{url} refused the query: {reason}")]
    Refused {
        /// The server, without credentials.
        url: String,
        /// What it said.
        reason: String,
    },
    /// The answer is about another time than was asked for.
    #[error("an answer is about another time than was asked for: a cache on the way?")]
    OtherTime,
    /// The answer is not what the API promises.
    #[error("{url} answered what is not a matrix: {reason}")]
    Malformed {
        /// The server, without credentials.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// A server that evaluates PromQL over ranges.
pub trait MetricSource: Send + Sync + 'static {
    /// Evaluates one query, retrying and changing servers as configured.
    fn range(
        &self,
        query: RangeQuery,
    ) -> impl Future<Output = Result<Vec<Series>, MetricError>> + Send;
}
