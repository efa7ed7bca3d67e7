//! Relative paths, completed.

use crate::app::BINARY;
use crate::schema::long_volume;
use crate::short::is_path;
use crate::yaml::{Node, Value};

use super::Loader;

impl Loader<'_> {
    /// A build without a context is of the folder that its file's paths begin at.
    pub(super) fn add_build_contexts(&self, root: &mut Node) {
        for (_, service) in root.get_mut("services").into_iter().flat_map(Node::entries_mut) {
            if let Some(build) = service.get_mut("build")
                && build.as_map().is_some()
                && build.get("context").is_none()
            {
                let source = self.contexts.get(build.span.source as usize);
                let folder = source.and_then(|context| context.resolved.as_deref());
                build.set("context", Value::from(folder.unwrap_or(".")));
            }
        }
    }

    /// Puts `folder` before the relative paths of a document, but for those of sources that have
    /// been completed.
    pub(super) fn resolve_paths(&self, root: &mut Node, folder: &str) {
        let resolver = Resolver { loader: self, folder };
        for (_, service) in root.get_mut("services").into_iter().flat_map(Node::entries_mut) {
            resolver.service(service);
        }
        for section in ["configs", "secrets"] {
            for (_, item) in root.get_mut(section).into_iter().flat_map(Node::entries_mut) {
                resolver.field(item, "file");
            }
        }
        for (_, volume) in root.get_mut("volumes").into_iter().flat_map(Node::entries_mut) {
            let local = volume.str("driver") == Some("local");
            if let Some(options) = volume.get_mut("driver_opts").filter(|_| local)
                && options.str("o") == Some("bind")
            {
                resolver.field(options, "device");
            }
        }
    }
}

struct Resolver<'a> {
    loader: &'a Loader<'a>,
    folder: &'a str,
}

impl Resolver<'_> {
    fn path(&self, node: &mut Node) {
        let context = self.loader.contexts.get(node.span.source as usize);
        if context.is_some_and(|context| context.resolved.is_some()) {
            return;
        }
        if let Value::String(path) = &mut node.value {
            let home = self.loader.options.environment.get("HOME");
            *path = match (path.strip_prefix('~'), home) {
                (Some(rest), Some(home)) => join(home, rest.trim_start_matches('/')),
                _ => join(self.folder, path),
            };
        }
    }

    /// The same, where nothing stays nothing.
    fn stated(&self, node: &mut Node) {
        if node.as_str() != Some("") {
            self.path(node);
        }
    }

    fn field(&self, node: &mut Node, key: &str) {
        if let Some(value) = node.get_mut(key) {
            self.path(value);
        }
    }

    fn stated_field(&self, node: &mut Node, key: &str) {
        if let Some(value) = node.get_mut(key) {
            self.stated(value);
        }
    }

    /// A context of a build: a path, unless it names something that is none.
    fn context(&self, node: &mut Node) {
        let remote = |text: &str| {
            text.contains("://")
                || ["git@", "github.com/", "service:"].iter().any(|p| text.starts_with(p))
        };
        if !node.as_str().is_some_and(remote) {
            self.stated(node);
        }
    }

    fn service(&self, service: &mut Node) {
        self.stated_field(service, BINARY);
        if let Some(build) = service.get_mut("build") {
            if build.as_str().is_some() {
                self.context(build);
            } else if let Some(context) = build.get_mut("context") {
                self.context(context);
            }
            if let Some(contexts) = build.get_mut("additional_contexts") {
                self.contexts(contexts);
            }
            if let Some(keys) = build.get_mut("ssh") {
                keys.entries_mut().for_each(|(_, key)| self.path(key));
                keys.items_mut().iter_mut().for_each(|item| self.pair(item, Self::path));
            }
        }
        for files in ["env_file", "label_file"] {
            let Some(node) = service.get_mut(files) else { continue };
            self.path(node);
            for item in node.items_mut() {
                self.path(item);
                self.stated_field(item, "path");
            }
        }
        for watch in service
            .get_mut("develop")
            .and_then(|d| d.get_mut("watch"))
            .into_iter()
            .flat_map(Node::items_mut)
        {
            self.stated_field(watch, "path");
        }
        for volume in service.get_mut("volumes").into_iter().flat_map(Node::items_mut) {
            // What is no mount is reported by the check of its form.
            if volume.as_str().is_some() && long_volume(volume).is_err() {
                continue;
            }
            if volume.str("type") == Some("bind") {
                self.field(volume, "source");
            }
        }
    }

    fn contexts(&self, contexts: &mut Node) {
        for (_, context) in contexts.entries_mut() {
            self.context(context);
        }
        contexts.items_mut().iter_mut().for_each(|item| self.pair(item, Self::context));
    }

    /// The value of `name=value`, or of `name: value`.
    fn pair(&self, item: &mut Node, complete: fn(&Self, &mut Node)) {
        let text = item.as_str().unwrap_or_default();
        let between = if text.contains('=') { "=" } else { ": " };
        let Some((name, value)) = text.split_once(between) else { return };
        let (name, mut value) = (name.to_owned(), item.text(value));
        complete(self, &mut value);
        let value = value.as_str().unwrap_or_default();
        item.value = Value::String(format!("{name}{between}{value}"));
    }
}

/// `path` behind `folder`, without `.` and `..` where they can be settled; an absolute path (of
/// Windows too) stays as it is.
pub(super) fn join(folder: &str, path: &str) -> String {
    let windows = path.as_bytes().get(1) == Some(&b':') && is_path(path);
    if path.starts_with('/') || path.starts_with("\\\\") || windows {
        return path.to_owned();
    }
    if folder.is_empty() { clean(path) } else { clean(&format!("{folder}/{path}")) }
}

/// A path without `.`, `..` and empty parts, where they can be settled.
pub(crate) fn clean(joined: &str) -> String {
    let absolute = joined.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in joined.split('/').filter(|part| !part.is_empty() && *part != ".") {
        match (part, parts.last()) {
            ("..", Some(last)) if *last != ".." => {
                parts.pop();
            }
            ("..", None) if absolute => {}
            _ => parts.push(part),
        }
    }
    match (absolute, parts.join("/")) {
        (true, rest) => format!("/{rest}"),
        (false, rest) if rest.is_empty() => ".".into(),
        (false, rest) => rest,
    }
}

#[cfg(test)]
mod tests {
    use super::join;

    #[test]
    fn joins_as_paths_are_read() {
        for (folder, path, expected) in [
            ("", "./src", "src"),
            ("", ".", "."),
            ("/a/b", "../c/./d", "/a/c/d"),
            ("a", "../../b", "../b"),
            ("/a", "/b", "/b"),
            ("/a", "C:\\b", "C:\\b"),
            ("/", "..", "/"),
        ] {
            assert_eq!(join(folder, path), expected);
        }
    }
}
