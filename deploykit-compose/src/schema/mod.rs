//! The keys of a Compose file: what each takes, and what becomes of it in the model.

mod check;
mod convert;
mod deploy;
mod resources;
mod service;
mod table;

use crate::yaml::{Node, Span};

pub(crate) use check::{check, nearest};
pub(crate) use convert::{count_all, volume as long_volume};
pub(crate) use resources::PROJECT;
pub use table::keys_table;
pub(crate) use table::object_of;

/// What a value may be, and its one normal form.
pub(crate) enum Shape {
    /// Anything.
    Any,
    /// A text.
    Text,
    /// One of these texts.
    Word(&'static [&'static str]),
    /// Yes or no; texts like `yes` and `off` too.
    Bool,
    /// A whole number within bounds, or a text of one.
    Int(i64, i64),
    /// A number, or a text of one.
    Number,
    /// A duration.
    Duration,
    /// An amount of bytes, kept as a text of its number.
    Bytes,
    /// The same, but neither -1 nor a fraction.
    Size,
    /// A scalar that is kept as text.
    Scalar,
    /// The permissions of a file, kept as an octal text.
    Mode,
    /// A list.
    List(&'static Shape),
    /// Values by names of the caller's choice.
    Map(&'static Shape),
    /// The same, where the names are those of services, networks and so on.
    Named(&'static Shape),
    /// A text, or a list of texts.
    Texts,
    /// Texts by names, or a list of `name=value`; a name without a value has nothing.
    Variables,
    /// The same, where a name without a value has the empty text.
    Labels,
    /// A command line, or a list of words.
    Command,
    /// Nothing, or this.
    Optional(&'static Shape),
    /// A mapping with these keys.
    Object(&'static Object),
    /// A value that is brought to its long form first, and then is this.
    Short(Long, &'static Shape),
}

/// Brings a value to its long form; else says what is wrong where.
pub(crate) type Long = fn(&mut Node) -> Result<(), (Span, String)>;

/// The keys of a mapping; keys that begin with `x-` are the caller's own.
pub(crate) struct Object {
    pub(crate) keys: &'static [Key],
    pub(crate) required: &'static [&'static str],
}

/// One key.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) becomes: Becomes,
}

/// What becomes of a key in the model.
#[derive(Clone, Copy)]
pub(crate) enum Becomes {
    /// Its own keys say it.
    Inner,
    /// Used up by loading.
    Loaded,
    /// This part of the model.
    Model(&'static str),
    /// Refused, unless the caller allows that it is left out: for this reason.
    Allowed(&'static str),
    /// Always refused: for this reason.
    Refused(&'static str),
}

const fn inner(name: &'static str, shape: Shape) -> Key {
    Key { name, shape, becomes: Becomes::Inner }
}

const fn loaded(name: &'static str, shape: Shape) -> Key {
    Key { name, shape, becomes: Becomes::Loaded }
}

const fn model(name: &'static str, shape: Shape, part: &'static str) -> Key {
    Key { name, shape, becomes: Becomes::Model(part) }
}

const fn allowed(name: &'static str, shape: Shape, reason: &'static str) -> Key {
    Key { name, shape, becomes: Becomes::Allowed(reason) }
}

const fn refused(name: &'static str, shape: Shape, reason: &'static str) -> Key {
    Key { name, shape, becomes: Becomes::Refused(reason) }
}

const INT: Shape = Shape::Int(i64::MIN, i64::MAX);
const NATURAL: Shape = Shape::Int(0, i64::MAX);
const TEXT_LIST: Shape = Shape::List(&Shape::Text);
