//! What the test application answers over HTTP.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;

use super::Testapp;

type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

/// Serves one connection.
pub(super) async fn serve(app: Arc<Testapp>, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    app.connections.fetch_add(1, Ordering::Relaxed);
    let own = app.clone();
    let service = service_fn(move |request| {
        let app = own.clone();
        async move {
            let mut answer = answer(&app, request).await;
            if app.ending.load(Ordering::Relaxed) {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    // A connection that breaks is the client's matter.
    let _ = auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
    app.connections.fetch_sub(1, Ordering::Relaxed);
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).boxed());
    *response.status_mut() = status;
    response
}

async fn answer(app: &Testapp, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    if path == "/healthz" {
        return match app.healthy() {
            true => text(StatusCode::OK, "ok"),
            false => text(StatusCode::SERVICE_UNAVAILABLE, "ill"),
        };
    }
    if path == "/grpc.health.v1.Health/Check" {
        return grpc_health(app.healthy());
    }
    let served = app.served.fetch_add(1, Ordering::Relaxed) + 1;
    let body = match path.as_str() {
        "/" => app.facts(),
        "/slow" => {
            let ms = query.strip_prefix("ms=").and_then(|ms| ms.parse().ok()).unwrap_or(0);
            tokio::time::sleep(Duration::from_millis(ms)).await;
            app.facts()
        }
        "/version" => app.dials.version.clone(),
        "/instance" => app.instance().to_owned(),
        "/env" => serde_json::json!(app.env).to_string(),
        "/args" => serde_json::json!(app.args).to_string(),
        "/count" => served.to_string(),
        "/peer" => match peer(app, query.strip_prefix("name=").unwrap_or_default()).await {
            Ok(body) => body,
            Err(error) => return text(StatusCode::BAD_GATEWAY, error.to_string()),
        },
        "/file" => {
            let path = app.expand(query.strip_prefix("path=").unwrap_or_default());
            return file(request, &path).await;
        }
        _ => return text(StatusCode::NOT_FOUND, "no such page"),
    };
    text(StatusCode::OK, body)
}

/// What another service answers, at the address that the environment tells.
async fn peer(app: &Testapp, name: &str) -> std::io::Result<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let variable = |what: &str| {
        let name = format!("{}_SERVICE_{what}", name.to_uppercase().replace('-', "_"));
        let unset = || std::io::Error::other(format!("{name} is not set"));
        app.env.get(&name).cloned().ok_or_else(unset)
    };
    let address = format!("{}:{}", variable("HOST")?, variable("PORT")?);
    let mut stream = TcpStream::connect(&address).await?;
    let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned()))
}

async fn file(request: Request<Incoming>, path: &str) -> Response<Body> {
    let outcome = if request.method() == Method::PUT {
        match request.into_body().collect().await {
            Ok(body) => std::fs::write(path, body.to_bytes()),
            Err(error) => Err(std::io::Error::other(error)),
        }
    } else {
        Ok(())
    };
    match outcome.and_then(|()| std::fs::read(path)) {
        Ok(content) => text(StatusCode::OK, content),
        Err(error) => text(StatusCode::NOT_FOUND, format!("{path}: {error}")),
    }
}

/// `HealthCheckResponse { status }` in a gRPC frame: 1 is SERVING, 2 NOT_SERVING.
fn grpc_health(healthy: bool) -> Response<Body> {
    let frame: [u8; 7] = [0, 0, 0, 0, 2, 0x08, if healthy { 1 } else { 2 }];
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(Bytes::copy_from_slice(&frame));
    let body = body.with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(body.boxed());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}
