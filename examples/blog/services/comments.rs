//! Keeps comments on posts.

use hyper::Method;

use super::session::SessionKey;
use super::{Comment, Remark};
use crate::Result;
use crate::http::{Answer, Handler, Peer, Refusal, Request, not_found, parse, segments};

pub struct Comments {
    store: Peer,
    key: SessionKey,
}

impl Comments {
    pub fn new() -> Result<Self> {
        Ok(Self { store: Peer::of("store")?, key: SessionKey::read()? })
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
                self.store.post(path, &Comment { id: 0, author, body }).await
            }
            _ => Err(not_found(&request)),
        }
    }
}
