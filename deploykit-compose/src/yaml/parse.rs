//! From text to trees: aliases and merge keys are resolved, within bounds that keep hostile files
//! from taking time or memory.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, Span as ParserSpan, Tag};

use super::{Entry, Mapping, Mark, Node, Span, Value, scalar};
use crate::diagnostic::Diagnostic;
use crate::schema::MOST_PROBLEMS;

/// The longest text that is read, in bytes.
pub(crate) const MAX_BYTES: usize = 8 << 20;
/// The most values that a source may come to once its aliases are resolved; a long text counts as
/// several.
const MAX_NODES: usize = 200_000;
/// The deepest nesting.
const MAX_DEPTH: usize = 100;

/// The documents of a text, and how many values they come to.
///
/// # Errors
/// Everything that has a key twice or one that is no text, up to where the text is no YAML or goes
/// past a bound.
pub(crate) fn parse(text: &str, source: u32) -> Result<(Vec<Node>, usize), Vec<Diagnostic>> {
    if text.len() > MAX_BYTES {
        let what = format!("the file has {} bytes; at most {MAX_BYTES} are read", text.len());
        return Err(vec![Diagnostic::new(Span { source, start: 0, end: 0 }, "", what)]);
    }
    let options = granit_parser::options! { emit_comments: false };
    let parser = Parser::new_from_str_with_options(text, options);
    let mut builder = Builder {
        source,
        anchors: HashMap::new(),
        nodes: 0,
        kept: 0,
        open: Vec::new(),
        problems: Vec::new(),
    };
    let mut documents = Vec::new();
    for event in parser {
        let event = event.map_err(|error| {
            let at = error.marker().byte_offset().unwrap_or(text.len()).min(text.len()) as u32;
            let span = Span { source, start: at, end: at + 1 };
            Diagnostic::new(span, "", format!("this is not YAML: {}", error.info()))
        });
        match event.and_then(|(event, span)| builder.event(event, builder.span(span))) {
            Ok(Some(document)) => {
                documents.push(document);
                builder.anchors.clear();
            }
            Ok(None) => {}
            Err(last) => {
                builder.problems.push(last);
                break;
            }
        }
    }
    match builder.problems.is_empty() {
        true => Ok((documents, builder.nodes)),
        false => Err(builder.problems),
    }
}

/// A list or mapping that is not finished.
struct Open {
    node: Node,
    anchor: usize,
    /// The key that waits for its value.
    key: Option<(String, Span)>,
    /// What `<<` brought, to be added behind the mapping's own entries.
    merged: Vec<Node>,
    /// How many nodes there were when it began.
    nodes_before: usize,
}

struct Builder {
    source: u32,
    /// Finished nodes by their anchors; nothing for one that is not finished. With each, how many
    /// nodes it comes to.
    anchors: HashMap<usize, Option<(Node, usize)>>,
    nodes: usize,
    /// How many nodes are kept for aliases.
    kept: usize,
    open: Vec<Open>,
    /// What is wrong with mappings; reading goes on.
    problems: Vec<Diagnostic>,
}

impl Builder {
    fn span(&self, span: ParserSpan) -> Span {
        let range = span.byte_range().unwrap_or_default();
        Span { source: self.source, start: range.start as u32, end: range.end as u32 }
    }

    fn count(&mut self, more: usize, span: Span) -> Result<(), Diagnostic> {
        self.nodes += more;
        if self.nodes > MAX_NODES {
            let what = format!("the file comes to more than {MAX_NODES} values here");
            return Err(Diagnostic::new(span, "", what).fix("use fewer aliases"));
        }
        Ok(())
    }

    /// Takes in one event; gives the document that ends with it.
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<Option<Node>, Diagnostic> {
        match event {
            Event::Alias(id) => match self.anchors.get(&id) {
                Some(Some((node, size))) => {
                    let (mut node, size) = (node.clone(), *size);
                    self.count(size, span)?;
                    node.span = span;
                    self.finished(node)
                }
                _ => Err(Diagnostic::new(span, "", "the alias stands for a value that holds it")),
            },
            Event::Scalar(text, style, anchor, tag) => {
                let size = 1 + text.len() / 64;
                self.count(size, span)?;
                let tag = tag.as_deref();
                let value = match (style, tag.and_then(Tag::core_suffix)) {
                    (_, Some("str")) => Value::String(text.into_owned()),
                    (ScalarStyle::Plain, _) => scalar::resolve(&text),
                    (_, Some("bool" | "int" | "float")) => scalar::resolve(&text),
                    _ => Value::String(text.into_owned()),
                };
                let node = Node { value, span, mark: mark(tag) };
                self.anchored(anchor, &node, size)?;
                self.finished(node)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.opened(Value::List(Vec::new()), anchor, tag.as_deref(), span)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.opened(Value::Map(Mapping::new()), anchor, tag.as_deref(), span)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(mut open) = self.open.pop() else { return Ok(None) };
                open.node.span.end = span.end.max(open.node.span.start);
                for source in open.merged {
                    for (key, entry) in source.as_map().into_iter().flatten() {
                        if let Some(map) = open.node.as_map_mut() {
                            map.entry(key.clone()).or_insert_with(|| entry.clone());
                        }
                    }
                }
                let size = self.nodes - open.nodes_before;
                self.anchored(open.anchor, &open.node, size)?;
                self.finished(open.node)
            }
            _ => Ok(None),
        }
    }

    fn opened(
        &mut self,
        value: Value,
        anchor: usize,
        tag: Option<&Tag>,
        span: Span,
    ) -> Result<Option<Node>, Diagnostic> {
        let nodes_before = self.nodes;
        self.count(1, span)?;
        if self.open.len() >= MAX_DEPTH {
            let what = format!("values are nested more than {MAX_DEPTH} deep here");
            return Err(Diagnostic::new(span, "", what));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, None);
        }
        let node = Node { value, span, mark: mark(tag) };
        self.open.push(Open { node, anchor, key: None, merged: Vec::new(), nodes_before });
        Ok(None)
    }

    fn anchored(&mut self, anchor: usize, node: &Node, size: usize) -> Result<(), Diagnostic> {
        if anchor != 0 {
            self.kept += size;
            if self.kept > MAX_NODES {
                let what = format!("the anchors stand for more than {MAX_NODES} values");
                return Err(Diagnostic::new(node.span, "", what));
            }
            self.anchors.insert(anchor, Some((node.clone(), size)));
        }
        Ok(())
    }

    /// Puts a finished node where it belongs; gives it back where it is the whole document.
    fn finished(&mut self, node: Node) -> Result<Option<Node>, Diagnostic> {
        let Some(open) = self.open.last_mut() else { return Ok(Some(node)) };
        match (&mut open.node.value, open.key.take()) {
            (Value::List(items), _) => items.push(node),
            (Value::Map(map), None) => {
                let kind = node.kind();
                let key = match node.value {
                    Value::String(key) => {
                        if let Some(earlier) = map.get(&key) {
                            let what = format!("the key `{key}` is there twice");
                            let problem = Diagnostic::new(node.span, &key, what);
                            note(&mut self.problems, problem.also(earlier.key))?;
                        }
                        key
                    }
                    _ => {
                        let what = format!("a key is a text, and this is {kind}");
                        let problem = Diagnostic::new(node.span, "", what);
                        note(&mut self.problems, problem.fix("put it in quotes"))?;
                        String::new()
                    }
                };
                open.key = Some((key, node.span));
            }
            (Value::Map(_), Some((key, _))) if key == "<<" => match node.value {
                Value::Map(_) => open.merged.push(node),
                Value::List(items) if items.iter().all(|item| item.as_map().is_some()) => {
                    open.merged.extend(items);
                }
                _ => {
                    let what = "`<<` takes a mapping or a list of mappings";
                    note(&mut self.problems, Diagnostic::new(node.span, "<<", what))?;
                }
            },
            (Value::Map(map), Some((key, span))) => {
                map.insert(key, Entry { key: span, node });
            }
            _ => {}
        }
        Ok(None)
    }
}

/// Notes a problem; one too many ends the reading.
fn note(problems: &mut Vec<Diagnostic>, problem: Diagnostic) -> Result<(), Diagnostic> {
    if problems.len() >= MOST_PROBLEMS {
        return Err(problem);
    }
    problems.push(problem);
    Ok(())
}

fn mark(tag: Option<&Tag>) -> Mark {
    match tag.map(Tag::parts) {
        Some(("!", "reset")) => Mark::Reset,
        Some(("!", "override")) => Mark::Override,
        _ => Mark::None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn error(text: &str) -> String {
        parse(text, 0).unwrap_err().remove(0).what
    }

    #[test]
    fn aliases_merge_keys_and_documents() {
        let text = "a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\n---\nc: !reset []\n";
        let (documents, _) = parse(text, 0).unwrap();
        assert_eq!(documents.len(), 2);
        let b = documents[0].get("b").unwrap();
        assert_eq!(b.get("x").and_then(Node::as_int), Some(1));
        assert_eq!(b.get("y").and_then(Node::as_int), Some(3));
        assert_eq!(documents[1].get("c").unwrap().mark, Mark::Reset);
        let span = documents[0].get("a").unwrap().get("y").unwrap().span;
        assert_eq!(&text[span.start as usize..span.end as usize], "2");
    }

    #[test]
    fn what_is_refused() {
        assert!(error("a: 1\na: 2").contains("twice"));
        assert!(error("1: a").contains("key is a text"));
        assert!(error("a: &a {b: *a}").contains("holds it"));
        assert!(error("a: [").contains("not YAML"));
        assert!(
            error(&"- ".repeat(1000)).contains("deep")
                || error(&"- ".repeat(1000)).contains("nest")
        );
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            bomb += &format!("a{level}: &a{level} [{}]\n", format!("*a{}, ", level - 1).repeat(10));
        }
        assert!(error(&bomb).contains("more than"));
    }
}
