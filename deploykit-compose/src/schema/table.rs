//! The table of what becomes of every key.

use std::fmt::Write;

use super::{Becomes, Object, PROJECT, Shape};

/// What becomes of every key of a Compose file, as a page of Markdown. The library's repository
/// has it as `docs/compose-keys.md`.
pub fn keys_table() -> String {
    let mut out = String::from(
        "# Keys of Compose files\n\n\
         What becomes of every key of the\n\
         [Compose specification](https://github.com/compose-spec/compose-spec) when a project is\n\
         turned into DeployKit's model. Nothing is dropped silently: a key that is *refused* is an\n\
         error; one that is *allowed by name* is an error too, unless the caller names it among\n\
         those that may be left out. Keys that begin with `x-` are the file's own and are ignored.\n\n\
         Generated from the tables in `deploykit-compose/src/schema`; a test holds it to them.\n\n\
         | key | becomes | in the model, or why not |\n|---|---|---|\n",
    );
    rows(&mut out, &PROJECT, "", None);
    out
}

/// The mapping that a value is, or that its items are, and what stands for their names in a path.
pub(crate) fn object_of(shape: &Shape) -> Option<(&'static Object, &'static str)> {
    match shape {
        Shape::Object(object) => Some((object, "")),
        Shape::Optional(inner) | Shape::Once(inner) | Shape::Short(_, inner) => object_of(inner),
        Shape::List(inner) => object_of(inner).map(|(object, _)| (object, "[]")),
        Shape::Map(inner) | Shape::Named(inner) => {
            object_of(inner).map(|(object, _)| (object, ".*"))
        }
        _ => None,
    }
}

fn rows(out: &mut String, object: &Object, path: &str, parent: Option<Becomes>) {
    for key in object.keys {
        let name =
            if path.is_empty() { key.name.to_owned() } else { format!("{path}.{}", key.name) };
        // What has nothing to say of its own follows what it is part of.
        let becomes = match (key.becomes, parent) {
            (Becomes::Inner, Some(parent @ (Becomes::Allowed(_) | Becomes::Refused(_)))) => parent,
            (own, _) => own,
        };
        let inner = object_of(&key.shape);
        let (word, why) = match becomes {
            Becomes::Inner => ("", ""),
            Becomes::Loaded => ("used by loading", ""),
            Becomes::Model(part) => ("mapped", part),
            Becomes::Allowed(why) => ("allowed by name", why),
            Becomes::Refused(why) => ("refused", why),
        };
        if !word.is_empty() {
            let _ = writeln!(out, "| `{name}` | {word} | {why} |");
        }
        if let Some((inner, suffix)) = inner {
            rows(out, inner, &format!("{name}{suffix}"), Some(becomes));
        }
    }
}
