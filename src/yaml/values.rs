//! Reading scalars. Each gives the value or what is wrong with it, as a fragment of a sentence.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use super::{Node, Value};
use crate::domain::share::{InvalidTolerance, Share, Tolerance};

/// The longest duration that can be meant, a year.
pub const DURATION_MAX: Duration = Duration::from_hours(366 * 24);

/// What a reader gives.
pub type Read<T> = Result<T, String>;

/// Text that is not empty. A number must be quoted, so that `007` stays what it is.
///
/// # Errors
/// For anything else.
pub fn text(node: &Node) -> Read<String> {
    match &node.value {
        Value::Text(text) if text.trim().is_empty() => Err("expected text, found none".into()),
        Value::Text(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => {
            Err(format!("expected text, found {}; put it in quotes", node.value.kind()))
        }
        Value::Null | Value::List(_) | Value::Map(_) => {
            Err(format!("expected text, found {}", node.value.kind()))
        }
    }
}

/// Text that parses as a `T`.
///
/// # Errors
/// For anything else.
pub fn parsed<T: FromStr<Err: Display>>(node: &Node) -> Read<T> {
    text(node)?.parse().map_err(|error: T::Err| error.to_string())
}

/// `true` or `false`.
///
/// # Errors
/// For anything else.
pub fn boolean(node: &Node) -> Read<bool> {
    if let Value::Bool(value) = node.value {
        Ok(value)
    } else {
        Err(format!("expected `true` or `false`, found {}", node.value.kind()))
    }
}

/// A finite number.
///
/// # Errors
/// For anything else.
pub fn number(node: &Node) -> Read<f64> {
    match node.value {
        Value::Number(value) if value.is_finite() => Ok(value),
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::Text(_)
        | Value::List(_)
        | Value::Map(_) => Err(format!("expected a number, found {}", node.value.kind())),
    }
}

/// A whole number from `min` to `max`.
///
/// # Errors
/// For anything else.
pub fn whole(node: &Node, min: u32, max: u32) -> Read<u32> {
    let wrong = || format!("expected a whole number from {min} to {max}");
    let value = number(node).map_err(|_| wrong())?;
    if value.fract() != 0.0 || value < min.into() || value > max.into() {
        return Err(wrong());
    }
    // The bounds make the cast exact.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Ok(value as u32)
}

/// A duration such as `15s` or `1h30m`: at least a millisecond, in whole ones, at most a year.
///
/// # Errors
/// For anything else.
pub fn duration(node: &Node) -> Read<Duration> {
    if let Value::Number(number) = node.value {
        return Err(format!("expected a duration with a unit, such as `15s`, found `{number}`"));
    }
    let Value::Text(text) = &node.value else {
        let found = node.value.kind();
        return Err(format!("expected a duration such as `15s` or `1h30m`, found {found}"));
    };
    let duration = humantime::parse_duration(text)
        .map_err(|_| format!("expected a duration such as `15s` or `1h30m`, found `{text}`"))?;
    if duration.is_zero() {
        Err("must be longer than zero".into())
    } else if duration > DURATION_MAX {
        Err(format!("`{text}` is longer than a year"))
    } else if duration.subsec_nanos() % 1_000_000 != 0 {
        Err(format!("`{text}` is not a whole number of milliseconds"))
    } else {
        Ok(duration)
    }
}

/// A share: `5%` or `0.05`.
///
/// # Errors
/// For anything else.
pub fn share(node: &Node) -> Read<Share> {
    let share = if let Value::Number(value) = node.value {
        Share::new(value)
    } else if let Value::Text(text) = &node.value {
        text.parse()
    } else {
        return Err(format!("expected a share such as `5%`, found {}", node.value.kind()));
    };
    share.map_err(|error| error.to_string())
}

/// A tolerance: `1.5x`.
///
/// # Errors
/// For anything else.
pub fn tolerance(node: &Node) -> Result<Tolerance, InvalidTolerance> {
    if let Value::Number(value) = node.value {
        Tolerance::new(value)
    } else if let Value::Text(text) = &node.value {
        text.parse()
    } else {
        Err(InvalidTolerance::NotAFactor)
    }
}

/// A label name, and not one of Prometheus' own `__`.
///
/// # Errors
/// For anything else.
pub fn label_name(node: &Node) -> Read<String> {
    let name = text(node)?;
    let mut chars = name.chars();
    let starts = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    let goes_on = chars.all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !(starts && goes_on) {
        Err(format!("`{name}` is not a label name: expected letters, digits and `_`"))
    } else if name.starts_with("__") {
        Err(format!("`{name}` is a label of Prometheus' own"))
    } else {
        Ok(name)
    }
}
