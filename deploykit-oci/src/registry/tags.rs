//! The tags of a repository.

use std::sync::atomic::{AtomicUsize, Ordering};

use deploykit_core::{ErrorKind, Result};
use hyper::header::LINK;
use hyper::{Method, StatusCode, Uri};
use serde::Deserialize;

use super::RegistryClient;
use super::call::{Address, Call, access};
use super::failure::Attempt;
use super::manifest::path;
use crate::error::error;
use crate::layout::LARGEST_DOCUMENT;
use crate::reference::Reference;

const LIST: &str = "list tags";
const DELETE: &str = "delete an image";
/// How many pages a list may have: a registry that sends in circles comes to an end.
const MOST_PAGES: usize = 1000;

#[derive(Deserialize)]
struct Page {
    /// Some registries write `null` for none.
    tags: Option<Vec<String>>,
}

impl RegistryClient {
    /// The tags of a repository, sorted.
    ///
    /// # Errors
    /// `NotFound` where there is no such repository; otherwise as [`RegistryClient::resolve`].
    pub async fn tags(&self, repository: &Reference) -> Result<Vec<String>> {
        let mut tags = Vec::new();
        let mut call = Call::read(LIST, Method::GET, repository, "tags/list");
        for _ in 0..MOST_PAGES {
            let (page, next) = self.retrying(|| self.page(&call)).await?;
            tags.extend(page.tags.unwrap_or_default());
            match next {
                Some(next) => call.address = Address::Whole(next),
                None => {
                    tags.sort();
                    tags.dedup();
                    return Ok(tags);
                }
            }
        }
        let message = "the list of tags does not come to an end";
        Err(error(ErrorKind::Failed, LIST, message).with("image", repository))
    }

    async fn page(&self, call: &Call<'_>) -> Attempt<(Page, Option<Uri>)> {
        let mut answer = self.call_ok(call).await?;
        let bad = |message: &str| error(ErrorKind::Failed, LIST, message).with("image", call.on);
        // `</v2/name/tags/list?n=100&last=v1>; rel="next"`
        let next = answer.header(LINK).and_then(|link| {
            let (target, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
            rest.contains("next").then(|| target.to_owned())
        });
        let base = self.uri(call)?;
        let next = next.map(|link| self.target(call, &base, &link)).transpose()?;
        let body = answer.whole(LARGEST_DOCUMENT).await?;
        let body = body.ok_or_else(|| bad("a page of the list has more than 4 MiB"))?;
        let page = serde_json::from_slice(&body)
            .map_err(|cause| bad("the list cannot be understood").because(cause))?;
        Ok((page, next))
    }

    /// Deletes what a reference names: with a digest the image and all its tags, else the tag
    /// alone, which not every registry does. Where it is gone by now, that is no error.
    ///
    /// # Errors
    /// `NotFound` where there was no such image, `Unsupported` where the registry doesn't delete;
    /// otherwise as [`RegistryClient::push`].
    pub async fn delete(&self, image: &Reference) -> Result<()> {
        let mut call = Call::write(DELETE, Method::DELETE, image, path(image));
        call.access = access(image, "pull,push,delete");
        let tries = AtomicUsize::new(0);
        self.retrying(|| async {
            let is_again = tries.fetch_add(1, Ordering::Relaxed) > 0;
            let answer = self.call(&call).await?;
            if is_again && answer.status() == StatusCode::NOT_FOUND {
                return Ok(());
            }
            self.expect(&call, answer).await?.drain().await;
            Ok(())
        })
        .await
    }
}
