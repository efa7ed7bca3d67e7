//! Keeps posts. Since version 2 it counts their words.

use hyper::{Method, StatusCode};

use super::session::SessionKey;
use super::{Draft, Post, PostList, numbers};
use crate::Result;
use crate::http::{Answer, Handler, Peer, Refusal, Request, json, not_found, parse, segments};

pub struct Posts {
    store: Peer,
    key: SessionKey,
    counts_words: bool,
}

impl Posts {
    pub async fn new() -> Result<Self> {
        let version = std::env::var("VERSION").ok().and_then(|v| v.parse::<u32>().ok());
        Ok(Self {
            store: Peer::of("store").await?,
            key: SessionKey::read()?,
            counts_words: version.is_some_and(|v| v >= 2),
        })
    }

    async fn write(&self, request: &Request) -> Result<Answer, Refusal> {
        let author = self.key.author(request)?;
        let Draft { title, body } = parse(request)?;
        if title.is_empty() {
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "a post has a title"));
        }
        let post = Post { id: 0, author, title, body, words: None };
        let written = numbers::write(|id| {
            let post = Post { id, ..post.clone() };
            async move { self.store.put(&format!("/posts/{id}"), &post).await }
        });
        self.shown(written.await?)
    }

    /// One post of the store as callers see it.
    fn shown(&self, answer: Answer) -> Result<Answer, Refusal> {
        if !answer.status().is_success() {
            return Ok(answer);
        }
        Ok(json(answer.status(), &self.count(read(&answer)?)))
    }

    fn count(&self, mut post: Post) -> Post {
        post.words = self.counts_words.then(|| post.body.split_whitespace().count());
        post
    }
}

impl Handler for Posts {
    async fn answer(&self, request: Request) -> Result<Answer, Refusal> {
        match (request.method(), segments(&request).as_slice()) {
            (&Method::GET, ["posts"]) => {
                let mut list: PostList = read(&self.store.get("/posts").await?)?;
                list.newest = list.newest.into_iter().map(|post| self.count(post)).collect();
                Ok(json(StatusCode::OK, &list))
            }
            (&Method::GET, ["posts", _]) => self.shown(self.store.get(request.uri().path()).await?),
            (&Method::POST, ["posts"]) => self.write(&request).await,
            _ => Err(not_found(&request)),
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(answer: &Answer) -> Result<T, Refusal> {
    serde_json::from_slice(answer.body()).map_err(|e| Refusal::new(StatusCode::BAD_GATEWAY, e))
}
