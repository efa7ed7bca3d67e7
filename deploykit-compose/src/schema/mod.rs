//! The keys of a Compose file: what each takes, and what becomes of it in the model.

mod check;
mod convert;
mod deploy;
mod prune;
mod resources;
mod service;
mod table;

use crate::yaml::{Node, Span, Value};

pub(crate) use check::{Checker, MOST_PROBLEMS, nearest};
pub(crate) use convert::{count_all, volume as long_volume};
pub(crate) use prune::prune;
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
    /// True or false, and nothing that stands for it.
    Flag,
    /// A whole number.
    Int(Int),
    /// A number, or a text of one.
    Number,
    /// A duration.
    Duration,
    /// An amount of bytes, kept as a text of its number.
    Bytes,
    /// The same, but neither -1 nor a fraction.
    Size,
    /// A text, or what else is allowed; kept as text.
    Scalar(&'static [Kind]),
    /// The permissions of a file, kept as an octal text.
    Mode,
    /// A list.
    List(&'static Shape),
    /// Values by names of the caller's choice.
    Map(&'static Shape),
    /// The same, where the names are those of services, networks and so on.
    Named(&'static Shape),
    /// This; where it is written as a list, no item may be there twice.
    Once(&'static Shape),
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

/// What a scalar may be beside a text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Int,
    Bool,
    Float,
    Null,
}

/// Which whole numbers are taken.
#[derive(Clone, Copy)]
pub(crate) struct Int {
    min: i64,
    max: i64,
    /// Whether a text of a number is taken too.
    text: bool,
    /// Whether a fraction is cut off.
    cut: bool,
}

impl Int {
    fn of(self, value: &Value) -> Option<i64> {
        let number = match value {
            Value::Int(number) => Some(*number),
            Value::String(text) if self.text => text.parse().ok(),
            Value::Float(number) if number.is_finite() && (self.cut || number.fract() == 0.0) => {
                Some(*number as i64)
            }
            _ => None,
        };
        number.filter(|number| (self.min..=self.max).contains(number))
    }
}

/// Brings a value to its long form; else says what is wrong where.
pub(crate) type Long = fn(&mut Node) -> Result<(), (Span, String)>;

/// The keys of a mapping.
pub(crate) struct Object {
    pub(crate) keys: &'static [Key],
    pub(crate) required: &'static [&'static str],
    /// Whether keys that begin with `x-` are the caller's own.
    pub(crate) extensible: bool,
}

const fn object(keys: &'static [Key]) -> Object {
    Object { keys, required: &[], extensible: true }
}

const fn requiring(required: &'static [&'static str], keys: &'static [Key]) -> Object {
    Object { keys, required, extensible: true }
}

const fn closed(required: &'static [&'static str], keys: &'static [Key]) -> Object {
    Object { keys, required, extensible: false }
}

/// One key.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) becomes: Becomes,
    empty: Empty,
}

/// What an empty value (0, no, nothing in it) says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Empty {
    /// The same as its absence; but a mapping with keys of its own, and a duration, is more.
    Absent,
    /// The same as its absence, whatever it is.
    Nothing,
    /// Something else than its absence.
    Something,
}

impl Key {
    /// Its zero is a value like others.
    const fn meant(mut self) -> Self {
        self.empty = Empty::Something;
        self
    }

    /// Its zero says nothing, be it a mapping or a duration.
    const fn plain(mut self) -> Self {
        self.empty = Empty::Nothing;
        self
    }
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
    Key { name, shape, becomes: Becomes::Inner, empty: Empty::Absent }
}

const fn loaded(name: &'static str, shape: Shape) -> Key {
    Key { name, shape, becomes: Becomes::Loaded, empty: Empty::Absent }
}

const fn model(name: &'static str, shape: Shape, part: &'static str) -> Key {
    Key { name, shape, becomes: Becomes::Model(part), empty: Empty::Absent }
}

const fn allowed(name: &'static str, shape: Shape, reason: &'static str) -> Key {
    Key { name, shape, becomes: Becomes::Allowed(reason), empty: Empty::Absent }
}

const fn refused(name: &'static str, shape: Shape, reason: &'static str) -> Key {
    Key { name, shape, becomes: Becomes::Refused(reason), empty: Empty::Absent }
}

const fn int(min: i64, max: i64) -> Shape {
    Shape::Int(Int { min, max, text: true, cut: false })
}

const INT: Shape = int(i64::MIN, i64::MAX);
const NATURAL: Shape = int(0, i64::MAX);
/// A number whose fraction is cut off, or a text of a whole one.
const CUT: Shape = Shape::Int(Int { min: i64::MIN, max: i64::MAX, text: true, cut: true });
/// A number whose fraction is cut off.
const CUT_NUMBER: Shape = Shape::Int(Int { min: i64::MIN, max: i64::MAX, text: false, cut: true });
/// A whole number that is no text.
const EXACT: Shape = Shape::Int(Int { min: i64::MIN, max: i64::MAX, text: false, cut: false });
/// A whole number from 0 that is no text.
const WEIGHT: Shape = Shape::Int(Int { min: 0, max: i64::MAX, text: false, cut: false });
/// Permissions as a number.
const MODE: Shape = Shape::Int(Int { min: 0, max: i64::MAX, text: false, cut: true });
const OPTIONS: Shape = Shape::Map(&Shape::Scalar(&[Kind::Int, Kind::Float]));
const TEXT_SET: Shape = Shape::Once(&TEXT_LIST);
const TEXT_LIST: Shape = Shape::List(&Shape::Text);
