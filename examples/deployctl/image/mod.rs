//! Images: built, kept in a folder, pushed, pulled, promoted, pruned, signed and verified, without
//! a daemon.

mod build;
mod inspect;
mod trust;
mod versions;

use std::path::PathBuf;

use clap::Subcommand;
use deploykit::oci::spec::{Descriptor, Platform};
use deploykit::oci::{
    Layout, PlainHttp, Reference, ReferenceError, RegistryClient, RegistryConfig, Transfer,
};
use deploykit::{Error, ErrorKind, Result};

use crate::output::{Output, table};

pub use trust::TrustArguments;

#[derive(clap::Args)]
pub struct ImageArguments {
    /// The folder where images are kept, an OCI layout [default: deploykit/images in the user's
    /// cache folder]
    #[arg(long, global = true, value_name = "FOLDER")]
    store: Option<PathBuf>,
    #[command(flatten)]
    registries: RegistryArguments,
    #[command(subcommand)]
    command: ImageCommand,
}

/// How registries are reached.
#[derive(clap::Args)]
pub struct RegistryArguments {
    /// A registry that is spoken to without encryption; those on this machine are. Repeatable.
    #[arg(long, global = true, value_name = "HOST[:PORT]")]
    plain_http: Vec<String>,
    /// A file of certificate authorities, as PEM, that are trusted besides those of this machine.
    /// Repeatable.
    #[arg(long, global = true, value_name = "FILE")]
    ca_file: Vec<PathBuf>,
}

impl RegistryArguments {
    /// A client, logged in as `docker login` has it.
    pub fn client(&self) -> RegistryClient {
        let mut config = RegistryConfig::default();
        config.plain_http = PlainHttp::AlsoHosts(self.plain_http.clone());
        config.ca_files.clone_from(&self.ca_file);
        RegistryClient::new(config)
    }
}

#[derive(Subcommand)]
enum ImageCommand {
    /// Build an image of a program or of files into the store; the same input gives the same
    /// digest.
    Build(build::BuildArguments),
    /// Push an image of the store; what the registry has is not sent.
    Push {
        /// Its name in the store.
        #[arg(value_parser = reference)]
        name: Reference,
        /// Another name to push it under.
        #[arg(value_parser = reference)]
        to: Option<Reference>,
    },
    /// Pull an image into the store.
    Pull {
        #[arg(value_parser = reference)]
        name: Reference,
        /// Only for this platform, like linux/arm64 [default: as it is, with all its platforms]
        #[arg(long, value_name = "OS/ARCHITECTURE", value_parser = platform)]
        platform: Option<Platform>,
    },
    /// List the images of the store, or the versions in a repository of a registry.
    Ls {
        #[arg(value_parser = reference)]
        repository: Option<Reference>,
    },
    /// Make an image known under another name, by its digest and with its signatures; within a
    /// registry nothing is transferred.
    Promote {
        #[arg(value_parser = reference)]
        from: Reference,
        #[arg(value_parser = reference)]
        to: Reference,
    },
    /// Say what would be deleted of a repository; or delete what such a plan says.
    Prune(versions::PruneArguments),
    /// Sign an image in its registry, as cosign does.
    Sign(trust::SignArguments),
    /// Look for a signature of an image, as cosign does.
    Verify(trust::VerifyArguments),
    /// Show what an image is and what it is made of.
    Inspect(inspect::InspectArguments),
}

impl ImageArguments {
    pub async fn run(&self, output: &Output) -> Result<()> {
        let client = self.registries.client();
        match &self.command {
            ImageCommand::Build(args) => args.run(&self.store()?, &client, output).await,
            ImageCommand::Push { name, to } => {
                let store = self.store()?;
                let image = store.resolve(&name.clone().pinned().to_string())?;
                let to = to.clone().unwrap_or_else(|| name.clone()).pinned();
                push(&watched(&client, output), &store, &image, &to, output).await
            }
            ImageCommand::Pull { name, platform } => {
                let store = self.store()?;
                let name = name.clone().pinned();
                let pulling = watched(&client, output);
                let pulled = pulling.pull(&name, &store, platform.as_ref()).await?;
                drop(pulling);
                store.tag(&name.to_string(), &pulled)?;
                said("pulled", &name, &pulled, output)
            }
            ImageCommand::Ls { repository: None } => list(&self.store()?, output),
            ImageCommand::Ls { repository: Some(repository) } => {
                versions::list(&client, repository, output).await
            }
            ImageCommand::Promote { from, to } => {
                let client = watched(&client, output);
                versions::promote(client, from, to, &self.store()?, output).await
            }
            ImageCommand::Prune(args) => args.run(&client, output).await,
            ImageCommand::Sign(args) => args.run(&client, output).await,
            ImageCommand::Verify(args) => args.run(&client, output).await,
            ImageCommand::Inspect(args) => {
                let store = if args.stored { Some(self.store()?) } else { None };
                args.run(&client, store.as_ref(), output).await
            }
        }
    }

    fn store(&self) -> Result<Layout> {
        if let Some(folder) = &self.store {
            return Layout::open(folder);
        }
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
        let cache = cache.or_else(home).ok_or_else(|| {
            let message = "neither XDG_CACHE_HOME nor HOME is set; name a folder by --store";
            Error::new(ErrorKind::NotFound, "find the images", message)
        })?;
        Layout::open(cache.join("deploykit/images"))
    }
}

pub fn reference(text: &str) -> Result<Reference, ReferenceError> {
    Reference::parse_normalized(text)
}

fn platform(text: &str) -> Result<Platform, String> {
    let mut parts = text.splitn(3, '/').map(str::to_owned);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(os), Some(architecture), variant) if !os.is_empty() && !architecture.is_empty() => {
            Ok(Platform { os, architecture, variant })
        }
        _ => Err("write it like linux/arm64".to_owned()),
    }
}

/// A client that reports what it transfers: bars or lines for people, lines of JSON for programs.
fn watched(client: &RegistryClient, output: &Output) -> RegistryClient {
    if !output.json {
        return client.with_progress(deploykit::progress::transfers());
    }
    client.with_progress(|transfer| {
        // The start tells the size, the end that all of it is there; pieces are too many.
        if !matches!(transfer, Transfer::Moved { .. }) {
            Output::event(&transfer);
        }
    })
}

async fn push(
    client: &RegistryClient,
    store: &Layout,
    image: &Descriptor,
    to: &Reference,
    output: &Output,
) -> Result<()> {
    client.push(store, image, to, &[]).await?;
    said("pushed", to, image, output)
}

fn said(what: &str, name: &Reference, image: &Descriptor, output: &Output) -> Result<()> {
    let answer = serde_json::json!({ what: name.to_string(), "digest": image.digest });
    output.value(&answer, || format!("{what} {name}: {}", image.digest))
}

fn list(store: &Layout, output: &Output) -> Result<()> {
    let images = store.tags()?;
    let answer: Vec<_> = images
        .iter()
        .map(|(name, image)| serde_json::json!({ "name": name, "image": image }))
        .collect();
    let row = |(name, image): &(String, Descriptor)| {
        let platform = image.platform.as_ref().map(ToString::to_string).unwrap_or_default();
        [name.clone(), image.digest.to_string(), platform]
    };
    output
        .value(&answer, || table(["NAME", "DIGEST", "PLATFORM"], images.iter().map(row).collect()))
}
