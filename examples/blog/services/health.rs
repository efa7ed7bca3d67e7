//! The question whether a service is well, asked by a command.

use hyper::{Method, StatusCode};

use crate::Result;
use crate::http::{request, send, variable};

pub async fn run() -> Result<()> {
    let host = match variable("HOST")?.as_str() {
        "0.0.0.0" => "127.0.0.1".to_owned(),
        host => host.to_owned(),
    };
    let address = format!("{host}:{}", variable("PORT")?);
    let answer = send(&address, request(Method::GET, "/healthz", "")?).await?;
    match answer.status() {
        StatusCode::OK => Ok(()),
        status => Err(format!("{status}: {}", String::from_utf8_lossy(answer.body())).into()),
    }
}
