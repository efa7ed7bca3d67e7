//! Secrets in memory: a volume that is a tmpfs, filled through an agent that keeps it mounted.
//!
//! The engine mounts such a volume with its first user and drops it with its last. One agent for
//! each service and set of versions is always a user, so that an instance that is started again
//! finds its secrets; what none of the instances uses any more is collected.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use bollard::query_parameters::{ListVolumesOptionsBuilder, RemoveVolumeOptionsBuilder};
use deploykit_agent::control::SecretFile;
use deploykit_core::model::AppName;
use deploykit_core::{Error, ErrorKind, Fence, InstanceSpec, Result, SecretStore};
use sha2::{Digest as _, Sha256};

use crate::agent;
use crate::error::{Mapped as _, error};
use crate::names::{self, Role};
use crate::runtime::Docker;

/// The operation of errors about secrets that cannot be given to an instance.
pub(crate) const GIVE: &str = "give an instance its secrets";
/// Where a holder has the volume.
const HELD: &str = "/secrets";

impl Docker {
    /// Sees to it that an instance's secrets are in memory, and returns the volume that they are
    /// in; nothing where it has none.
    pub(crate) async fn hold_secrets(
        &self,
        fence: &Fence,
        spec: &InstanceSpec,
        image: &str,
    ) -> Result<Option<String>> {
        let secrets = &spec.template.secrets;
        if secrets.is_empty() {
            return Ok(None);
        }
        let app = &fence.app;
        let (uid, gid) = self.user(spec, image).await?;
        let mut text = format!("{uid}:{gid}");
        for (name, version) in secrets {
            text.push_str(&format!(" {name}@{version}"));
        }
        let hash: String =
            Sha256::digest(text).iter().take(5).map(|byte| format!("{byte:02x}")).collect();
        let name = names::secrets(app, &spec.service, &hash);
        // Instances of one service start at once, and their holder shall be made once.
        let _turn = self.engine.turn(&name).await;
        let labels = || {
            let mut labels = names::labels(app, Role::Secrets);
            labels.insert(names::HOLDER.to_owned(), name.clone());
            labels
        };
        let options = [("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=16m,mode=0755")];
        let options = options.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let volume = agent::Volume {
            name: name.clone(),
            target: HELD,
            labels: labels(),
            options: HashMap::from(options),
        };
        agent::Spec {
            name: name.clone(),
            labels: labels(),
            image: agent::image(&self.engine, app, &self.program).await?,
            volume: Some(volume),
            network: None,
            ports: HashMap::new(),
        }
        .ensure(&self.engine, app)
        .await?;
        let holder = agent::client(&self.engine, name.clone());
        let there = holder.list_files(Path::new(HELD)).await?;
        if secrets.keys().all(|secret| there.iter().any(|file| file == secret.as_str())) {
            return Ok(Some(name));
        }
        let mut files = Vec::new();
        for (secret, version) in secrets {
            let value = SecretStore::get(&self.keepers, app, secret, *version).await;
            let value = value.map_err(|cause| {
                let message = format!("{secret} (version {version})");
                Error::new(cause.kind(), GIVE, message).on(crate::error::BACKEND).because(cause)
            })?;
            files.push(SecretFile { name: secret.to_string(), value: (&value).into(), uid, gid });
        }
        holder.write_files(fence, Path::new(HELD), files).await?;
        Ok(Some(name))
    }

    /// The user that an instance runs as.
    async fn user(&self, spec: &InstanceSpec, image: &str) -> Result<(u32, u32)> {
        let of_image = async {
            let found = self.engine.api.inspect_image(image).await.tried(GIVE)?;
            Ok::<_, Error>(found.config.and_then(|config| config.user).unwrap_or_default())
        };
        let user = match &spec.template.user {
            Some(user) => user.clone(),
            None => of_image.await?,
        };
        let (user, group) = user.split_once(':').unwrap_or((&user, ""));
        let number = |text: &str| text.parse::<u32>().ok();
        match (user, group) {
            ("" | "root", _) => Ok((0, 0)),
            _ => number(user).map(|uid| (uid, number(group).unwrap_or(uid))).ok_or_else(|| {
                let message = format!(
                    "its user `{user}` is a name, and only the image knows whose: name the user by \
                     a number, so that its secrets can be its own"
                );
                error(ErrorKind::Unsupported, GIVE, message)
            }),
        }
    }

    /// Removes what holds secrets that no instance uses.
    pub(crate) async fn collect_secrets(&self, app: &AppName) -> Result<()> {
        const COLLECT: &str = "remove unused secrets from memory";
        let containers = self.engine.containers(app, None).await?;
        let of = |role: Role| {
            containers.iter().filter_map(move |container| {
                let labels = container.labels.as_ref()?;
                (labels.get(names::ROLE)? == role.as_str()).then(|| labels.get(names::HOLDER))?
            })
        };
        let used: BTreeSet<&String> = of(Role::Instance).collect();
        for holder in of(Role::Secrets).filter(|holder| !used.contains(holder)) {
            self.engine.remove(holder).await?;
        }
        // A deployer may have died between a holder and its volume.
        let filters = names::of(app, Some(Role::Secrets));
        let options = ListVolumesOptionsBuilder::new().filters(&filters).build();
        let volumes = self.engine.api.list_volumes(Some(options)).await.tried(COLLECT)?.volumes;
        let volumes = volumes.into_iter().flatten().map(|volume| volume.name);
        for volume in volumes.filter(|volume| !used.contains(volume)) {
            let options = RemoveVolumeOptionsBuilder::new().build();
            self.engine.api.remove_volume(&volume, Some(options)).await.optional(COLLECT)?;
        }
        Ok(())
    }
}
