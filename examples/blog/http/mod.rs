//! The few lines of HTTP that the services share: a server that ends gracefully, and a client.

mod client;
mod server;

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Result;

pub use client::{Connection, Peer, send};
pub use server::{Handler, listen, serve};

/// A request, read whole.
pub type Request = hyper::Request<Bytes>;
/// An answer, read whole.
pub type Answer = hyper::Response<Bytes>;

/// Names the instance that answered.
pub const INSTANCE: HeaderName = HeaderName::from_static("x-instance");
/// Names the version of its program.
pub const VERSION: HeaderName = HeaderName::from_static("x-version");

const LARGEST_BODY: usize = 1 << 20;

/// An answer that says no, and why.
#[derive(Debug)]
pub struct Refusal(pub StatusCode, pub String);

impl Refusal {
    pub fn new(status: StatusCode, why: impl ToString) -> Self {
        Self(status, why.to_string())
    }

    fn into_answer(self) -> Answer {
        json(self.0, &serde_json::json!({ "error": self.1 }))
    }
}

/// An answer of JSON.
pub fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    // Plain data with texts as keys: serialising it does not fail.
    let body = serde_json::to_vec(value).unwrap_or_default();
    typed(status, "application/json", body)
}

/// An answer of any type.
pub fn typed(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Answer::new(body.into());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

/// A request without headers.
pub fn request(method: Method, path: &str, body: impl Into<Bytes>) -> Result<Request> {
    Ok(hyper::Request::builder().method(method).uri(path).body(body.into())?)
}

/// The JSON in a request's body.
pub fn parse<T: DeserializeOwned>(request: &Request) -> Result<T, Refusal> {
    serde_json::from_slice(request.body()).map_err(|e| Refusal::new(StatusCode::BAD_REQUEST, e))
}

/// The path of a request, cut at its slashes.
pub fn segments(request: &Request) -> Vec<&str> {
    request.uri().path().split('/').filter(|s| !s.is_empty()).collect()
}

pub fn not_found(request: &Request) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, format!("no {} {}", request.method(), request.uri().path()))
}

/// An environment variable that the contract promises.
pub fn variable(name: &str) -> Result<String> {
    std::env::var(name).map_err(|_| format!("the environment variable {name} is not set").into())
}
