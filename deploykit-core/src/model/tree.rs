//! A file as a tree, from which elements can be taken out while it is being read.
//!
//! Its deserializer's error keeps what serde knows (which field, which were known), so that no
//! message has to be taken apart.

use std::fmt::{self, Display};

use serde::de::value::{MapDeserializer, SeqDeserializer, StrDeserializer};
use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer,
    MapAccess, SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_saphyr::Spanned;

use super::text::shown;

/// A value of a file.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
    /// Elements that have been taken out keep their place, so that others keep their index.
    List(Vec<Option<Node>>),
    Map(Vec<Entry>),
}

/// An entry of a map.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: u64,
    pub(super) value: Node,
}

/// Why a tree is not what it should be.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fault {
    UnknownField { field: String, known: &'static [&'static str] },
    UnknownVariant { variant: String, known: &'static [&'static str] },
    MissingField(&'static str),
    Type { found: Found, wanted: String },
    Other(String),
}

/// What was found where something else was wanted.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Found {
    /// A number, or true or false.
    Scalar(String),
    Text(String),
    Other(&'static str),
}

impl Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scalar(value) => write!(f, "`{value}`"),
            Self::Text(text) => write!(f, "the text `{}`", shown(text)),
            Self::Other(words) => f.write_str(words),
        }
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownField { field, .. } => write!(f, "unknown field `{}`", shown(field)),
            Self::UnknownVariant { variant, .. } => write!(f, "unknown word `{}`", shown(variant)),
            Self::MissingField(field) => write!(f, "`{field}` is missing"),
            Self::Type { found, wanted } => write!(f, "{found} where {wanted} is wanted"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: Display>(text: T) -> Self {
        Self::Other(text.to_string())
    }
    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        Self::UnknownField { field: field.to_owned(), known }
    }
    fn unknown_variant(variant: &str, known: &'static [&'static str]) -> Self {
        Self::UnknownVariant { variant: variant.to_owned(), known }
    }
    fn missing_field(field: &'static str) -> Self {
        Self::MissingField(field)
    }
    fn invalid_type(found: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        Self::Type { found: found.into(), wanted: wanted_words(&wanted.to_string()) }
    }
    fn invalid_value(found: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        Self::invalid_type(found, wanted)
    }
}

impl From<Unexpected<'_>> for Found {
    fn from(found: Unexpected<'_>) -> Self {
        match found {
            Unexpected::Bool(b) => Self::Scalar(b.to_string()),
            Unexpected::Unsigned(n) => Self::Scalar(n.to_string()),
            Unexpected::Signed(n) => Self::Scalar(n.to_string()),
            Unexpected::Float(n) => Self::Scalar(n.to_string()),
            Unexpected::Str(text) => Self::Text(text.to_owned()),
            Unexpected::Seq => Self::Other("a list"),
            Unexpected::Map => Self::Other("a mapping"),
            // A tree has no other values.
            _ => Self::Other("nothing"),
        }
    }
}

/// serde's words for what a type expects, in those of a file's author.
fn wanted_words(wanted: &str) -> String {
    let words = match wanted {
        "a string" | "string" => "a text",
        "a map" => "a mapping",
        "a sequence" => "a list",
        "a boolean" => "true or false",
        "u16" => "a whole number from 0 to 65535",
        "u32" | "u64" => "a whole number",
        _ if wanted.starts_with("struct ") => "a mapping",
        other => other,
    };
    words.to_owned()
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Build;
        impl<'de> Visitor<'de> for Build {
            type Value = Node;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Null)
            }
            fn visit_none<E>(self) -> Result<Node, E> {
                Ok(Node::Null)
            }
            fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Node, D::Error> {
                Node::deserialize(d)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
                Ok(Node::Bool(value))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
                Ok(Node::Unsigned(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
                Ok(u64::try_from(value).map_or(Node::Signed(value), Node::Unsigned))
            }
            fn visit_u128<E>(self, value: u128) -> Result<Node, E> {
                Ok(Node::Text(value.to_string()))
            }
            fn visit_i128<E>(self, value: i128) -> Result<Node, E> {
                Ok(Node::Text(value.to_string()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
                Ok(Node::Float(value))
            }
            fn visit_str<E>(self, value: &str) -> Result<Node, E> {
                Ok(Node::Text(value.to_owned()))
            }
            fn visit_string<E>(self, value: String) -> Result<Node, E> {
                Ok(Node::Text(value))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
                let mut list = Vec::new();
                while let Some(node) = seq.next_element()? {
                    list.push(Some(node));
                }
                Ok(Node::List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut entries = Vec::new();
                while let Some(key) = map.next_key::<Spanned<String>>()? {
                    let line = key.referenced.line();
                    entries.push(Entry { key: key.value, line, value: map.next_value()? });
                }
                Ok(Node::Map(entries))
            }
        }
        deserializer.deserialize_any(Build)
    }
}

impl Node {
    fn unexpected(&self) -> Unexpected<'_> {
        match self {
            Self::Null => Unexpected::Unit,
            Self::Bool(b) => Unexpected::Bool(*b),
            Self::Unsigned(n) => Unexpected::Unsigned(*n),
            Self::Signed(n) => Unexpected::Signed(*n),
            Self::Float(n) => Unexpected::Float(*n),
            Self::Text(text) => Unexpected::Str(text),
            Self::List(_) => Unexpected::Seq,
            Self::Map(_) => Unexpected::Map,
        }
    }
}

impl<'de> IntoDeserializer<'de, Fault> for &'de Node {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self {
            Node::Null => visitor.visit_unit(),
            Node::Bool(b) => visitor.visit_bool(*b),
            Node::Unsigned(n) => visitor.visit_u64(*n),
            Node::Signed(n) => visitor.visit_i64(*n),
            Node::Float(n) => visitor.visit_f64(*n),
            Node::Text(text) => visitor.visit_borrowed_str(text),
            Node::List(list) => visitor.visit_seq(SeqDeserializer::new(list.iter().flatten())),
            Node::Map(map) => {
                let entries = map.iter().map(|entry| (entry.key.as_str(), &entry.value));
                visitor.visit_map(MapDeserializer::new(entries))
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self {
            Node::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self {
            Node::Map(_) => self.deserialize_any(visitor),
            // serde would take a list for a struct's fields in their order.
            other => {
                Err(de::Error::invalid_type(other.unexpected(), &format!("struct {name}").as_str()))
            }
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self {
            Node::Text(variant) => visitor.visit_enum(Variant { variant, value: None }),
            Node::Map(map) if map.len() == 1 => {
                let Entry { key, value, .. } = &map[0];
                visitor.visit_enum(Variant { variant: key, value: Some(value) })
            }
            Node::Map(map) if map.len() > 1 => {
                let given: Vec<&str> = map.iter().map(|entry| entry.key.as_str()).collect();
                Err(Fault::Other(format!("only one of {} can be given", given.join(", "))))
            }
            other => Err(Fault::Type {
                found: other.unexpected().into(),
                wanted: format!("one of {}", known.join(", ")),
            }),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

/// A choice: a word alone, or a map of one entry.
struct Variant<'de> {
    variant: &'de str,
    value: Option<&'de Node>,
}

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Fault> {
        let word: StrDeserializer<'de, Fault> = self.variant.into_deserializer();
        Ok((seed.deserialize(word)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        match self.value {
            None | Some(Node::Null) => Ok(()),
            Some(_) => Err(Fault::Other(format!("`{}` takes no value", self.variant))),
        }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Fault> {
        match self.value {
            Some(value) => seed.deserialize(value),
            None => Err(Fault::Other(format!("`{}` needs a value", self.variant))),
        }
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.newtype_variant_seed(Own(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.newtype_variant_seed(Own(visitor))
    }
}

/// A visitor as a seed.
struct Own<V>(V);

impl<'de, V: Visitor<'de>> DeserializeSeed<'de> for Own<V> {
    type Value = V::Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        deserializer.deserialize_any(self.0)
    }
}
