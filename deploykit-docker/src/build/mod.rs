//! Images that the engine builds from a Dockerfile: by BuildKit, or by its classic builder.

mod context;
mod push;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bollard::auth::DockerCredentials;
use bollard::grpc::build::{ImageBuildFrontendOptions, ImageBuildLoadInput, SecretSource};
use bollard::grpc::driver::{Build as _, moby::Moby};
use bollard::models::{BuildInfo, BuildInfoAux};
use bollard::query_parameters::{
    BuildImageOptionsBuilder, BuilderVersion, RemoveImageOptions, TagImageOptionsBuilder,
};
use deploykit_core::model::{AppName, BuildSecret, ImageBuild, ResolvedImage};
use deploykit_core::{Error, ErrorKind, Result};
use futures_util::StreamExt as _;
use tokio_util::io::{ReaderStream, SyncIoBridge};

use crate::engine::Engine;
use crate::error::{Mapped as _, engine, error};
use crate::images;
use crate::runtime::Docker;
use context::Context;
pub use push::Builder;

pub(crate) const BUILD: &str = "build an image from a Dockerfile";
/// The longest that a build may take.
const DEADLINE: Duration = Duration::from_secs(3600);
/// How much of a context is on its way at once, in bytes.
const PIPE: usize = 1 << 20;
/// How many of the last lines are told where a build fails.
const LINES: usize = 12;

impl Docker {
    /// Builds an image and names it as one of the app's. A build that is dropped goes on in the
    /// engine; what it makes is collected with the images that no revision names.
    pub(crate) async fn build_dockerfile(
        &self,
        app: &AppName,
        build: &ImageBuild,
        tell: impl Fn(String) + Send + Sync,
    ) -> Result<ResolvedImage> {
        let of = &self.engine;
        let source = format!("build of {}", build.context.display());
        let opened = {
            let build = build.clone();
            tokio::task::spawn_blocking(move || Context::open(&build))
        };
        let context = Arc::new(opened.await.map_err(broken)??);
        let name = images::name(app, &format!("build-{:016x}", fastrand::u64(..)));
        let made = async {
            if build.secrets.is_empty() {
                streamed(of, &name, build, &context, self.buildkit, &tell).await
            } else {
                with_secrets(of, &name, build, &context, self.buildkit).await
            }
        };
        let late = |_| error(ErrorKind::Timeout, BUILD, "it has taken more than an hour");
        let built =
            tokio::time::timeout(DEADLINE, made).await.map_err(late).and_then(|built| built);
        built.map_err(|cause| cause.with("context", build.context.display()))?;
        let id = of.api.inspect_image(&name).await.tried(BUILD)?.id.unwrap_or_default();
        let image = ResolvedImage { source, digest: id };
        let lasting = images::of_container(app, &image);
        let (repository, tag) = lasting.split_once(':').unwrap_or((&lasting, ""));
        let options = TagImageOptionsBuilder::new().repo(repository).tag(tag).build();
        of.api.tag_image(&name, Some(options)).await.tried(BUILD)?;
        of.api.remove_image(&name, None::<RemoveImageOptions>, None).await.optional(BUILD)?;
        Ok(image)
    }
}

fn broken(cause: tokio::task::JoinError) -> Error {
    error(ErrorKind::Failed, BUILD, "the build broke off").because(cause)
}

fn credentials(context: &Context) -> HashMap<String, DockerCredentials> {
    let known = |domain: String| Some((domain.clone(), crate::credentials::of(&domain)?));
    context.registries().into_iter().filter_map(known).collect()
}

/// Sends the context while it is read, and reports each step.
async fn streamed(
    of: &Engine,
    name: &str,
    build: &ImageBuild,
    context: &Arc<Context>,
    buildkit: bool,
    tell: &(impl Fn(String) + Send + Sync),
) -> Result<()> {
    let mut options = BuildImageOptionsBuilder::new()
        .t(name)
        .dockerfile(&context.dockerfile)
        .buildargs(&pairs(&build.args))
        .labels(&pairs(&build.labels))
        .nocache(build.no_cache)
        .rm(true)
        .forcerm(true);
    if let Some(target) = &build.target {
        options = options.target(target);
    }
    if build.pull {
        options = options.pull("true");
    }
    if buildkit {
        let session = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        options = options.version(BuilderVersion::BuilderBuildKit).session(&session);
    }
    let (reader, writer) = tokio::io::duplex(PIPE);
    let sent = tokio::task::spawn_blocking({
        let context = Arc::clone(context);
        move || context.write(SyncIoBridge::new(writer))
    });
    let body = bollard::body_try_stream(ReaderStream::with_capacity(reader, PIPE));
    let known = Some(credentials(context));
    let mut told = Told::default();
    let mut failed = None;
    let mut steps = std::pin::pin!(of.api.build_image(options.build(), known, Some(body)));
    while let Some(step) = steps.next().await {
        match step {
            Ok(step) => told.tell(step, tell),
            Err(cause) => failed = failed.or(Some(cause)),
        }
    }
    let sent = sent.await.map_err(broken)?;
    match failed {
        Some(cause) => Err(told.failure(engine(BUILD, cause))),
        None => sent,
    }
}

fn pairs(of: &std::collections::BTreeMap<String, String>) -> HashMap<&str, &str> {
    of.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// What an engine has said of a build.
#[derive(Default)]
struct Told(std::collections::VecDeque<String>);

impl Told {
    fn tell(&mut self, step: BuildInfo, tell: impl Fn(String)) {
        let mut lines: Vec<String> = step.stream.into_iter().collect();
        if let Some(BuildInfoAux::BuildKit(status)) = step.aux {
            for step in status.vertexes.iter().filter(|step| step.completed.is_some()) {
                let name = &step.name;
                tracing::info!(step = name, cached = step.cached, "building");
                tell(if step.cached { format!("{name}: cached") } else { name.clone() });
                if !step.error.is_empty() {
                    lines.push(format!("{name}: {}", step.error));
                }
            }
            let logs = status.logs.iter().map(|log| String::from_utf8_lossy(&log.msg).into_owned());
            lines.extend(logs);
        }
        for line in lines.iter().flat_map(|text| text.lines()).filter(|l| !l.trim().is_empty()) {
            tracing::info!(line, "building");
            tell(line.to_owned());
            if self.0.len() == LINES {
                self.0.pop_front();
            }
            self.0.push_back(line.to_owned());
        }
    }

    /// The end of a build that has failed. What the Dockerfile says does not work, so trying again
    /// does not help.
    fn failure(self, cause: Error) -> Error {
        let kind = match cause.kind() {
            ErrorKind::Failed => ErrorKind::Invalid,
            kind => kind,
        };
        let lines: Vec<String> = self.0.into();
        let message = match lines.is_empty() {
            true => cause.message().to_owned(),
            false => format!("{}; the last lines: {}", cause.message(), lines.join(" | ")),
        };
        error(kind, BUILD, message)
    }
}

/// Secrets are asked for by BuildKit while it builds, over a session; the context is sent there
/// from memory.
async fn with_secrets(
    of: &Engine,
    name: &str,
    build: &ImageBuild,
    context: &Arc<Context>,
    buildkit: bool,
) -> Result<()> {
    if !buildkit {
        let message = "the classic builder has no secrets; unset DOCKER_BUILDKIT";
        return Err(error(ErrorKind::Unsupported, BUILD, message));
    }
    let mut options = ImageBuildFrontendOptions::builder()
        .dockerfile(std::path::Path::new(&context.dockerfile))
        .nocache(build.no_cache)
        .pull(build.pull);
    if let Some(target) = &build.target {
        options = options.target(target);
    }
    for (name, value) in &build.args {
        options = options.buildarg(name, value);
    }
    for (name, value) in &build.labels {
        options = options.label(name, value);
    }
    for (name, secret) in &build.secrets {
        options = options.set_secret(name, &self::secret(name, secret)?);
    }
    let (api, name) = (of.api.clone(), name.to_owned());
    let (context, runtime) = (Arc::clone(context), tokio::runtime::Handle::current());
    // The client's future stays on one thread.
    let built = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        context.write(&mut bytes)?;
        let known = credentials(&context);
        let known = known.iter().map(|(domain, known)| (domain.as_str(), known.clone())).collect();
        let input = ImageBuildLoadInput::Upload(bytes.into());
        let built = Moby::new(&api).docker_build(&name, options.build(), input, Some(known), None);
        let failed = |cause: bollard::grpc::error::GrpcError| {
            error(ErrorKind::Invalid, BUILD, cause.to_string())
        };
        runtime.block_on(built).map_err(failed)
    });
    built.await.map_err(broken)?
}

fn secret(name: &str, secret: &BuildSecret) -> Result<SecretSource> {
    let missing = |what: String| {
        error(ErrorKind::NotFound, BUILD, format!("the secret {name} has no value: {what}"))
    };
    match secret {
        BuildSecret::File(file) if file.is_file() => Ok(SecretSource::File(file.clone())),
        BuildSecret::File(file) => Err(missing(format!("there is no file {}", file.display()))),
        BuildSecret::Environment(variable) if std::env::var_os(variable).is_some() => {
            Ok(SecretSource::Env(variable.clone()))
        }
        BuildSecret::Environment(variable) => {
            Err(missing(format!("the variable {variable} is not set")))
        }
        _ => Err(missing("it is of a kind that this release does not know".to_owned())),
    }
}
