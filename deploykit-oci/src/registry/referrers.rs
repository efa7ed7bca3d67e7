//! What is said about an image: its signatures and other artifacts
//! (<https://github.com/opencontainers/distribution-spec/blob/main/spec.md#listing-referrers>).

use deploykit_core::{ErrorKind, Result};
use hyper::{Method, StatusCode};

use super::RegistryClient;
use super::call::Call;
use super::manifest::read;
use crate::digest::Digest;
use crate::error::error;
use crate::layout::{LARGEST_DOCUMENT, index};
use crate::reference::Reference;
use crate::spec::{Descriptor, Index, Manifest, media_type};

const LIST: &str = "list what refers to an image";

impl RegistryClient {
    /// The manifests whose subject is `subject`, of one type or of all. Where the registry keeps
    /// no such list, it is the index under the tag `sha256-…`, as the specification has it.
    ///
    /// # Errors
    /// As [`RegistryClient::document`]. What is not there refers to nothing.
    pub async fn referrers(
        &self,
        repository: &Reference,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>> {
        let call = Call::read(LIST, Method::GET, repository, format!("referrers/{subject}"));
        let listed = self
            .retrying(|| async {
                let answer = self.call(&call).await?;
                // Registries that don't know the address say so in several ways.
                if matches!(
                    answer.status(),
                    StatusCode::NOT_FOUND
                        | StatusCode::METHOD_NOT_ALLOWED
                        | StatusCode::BAD_REQUEST
                ) {
                    return Ok(None);
                }
                let mut answer = self.expect(&call, answer).await?;
                let body = answer.whole(LARGEST_DOCUMENT).await?.ok_or_else(|| {
                    let message = "the list has more than 4 MiB";
                    error(ErrorKind::Invalid, LIST, message).with("image", repository)
                })?;
                Ok(Some(read::<Index>(media_type::INDEX, subject, &body)?))
            })
            .await?;
        let listed = match listed {
            Some(listed) => listed,
            None => self.listed_by_tag(repository, subject).await?,
        };
        let fits = |d: &Descriptor| {
            artifact_type.is_none_or(|wanted| d.artifact_type.as_deref() == Some(wanted))
        };
        Ok(listed.manifests.into_iter().filter(fits).collect())
    }

    async fn listed_by_tag(&self, repository: &Reference, subject: &Digest) -> Result<Index> {
        match self.document(&list_tag(repository, subject)?).await {
            Ok(document) => document.index(),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(index(Vec::new())),
            Err(e) => Err(e),
        }
    }

    /// Adds a stored manifest to the list of its subject, where it has one. Two who do that at
    /// once may lose one of both, as the specification says.
    pub(super) async fn list_referrer(
        &self,
        repository: &Reference,
        stored: &Descriptor,
        bytes: &[u8],
    ) -> Result<()> {
        let Ok(manifest) = serde_json::from_slice::<Manifest>(bytes) else { return Ok(()) };
        let Some(subject) = manifest.subject else { return Ok(()) };
        let mut listed = self.listed_by_tag(repository, &subject.digest).await?;
        if listed.manifests.iter().any(|d| d.digest == stored.digest) {
            return Ok(());
        }
        let mut entry = stored.clone();
        entry.artifact_type = manifest.artifact_type.or(Some(manifest.config.media_type));
        entry.annotations = manifest.annotations;
        listed.manifests.push(entry);
        let bytes = crate::layout::document(&listed)?;
        let tag = list_tag(repository, &subject.digest)?;
        Box::pin(self.push_document(&tag, media_type::INDEX, &bytes)).await?;
        Ok(())
    }
}

/// The tag that the list of a subject has.
fn list_tag(repository: &Reference, subject: &Digest) -> Result<Reference> {
    repository
        .tagged(&format!("sha256-{}", subject.hex()))
        .map_err(|cause| error(ErrorKind::Invalid, LIST, "its tag cannot be named").because(cause))
}
