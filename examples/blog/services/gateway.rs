//! What callers outside see: a page, and the JSON API of the services behind it under `/api`.

use std::path::Path;

use hyper::{Method, StatusCode, Uri};

use crate::Result;
use crate::http::{Answer, Handler, Peer, Refusal, Request, not_found, segments, typed, variable};

const PAGE: &str = include_str!("page.html");

pub struct Gateway {
    page: String,
    users: Peer,
    posts: Peer,
    comments: Peer,
}

impl Gateway {
    pub async fn new() -> Result<Self> {
        let title = Path::new(&variable("CONFIGS_DIR")?).join("site-title");
        let title = std::fs::read_to_string(title)?;
        let title = title.replace('&', "&amp;").replace('<', "&lt;");
        Ok(Self {
            page: PAGE.replace("{{title}}", title.trim()),
            users: Peer::of("users").await?,
            posts: Peer::of("posts").await?,
            comments: Peer::of("comments").await?,
        })
    }
}

impl Handler for Gateway {
    async fn answer(&self, mut request: Request) -> Result<Answer, Refusal> {
        let peer = match (request.method(), segments(&request).as_slice()) {
            (&Method::GET, []) => {
                return Ok(typed(StatusCode::OK, "text/html; charset=utf-8", self.page.clone()));
            }
            (_, ["api", "users" | "sessions"]) => &self.users,
            (_, ["api", "posts"] | ["api", "posts", _]) => &self.posts,
            (_, ["api", "posts", _, "comments"]) => &self.comments,
            _ => return Err(not_found(&request)),
        };
        let inner = request.uri().path().trim_start_matches("/api");
        let inner: Uri = inner.parse().map_err(|e| Refusal::new(StatusCode::BAD_REQUEST, e))?;
        *request.uri_mut() = inner;
        peer.send(request).await
    }
}
