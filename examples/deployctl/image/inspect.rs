//! What an image is.

use deploykit::Result;
use deploykit::oci::spec::{Descriptor, Image, Index, Manifest, media_type};
use deploykit::oci::{Layout, Reference, RegistryClient};
use deploykit::{Error, ErrorKind};
use indicatif::HumanBytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::reference;
use crate::output::Output;

#[derive(clap::Args)]
pub struct InspectArguments {
    #[arg(value_parser = reference)]
    name: Reference,
    /// Look in the store instead of the registry.
    #[arg(long)]
    pub stored: bool,
}

#[derive(Serialize)]
struct Inspection {
    name: String,
    #[serde(flatten)]
    document: Descriptor,
    /// Of each platform.
    images: Vec<Inspected>,
}

#[derive(Serialize)]
struct Inspected {
    #[serde(flatten)]
    document: Descriptor,
    manifest: Manifest,
    config: Image,
}

/// Where the documents are.
enum Source<'a> {
    Store(&'a Layout),
    Registry(&'a RegistryClient, &'a Reference),
}

impl Source<'_> {
    async fn document(&self, document: &Descriptor) -> Result<Vec<u8>> {
        match self {
            Self::Store(store) => store.read(&document.digest),
            Self::Registry(client, name) => {
                Ok(client.document(&name.at(document.digest.clone())).await?.bytes)
            }
        }
    }

    async fn blob(&self, blob: &Descriptor) -> Result<Vec<u8>> {
        match self {
            Self::Store(store) => store.read(&blob.digest),
            Self::Registry(client, name) => client.blob(name, blob).await,
        }
    }
}

impl InspectArguments {
    pub async fn run(
        &self,
        client: &RegistryClient,
        store: Option<&Layout>,
        output: &Output,
    ) -> Result<()> {
        let name = self.name.clone().pinned();
        let (source, document) = match store {
            Some(store) => (Source::Store(store), store.resolve(&name.to_string())?),
            None => (Source::Registry(client, &name), client.resolve(&name).await?),
        };
        let kinds = [media_type::INDEX, media_type::DOCKER_INDEX];
        let of_platforms = match kinds.contains(&document.media_type.as_str()) {
            true => parse::<Index>(&source.document(&document).await?)?.manifests,
            false => vec![document.clone()],
        };
        let mut images = Vec::new();
        for document in of_platforms {
            let manifest: Manifest = parse(&source.document(&document).await?)?;
            let config = parse(&source.blob(&manifest.config).await?)?;
            images.push(Inspected { document, manifest, config });
        }
        let found = Inspection { name: name.to_string(), document, images };
        output.value(&found, || found.describe())
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|e| Error::new(ErrorKind::Corrupt, "inspect an image", e.to_string()))
}

impl Inspection {
    fn describe(&self) -> String {
        let mut lines = vec![format!("{}: {}", self.name, self.document.digest)];
        for image in &self.images {
            let Inspected { document, manifest, config } = image;
            let size = manifest.layers.iter().map(|layer| layer.size).sum();
            let created = config.created.as_deref().unwrap_or("an unknown time");
            lines.push(format!("{}: {}", config.platform, document.digest));
            lines.push(format!(
                "  {} layers, {}, made at {created}",
                manifest.layers.len(),
                HumanBytes(size)
            ));
            let run = &config.config;
            let ports: Vec<String> = run.exposed_ports.keys().cloned().collect();
            let facts = [
                ("entrypoint", run.entrypoint.join(" ")),
                ("cmd", run.cmd.join(" ")),
                ("user", run.user.clone()),
                ("workdir", run.working_dir.clone()),
                ("env", run.env.join(" ")),
                ("ports", ports.join(" ")),
            ];
            let facts = facts.into_iter().filter(|(_, value)| !value.is_empty());
            lines.extend(facts.map(|(name, value)| format!("  {name}: {value}")));
            for layer in &manifest.layers {
                lines.push(format!("  {}  {}", layer.digest, HumanBytes(layer.size)));
            }
        }
        lines.join("\n")
    }
}
