//! Reading a map's keys, one by one, until none is left unasked for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use super::{Node, Place, Problems, Value, values};

/// How a problem says which map it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// By the path of keys that leads there: `fleets[0].drain`. Empty at the top.
    Path(String),
    /// By names: `group "sessions", regression "SessionsFailing"`.
    Named(String),
}

impl Scope {
    fn below(&self, key: &str) -> Self {
        match self {
            Self::Path(path) if path.is_empty() => Self::Path(key.to_owned()),
            Self::Path(path) => Self::Path(format!("{path}.{key}")),
            Self::Named(_) => self.clone(),
        }
    }

    fn text(self) -> String {
        match self {
            Self::Path(text) | Self::Named(text) => text,
        }
    }
}

/// A map that is being read.
#[derive(Debug)]
pub struct Map<'n, 'p> {
    place: Place,
    scope: Scope,
    entries: &'n [(String, Place, Node)],
    asked: Vec<&'static str>,
    problems: &'p Problems,
}

impl<'n, 'p> Map<'n, 'p> {
    /// Starts to read `node`, reporting keys written twice; `None` if it is no map.
    #[must_use]
    pub fn of(node: &'n Node, scope: Scope, problems: &'p Problems) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            let message = format!("expected a map, found {}", node.value.kind());
            problems.report(node.place, scope.text(), message);
            return None;
        };
        let mut seen = BTreeSet::new();
        for (key, place, _) in entries {
            if !seen.insert(key) {
                problems.report(*place, scope.below(key).text(), format!("`{key}` is here twice"));
            }
        }
        Some(Self { place: node.place, scope, entries, asked: Vec::new(), problems })
    }

    /// Changes how problems name this map, once its name is known.
    pub fn rename(&mut self, scope: Scope) {
        self.scope = scope;
    }

    /// How problems name this map.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Whether the key is there, right or wrong.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(name, ..)| name == key)
    }

    /// Where the key's value stands, or the map if it has none.
    #[must_use]
    pub fn place_of(&self, key: &str) -> Place {
        self.find(key).map_or(self.place, |node| node.place)
    }

    fn find(&self, key: &str) -> Option<&'n Node> {
        self.entries.iter().find(|(name, ..)| name == key).map(|(.., node)| node)
    }

    /// The key's value, if it is there.
    pub fn node(&mut self, key: &'static str) -> Option<&'n Node> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        self.find(key)
    }

    /// Reports a problem with the value of `key`; the message needs the key's name to be read.
    pub fn fault(&self, key: &str, message: impl Display) {
        let message = match self.scope {
            Scope::Path(_) => message.to_string(),
            Scope::Named(_) => format!("`{key}`: {message}"),
        };
        self.fault_as_is(key, message);
    }

    /// Reports a problem with the value of `key`; the message speaks for itself.
    pub fn fault_as_is(&self, key: &str, message: impl Into<String>) {
        self.problems.report(self.place_of(key), self.scope.below(key).text(), message);
    }

    /// Reports a problem with the map as a whole.
    pub fn fault_whole(&self, message: impl Into<String>) {
        self.problems.report(self.place, self.scope.clone().text(), message);
    }

    /// Reads a value that may be left out.
    pub fn optional<T, E: Display>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Node) -> Result<T, E>,
    ) -> Option<T> {
        let node = self.node(key)?;
        read(node).map_err(|message| self.fault(key, message)).ok()
    }

    /// Reads a value that must be there.
    pub fn required<T, E: Display>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Node) -> Result<T, E>,
    ) -> Option<T> {
        self.require(key);
        self.optional(key, read)
    }

    /// Reports the key if it is not there.
    pub fn require(&self, key: &'static str) {
        if !self.has(key) {
            let message = match self.scope {
                Scope::Path(_) => "missing".to_owned(),
                Scope::Named(_) => format!("`{key}` is missing"),
            };
            self.fault_as_is(key, message);
        }
    }

    /// Reads a list, each element by itself; an empty `Vec` if it is not there.
    pub fn list<T, E: Display>(
        &mut self,
        key: &'static str,
        read: impl Fn(&Node) -> Result<T, E>,
    ) -> Vec<T> {
        let mut items = Vec::new();
        for (index, node) in self.elements(key).iter().enumerate() {
            match read(node) {
                Ok(item) => items.push(item),
                Err(message) => {
                    let (context, message) = match self.scope.below(key) {
                        Scope::Path(path) => (format!("{path}[{index}]"), message.to_string()),
                        Scope::Named(name) => (name, format!("`{key}`: {message}")),
                    };
                    self.problems.report(node.place, context, message);
                }
            }
        }
        items
    }

    /// The elements of a list; none if it is not there or not a list.
    pub fn elements(&mut self, key: &'static str) -> &'n [Node] {
        match self.node(key) {
            None => &[],
            Some(Node { value: Value::List(items), .. }) => items,
            Some(node) => {
                self.fault(key, format!("expected a list, found {}", node.value.kind()));
                &[]
            }
        }
    }

    /// Reports the list under `key` if it is empty; `what` is one of its elements.
    pub fn require_some(&self, key: &'static str, what: &str) {
        if let Some(Node { value: Value::List(items), .. }) = self.find(key)
            && items.is_empty()
        {
            self.fault(key, format!("expected at least one {what}"));
        }
    }

    /// The map under `key`.
    pub fn child(&mut self, key: &'static str) -> Option<Map<'n, 'p>> {
        let node = self.node(key)?;
        Map::of(node, self.scope.below(key), self.problems)
    }

    /// The maps in the list under `key`.
    pub fn children(&mut self, key: &'static str) -> Vec<Map<'n, 'p>> {
        let mut maps = Vec::new();
        for (index, node) in self.elements(key).iter().enumerate() {
            let scope = match self.scope.below(key) {
                Scope::Path(path) => Scope::Path(format!("{path}[{index}]")),
                named @ Scope::Named(_) => named,
            };
            maps.extend(Map::of(node, scope, self.problems));
        }
        maps
    }

    /// Reads a map of any keys to texts, each passed to `check`.
    pub fn texts<E: Display>(
        &mut self,
        key: &'static str,
        check: impl Fn(&str, &str) -> Result<(), E>,
    ) -> BTreeMap<String, String> {
        let Some(child) = self.child(key) else { return BTreeMap::new() };
        let mut texts = BTreeMap::new();
        for (name, _, node) in child.entries {
            let text = values::text(node);
            let checked = text.and_then(|t| check(name, &t).map(|()| t).map_err(|e| e.to_string()));
            match checked {
                Ok(text) => drop(texts.insert(name.clone(), text)),
                Err(message) => child.fault(name, message),
            }
        }
        texts
    }

    /// Reports every key nobody asked for. Call it last.
    pub fn finish(self) {
        for (key, place, _) in self.entries {
            if !self.asked.iter().any(|asked| asked == key) {
                let known = self.asked.iter().map(|key| format!("`{key}`"));
                let known = known.collect::<Vec<_>>().join(", ");
                let message = if known.is_empty() {
                    format!("unknown key `{key}`; none is expected here")
                } else {
                    format!("unknown key `{key}`; there are {known}")
                };
                self.problems.report(*place, self.scope.clone().text(), message);
            }
        }
    }
}
