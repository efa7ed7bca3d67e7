//! The blog as its visitors see it: through the gateway's public address.

use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::report::{Failure, expect};
use crate::http::{self, Answer, INSTANCE, Request, VERSION};
use crate::services::{Comment, Credentials, Draft, Post, PostList, Remark, Session};

/// A visitor, logged in or not.
#[derive(Clone, Debug)]
pub struct Site {
    pub address: String,
    pub token: Option<String>,
}

impl Site {
    pub fn request(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> crate::Result<Request> {
        let body = if method == Method::GET { Vec::new() } else { serde_json::to_vec(body)? };
        let mut request = http::request(method, path, body)?;
        if let Some(token) = &self.token {
            let value = HeaderValue::from_str(&format!("Bearer {token}"))?;
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        Ok(request)
    }

    pub async fn get(&self, path: &str) -> Result<Answer, Failure> {
        Ok(http::send(&self.address, self.request(Method::GET, path, &())?).await?)
    }

    pub async fn post(&self, path: &str, body: &impl Serialize) -> Result<Answer, Failure> {
        Ok(http::send(&self.address, self.request(Method::POST, path, body)?).await?)
    }

    pub async fn sign_up(&self, who: &Credentials) -> Result<(), Failure> {
        status(&self.post("/api/users", who).await?, StatusCode::CREATED)
    }

    /// Logs in: further requests are sent as that user.
    pub async fn log_in(&mut self, who: &Credentials) -> Result<(), Failure> {
        let session: Session = read(&self.post("/api/sessions", who).await?, StatusCode::OK)?;
        self.token = Some(session.token);
        Ok(())
    }

    pub async fn write(&self, title: &str, body: &str) -> Result<Post, Failure> {
        let draft = Draft { title: title.into(), body: body.into() };
        read(&self.post("/api/posts", &draft).await?, StatusCode::CREATED)
    }

    /// Checks that this visitor may not write.
    pub async fn may_not_write(&self) -> Result<(), Failure> {
        let draft = Draft { title: "A forgery".into(), body: String::new() };
        status(&self.post("/api/posts", &draft).await?, StatusCode::UNAUTHORIZED)
    }

    pub async fn comment(&self, post: i64, body: &str) -> Result<Comment, Failure> {
        let path = format!("/api/posts/{post}/comments");
        let remark = Remark { body: body.into() };
        read(&self.post(&path, &remark).await?, StatusCode::CREATED)
    }

    /// Checks that a post is told as it was written.
    pub async fn check(&self, post: &Post) -> Result<(), Failure> {
        let answer = self.get(&format!("/api/posts/{}", post.id)).await?;
        let told: Post = read(&answer, StatusCode::OK)?;
        expect(told.is(post), format_args!("{post:?}"), format_args!("{told:?}"))
    }

    pub async fn list(&self) -> Result<PostList, Failure> {
        read(&self.get("/api/posts").await?, StatusCode::OK)
    }
}

/// Checks the status of an answer.
pub fn status(answer: &Answer, expected: StatusCode) -> Result<(), Failure> {
    let body = || String::from_utf8_lossy(answer.body()).into_owned();
    expect(
        answer.status() == expected,
        format_args!("an answer with status {expected}"),
        format_args!("{}, {}", answer.status(), body()),
    )
}

/// Checks the status of an answer and reads its JSON.
pub fn read<T: DeserializeOwned>(answer: &Answer, expected: StatusCode) -> Result<T, Failure> {
    status(answer, expected)?;
    Ok(serde_json::from_slice(answer.body())?)
}

/// The instance that answered.
pub fn instance(answer: &Answer) -> String {
    header(answer, &INSTANCE)
}

/// The version of the program that answered.
pub fn version(answer: &Answer) -> u32 {
    header(answer, &VERSION).parse().unwrap_or_default()
}

fn header(answer: &Answer, name: &hyper::header::HeaderName) -> String {
    let value = answer.headers().get(name);
    value.map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()).unwrap_or_default()
}
