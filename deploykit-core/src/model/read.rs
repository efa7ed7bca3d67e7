//! Reading an app from a file: every problem at once.

use std::collections::{BTreeMap, BTreeSet};

use serde_path_to_error::Segment;

use super::App;
use super::name;
use super::text::{Path, instead, shown};
use super::tree::{Entry, Fault, Found, Node};
use super::validate::Problems;
use crate::error::{Error, Problem, Result};

/// Largest file that is read, in bytes: apps are kept with each revision, where backends have
/// room for little.
pub const MAX_FILE: usize = 4 << 20;

/// The maps of an app whose keys are names that other places refer to.
const NAMED: [&str; 6] = ["services", "jobs", "networks", "volumes", "secrets", "configs"];

impl App {
    /// Reads an app from YAML, or JSON, which is YAML too, and validates it.
    ///
    /// Texts are not guessed: where a text is wanted, a number or `true` has to be quoted. A key
    /// that is given twice is refused, as is a file of more than 4 MiB or one whose aliases expand
    /// to much more than it holds.
    ///
    /// ```
    /// use deploykit_core::model::App;
    /// let error = App::from_yaml("{name: blog, services: {web: {image: {binary: /bin/web}, prots: []}}}");
    /// assert_eq!(
    ///     error.unwrap_err().problems()[0].path, "services.web.prots"
    /// );
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) with every problem.
    pub fn from_yaml(text: &str) -> Result<Self> {
        let mut problems = Problems::default();
        let app = read(text, &mut problems);
        let problems = problems.finish();
        match app {
            Some(app) if problems.is_empty() => Ok(app),
            _ => Err(Error::invalid("read the app", problems)),
        }
    }

    /// The app as YAML, which [`App::from_yaml`] reads back to the same app.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) where a path is not UTF-8.
    pub fn to_yaml(&self) -> Result<String> {
        serde_saphyr::to_string(self)
            .map_err(|e| Error::invalid("write the app", vec![Problem::new("", e.to_string(), "")]))
    }
}

fn read(text: &str, problems: &mut Problems) -> Option<App> {
    let (app, unsure) = structure(text, problems)?;
    if let Some(unsure) = unsure {
        app.check(&unsure, problems);
    }
    Some(app)
}

/// The app without a look across its fields, and the services and jobs of which something could
/// not be read; nothing for these where so much is missing that no look is worth it.
fn structure(text: &str, problems: &mut Problems) -> Option<(App, Option<BTreeSet<String>>)> {
    if text.len() > MAX_FILE {
        let what = format!("the file has {} bytes, more than {MAX_FILE}", text.len());
        problems.add(Path::default(), what, "put large contents into images or volumes");
        return None;
    }
    let mut tree = match parse(text) {
        Ok(tree) => tree,
        Err(e) => {
            problems.add(Path::default(), e.without_snippet().to_string(), "");
            return None;
        }
    };
    if !matches!(tree, Node::Map(_)) {
        let fix = "write `name:`, `services:` and so on";
        problems.add(Path::default(), "the file is no mapping", fix);
        return None;
    }
    let mut repair =
        Repair { problems, unsure: BTreeSet::new(), renamed: BTreeMap::new(), lost: false };
    repair.duplicates(&mut tree, &mut Vec::new());
    let app = repair.read(&mut tree)?;
    let unsure = (!repair.lost).then_some(repair.unsure);
    Some((app, unsure))
}

fn parse(text: &str) -> Result<Node, serde_saphyr::Error> {
    use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: 1,
            max_depth: 32,
            max_events: 400_000,
            max_aliases: 1_000,
            max_total_scalar_bytes: 2 * MAX_FILE,
            max_recorded_anchor_bytes: 2 * MAX_FILE,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 100_000,
        },
        emit_comments: false,
        // Found again in the tree, where all of them are, with their paths.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
    };
    serde_saphyr::from_str_with_options(text, options)
}

/// A step from a node to one below it.
#[derive(Clone, Debug, PartialEq)]
enum Hop {
    Key(String),
    /// The place in the list as it was written.
    Index(usize),
}

/// Takes out of a tree what cannot be read, until the rest can.
struct Repair<'a> {
    problems: &'a mut Problems,
    /// The services and jobs that something was taken out of: what they say across fields is not
    /// checked.
    unsure: BTreeSet<String>,
    /// Invalid names, by the valid ones that stand for them meanwhile.
    renamed: BTreeMap<String, String>,
    /// Whether whole maps of names are gone: references to them are not checked.
    lost: bool,
}

impl Repair<'_> {
    /// Reports keys that are given twice, and keeps the first of each.
    fn duplicates(&mut self, node: &mut Node, hops: &mut Vec<Hop>) {
        match node {
            Node::Map(map) => {
                let mut first = BTreeMap::new();
                let mut kept = Vec::new();
                for mut entry in std::mem::take(map) {
                    hops.push(Hop::Key(entry.key.clone()));
                    if let Some(line) = first.get(&entry.key) {
                        let key = shown(&entry.key);
                        let what =
                            format!("`{key}` is there twice, in lines {line} and {}", entry.line);
                        self.problems.add(
                            self.path(hops),
                            what,
                            "give each its own name, or keep one",
                        );
                        self.unsure(hops);
                    } else {
                        first.insert(entry.key.clone(), entry.line);
                        self.duplicates(&mut entry.value, hops);
                        kept.push(entry);
                    }
                    hops.pop();
                }
                *map = kept;
            }
            Node::List(list) => {
                for (index, element) in list.iter_mut().enumerate() {
                    hops.push(Hop::Index(index));
                    if let Some(element) = element {
                        self.duplicates(element, hops);
                    }
                    hops.pop();
                }
            }
            _ => {}
        }
    }

    fn path(&self, hops: &[Hop]) -> Path {
        hops.iter().fold(Path::default(), |path, hop| match hop {
            Hop::Key(key) => path.field(self.renamed.get(key).unwrap_or(key)),
            Hop::Index(index) => path.index(*index),
        })
    }

    fn unsure(&mut self, hops: &[Hop]) {
        if let [Hop::Key(map), Hop::Key(name), ..] = hops
            && matches!(map.as_str(), "services" | "jobs")
        {
            self.unsure.insert(name.clone());
        }
    }

    fn read(&mut self, tree: &mut Node) -> Option<App> {
        let mut removed = Vec::new();
        while !self.problems.is_full() {
            let error = match serde_path_to_error::deserialize(&*tree) {
                Ok(app) => return Some(app),
                Err(error) => error,
            };
            let mut hops = hops(tree, error.path());
            match error.inner() {
                Fault::MissingField(field) => {
                    hops.push(Hop::Key((*field).to_owned()));
                    if !removed.contains(&hops) {
                        let what = format!("`{field}` is missing");
                        self.problems.add(self.path(&hops), what, "give it a value");
                    }
                    hops.pop();
                }
                fault => self.report(&hops, fault),
            }
            self.unsure(&hops);
            if !self.take_out(tree, &mut hops) {
                return None;
            }
            removed.push(hops);
        }
        None
    }

    fn report(&mut self, hops: &[Hop], fault: &Fault) {
        let fix = match fault {
            Fault::UnknownField { field: word, known }
            | Fault::UnknownVariant { variant: word, known } => {
                instead(word, known.iter().copied(), "remove it")
            }
            Fault::Type { found: Found::Scalar(_), wanted } if wanted == "a text" => {
                "write it in quotes".to_owned()
            }
            Fault::Type { found: Found::Other("nothing"), wanted } if wanted == "a mapping" => {
                "write `{}` for one with nothing in it".to_owned()
            }
            Fault::Type { .. } | Fault::MissingField(_) | Fault::Other(_) => String::new(),
        };
        self.problems.add(self.path(hops), fault.to_string(), fix);
    }

    /// Takes an element out, or puts a plain one in its place where others may refer to it.
    /// Returns whether the tree has changed.
    fn take_out(&mut self, tree: &mut Node, hops: &mut Vec<Hop>) -> bool {
        match hops.as_slice() {
            [] => {
                // Only the app's name is required at the top.
                let Node::Map(map) = tree else { return false };
                let name = Node::Text("app".to_owned());
                let absent = map.iter().all(|entry| entry.key != "name");
                if absent {
                    map.push(Entry { key: "name".to_owned(), line: 0, value: name });
                }
                absent
            }
            [Hop::Key(map), Hop::Key(key)] if NAMED.contains(&map.as_str()) => {
                let Some(entry) = entry(tree, map, key) else { return false };
                if name::check(key).is_err() {
                    // Its content is still worth reading.
                    let stand_in = format!("invalid-{}", self.renamed.len());
                    let invalid = std::mem::replace(&mut entry.key, stand_in.clone());
                    self.renamed.insert(stand_in.clone(), invalid);
                    self.unsure.insert(stand_in);
                    return true;
                }
                let plain = stub(map);
                let changed = entry.value != plain;
                entry.value = plain;
                changed
            }
            [Hop::Key(key)] => {
                let taken = take(tree, hops);
                self.lost |= matches!(taken, Some(Node::Map(_))) || NAMED.contains(&key.as_str());
                taken.is_some()
            }
            _ => {
                let taken = take(tree, hops).is_some();
                // An empty mapping of our own making is no mistake of the author's.
                while hops.len() > 3
                    && matches!(at(tree, &hops[..hops.len() - 1]), Some(Node::Map(map)) if map.is_empty())
                {
                    hops.pop();
                    take(tree, hops);
                }
                taken
            }
        }
    }
}

/// The least that can stand for an entry that cannot be read.
fn stub(map: &str) -> Node {
    let entry = |key: &str, value| Node::Map(vec![Entry { key: key.to_owned(), line: 0, value }]);
    match map {
        "services" | "jobs" => entry("image", entry("binary", Node::Text("/".to_owned()))),
        "configs" => entry("content", Node::Text(String::new())),
        _ => Node::Map(Vec::new()),
    }
}

fn entry<'a>(tree: &'a mut Node, map: &str, key: &str) -> Option<&'a mut Entry> {
    let Node::Map(entries) = at(tree, &[Hop::Key(map.to_owned())])? else { return None };
    entries.iter_mut().find(|entry| entry.key == key)
}

fn at<'a>(tree: &'a mut Node, hops: &[Hop]) -> Option<&'a mut Node> {
    hops.iter().try_fold(tree, |node, hop| match (node, hop) {
        (Node::Map(map), Hop::Key(key)) => {
            map.iter_mut().find(|entry| entry.key == *key).map(|entry| &mut entry.value)
        }
        (Node::List(list), Hop::Index(index)) => list.get_mut(*index)?.as_mut(),
        _ => None,
    })
}

fn take(tree: &mut Node, hops: &[Hop]) -> Option<Node> {
    let (last, before) = hops.split_last()?;
    match (at(tree, before)?, last) {
        (Node::Map(map), Hop::Key(key)) => {
            let index = map.iter().position(|entry| entry.key == *key)?;
            Some(map.remove(index).value)
        }
        (Node::List(list), Hop::Index(index)) => list.get_mut(*index)?.take(),
        _ => None,
    }
}

/// Where serde was, in the tree as it was written.
fn hops(tree: &Node, path: &serde_path_to_error::Path) -> Vec<Hop> {
    let mut hops = Vec::new();
    let mut node = Some(tree);
    for segment in path {
        let key = match segment {
            Segment::Seq { index } => {
                let Some(Node::List(list)) = node else { break };
                let mut left = list.iter().enumerate().filter(|(_, element)| element.is_some());
                let Some((index, element)) = left.nth(*index) else { break };
                hops.push(Hop::Index(index));
                node = element.as_ref();
                continue;
            }
            Segment::Map { key } | Segment::Enum { variant: key } => key,
            Segment::Unknown => break,
        };
        // The word of a choice without a value is the node itself.
        let Some(Node::Map(map)) = node else { break };
        let Some(entry) = map.iter().find(|entry| entry.key == *key) else { break };
        hops.push(Hop::Key(key.clone()));
        node = Some(&entry.value);
    }
    hops
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
