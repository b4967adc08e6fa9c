//! PromQL of foreign hands.

use promql_parser::parser::{self, Expr};

/// The longest expression, in bytes. The parser's tree is taken down by recursion: what nests ten
/// thousand levels deep would take the stack with it.
const EXPRESSION_BYTES_MAX: usize = 4096;

/// Parses an expression of limited length.
///
/// # Errors
/// One line that says what is wrong.
pub(super) fn parse(text: &str) -> Result<Expr, String> {
    if text.len() > EXPRESSION_BYTES_MAX {
        return Err(format!("it has more than {EXPRESSION_BYTES_MAX} bytes"));
    }
    parser::parse(text).map_err(|error| error.lines().next().unwrap_or_default().to_owned())
}
