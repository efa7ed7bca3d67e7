//! Images that are built.

use std::collections::BTreeMap;

use deploykit_core::model::{BuildSecret, ImageBuild, ImageSpec};

use crate::yaml::Node;

use super::fields::pairs;
use super::{BINARY, Converter, section};

impl Converter<'_> {
    pub(super) fn build(&mut self, build: &Node, path: &str) -> Option<ImageSpec> {
        let path = format!("{path}.build");
        let context = build.str("context").unwrap_or(".");
        let elsewhere = context.contains("://") || context.starts_with("git@");
        if elsewhere || context.starts_with("github.com/") {
            let what = format!("`{context}` is not fetched; clone it and name the folder");
            self.problem(build.span, &path, what);
            return None;
        }
        let mut image = ImageBuild::new(self.project.folder.join(context));
        image.dockerfile_inline = build.str("dockerfile_inline").map(str::to_owned);
        image.dockerfile = build.str("dockerfile").map(Into::into);
        image.args = pairs(build.get("args"));
        // One without a value is that of the environment, and else the Dockerfile's own.
        for (name, value) in build.get("args").into_iter().flat_map(Node::entries) {
            let given = self.project.environment.get(name);
            if let (None, Some(given)) = (value.scalar_text(), given) {
                image.args.insert(name.to_owned(), given.clone());
            }
        }
        image.target = build.str("target").filter(|t| !t.is_empty()).map(str::to_owned);
        image.labels = pairs(build.get("labels"));
        image.secrets = self.build_secrets(build, &path);
        let set = |key| build.get(key).and_then(Node::as_bool) == Some(true);
        (image.no_cache, image.pull) = (set("no_cache"), set("pull"));
        Some(ImageSpec::build(image))
    }

    fn build_secrets(&mut self, build: &Node, path: &str) -> BTreeMap<String, BuildSecret> {
        let mut secrets = BTreeMap::new();
        for secret in build.get("secrets").map(Node::items).unwrap_or_default() {
            let source = secret.str("source").unwrap_or_default();
            let declared = self.project.root().get("secrets").and_then(|all| all.get(source));
            let file = declared.and_then(|secret| secret.str("file"));
            let file = file.map(|file| BuildSecret::File(self.project.folder.join(file)));
            let variable = declared.and_then(|secret| secret.str("environment"));
            let value = file.or(variable.map(|name| BuildSecret::Environment(name.to_owned())));
            let Some(value) = value else {
                let what = "a build takes secrets from a file or from the environment";
                self.problem(secret.span, path, what);
                continue;
            };
            secrets.insert(secret.str("target").unwrap_or(source).to_owned(), value);
        }
        secrets
    }
}

/// Whether a secret is there for builds alone: then it is none of the app's.
pub(super) fn is_of_builds(root: &Node, secret: &str) -> bool {
    let names = |node: Option<&Node>| {
        let items = node.map(Node::items).unwrap_or_default();
        items.iter().any(|item| item.str("source") == Some(secret))
    };
    let services = || section(root, "services").map(|(_, service)| service);
    services().any(|s| s.get("build").is_some_and(|build| names(build.get("secrets"))))
        && !services().any(|service| names(service.get("secrets")))
}

/// What is built, where no executable stands in for it.
pub(super) fn of(service: &Node) -> Option<&Node> {
    let binary = service.str(BINARY).is_some_and(|file| !file.is_empty());
    service.get("build").filter(|_| !binary)
}
