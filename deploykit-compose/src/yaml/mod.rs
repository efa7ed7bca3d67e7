//! YAML as a tree whose every node knows where it stands.

mod parse;
mod scalar;
mod write;

use indexmap::IndexMap;
use serde::{Serialize, Serializer};

pub(crate) use parse::{MAX_BYTES, parse};
pub(crate) use scalar::format_float;
pub use write::to_yaml;
pub(crate) use write::without_variables;

/// Where something stands: bytes of one of the sources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The number of the source.
    pub source: u32,
    /// The first byte.
    pub start: u32,
    /// The byte behind the last one.
    pub end: u32,
}

impl Span {
    /// Whether one of the two lies within the other.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        let within = |a: Self, b: Self| b.start <= a.start && a.end <= b.end;
        self.source == other.source && (within(self, other) || within(other, self))
    }
}

/// What a tag says about merging.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Nothing.
    #[default]
    None,
    /// `!reset`: takes away what is there.
    Reset,
    /// `!override`: replaces what is there instead of merging with it.
    Override,
}

/// A value of a Compose file and where it stands. Two nodes are equal when their values are.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Where it stands.
    pub span: Span,
    pub(crate) mark: Mark,
}

/// A mapping in the order of the file; each key with the place where it stands.
pub type Mapping = IndexMap<String, Entry>;

/// A key's place, and its value.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// Where the key stands.
    pub key: Span,
    /// The value.
    pub node: Node,
}

/// A value of a Compose file.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// Nothing.
    #[default]
    Null,
    /// Yes or no.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// A text.
    String(String),
    /// Several values.
    List(Vec<Node>),
    /// Values by name.
    Map(Mapping),
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.node == other.node
    }
}

impl Node {
    pub(crate) fn new(value: Value, span: Span) -> Self {
        Self { value, span, mark: Mark::None }
    }

    /// A text that stands where `self` does.
    pub(crate) fn text(&self, text: impl Into<String>) -> Self {
        Self::new(Value::String(text.into()), self.span)
    }

    /// A mapping with these entries, which stands where `self` does.
    pub(crate) fn map<const N: usize>(&self, entries: [(&str, Value); N]) -> Self {
        let mut map = Mapping::new();
        for (key, value) in entries {
            map.insert(key.into(), Entry { key: self.span, node: Self::new(value, self.span) });
        }
        Self::new(Value::Map(map), self.span)
    }

    /// How many values it comes to.
    pub(crate) fn size(&self) -> usize {
        1 + match &self.value {
            Value::List(items) => items.iter().map(Self::size).sum(),
            Value::Map(map) => map.values().map(|entry| entry.node.size()).sum(),
            _ => 0,
        }
    }

    /// Whether there is nothing.
    pub fn is_null(&self) -> bool {
        self.value == Value::Null
    }

    /// The text, where it is one.
    pub fn as_str(&self) -> Option<&str> {
        if let Value::String(text) = &self.value { Some(text) } else { None }
    }

    /// The whole number, where it is one.
    pub fn as_int(&self) -> Option<i64> {
        if let Value::Int(number) = &self.value { Some(*number) } else { None }
    }

    /// Yes or no, where it is one.
    pub fn as_bool(&self) -> Option<bool> {
        if let Value::Bool(value) = &self.value { Some(*value) } else { None }
    }

    /// The values of a list; none where it is no list.
    pub fn items(&self) -> &[Node] {
        if let Value::List(items) = &self.value { items } else { &[] }
    }

    /// The entries, where it is a mapping.
    pub fn as_map(&self) -> Option<&Mapping> {
        if let Value::Map(map) = &self.value { Some(map) } else { None }
    }

    pub(crate) fn as_map_mut(&mut self) -> Option<&mut Mapping> {
        if let Value::Map(map) = &mut self.value { Some(map) } else { None }
    }

    pub(crate) fn items_mut(&mut self) -> &mut [Node] {
        if let Value::List(items) = &mut self.value { items } else { &mut [] }
    }

    /// The names and values of a mapping; none where it is no mapping.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.as_map().into_iter().flatten().map(|(key, entry)| (key.as_str(), &entry.node))
    }

    pub(crate) fn entries_mut(&mut self) -> impl Iterator<Item = (&str, &mut Node)> {
        let entries = self.as_map_mut().into_iter().flatten();
        entries.map(|(key, entry)| (key.as_str(), &mut entry.node))
    }

    /// The value of that name, where it is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        Some(&self.as_map()?.get(key)?.node)
    }

    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        Some(&mut self.as_map_mut()?.get_mut(key)?.node)
    }

    /// The text of that name, where it is a mapping that has it.
    pub fn str(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }

    /// Adds or replaces a value of a mapping; nothing where it is none.
    pub(crate) fn set(&mut self, key: &str, value: Value) {
        let span = self.span;
        if let Some(map) = self.as_map_mut() {
            map.insert(key.into(), Entry { key: span, node: Self::new(value, span) });
        }
    }

    /// Adds a list or mapping that is not empty.
    pub(crate) fn set_some(&mut self, key: &str, value: Value) {
        match &value {
            Value::List(items) if items.is_empty() => {}
            Value::Map(map) if map.is_empty() => {}
            _ => self.set(key, value),
        }
    }

    /// Takes a value out of a mapping.
    pub(crate) fn take(&mut self, key: &str) -> Option<Node> {
        Some(self.as_map_mut()?.shift_remove(key)?.node)
    }

    /// Adds or replaces a value of a mapping with its own place; nothing where it is none.
    pub(crate) fn put(&mut self, key: &str, node: Node) {
        if let Some(map) = self.as_map_mut() {
            map.insert(key.into(), Entry { key: node.span, node });
        }
    }

    /// A scalar as text: numbers in decimal, nothing where it is no scalar or there is nothing.
    pub(crate) fn scalar_text(&self) -> Option<String> {
        match &self.value {
            Value::Bool(value) => Some(value.to_string()),
            Value::Int(number) => Some(number.to_string()),
            Value::Float(number) => Some(format_float(*number)),
            Value::String(text) => Some(text.clone()),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// The word for what kind of value it is.
    pub(crate) fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "yes or no",
            Value::Int(_) => "a whole number",
            Value::Float(_) => "a number",
            Value::String(_) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

/// As JSON has it.
impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.value {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Int(number) => serializer.serialize_i64(*number),
            Value::Float(number) => serializer.serialize_f64(*number),
            Value::String(text) => serializer.serialize_str(text),
            Value::List(items) => serializer.collect_seq(items),
            Value::Map(map) => {
                serializer.collect_map(map.iter().map(|(key, entry)| (key, &entry.node)))
            }
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text)
    }
}
