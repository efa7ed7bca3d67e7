//! A client of registries, to <https://github.com/opencontainers/distribution-spec>, 1.1.

mod auth;
mod call;
mod challenge;
mod config;
mod copy;
mod credentials;
mod download;
mod failure;
mod manifest;
mod pull;
mod push;
mod referrers;
mod tags;
mod transfer;
mod transport;
mod trust;
mod upload;

use std::sync::Arc;

use deploykit_core::EventSender;
use deploykit_core::model::ImageSpec;

use auth::Authorizer;
pub use challenge::Challenge;
pub use config::{PlainHttp, RegistryConfig};
pub use credentials::Credentials;
pub use manifest::Document;
pub use transfer::{Outcome, Transfer};
use transport::Transport;

/// A client of registries: of all of them, each logged in to when it asks for it. Clones share
/// connections and logins.
///
/// Every wait has a deadline, requests that may be repeated are, within a budget
/// ([`RegistryConfig`]), and whatever is read is compared with its digest. All its futures may be
/// dropped: what has been transferred whole by then stays where it is, and no tag names anything
/// that is not whole.
///
/// ```no_run
/// use deploykit_oci::{Layout, Recipe, Reference, RegistryClient};
/// # async fn push() -> Result<(), Box<dyn std::error::Error>> {
/// let layout = Layout::open("images")?;
/// let image = Recipe::binary("target/release/web")?.build(&layout)?;
/// let name = Reference::parse_normalized("127.0.0.1:5000/team/web:1.2")?;
/// let client = RegistryClient::default();
/// client.push(&layout, &image, &name, &[]).await?;
/// assert_eq!(client.resolve(&name).await?.digest, image.digest);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RegistryClient {
    shared: Arc<Shared>,
    watcher: Option<Arc<dyn Fn(Transfer) + Send + Sync>>,
}

struct Shared {
    config: RegistryConfig,
    transport: Transport,
    authorizer: Authorizer,
}

impl Default for RegistryClient {
    fn default() -> Self {
        Self::new(RegistryConfig::default())
    }
}

impl std::fmt::Debug for RegistryClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryClient")
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}

impl RegistryClient {
    /// A client; nothing is connected to yet.
    pub fn new(config: RegistryConfig) -> Self {
        let transport = Transport::new(&config);
        let shared = Shared { config, transport, authorizer: Authorizer::default() };
        Self { shared: Arc::new(shared), watcher: None }
    }

    /// The same client, which tells `watcher` of each blob that it transfers. `watcher` is called
    /// often and in the midst of transfers, so it should return at once.
    pub fn with_progress(&self, watcher: impl Fn(Transfer) + Send + Sync + 'static) -> Self {
        Self { shared: Arc::clone(&self.shared), watcher: Some(Arc::new(watcher)) }
    }

    /// The same client, which also reports where the blobs of an image are.
    pub fn reporting(&self, image: &ImageSpec, events: &EventSender) -> Self {
        let (image, events, told) = (image.clone(), events.clone(), self.watcher.clone());
        self.with_progress(move |transfer| {
            if let Some(words) = transfer.describe() {
                events.image(&image, words);
            }
            if let Some(told) = &told {
                told(transfer);
            }
        })
    }

    fn tell(&self, transfer: Transfer) {
        if let Some(watcher) = &self.watcher {
            watcher(transfer);
        }
    }
}
