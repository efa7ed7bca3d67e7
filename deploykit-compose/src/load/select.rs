//! Which services are wanted.

use std::collections::BTreeSet;

use crate::yaml::Node;

use super::Loader;

impl Loader<'_> {
    /// Leaves the services that are named (with what they depend on), else those without a profile
    /// and those of a profile that is wanted.
    pub(super) fn select_services(&mut self, root: &mut Node) {
        let mut profiles = self.options.profiles.clone();
        if let Some(named) =
            self.options.environment.get("COMPOSE_PROFILES").filter(|_| profiles.is_empty())
        {
            profiles = named.split(',').map(|p| p.trim().to_owned()).collect();
        }
        let wanted: BTreeSet<String> = match self.options.services.is_empty() {
            true => BTreeSet::new(),
            false => self.with_dependencies(root),
        };
        let Some(services) = root.get_mut("services").and_then(Node::as_map_mut) else { return };
        services.retain(|name, entry| {
            if !wanted.is_empty() {
                return wanted.contains(name);
            }
            let own = entry.node.get("profiles").map(Node::items).unwrap_or_default();
            let enabled = |p: &Node| profiles.iter().any(|w| w == "*" || p.as_str() == Some(w));
            own.is_empty() || own.iter().any(enabled)
        });
    }

    fn with_dependencies(&mut self, root: &Node) -> BTreeSet<String> {
        let mut wanted = BTreeSet::new();
        let mut open = self.options.services.clone();
        while let Some(name) = open.pop() {
            let Some(service) = root.get("services").and_then(|s| s.get(&name)) else {
                if self.options.services.contains(&name) {
                    self.problem(root.span, "services", format!("there is no service `{name}`"));
                }
                continue;
            };
            if wanted.insert(name) {
                let dependencies = service.get("depends_on").into_iter().flat_map(Node::entries);
                open.extend(dependencies.map(|(name, _)| name.to_owned()));
            }
        }
        wanted
    }
}
