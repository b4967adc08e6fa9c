//! YAML read as a tree that remembers places, and the walk that finds every problem in it.
//!
//! Deserializing into structs stops at the first mistake. So a file becomes [`Node`]s first, and
//! the readers of config and rules walk them by hand, reporting to [`Problems`] as they go on.
//!
//! **Invariant:** a reader that returns `None` or falls back to a default has reported why, or the
//! key is simply not there.

mod map;
mod node;
pub mod values;

use std::cell::RefCell;
use std::fmt;

pub use map::{Map, Scope};
pub use node::{Node, Place, Value, parse};

/// Something wrong in a file, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file, as it was named to us.
    pub file: String,
    /// Where in the file; `None` for the file as a whole.
    pub place: Option<Place>,
    /// What it is about: a key's path, or a group and a rule. May be empty.
    pub context: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl Problem {
    /// A problem with a file as a whole.
    #[must_use]
    pub fn of_file(file: impl Into<String>, message: impl Into<String>) -> Self {
        Self { file: file.into(), place: None, context: String::new(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(place) = self.place {
            write!(f, ":{}:{}", place.line, place.column)?;
        }
        if !self.context.is_empty() {
            write!(f, ": {}", self.context)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Collects the problems of one file.
#[derive(Debug)]
pub struct Problems {
    file: String,
    found: RefCell<Vec<Problem>>,
}

impl Problems {
    /// None yet, in `file`.
    #[must_use]
    pub fn of(file: impl Into<String>) -> Self {
        Self { file: file.into(), found: RefCell::default() }
    }

    /// Adds one.
    pub fn report(&self, place: Place, context: impl Into<String>, message: impl Into<String>) {
        self.found.borrow_mut().push(Problem {
            file: self.file.clone(),
            place: Some(place),
            context: context.into(),
            message: message.into(),
        });
    }

    /// Whether there is none so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.borrow().is_empty()
    }

    /// All of them, by place.
    #[must_use]
    pub fn into_sorted(self) -> Vec<Problem> {
        let mut found = self.found.into_inner();
        found.sort();
        found
    }
}
