//! Which images may be deployed.

use async_trait::async_trait;

use crate::error::Result;
use crate::model::{AppName, ImageSpec, ResolvedImage};

/// Decides whether an image may be deployed; given to
/// [`Deployer::with_image_policy`](crate::Deployer::with_image_policy) and asked in `prepare`,
/// once for each image of an app, when its digest is fixed.
///
/// ```
/// use std::sync::Arc;
/// use deploykit_core::model::{App, AppName, ImageSpec, ResolvedImage, Service};
/// use deploykit_core::{Deployer, Error, ErrorKind, ImagePolicy, Reconciler, memory};
///
/// struct OurRegistry;
///
/// #[async_trait::async_trait]
/// impl ImagePolicy for OurRegistry {
///     async fn check(
///         &self,
///         _app: &AppName,
///         image: &ImageSpec,
///         _resolved: &ResolvedImage,
///     ) -> deploykit_core::Result<()> {
///         match image {
///             ImageSpec::Reference(name) if !name.as_str().starts_with("registry.example/") => {
///                 let message = format!("{name} is not of our registry");
///                 Err(Error::new(ErrorKind::Unauthorized, "check the image", message))
///             }
///             _ => Ok(()),
///         }
///     }
/// }
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let deployer = Deployer::new(Arc::new(Reconciler::new(memory::Host::new())))
///     .with_image_policy(Arc::new(OurRegistry));
/// let foreign: ImageSpec = serde_json::from_str(r#"{"reference": "docker.io/library/nginx"}"#)?;
/// let app = App::build("blog").service(Service::build("web", foreign)).validate()?;
/// let refused = deployer.prepare(app).await.unwrap_err();
/// assert_eq!(refused.problems()[0].path, "services.web.image");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[async_trait]
pub trait ImagePolicy: Send + Sync {
    /// Whether an app may run an image: `image` as it was written, `resolved` with the digest that
    /// instances will run.
    ///
    /// Cancel-safe: it changes nothing.
    ///
    /// # Errors
    /// Why it is refused: the message names the image. `Unavailable` and `Timeout` mean that
    /// nothing could be found out, and end `prepare` as they are.
    async fn check(&self, app: &AppName, image: &ImageSpec, resolved: &ResolvedImage)
    -> Result<()>;
}
