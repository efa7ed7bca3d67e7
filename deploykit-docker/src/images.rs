//! Images: built from a program and loaded into the engine, or pulled.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, MutexGuard, PoisonError};

use async_trait::async_trait;
use bollard::query_parameters::{
    CreateImageOptionsBuilder, ImportImageOptionsBuilder, ListImagesOptionsBuilder,
    RemoveImageOptionsBuilder, TagImageOptionsBuilder,
};
use bytes::Bytes;
use deploykit_core::model::{AppName, ImageRef, ImageSpec, ResolvedImage};
use deploykit_core::{Error, ErrorKind, EventSender, ImageBuilder, ResolvedApp, Result};
use deploykit_oci::{Compression, Digest, Images, Layout, Reference, RegistryClient};
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio_util::io::{ReaderStream, SyncIoBridge};

use crate::engine::Engine;
use crate::error::{Mapped as _, engine, error, is_missing};
use crate::names;
use crate::runtime::Docker;

/// What is built is decompressed again on its way to the engine.
const COMPRESSION: Compression = Compression::Zstd;
/// How often images are listed.
const LISTS: u32 = 5;
/// How often an image is put into the engine that is not there afterwards.
const GIFTS: u32 = 5;
/// What is told of a layer that is pulled.
const TOLD: [&str; 4] = ["Already exists", "Downloading", "Extracting", "Pull complete"];
/// How much of an image is on its way at once, in bytes.
const PIPE: usize = 1 << 20;

/// The folder where images are built: what has not changed is not read again.
#[derive(Clone, Debug)]
pub(crate) struct Cache(Arc<PathBuf>);

impl Cache {
    /// `$XDG_CACHE_HOME/deploykit/images` (`~/.cache` where that is not set).
    pub(crate) fn new() -> Self {
        let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).unwrap_or_else(|| {
            PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache")
        });
        Self(Arc::new(base.join("deploykit/images")))
    }

    async fn open(&self) -> Result<Layout> {
        let folder = Arc::clone(&self.0);
        off_thread(move || Layout::open(folder.as_path())).await
    }
}

const LOAD: &str = "load an image into the engine";

pub(crate) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let joined = |e: tokio::task::JoinError| error(ErrorKind::Failed, LOAD, e.to_string());
    tokio::task::spawn_blocking(work).await.map_err(joined)?
}

/// Makes an image of what its file system is to be and of the program that it runs: faster than
/// loading one, but each has another id.
pub(crate) async fn import(of: &Engine, name: &str, files: Bytes, program: &str) -> Result<()> {
    let options = CreateImageOptionsBuilder::new()
        .from_src("-")
        .repo(name)
        .changes(vec![format!("ENTRYPOINT [\"{program}\"]")])
        .build();
    let made = of.api.create_image(Some(options), Some(bollard::body_full(files)), None);
    made.try_for_each(|_| std::future::ready(Ok(()))).await.tried(LOAD)
}

/// Loads an image of a layout, where the engine does not have it yet. Returns its name there and
/// its digest.
async fn give(
    of: &Engine,
    layout: Layout,
    manifest: Digest,
    app: &AppName,
) -> Result<(String, String)> {
    let config = {
        let (layout, manifest) = (layout.clone(), manifest.clone());
        off_thread(move || Ok(layout.manifest(&manifest)?.config.digest)).await?
    };
    let hex = config.hex();
    let name = name(app, short(hex));
    let digest = config.as_str().to_owned();
    // Where another app that runs the same is removed at this moment, the engine may take the image
    // away with that one's name for it.
    for _ in 0..GIFTS {
        if unless_gone(of.api.inspect_image(&name).await)?.is_some() {
            return Ok((name, digest));
        }
        // Another app runs the same.
        let (repository, tag) = name.split_once(':').unwrap_or((&name, ""));
        let options = TagImageOptionsBuilder::new().repo(repository).tag(tag).build();
        if unless_gone(of.api.tag_image(&digest, Some(options)).await)?.is_none() {
            send(of, layout.clone(), manifest.clone(), &name).await?;
        }
    }
    let message = "it is removed again and again; see who removes images from the engine";
    Err(error(ErrorKind::Conflict, LOAD, message).with("image", name))
}

/// Loads an image of a layout under a name.
async fn send(of: &Engine, layout: Layout, manifest: Digest, name: &str) -> Result<()> {
    let reference = Reference::parse(name)
        .map_err(|e| error(ErrorKind::Invalid, LOAD, format!("{name}: {e}")))?;
    let (reader, writer) = tokio::io::duplex(PIPE);
    let written = tokio::spawn(off_thread(move || {
        layout.export_docker(&manifest, &[reference], SyncIoBridge::new(writer))
    }));
    let options = ImportImageOptionsBuilder::new().quiet(true).build();
    let body = ReaderStream::with_capacity(reader, PIPE);
    let mut answers = std::pin::pin!(of.api.import_image_stream(options, body, None));
    while let Some(answer) = answers.next().await {
        let answer = answer.tried(LOAD)?;
        if let Some(detail) = answer.error_detail {
            return Err(error(ErrorKind::Failed, LOAD, detail.message.unwrap_or_default()));
        }
    }
    written.await.map_err(|e| error(ErrorKind::Failed, LOAD, e.to_string()))??;
    Ok(())
}

/// How much of a digest is in a tag.
pub(crate) fn short(hex: &str) -> &str {
    &hex[..32.min(hex.len())]
}

pub(crate) fn name(app: &AppName, tag: &str) -> String {
    format!("{}:{tag}", names::repository(app))
}

/// What containers of an image are made from.
pub(crate) fn of_container(app: &AppName, image: &ResolvedImage) -> String {
    // One of a registry is known by its digest there, or by the engine's own id for it.
    if image.source.ends_with(&image.digest) {
        return image.source.clone();
    }
    let hex = image.digest.rsplit(':').next().unwrap_or_default();
    name(app, short(hex))
}

/// Removes the images that were built for an app and that none of `kept` names.
pub(crate) async fn collect(of: &Engine, app: &AppName, kept: &[ResolvedApp]) -> Result<()> {
    let wanted: Vec<String> = kept
        .iter()
        .flat_map(|app| app.images.values())
        .map(|image| of_container(app, image))
        .collect();
    remove(of, app, |name| !wanted.contains(name) && !is_of_agents(app, name)).await
}

/// Removes the images of an app's agents but one that is kept. What runs, and what somebody else
/// prepares meanwhile, stays.
pub(crate) async fn collect_agents(of: &Engine, app: &AppName, kept: Option<&str>) -> Result<()> {
    remove(of, app, |name| is_of_agents(app, name) && Some(&**name) != kept).await
}

/// The images of an app's agents.
pub(crate) async fn of_agents(of: &Engine, app: &AppName) -> Result<Vec<String>> {
    let mut names = built(of, app).await?;
    names.retain(|name| is_of_agents(app, name));
    Ok(names)
}

fn is_of_agents(app: &AppName, image: &str) -> bool {
    image.starts_with(&name(app, crate::agent::TAG))
}

/// What engines say of an image that is removed while they look at it.
fn gone(cause: &bollard::errors::Error) -> bool {
    let said = cause.to_string();
    ["unrecognized image ID", "failed to get digest"].iter().any(|words| said.contains(words))
}

/// What the engine says of an image; nothing where it has none, or does not have it any more.
fn unless_gone<T>(answer: std::result::Result<T, bollard::errors::Error>) -> Result<Option<T>> {
    match answer {
        Err(cause) if gone(&cause) => Ok(None),
        answer => answer.optional(LOAD),
    }
}

/// The names of what has been built for an app.
async fn built(of: &Engine, app: &AppName) -> Result<Vec<String>> {
    let filters = [("reference".to_owned(), vec![names::repository(app)])].into();
    let options = ListImagesOptionsBuilder::new().filters(&filters).build();
    let mut tries = 1;
    let found = loop {
        match of.api.list_images(Some(options.clone())).await {
            // One that somebody else removes at the same moment fails the whole list.
            Err(cause) if gone(&cause) && tries < LISTS => tries += 1,
            listed => break listed.tried("list the app's images")?,
        }
    };
    Ok(found.into_iter().flat_map(|image| image.repo_tags).collect())
}

async fn remove(of: &Engine, app: &AppName, unused: impl Fn(&String) -> bool) -> Result<()> {
    const COLLECT: &str = "remove unused images";
    for name in built(of, app).await?.into_iter().filter(unused) {
        let options = RemoveImageOptionsBuilder::new().build();
        match of.api.remove_image(&name, Some(options), None).await {
            Ok(_) => {}
            Err(cause) if is_missing(&cause) || gone(&cause) => {}
            // Somebody else's container runs it, which is theirs to end.
            Err(cause) if crate::error::status(&cause) == Some(409) => {}
            Err(cause) => return Err(engine(COLLECT, cause)),
        }
    }
    Ok(())
}

#[async_trait]
impl ImageBuilder for Docker {
    async fn build(
        &self,
        app: &AppName,
        image: &ImageSpec,
        events: &EventSender,
    ) -> Result<ResolvedImage> {
        match image {
            ImageSpec::Binary(_) | ImageSpec::Files(_) => {
                let layout = self.cache.open().await?;
                let client = RegistryClient::default().reporting(image, events);
                let images = Images::new(layout.clone(), client);
                let built = images.compression(COMPRESSION).build_as(image, None).await?;
                let manifest = built.digest;
                let given = give(&self.engine, layout, manifest.clone(), app).await?;
                let (name, digest) = given;
                self.given().insert(name, manifest);
                Ok(ResolvedImage { source: image.to_string(), digest })
            }
            ImageSpec::Reference(reference) => {
                self.pull(reference, |message| events.image(image, message)).await
            }
            ImageSpec::Build(build) => {
                self.build_dockerfile(app, build, |line| events.image(image, line)).await
            }
            other => {
                let message = format!("`{other}` is of a kind that this release cannot make ready");
                Err(error(ErrorKind::Unsupported, "make an image ready", message))
            }
        }
    }
}

impl Docker {
    fn given(&self) -> MutexGuard<'_, HashMap<String, Digest>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loads an image once more that this process has loaded, and that has gone since: the engine
    /// may take away the names of others when the last that it knew is removed. Returns whether
    /// there is such an image.
    pub(crate) async fn give_again(&self, app: &AppName, image: &ResolvedImage) -> Result<bool> {
        let manifest = self.given().get(&of_container(app, image)).cloned();
        let Some(manifest) = manifest else { return Ok(false) };
        give(&self.engine, self.cache.open().await?, manifest, app).await?;
        Ok(true)
    }

    /// Fixes the digest of a reference, and pulls that where the engine does not have it.
    async fn pull(&self, reference: &ImageRef, tell: impl Fn(String)) -> Result<ResolvedImage> {
        const PULL: &str = "pull an image";
        let api = &self.engine.api;
        let bad = |e: deploykit_oci::ReferenceError| {
            error(ErrorKind::Invalid, PULL, format!("{reference}: {e}"))
        };
        let parsed = Reference::parse_normalized(reference.as_str()).map_err(bad)?.pinned();
        let credentials = crate::credentials::of(parsed.domain());
        let digest = match parsed.digest() {
            Some(digest) => digest.as_str().to_owned(),
            None => {
                match api.inspect_registry_image(&parsed.to_string(), credentials.clone()).await {
                    Ok(found) => found.descriptor.digest.unwrap_or_default(),
                    Err(cause) => return self.local(reference, engine(PULL, cause)).await,
                }
            }
        };
        let pinned = format!("{}@{digest}", parsed.name());
        let resolved = ResolvedImage { source: pinned.clone(), digest };
        if api.inspect_image(&pinned).await.optional(PULL)?.is_some() {
            return Ok(resolved);
        }
        let options = CreateImageOptionsBuilder::new().from_image(&pinned).build();
        let mut progress = std::pin::pin!(api.create_image(Some(options), None, credentials));
        let mut last = HashMap::new();
        while let Some(step) = progress.next().await {
            let step = step.map_err(|cause| denied(reference, engine(PULL, cause)))?;
            if let Some(detail) = step.error_detail {
                let message = detail.message.unwrap_or_default();
                return Err(denied(reference, error(ErrorKind::Failed, PULL, message)));
            }
            // The same is said again and again while a layer is on its way.
            if let (Some(layer), Some(status)) = (step.id, step.status)
                && TOLD.contains(&status.as_str())
                && last.get(&layer) != Some(&status)
            {
                tracing::debug!(%reference, layer, status, "pulling");
                tell(format!("{layer}: {}", status.to_lowercase()));
                last.insert(layer, status);
            }
        }
        Ok(resolved)
    }

    /// An image that the engine has and no registry knows; else why the registry has refused.
    async fn local(&self, reference: &ImageRef, refused: Error) -> Result<ResolvedImage> {
        let found = self.engine.api.inspect_image(reference.as_str()).await;
        match found.optional("look for an image")?.and_then(|image| image.id) {
            Some(id) => Ok(ResolvedImage { source: id.clone(), digest: id }),
            None => Err(denied(reference, refused)),
        }
    }
}

/// What a refusal of a registry says.
fn denied(reference: &ImageRef, cause: Error) -> Error {
    let text = cause.message().to_lowercase();
    let is = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let (kind, fix) = if is(&["unauthorized", "denied", "no basic auth", "authentication required"])
    {
        (ErrorKind::Unauthorized, "log in by `docker login`, or ask for the right to pull it")
    } else if is(&["not found", "manifest unknown", "name unknown", "no such image"]) {
        (ErrorKind::NotFound, "correct its name, or push it first")
    } else {
        (cause.kind(), "see whether its registry is reached from the engine")
    };
    let message = format!("{}; {fix}", cause.message());
    error(kind, "pull an image", message).with("image", reference)
}
