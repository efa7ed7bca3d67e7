//! Which services are wanted.

use std::collections::BTreeSet;

use crate::yaml::{Mapping, Node};

use super::Loader;

impl Loader<'_> {
    /// Leaves the services without a profile and those of a profile that is wanted; gives the
    /// others.
    pub(super) fn select_profiles(&self, root: &mut Node) -> Mapping {
        let all = root.get_mut("services").and_then(Node::as_map_mut);
        let Some(all) = all else { return Mapping::new() };
        let (enabled, disabled) = std::mem::take(all)
            .into_iter()
            .partition(|(_, entry)| in_profiles(&entry.node, &self.options.profiles));
        *all = enabled;
        disabled
    }

    /// Leaves the services that are named, with what they depend on. One that is named is wanted
    /// whatever its profile, and so is what has the same profile.
    pub(super) fn select_services(&mut self, root: &mut Node, mut disabled: Mapping) {
        let named = &self.options.services;
        if named.is_empty() {
            return;
        }
        let mut profiles = self.options.profiles.clone();
        for entry in named.iter().filter_map(|name| disabled.get(name)) {
            profiles.extend(profiles_of(&entry.node).filter_map(Node::as_str).map(str::to_owned));
        }
        disabled.retain(|_, entry| in_profiles(&entry.node, &profiles));
        let Some(all) = root.get_mut("services").and_then(Node::as_map_mut) else { return };
        all.extend(disabled);
        let mut wanted = BTreeSet::new();
        let mut open = named.clone();
        while let Some(name) = open.pop() {
            let Some(entry) = all.get(&name) else {
                let what = format!("there is no service `{name}`");
                self.problem(root.span, "services", what);
                return;
            };
            if wanted.insert(name) {
                let dependencies = entry.node.get("depends_on").into_iter().flat_map(Node::entries);
                let there = dependencies.filter(|(name, node)| {
                    let optional = node.get("required").and_then(Node::as_bool) == Some(false);
                    !optional || all.contains_key(*name)
                });
                open.extend(there.map(|(name, _)| name.to_owned()));
            }
        }
        all.retain(|name, _| wanted.contains(name));
        for service in all.values_mut() {
            let Some(dependencies) = service.node.get_mut("depends_on") else { continue };
            if let Some(map) = dependencies.as_map_mut() {
                map.retain(|name, _| wanted.contains(name));
            }
            if dependencies.entries().next().is_none() {
                service.node.take("depends_on");
            }
        }
    }
}

fn profiles_of(service: &Node) -> impl Iterator<Item = &Node> {
    service.get("profiles").map(Node::items).unwrap_or_default().iter()
}

fn in_profiles(service: &Node, wanted: &[String]) -> bool {
    let enabled = |own: &Node| wanted.iter().any(|w| w == "*" || own.as_str() == Some(w));
    profiles_of(service).next().is_none() || profiles_of(service).any(enabled)
}
