//! What holds for services and jobs alike.

use std::collections::BTreeMap;

use super::Check;
use crate::model::text::{Path, cut, instead};
use crate::model::{
    BuildSecret, ImageBuild, ImageFiles, ImageSpec, Mount, RESERVED, ServiceName, VolumeName,
    VolumeScope, Workload, name::env_name,
};

impl Check<'_> {
    pub(super) fn workload(&mut self, name: &ServiceName, workload: Workload<'_>) {
        let path = self.at(name);
        self.program(&path, workload);
        self.environment(&path, name, workload);
        self.peers(&path, name, workload);
        self.mounts(&path, workload.mounts);
        self.labels(&path, workload.labels);
        self.duration(path.field("stop_grace"), workload.stop_grace, true);
        let known = &self.app.networks;
        for network in workload.networks.iter().filter(|n| !known.contains_key(*n)) {
            let fix = instead(
                network.as_str(),
                known.keys().map(AsRef::as_ref),
                &format!("declare it: `networks: {{{network}: {{}}}}`"),
            );
            self.add(path.field("networks"), format!("no network `{network}` is declared"), fix);
        }
        let resources = workload.resources;
        if resources.cpu_request > resources.cpu_limit && resources.cpu_limit.is_some() {
            let path = path.field("resources").field("cpu_request");
            self.add(path, "more is set aside than may be used", "raise cpu_limit");
        }
        if resources.memory_request > resources.memory_limit && resources.memory_limit.is_some() {
            let path = path.field("resources").field("memory_request");
            self.add(path, "more is set aside than may be used", "raise memory_limit");
        }
    }

    fn program(&mut self, path: &Path, workload: Workload<'_>) {
        match workload.image {
            ImageSpec::Binary(file) => {
                let path = path.field("image").field("binary");
                if file.as_os_str().is_empty() {
                    self.add(path, "the path is empty", "name an executable");
                } else {
                    self.text_path(path, file);
                }
            }
            ImageSpec::Files(files) => {
                let path = path.field("image").field("files");
                self.files(&path, files, workload.command.is_empty());
            }
            ImageSpec::Build(build) => self.build(&path.field("image").field("build"), build),
            ImageSpec::Reference(_) => {}
        }
        if workload.command.first().is_some_and(String::is_empty) {
            self.add(path.field("command").index(0), "the program is empty", "name a program");
        }
        for (list, texts) in [("command", workload.command), ("args", workload.args)] {
            for (index, _) in texts.iter().enumerate().filter(|(_, text)| text.contains('\0')) {
                self.add(path.field(list).index(index), "it has a NUL character", "remove it");
            }
        }
        if let Some(workdir) = workload.workdir {
            self.absolute(path.field("workdir"), workdir);
        }
        if workload.user.is_some_and(|user| user.is_empty() || user.contains('\0')) {
            self.add(path.field("user"), "the user is empty", "name a user, or remove it");
        }
    }

    /// An image built from a Dockerfile.
    fn build(&mut self, path: &Path, build: &ImageBuild) {
        if build.context.as_os_str().is_empty() {
            self.add(path.field("context"), "the path is empty", "name a folder");
        } else {
            self.text_path(path.field("context"), &build.context);
        }
        if let Some(file) = &build.dockerfile {
            self.text_path(path.field("dockerfile"), file);
            if build.dockerfile_inline.is_some() {
                let what = "there is a file beside the text of one";
                self.add(path.field("dockerfile_inline"), what, "remove one of them");
            }
        }
        for (variable, value) in &build.args {
            let path = path.field("args").field(variable);
            if variable.is_empty() || variable.contains('=') {
                let fix = "use letters, digits and `_`";
                self.add(path.clone(), "it is no name of a build's argument", fix);
            }
            if value.contains('\0') {
                self.add(path, "the value has a NUL character", "remove it");
            }
        }
        for (name, secret) in &build.secrets {
            let path = path.field("secrets").field(name);
            if name.is_empty() || name.contains([',', '=', '\0']) {
                let fix = "use letters, digits and `_`";
                self.add(path.clone(), "it is no name of a build's secret", fix);
            }
            match secret {
                BuildSecret::File(file) => {
                    self.text_path(path.field("file"), file);
                }
                BuildSecret::Environment(variable) if variable.is_empty() => {
                    let fix = "name one that is set";
                    self.add(path.field("environment"), "it names no variable", fix);
                }
                BuildSecret::Environment(_) => {}
            }
        }
    }

    /// An image made of files; `alone` where nothing else says what is run.
    fn files(&mut self, path: &Path, files: &ImageFiles, alone: bool) {
        if let Some(program) = &files.program {
            self.text_path(path.field("program"), program);
        }
        for (index, copy) in files.copies.iter().enumerate() {
            let path = path.field("copies").index(index);
            if copy.from.as_os_str().is_empty() {
                self.add(path.field("from"), "the path is empty", "name a file or a folder");
            } else {
                self.text_path(path.field("from"), &copy.from);
            }
            self.absolute(path.field("to"), &copy.to);
        }
        for (index, volume) in files.volumes.iter().enumerate() {
            self.absolute(path.field("volumes").index(index), volume);
        }
        if let Some(workdir) = &files.workdir {
            self.absolute(path.field("workdir"), workdir);
        }
        for (variable, value) in &files.env {
            let path = path.field("env").field(variable);
            if variable.is_empty() || variable.contains(['=', '\0']) {
                let fix = "use letters, digits and `_`";
                self.add(path.clone(), "it is no name of an environment variable", fix);
            }
            if value.contains('\0') {
                self.add(path, "the value has a NUL character", "remove it");
            }
        }
        let has_program =
            files.program.is_some() || !files.entrypoint.is_empty() || !files.cmd.is_empty();
        if alone && files.base.is_none() && !has_program {
            let path = path.field("program");
            self.add(path, "nothing says what is run", "name it, or an entrypoint");
        }
    }

    fn text_path(&mut self, path: Path, file: &std::path::Path) -> bool {
        let text = file.to_str();
        if text.is_none_or(|text| text.contains('\0')) {
            self.add(path, "the path is no UTF-8, or has a NUL character", "rename the file");
            return false;
        }
        true
    }

    fn absolute(&mut self, path: Path, file: &std::path::Path) {
        use std::path::Component;
        if !self.text_path(path.clone(), file) {
            return;
        }
        let shown = cut(&file.to_string_lossy(), 80);
        if !file.is_absolute() {
            self.add(path, format!("`{shown}` is not absolute"), "begin it with `/`");
        } else if file.components().any(|c| c == Component::ParentDir) {
            self.add(path, format!("`{shown}` goes up by `..`"), "write the path that is meant");
        }
    }

    /// What the environment contract sets for an instance, with why. What the app sets itself must
    /// be none of it; so must what several ports and peers ask for be different.
    fn environment(&mut self, path: &Path, name: &ServiceName, workload: Workload<'_>) {
        const FIXED: &str = "the environment contract";
        let mut contract: BTreeMap<String, String> =
            RESERVED.iter().map(|name| ((*name).to_owned(), FIXED.to_owned())).collect();
        let ports = self.app.services.get(name).map(|s| s.ports.as_slice()).unwrap_or_default();
        for port_name in ports.iter().filter_map(|port| port.name.as_ref()) {
            let variable = format!("PORT_{}", env_name(port_name.as_str()));
            contract.insert(variable, format!("the port `{port_name}`"));
        }
        for peer in workload.peers() {
            for end in ["HOST", "PORT"] {
                let variable = format!("{}_SERVICE_{end}", peer.env_prefix());
                let why = format!("the address of `{peer}`");
                if let Some(other) = contract.insert(variable.clone(), why) {
                    let what = format!(
                        "`{variable}` would be set by {other} and by the address of `{peer}`"
                    );
                    self.add(path.field("ports"), what, "give the port another name");
                }
            }
        }
        for (variable, value) in workload.env {
            let path = path.field("env").field(variable);
            if variable.is_empty() || variable.contains(['=', '\0']) {
                let fix = "use letters, digits and `_`";
                self.add(path.clone(), "it is no name of an environment variable", fix);
            }
            if value.contains('\0') {
                self.add(path.clone(), "the value has a NUL character", "remove it");
            }
            let Some(why) = contract.get(variable) else { continue };
            let what = format!("`{variable}` is set by {why}");
            let fix = match variable.as_str() {
                "PORT" => {
                    "remove it, and listen where PORT says: replicas cannot share a fixed port"
                }
                _ => "remove it, and use the value that is set",
            };
            self.add(path, what, fix);
        }
    }

    fn peers(&mut self, path: &Path, name: &ServiceName, workload: Workload<'_>) {
        let app = self.app;
        for (on, condition) in workload.depends_on {
            let path = path.field("depends_on").field(on);
            if on == name {
                self.add(path, format!("`{name}` waits for itself"), "remove it");
            } else if app.workload(on).is_none() {
                self.unknown_peer(path, on);
            } else if !self.unsure.contains(on.as_str())
                && let Some((what, fix)) = self.condition(on, *condition)
            {
                self.add(path, what, fix);
            }
        }
        for to in workload.connects_to {
            // A set: the place in the file is not known any more.
            let path = path.field("connects_to");
            match app.services.get(to) {
                None if app.jobs.contains_key(to) => {
                    let what = format!("`{to}` is a job, and jobs take no requests");
                    self.add(path, what, "name a service, or write it under depends_on");
                }
                None => self.unknown_peer(path, to),
                Some(service) if service.ports.is_empty() && !self.unsure.contains(to.as_str()) => {
                    let fix = format!("declare one in services.{to}.ports");
                    self.add(path, format!("`{to}` has no port to connect to"), fix);
                }
                Some(_) => {}
            }
        }
    }

    fn unknown_peer(&mut self, path: Path, name: &ServiceName) {
        let known: Vec<&str> = self.app.workloads().map(|(name, _)| name.as_str()).collect();
        let fix = instead(name.as_str(), known.iter().copied(), "remove it");
        self.add(path, format!("there is no service or job `{name}`"), fix);
    }

    fn mounts(&mut self, path: &Path, mounts: &[Mount]) {
        let app = self.app;
        let mut seen = BTreeMap::new();
        let mut targets = BTreeMap::new();
        for (index, mount) in mounts.iter().enumerate() {
            let path = path.field("mounts").index(index);
            let (kind, map, name, declared) = match mount {
                Mount::Volume(m) => {
                    ("volume", "volumes", m.name.as_str(), app.volumes.contains_key(&m.name))
                }
                Mount::Secret(m) => {
                    ("secret", "secrets", m.name.as_str(), app.secrets.contains_key(&m.name))
                }
                Mount::Config(m) => {
                    ("config", "configs", m.name.as_str(), app.configs.contains_key(&m.name))
                }
                Mount::Bind(m) => {
                    self.absolute(path.field("bind").field("source"), &m.source);
                    ("bind", "", "", true)
                }
                Mount::Tmpfs(_) => ("tmpfs", "", "", true),
            };
            let at = path.field(kind);
            if !declared {
                let known: Vec<&str> = match mount {
                    Mount::Volume(_) => app.volumes.keys().map(AsRef::as_ref).collect(),
                    Mount::Secret(_) => app.secrets.keys().map(AsRef::as_ref).collect(),
                    _ => app.configs.keys().map(AsRef::as_ref).collect(),
                };
                let declare = format!("declare it under `{map}:`");
                let fix = instead(name, known.iter().copied(), &declare);
                self.add(at.field("name"), format!("no {kind} `{name}` is declared"), fix);
            }
            if !name.is_empty()
                && let Some(first) = seen.insert((kind, name), index)
            {
                let what = format!("{kind} `{name}` is mounted twice, at mounts[{first}] too");
                self.add(at.clone(), what, "mount it once");
            }
            if let Some(target) = mount.target() {
                self.absolute(at.field("target"), target);
                if let Some(first) = targets.insert(target, index) {
                    let shown = cut(&target.to_string_lossy(), 80);
                    let what = format!("`{shown}` is the target of mounts[{first}] too");
                    self.add(at.field("target"), what, "choose another");
                }
            }
        }
    }

    /// The mounts of volumes that each replica has one of.
    pub(super) fn per_replica<'m>(&self, mounts: &'m [Mount]) -> Vec<(usize, &'m VolumeName)> {
        let volumes = &self.app.volumes;
        let own = |mount: &'m Mount| match mount {
            Mount::Volume(m) => {
                let scope = volumes.get(&m.name)?.scope;
                (scope == VolumeScope::PerReplica).then_some(&m.name)
            }
            _ => None,
        };
        mounts.iter().enumerate().filter_map(|(i, mount)| Some((i, own(mount)?))).collect()
    }
}
