//! Builds for backends that pull from a registry and have no builder of their own.

use std::sync::Arc;

use async_trait::async_trait;
use bollard::query_parameters::{
    PushImageOptionsBuilder, RemoveImageOptions, TagImageOptionsBuilder,
};
use deploykit_core::model::{AppName, ImageSpec, ResolvedImage};
use deploykit_core::{ErrorKind, EventSender, ImageBuilder, Result};
use futures_util::StreamExt as _;
use tokio::sync::Semaphore;

use super::BUILD;
use crate::config::DockerConfig;
use crate::error::{Mapped as _, engine, error};
use crate::images;
use crate::runtime::Docker;

const PUSH: &str = "push an image";
/// How many images are pushed at once: workloads of one image share what is pushed.
const PUSHES: usize = 1;

/// A Docker engine that builds images from Dockerfiles and pushes them to a registry, for a backend
/// that runs them elsewhere: Kubernetes.
///
/// Builds are those of [`Docker`], by BuildKit. The image keeps no name in the engine; what
/// BuildKit has cached stays.
///
/// ```no_run
/// # async fn example() -> deploykit_core::Result<()> {
/// use deploykit_docker::{Builder, DockerConfig};
/// let builder = Builder::open(DockerConfig::from_url("docker://")?, "registry.example/shop").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    docker: Docker,
    repository: Arc<str>,
    pushes: Arc<Semaphore>,
}

impl Builder {
    /// Connects to the engine of `config`. Images are pushed to `repository`, named without a tag,
    /// with the credentials that `docker login` has kept.
    ///
    /// # Errors
    /// Those of [`Docker::open`]; `Unsupported` where `config` wants the classic builder, which
    /// makes another image of the same context each time.
    pub async fn open(config: DockerConfig, repository: impl Into<String>) -> Result<Self> {
        if !config.buildkit {
            let message = "images to be pushed are built by BuildKit; unset DOCKER_BUILDKIT";
            return Err(error(ErrorKind::Unsupported, BUILD, message));
        }
        let repository: String = repository.into();
        let docker = Docker::open(config).await?;
        let pushes = Arc::new(Semaphore::new(PUSHES));
        Ok(Self { docker, repository: repository.into(), pushes })
    }

    /// Pushes an image of the engine and says its digest in the registry.
    async fn push(&self, id: &str) -> Result<String> {
        let api = &self.docker.engine.api;
        let tag = id.rsplit(':').next().unwrap_or_default();
        let options = TagImageOptionsBuilder::new().repo(&self.repository).tag(tag).build();
        api.tag_image(id, Some(options)).await.tried(PUSH)?;
        let domain = self.repository.split('/').next().unwrap_or_default();
        let credentials = crate::credentials::of(domain);
        let options = PushImageOptionsBuilder::new().tag(tag).build();
        let mut steps =
            std::pin::pin!(api.push_image(&self.repository, Some(options), credentials));
        while let Some(step) = steps.next().await {
            let refused = |cause| engine(PUSH, cause).with("repository", &self.repository);
            if let Some(detail) = step.map_err(refused)?.error_detail {
                let message = detail.message.unwrap_or_default();
                let refused = error(ErrorKind::Failed, PUSH, message);
                return Err(refused.with("repository", &self.repository));
            }
        }
        let pushed = api.inspect_image(id).await.tried(PUSH)?.repo_digests.unwrap_or_default();
        let ours = |name: &String| {
            let (repository, digest) = name.split_once('@')?;
            (repository == &*self.repository).then(|| digest.to_owned())
        };
        pushed.iter().find_map(ours).ok_or_else(|| {
            let message = "the engine does not say by which digest it was pushed";
            error(ErrorKind::Failed, PUSH, message).with("repository", &self.repository)
        })
    }
}

#[async_trait]
impl ImageBuilder for Builder {
    /// Builds and pushes. Dropped, a build goes on in the engine to its end.
    async fn build(
        &self,
        app: &AppName,
        image: &ImageSpec,
        events: &EventSender,
    ) -> Result<ResolvedImage> {
        let ImageSpec::Build(build) = image else {
            let message = format!("`{image}` is not built from a Dockerfile");
            return Err(error(ErrorKind::Unsupported, BUILD, message));
        };
        let _turn = self.pushes.acquire().await;
        let built =
            self.docker.build_dockerfile(app, build, |line| events.image(image, line)).await?;
        let pushed = self.push(&built.digest).await;
        let api = &self.docker.engine.api;
        let tag = built.digest.rsplit(':').next().unwrap_or_default();
        for name in [format!("{}:{tag}", self.repository), images::of_container(app, &built)] {
            api.remove_image(&name, None::<RemoveImageOptions>, None).await.optional(PUSH)?;
        }
        Ok(ResolvedImage { source: built.source, digest: pushed? })
    }
}
