//! Services that extend others.
//!
//! [Specification](https://github.com/compose-spec/compose-spec/blob/main/05-services.md#extends)

use std::path::PathBuf;

use crate::merge::{clear_marks, merge_service};
use crate::yaml::{Mapping, Mark, Node, Value};

use super::Loader;
use super::files::Layer;
use super::paths::join;

/// The most services that may extend each other in a row.
const MAX_CHAIN: usize = 64;

/// A file's services while they are settled.
struct Services {
    map: Node,
    path: PathBuf,
    working_dir: PathBuf,
    /// Where the paths of services of other files are put: before them goes this folder.
    prefix: Option<PathBuf>,
}

impl Loader<'_> {
    pub(super) fn extend_services(&mut self, layer: &mut Layer) {
        let Some(map) = layer.node.take("services") else { return };
        let names: Vec<String> = map.entries().map(|(name, _)| name.to_owned()).collect();
        let mut services = Services {
            map,
            path: layer.path.clone(),
            working_dir: layer.working_dir.clone(),
            prefix: layer.included.then(|| layer.working_dir.clone()),
        };
        for name in names {
            self.extend_service(&mut services, &name, &mut Vec::new());
        }
        layer.node.put("services", services.map);
    }

    /// Settles one service in place.
    fn extend_service(
        &mut self,
        services: &mut Services,
        name: &str,
        chain: &mut Vec<(PathBuf, String)>,
    ) -> Option<()> {
        let service = services.map.get_mut(name)?;
        let reference = service.take("extends").filter(|r| r.mark != Mark::Reset);
        let Some(reference) = reference else { return Some(()) };
        let path = format!("services.{name}.extends");
        let (target, file) = match &reference.value {
            Value::String(target) => (Some(target.as_str()), None),
            _ => {
                (reference.str("service"), reference.get("file").filter(|f| !f.is_null()).cloned())
            }
        };
        let Some(target) = target else {
            let what = "this is not the name of a service, or `service` and `file`";
            self.problem(reference.span, &path, what);
            return None;
        };
        chain.push((services.path.clone(), name.to_owned()));
        let again = file.is_none() && chain.contains(&(services.path.clone(), target.to_owned()));
        if again || chain.len() > MAX_CHAIN {
            let names: Vec<&str> = chain.iter().map(|(_, name)| name.as_str()).collect();
            let what = format!("the services extend each other: {}, {target}", names.join(", "));
            self.problem(reference.span, &path, what);
            return None;
        }
        let base = match &file {
            None => {
                self.extend_service(services, target, chain);
                services.map.get(target).cloned()
            }
            Some(file) => self.base_of_file(services, file, target, chain),
        };
        chain.pop();
        let Some(mut base) = base else {
            if self.problems.is_empty() {
                let what = format!("there is no service `{target}` to extend");
                self.problem(reference.span, &path, what);
            }
            return None;
        };
        clear_marks(&mut base);
        if base.is_null() {
            base.value = Value::Map(Mapping::new());
        }
        let service = services.map.get_mut(name)?;
        match merge_service(base, std::mem::take(service)) {
            Ok(merged) => *service = merged,
            Err(problems) => self.problems.extend(problems),
        }
        Some(())
    }

    /// A service of another file, with its paths as the extending file would write them.
    fn base_of_file(
        &mut self,
        services: &Services,
        file: &Node,
        target: &str,
        chain: &mut Vec<(PathBuf, String)>,
    ) -> Option<Node> {
        let name = file.as_str()?;
        let path = PathBuf::from(join(&services.working_dir.to_string_lossy(), name));
        let text = self.read_text(&path, file.span)?;
        let environment = self.environment(file.span);
        let document = self.documents(&path, text, &environment)?.into_iter().next()?;
        let mut node = document;
        self.interpolate(&mut node, "");
        let mut base = Services {
            map: node.take("services")?,
            working_dir: path.parent().map(PathBuf::from).unwrap_or_default(),
            path,
            prefix: None,
        };
        self.extend_service(&mut base, target, chain);
        let service = base.map.take(target)?;
        let folder = PathBuf::from(name).parent().map(PathBuf::from).unwrap_or_default();
        let folder = services.prefix.as_ref().map_or(folder.clone(), |prefix| prefix.join(&folder));
        let mut wrapped = service.map([]);
        let mut one = service.map([]);
        one.put("x", service);
        wrapped.put("services", one);
        self.resolve_paths(&mut wrapped, &folder.to_string_lossy());
        wrapped.take("services")?.take("x")
    }
}
