//! Keeps comments on posts.

use hyper::Method;

use super::session::SessionKey;
use super::{Comment, Remark, numbers};
use crate::Result;
use crate::http::{Answer, Handler, Peer, Refusal, Request, not_found, parse, segments};

pub struct Comments {
    store: Peer,
    key: SessionKey,
}

impl Comments {
    pub async fn new() -> Result<Self> {
        Ok(Self { store: Peer::of("store").await?, key: SessionKey::read()? })
    }
}

impl Handler for Comments {
    async fn answer(&self, request: Request) -> Result<Answer, Refusal> {
        let path = request.uri().path();
        match (request.method(), segments(&request).as_slice()) {
            (&Method::GET, ["posts", _, "comments"]) => self.store.get(path).await,
            (&Method::POST, ["posts", _, "comments"]) => {
                let author = self.key.author(&request)?;
                let Remark { body } = parse(&request)?;
                let comment = Comment { id: 0, author, body };
                let written = numbers::write(|id| {
                    let comment = Comment { id, ..comment.clone() };
                    async move { self.store.put(&format!("{path}/{id}"), &comment).await }
                });
                written.await
            }
            _ => Err(not_found(&request)),
        }
    }
}
