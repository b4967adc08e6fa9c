//! Texts with placeholders such as `{{version}}`, in annotations and commands.

use std::fmt::Write;

/// Why a text is not a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTemplate {
    /// A placeholder nobody fills in.
    #[error("unknown placeholder `{{{{{name}}}}}`; there are {known}")]
    Unknown {
        /// What stands between the braces.
        name: String,
        /// All that may stand there, with braces.
        known: String,
    },
    /// A `{{` without its `}}`.
    #[error("`{{{{` is never closed")]
    Unclosed,
}

/// Checks that every placeholder of `text` is one of `known`.
///
/// # Errors
/// On the first placeholder that is not, or is not closed.
pub fn check(text: &str, known: &[&str]) -> Result<(), InvalidTemplate> {
    for part in parts(text) {
        match part {
            Part::Text(_) => {}
            Part::Unclosed(_) => return Err(InvalidTemplate::Unclosed),
            Part::Placeholder { name, .. } if known.contains(&name) => {}
            Part::Placeholder { name, .. } => {
                let mut list = String::new();
                for known in known {
                    let separator = if list.is_empty() { "" } else { ", " };
                    // Writing to a String cannot fail.
                    write!(list, "{separator}`{{{{{known}}}}}`").unwrap_or_default();
                }
                return Err(InvalidTemplate::Unknown { name: name.to_owned(), known: list });
            }
        }
    }
    Ok(())
}

/// Replaces every placeholder that `value` knows; the others stay as they are.
///
/// What is filled in is not looked at again, so a version called `{{worker}}` stays that.
#[must_use]
pub fn expand(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    parts(text)
        .map(|part| match part {
            Part::Text(text) | Part::Unclosed(text) => text.to_owned(),
            Part::Placeholder { whole, name } => value(name).unwrap_or_else(|| whole.to_owned()),
        })
        .collect()
}

enum Part<'t> {
    Text(&'t str),
    Placeholder { whole: &'t str, name: &'t str },
    Unclosed(&'t str),
}

fn parts(text: &str) -> impl Iterator<Item = Part<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (part, length) = match rest.find("{{") {
            None => (Part::Text(rest), rest.len()),
            Some(0) => match rest.find("}}") {
                None => (Part::Unclosed(rest), rest.len()),
                Some(end) => {
                    let (whole, name) = (&rest[..end + 2], rest[2..end].trim());
                    (Part::Placeholder { whole, name }, end + 2)
                }
            },
            Some(start) => (Part::Text(&rest[..start]), start),
        };
        rest = &rest[length..];
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_in_once_and_unknown_ones_are_named() {
        let value = |name: &str| (name == "version").then(|| "{{worker}}".to_owned());
        assert_eq!(
            expand("a {{version}}{{ version }} {{x}} b", value),
            "a {{worker}}{{worker}} {{x}} b"
        );
        assert_eq!(expand("{{version", value), "{{version");
        assert_eq!(check("{{version}} of {fleet}", &["version"]), Ok(()));
        assert_eq!(check("{{version", &["version"]), Err(InvalidTemplate::Unclosed));
        assert_eq!(
            check("{{verison}}", &["version", "count"]).unwrap_err().to_string(),
            "unknown placeholder `{{verison}}`; there are `{{version}}`, `{{count}}`"
        );
    }
}
