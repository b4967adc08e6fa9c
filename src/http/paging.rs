//! Long answers in pages: `limit`, `after`, and a `Link` to the next page (RFC 8288).

use axum::http::{HeaderName, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::Problem;

/// Entries on a page, unless asked for fewer or more.
pub(super) const LIMIT_DEFAULT: u32 = 1_000;
/// Entries on a page at most.
pub(super) const LIMIT_MAX: u32 = 10_000;

/// What need not be escaped in a path segment or a query's value.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The number of entries wanted.
pub(super) fn limit(asked: Option<u32>) -> Result<u32, Problem> {
    let limit = asked.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Problem::bad(format!("`limit` must be from 1 to {LIMIT_MAX}")));
    }
    Ok(limit)
}

/// Says where the next page is.
pub(super) fn next(path: &str, after: &str, limit: u32) -> [(HeaderName, String); 1] {
    let link = format!("<{path}?after={}&limit={limit}>; rel=\"next\"", escaped(after));
    [(header::LINK, link)]
}

/// A text as one segment of a path, or one value of a query.
pub(super) fn escaped(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}
