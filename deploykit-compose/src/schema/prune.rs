//! Takes out what says no more than its absence does.

use super::{Empty, Key, Shape};
use crate::yaml::{Node, Value};

/// Takes out of `node`, which has been checked against `shape`, what says nothing.
pub(crate) fn prune(node: &mut Node, shape: &Shape) {
    match shape {
        Shape::Object(object) => {
            let Some(map) = node.as_map_mut() else { return };
            map.retain(|name, entry| {
                let Some(key) = object.keys.iter().find(|key| key.name == name) else {
                    return true;
                };
                prune(&mut entry.node, &key.shape);
                !says_nothing(&entry.node, key)
            });
        }
        Shape::List(inner) => node.items_mut().iter_mut().for_each(|item| prune(item, inner)),
        Shape::Map(inner) | Shape::Named(inner) => {
            node.entries_mut().for_each(|(_, entry)| prune(entry, inner));
        }
        Shape::Short(_, inner) | Shape::Optional(inner) | Shape::Once(inner) => {
            prune(node, inner);
        }
        _ => {}
    }
}

fn says_nothing(node: &Node, key: &Key) -> bool {
    match key.empty {
        Empty::Something => node.is_null(),
        Empty::Absent => is_empty(node, &key.shape),
        Empty::Nothing => match &node.value {
            Value::Map(map) => map.is_empty(),
            Value::String(text) => text == "0s",
            _ => is_empty(node, &key.shape),
        },
    }
}

fn is_empty(node: &Node, shape: &Shape) -> bool {
    match (&node.value, shape) {
        (_, Shape::Short(_, inner) | Shape::Optional(inner) | Shape::Once(inner)) => {
            is_empty(node, inner)
        }
        (Value::Map(_), Shape::Object(_)) => false,
        (Value::String(bytes), Shape::Bytes | Shape::Size) => bytes == "0",
        (Value::Map(map), _) => map.is_empty(),
        (Value::List(items), _) => items.is_empty(),
        (Value::Bool(value), _) => !value,
        (Value::Int(number), _) => *number == 0,
        (Value::String(text), _) => text.is_empty(),
        (Value::Null, _) => true,
        (Value::Float(number), _) => *number == 0.0,
    }
}
