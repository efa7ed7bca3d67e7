//! What makes an app's images ready: built here, or looked up in a registry.

use async_trait::async_trait;
use deploykit_core::model::{AppName, ImageCopy, ImageFiles, ImageRef, ImageSpec, ResolvedImage};
use deploykit_core::{Error, ErrorKind, EventSender, ImageBuilder, Result};

use crate::build::{Compression, CopyOptions, Recipe};
use crate::digest::Digest;
use crate::dockerignore::DockerIgnore;
use crate::error::{error, on_path};
use crate::layout::Layout;
use crate::reference::Reference;
use crate::registry::RegistryClient;
use crate::spec::{Descriptor, Empty, Platform};

const PREPARE: &str = "prepare an image";

/// Makes an app's images ready, without a daemon: programs and files become images in a store and,
/// where that is wanted, in a registry; references are resolved to digests.
///
/// ```no_run
/// use deploykit_core::{EventSender, ImageBuilder, model::ImageSpec};
/// use deploykit_oci::{Images, Layout, RegistryClient};
/// # async fn build() -> deploykit_core::Result<()> {
/// let layout = Layout::open("/var/cache/images")?;
/// let images = Images::new(layout, RegistryClient::default()).pushing_to("127.0.0.1:5000/team")?;
/// let web = ImageSpec::binary("target/release/web");
/// let (events, _) = EventSender::channel();
/// let built = images.build(&"blog".parse().unwrap(), &web, &events).await?;
/// // Something like 127.0.0.1:5000/team/blog/web@sha256:…
/// println!("{}@{}", built.source, built.digest);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Images {
    layout: Layout,
    client: RegistryClient,
    push_to: Option<Reference>,
    platform: Platform,
    compression: Compression,
}

/// What an image is going to be built of.
struct Made {
    recipe: Recipe,
    /// The name of the program that it runs.
    program: String,
    base: Option<Reference>,
}

impl Images {
    /// Images of this machine's platform, kept in a store alone.
    pub fn new(layout: Layout, client: RegistryClient) -> Self {
        let platform = Platform::current();
        Self { layout, client, push_to: None, platform, compression: Compression::default() }
    }

    /// The same, but what is built is pushed too: below this registry and path, to a repository
    /// for each app and program, tagged with the first 16 digits of its digest.
    ///
    /// # Errors
    /// `Invalid` where it is no registry and path.
    pub fn pushing_to(mut self, prefix: &str) -> Result<Self> {
        let parsed = Reference::parse_normalized(prefix);
        let parsed = parsed.map_err(|cause| bad_name(prefix).because(cause))?;
        if parsed.tag().is_some() || parsed.digest().is_some() {
            return Err(bad_name(prefix));
        }
        self.push_to = Some(parsed);
        Ok(self)
    }

    /// The same, but for another platform.
    pub fn platform(self, platform: Platform) -> Self {
        Self { platform, ..self }
    }

    /// The same, but with layers compressed like this.
    pub fn compression(self, compression: Compression) -> Self {
        Self { compression, ..self }
    }

    /// Where built images are kept, each by the digest that [`ImageBuilder::build`] returns.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Builds an image of a program or of files; where `push_to` names a place it is pushed to
    /// there, each layer as soon as it is built.
    ///
    /// # Errors
    /// `Invalid` for a reference, `Unsupported` for what only an engine builds; otherwise as
    /// [`Recipe::build`] and [`RegistryClient::push`].
    pub async fn build_as(
        &self,
        image: &ImageSpec,
        push_to: Option<&Reference>,
    ) -> Result<Descriptor> {
        let Made { recipe, base, .. } = self.recipe(image).await?;
        match push_to {
            Some(to) => {
                let mount_from: Vec<&Reference> = base.iter().collect();
                self.client.build_and_push(recipe, &self.layout, to, &mount_from).await
            }
            None => self.store(recipe).await,
        }
    }

    async fn store(&self, recipe: Recipe) -> Result<Descriptor> {
        let layout = self.layout.clone();
        tokio::task::spawn_blocking(move || recipe.build(&layout)).await.map_err(broken)?
    }

    async fn build_and_push(
        &self,
        made: Made,
        app: &AppName,
    ) -> Result<(Descriptor, Option<Reference>)> {
        let Some(prefix) = &self.push_to else {
            return Ok((self.store(made.recipe).await?, None));
        };
        let repository = format!("{}/{app}/{}", prefix.name(), path_of(&made.program));
        let repository =
            Reference::parse(&repository).map_err(|cause| bad_name(&repository).because(cause))?;
        let mount_from: Vec<&Reference> = made.base.iter().collect();
        let (client, recipe) = (&self.client, made.recipe);
        // Registries collect what no tag names.
        let name = |image: &Descriptor| {
            let tag = image.digest.hex().get(..16).unwrap_or_default();
            repository.tagged(tag).unwrap_or_else(|_| repository.clone())
        };
        let built =
            client.build_and_push_as(recipe, &self.layout, &repository, &mount_from, name).await?;
        Ok((built, Some(repository)))
    }

    async fn recipe(&self, image: &ImageSpec) -> Result<Made> {
        match image {
            ImageSpec::Binary(path) => {
                let program = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
                let (path, compression) = (path.clone(), self.compression);
                let recipe = tokio::task::spawn_blocking(move || {
                    let mut recipe = Recipe::binary(path)?.temporary_folder()?;
                    recipe.compression = compression;
                    Ok::<Recipe, Error>(recipe)
                });
                let recipe = recipe.await.map_err(broken)??;
                Ok(Made { recipe, program: program.into_owned(), base: None })
            }
            ImageSpec::Files(files) => {
                let (recipe, base) = self.files(files).await?;
                let program = files.program.as_ref().and_then(|path| path.file_name());
                let program = program.map(|name| name.to_string_lossy().into_owned());
                let entrypoint = || files.entrypoint.first()?.rsplit('/').next().map(str::to_owned);
                Ok(Made { recipe, program: program.or_else(entrypoint).unwrap_or_default(), base })
            }
            ImageSpec::Reference(_) => {
                let message = "it is built already; promote it, or build upon it";
                Err(error(ErrorKind::Invalid, PREPARE, message).with("image", image))
            }
            other => {
                let message = "this kind of image is built by an engine only";
                Err(error(ErrorKind::Unsupported, PREPARE, message).with("image", other))
            }
        }
    }

    async fn files(&self, files: &ImageFiles) -> Result<(Recipe, Option<Reference>)> {
        let mut base = None;
        let mut pulled = None;
        if let Some(reference) = &files.base {
            let named = parse(reference)?;
            let image = self.client.pull(&named, &self.layout, Some(&self.platform)).await?;
            (base, pulled) = (Some(named), Some(image.digest));
        }
        let (files, layout) = (files.clone(), self.layout.clone());
        let (platform, compression) = (self.platform.clone(), self.compression);
        let made = tokio::task::spawn_blocking(move || {
            let mut recipe = match pulled {
                Some(digest) => Recipe::upon(&layout, &digest, platform)?,
                None => Recipe::scratch(platform).temporary_folder()?,
            };
            recipe.compression = compression;
            fill(recipe, files)
        });
        Ok((made.await.map_err(broken)??, base))
    }
}

#[async_trait]
impl ImageBuilder for Images {
    async fn build(
        &self,
        app: &AppName,
        image: &ImageSpec,
        events: &EventSender,
    ) -> Result<ResolvedImage> {
        let client = self.client.reporting(image, events);
        Self { client, ..self.clone() }.ready(app, image).await
    }
}

impl Images {
    async fn ready(&self, app: &AppName, image: &ImageSpec) -> Result<ResolvedImage> {
        if let ImageSpec::Reference(reference) = image {
            let found = self.client.resolve(&parse(reference)?).await?;
            let digest = found.digest.to_string();
            return Ok(ResolvedImage { source: reference.to_string(), digest });
        }
        let (built, pushed) = self.build_and_push(self.recipe(image).await?, app).await?;
        let source = pushed.map_or_else(|| image.to_string(), |name| name.to_string());
        Ok(ResolvedImage { source, digest: built.digest.to_string() })
    }
}

/// The digest of an image that was made ready.
impl TryFrom<&ResolvedImage> for Digest {
    type Error = Error;
    fn try_from(image: &ResolvedImage) -> Result<Self> {
        image.digest.parse().map_err(|cause: crate::digest::DigestError| {
            error(ErrorKind::Invalid, PREPARE, "its digest is none").because(cause)
        })
    }
}

fn parse(reference: &ImageRef) -> Result<Reference> {
    Reference::parse_normalized(reference.as_str()).map_err(|cause| {
        error(ErrorKind::Invalid, PREPARE, cause.to_string()).with("image", reference)
    })
}

fn bad_name(name: &str) -> Error {
    let message = "images can't be pushed there; name it like registry.example/team";
    error(ErrorKind::Invalid, PREPARE, message).with("name", name)
}

fn broken(cause: tokio::task::JoinError) -> Error {
    error(ErrorKind::Failed, PREPARE, "the build broke off").because(cause)
}

/// A program's name as a component of a repository's path.
fn path_of(program: &str) -> String {
    let lower = program.to_ascii_lowercase();
    let words = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let path = words.collect::<Vec<_>>().join("-");
    if path.is_empty() { "image".to_owned() } else { path }
}

fn fill(mut recipe: Recipe, files: ImageFiles) -> Result<Recipe> {
    if let Some(program) = files.program {
        recipe = recipe.program(program)?;
    }
    for copy in files.copies {
        recipe = add(recipe, &copy)?;
    }
    if files.certificates {
        recipe = recipe.certificates()?;
    }
    if files.time_zones {
        recipe = recipe.time_zones()?;
    }
    let execution = &mut recipe.execution;
    for (name, value) in files.env {
        let start = format!("{name}=");
        execution.env.retain(|pair| !pair.starts_with(&start));
        execution.env.push(format!("{name}={value}"));
    }
    if !files.entrypoint.is_empty() {
        // The base's arguments were for its own program.
        execution.entrypoint = files.entrypoint;
        execution.cmd.clear();
    }
    if !files.cmd.is_empty() {
        execution.cmd = files.cmd;
    }
    if let Some(user) = files.user {
        execution.user = user;
    }
    if let Some(folder) = files.workdir {
        execution.working_dir = folder.display().to_string();
    }
    execution
        .exposed_ports
        .extend(files.ports.iter().map(|port| (format!("{port}/tcp"), Empty {})));
    let volumes = files.volumes.iter().map(|path| (path.display().to_string(), Empty {}));
    execution.volumes.extend(volumes);
    execution.stop_signal = files.stop_signal.or(execution.stop_signal.take());
    execution.labels.extend(files.labels);
    recipe.annotations.extend(files.annotations);
    Ok(recipe)
}

fn add(recipe: Recipe, copy: &ImageCopy) -> Result<Recipe> {
    let file = copy.from.join(".dockerignore");
    let ignore = match std::fs::read_to_string(&file) {
        Ok(text) => DockerIgnore::parse(&text).map_err(|problems| {
            let wrong = error(ErrorKind::Invalid, PREPARE, "a .dockerignore is wrong");
            wrong.with("path", file.display()).with_problems(problems)
        })?,
        Err(e)
            if matches!(
                e.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            DockerIgnore::default()
        }
        Err(cause) => return Err(on_path(PREPARE, &file)(cause)),
    };
    let options = CopyOptions {
        owner: copy.owner.map_or((0, 0), |owner| (owner.user, owner.group)),
        mode: copy.mode.map(|mode| mode.bits()),
        ignore,
    };
    recipe.copy_with(&copy.from, &copy.to.to_string_lossy(), &options)
}
