//! Backends by URL.

use std::future::Future;
use std::pin::Pin;

use deploykit_core::{Deployer, Error, ErrorKind, Result};

type Opened = Pin<Box<dyn Future<Output = Result<Deployer>> + Send>>;

/// Scheme, form of the URL, how it is opened.
type Backend = (&'static str, &'static str, fn(String) -> Opened);

/// Every backend that is compiled in.
const BACKENDS: &[Backend] = &[
    #[cfg(feature = "local")]
    ("local", "local:// or local:///absolute/folder", |url| {
        Box::pin(async move {
            let backend =
                deploykit_local::open(deploykit_local::LocalConfig::from_url(&url)?).await?;
            Ok(Deployer::new(std::sync::Arc::new(backend)))
        })
    }),
    #[cfg(feature = "docker")]
    ("docker", "docker://, docker:///path/to/socket or docker://host:port", |url| {
        Box::pin(async move {
            let backend =
                deploykit_docker::open(deploykit_docker::DockerConfig::from_url(&url)?).await?;
            Ok(Deployer::new(std::sync::Arc::new(backend)))
        })
    }),
    #[cfg(feature = "k8s")]
    ("k8s", "k8s://context/namespace", |url| Box::pin(k8s(url))),
];

/// A cluster, with `builder=docker://…` among the parameters of its URL for an engine that builds
/// images from Dockerfiles.
#[cfg(feature = "k8s")]
async fn k8s(url: String) -> Result<Deployer> {
    use deploykit_k8s::{K8s, K8sConfig};
    let (place, parameters) = url.split_once('?').unwrap_or((&url, ""));
    let (builders, others): (Vec<_>, Vec<_>) =
        parameters.split('&').partition(|parameter| parameter.starts_with("builder="));
    let config = K8sConfig::from_url(&format!("{place}?{}", others.join("&")))?;
    let repository = config.repository();
    let backend = K8s::open(config).await?;
    let backend = match builders.last().and_then(|parameter| parameter.split_once('=')) {
        Some((_, engine)) => backend.with_builder(builder(engine, repository).await?),
        None => backend,
    };
    Ok(Deployer::new(std::sync::Arc::new(backend)))
}

#[cfg(feature = "k8s")]
async fn builder(
    engine: &str,
    repository: Option<String>,
) -> Result<std::sync::Arc<dyn deploykit_core::ImageBuilder>> {
    let refused = |message| Error::new(ErrorKind::Invalid, "open the builder", message);
    let Some(repository) = repository else {
        return Err(refused("a builder needs a registry to push to: add registry=HOST:PORT"));
    };
    #[cfg(feature = "docker")]
    {
        use deploykit_docker::{Builder, DockerConfig};
        let config = DockerConfig::from_url(engine)?;
        Ok(std::sync::Arc::new(Builder::open(config, repository).await?))
    }
    #[cfg(not(feature = "docker"))]
    Err(refused("images are built by Docker engines: turn the feature `docker` on")
        .with("builder", engine)
        .with("repository", repository))
}

/// Opens the backend that `url` names.
///
/// `k8s://…?registry=HOST:PORT&builder=docker://` builds images from Dockerfiles on that engine and
/// pushes them to that registry.
///
/// Cancel-safe: nothing is left behind but, on `local://`, a supervisor that ends by itself.
///
/// # Errors
/// `Invalid` where no backend has the URL's scheme: the message lists those that there are.
pub async fn open(url: &str) -> Result<Deployer> {
    let scheme = url.split_once("://").map(|(scheme, _)| scheme);
    match BACKENDS.iter().find(|(known, _, _)| Some(*known) == scheme) {
        Some((_, _, open)) => open(url.to_owned()).await,
        None => {
            let forms: Vec<&str> = BACKENDS.iter().map(|(_, form, _)| *form).collect();
            let message = format!("no backend for `{url}`; known are {}", forms.join(", "));
            Err(Error::new(ErrorKind::Invalid, "open a backend", message))
        }
    }
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    #[cfg(feature = "local")]
    async fn an_unknown_scheme_lists_the_known_ones() {
        let error = super::open("ftp://x").await.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(
            error.starts_with("open a backend: no backend for `ftp://x`; known are "),
            "{error}"
        );
        assert!(error.contains("local:// or local:///absolute/folder"), "{error}");
    }
}
