//! HTTP/2 with prior knowledge, to instances that speak it and to such that do not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::*;
use deploykit_agent::proxy::{BackendAddress, Mode, ServiceProxy};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

async fn client(proxy: &ServiceProxy) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(proxy.address()).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    sender
}

fn request(method: &str, path: &str, body: Bytes) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(format!("http://shop.example{path}"))
        .body(Full::new(body))
        .unwrap()
}

async fn many_streams(proxy: &ServiceProxy) -> BTreeMap<String, usize> {
    let mut tasks = JoinSet::new();
    for connection in 0..4 {
        let sender = client(proxy).await;
        for stream in 0..150 {
            let mut sender = sender.clone();
            tasks.spawn(async move {
                let seed = connection * 1000 + stream;
                let length = (seed as usize * 37) % 50_000;
                let (method, body) = match seed % 3 {
                    0 => ("POST", pattern(seed, length)),
                    _ => ("GET", Bytes::new()),
                };
                sender.ready().await.unwrap();
                let sent = sender.send_request(request(method, &format!("/{seed}/{length}"), body));
                let response = within(sent).await.unwrap();
                assert_eq!(response.status(), 200, "{seed}");
                assert_eq!(response.version(), Version::HTTP_2);
                let instance = response.headers()["x-instance"].to_str().unwrap().to_owned();
                let body = within(response.into_body().collect()).await.unwrap().to_bytes();
                assert!(body == pattern(seed, length), "{seed}");
                instance
            });
        }
    }
    let mut served = BTreeMap::new();
    while let Some(instance) = tasks.join_next().await {
        *served.entry(instance.unwrap()).or_default() += 1;
    }
    served
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_are_balanced_one_by_one() {
    let a = Origin::real("a", Duration::from_millis(1)).await;
    let b = Origin::real("b", Duration::from_millis(1)).await;
    let proxy = proxy_over(&[&a, &b]);
    let served = many_streams(&proxy).await;
    assert_eq!(served.values().sum::<usize>(), 600);
    assert!(served["a"] > 150 && served["b"] > 150, "{served:?}");
    let stats = proxy.stats();
    assert_eq!((stats.requests, stats.failures), (600, 0));
    eventually("all ended", || proxy.stats().backends.iter().all(|b| b.in_flight == 0)).await;
    assert_eq!(proxy.shutdown(DEADLINE).await, 0);
}

/// A server of HTTP/1.1 only.
async fn http1_only(id: &'static str) -> Origin {
    Origin::raw(move |stream| async move {
        let service = service_fn(move |request: Request<Incoming>| async move {
            assert_eq!(request.version(), Version::HTTP_11);
            assert_eq!(request.headers()["host"], "shop.example");
            let path = request.uri().path().to_owned();
            let mut parts = path.trim_matches('/').split('/').map(|part| part.parse().unwrap());
            let (seed, length): (u64, u64) = (parts.next().unwrap(), parts.next().unwrap());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            assert!(body.is_empty() || body == pattern(seed, body.len()));
            let answer =
                Response::builder().header("x-instance", id).header("connection", "keep-alive");
            Ok::<_, Infallible>(answer.body(Full::new(pattern(seed, length as usize))).unwrap())
        });
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_of_http1_is_told_apart_and_served_too() {
    let old = http1_only("old").await;
    let new = Origin::real("new", Duration::from_millis(1)).await;
    let proxy = proxy_over(&[&old, &new]);
    let served = many_streams(&proxy).await;
    assert_eq!(served.values().sum::<usize>(), 600);
    assert!(served["old"] > 50 && served["new"] > 50, "{served:?}");
    assert_eq!(proxy.stats().failures, 0);
}

/// What a gRPC server does: heads, frames, and a status in the trailers.
async fn grpc_like() -> Origin {
    Origin::raw(|stream| async move {
        let service = service_fn(|request: Request<Incoming>| async move {
            assert_eq!(request.version(), Version::HTTP_2);
            assert_eq!(request.headers()["te"], "trailers");
            assert_eq!(request.headers()["x-forwarded-for"], "127.0.0.1");
            assert_eq!(request.headers()["x-forwarded-host"], "shop.example");
            assert_eq!(request.uri().authority().unwrap(), "shop.example");
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let frames: [Result<_, io::Error>; 2] =
                [Ok(Frame::data(body)), Ok(Frame::trailers(trailers))];
            Ok::<_, Infallible>(Response::new(StreamBody::new(futures_util::stream::iter(frames))))
        });
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service)
            .await;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn trailers_pass_as_grpc_needs_them() {
    let origin = grpc_like().await;
    let proxy = proxy_over(&[&origin]);
    let mut sender = client(&proxy).await;
    let mut call = request("POST", "/grpc.health.v1.Health/Check", pattern(1, 200_000));
    call.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    let response = within(sender.send_request(call)).await.unwrap();
    let body = within(response.into_body().collect()).await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    assert!(body.to_bytes() == pattern(1, 200_000));
}

#[tokio::test]
async fn streams_are_drained_held_and_refused_like_requests() {
    let slow = Origin::real("slow", Duration::from_millis(300)).await;
    let other = Origin::real("other", Duration::ZERO).await;
    let proxy = proxy_with(Mode::Http, |settings| settings.hold = Duration::from_millis(50));
    let mut sender = client(&proxy).await;
    let refused = within(sender.send_request(request("GET", "/1/1", Bytes::new()))).await.unwrap();
    assert_eq!(refused.status(), 503);
    let text = refused.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(text, "503 Service Unavailable: no instance of the service is ready\n");

    proxy.set_backends([BackendAddress::new("slow", slow.addr)]);
    let first = sender.send_request(request("GET", "/7/9", Bytes::new()));
    let first = tokio::spawn(first);
    eventually("in flight", || proxy.stats().backends[0].in_flight == 1).await;
    proxy.set_backends([BackendAddress::new("other", other.addr)]);
    let second = within(sender.send_request(request("GET", "/8/9", Bytes::new()))).await.unwrap();
    assert_eq!(second.headers()["x-instance"], "other");
    assert_eq!(proxy.drain("slow", Duration::from_millis(1)).await, 1);
    let first = within(first).await.unwrap().unwrap();
    assert_eq!(first.headers()["x-instance"], "slow");
    first.into_body().collect().await.unwrap();
    assert_eq!(proxy.drain("slow", DEADLINE).await, 0);
}

#[tokio::test]
async fn a_dying_instance_costs_no_get_and_no_post_is_repeated() {
    let got = Arc::new(AtomicUsize::new(0));
    let count = got.clone();
    // Takes requests and never answers.
    let doomed = Origin::raw(move |stream| {
        let count = count.clone();
        async move {
            let service = service_fn(move |_: Request<Incoming>| {
                count.fetch_add(1, Ordering::SeqCst);
                std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>()
            });
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
            Ok(())
        }
    })
    .await;
    let living = Origin::real("living", Duration::ZERO).await;
    let proxy = proxy_over(&[&doomed]);
    let mut sender = client(&proxy).await;
    let get = tokio::spawn(sender.send_request(request("GET", "/1/10", Bytes::new())));
    let post = tokio::spawn(sender.send_request(request("POST", "/2/10", Bytes::new())));
    eventually("both have arrived", || got.load(Ordering::SeqCst) == 2).await;
    proxy.set_backends(addresses(&[&doomed, &living]));
    doomed.kill();
    let get = within(get).await.unwrap().unwrap();
    assert_eq!(
        (get.status().as_u16(), &get.headers()["x-instance"]),
        (200, &HeaderValue::from_static("living"))
    );
    assert_eq!(within(post).await.unwrap().unwrap().status(), 502);
}

#[tokio::test]
async fn a_preface_that_comes_in_pieces_is_recognised() {
    let origin = Origin::real("a", Duration::ZERO).await;
    let proxy = proxy_over(&[&origin]);
    let mut stream = connect(&proxy).await;
    stream.set_nodelay(true).unwrap();
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0" {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut frame = [0; 9];
    within(tokio::io::AsyncReadExt::read_exact(&mut stream, &mut frame)).await.unwrap();
    assert_eq!(frame[3], 4, "no SETTINGS frame but {frame:?}");
    assert!(
        send_all(&proxy, "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n").await.starts_with("HTTP/1.1 400 ")
    );
}
