//! Each kind of probe against scripted peers: what passes, and how a failure is told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use common::*;
use deploykit_agent::probe::{Target, ask};
use deploykit_core::model::{Check, ExecCheck, GrpcCheck, HttpCheck, Probe};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt;

fn at(addr: SocketAddr) -> Target {
    Target::new([(80, addr)])
}

/// An address that nobody serves.
async fn nobody() -> SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

async fn http(answer: &'static str) -> Result<String, String> {
    let origin = Origin::canned(answer).await;
    ask(&Probe::http("/healthz"), &at(origin.addr)).await
}

#[tokio::test]
async fn http_passes_from_200_to_399_and_tells_what_else_came() {
    let ok = |text: &str| Ok(text.to_owned());
    let err = |text: &str| Err(text.to_owned());
    assert_eq!(http("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await, ok("200 OK"));
    assert_eq!(http("HTTP/1.1 204 No Content\r\n\r\n").await, ok("204 No Content"));
    assert_eq!(http("HTTP/1.1 399 X\r\nContent-Length: 0\r\n\r\n").await, ok("399 X"));
    let interim = "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(http(interim).await, ok("302 Found"));
    assert_eq!(
        http("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await,
        err("400 Bad Request")
    );
    assert_eq!(
        http(
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 21\r\n\r\nno database:\n refused"
        )
        .await,
        err("503 Service Unavailable: no database: refused")
    );
    assert_eq!(http("SSH-2.0-x\r\n").await, err("not HTTP: SSH-2.0-x"));

    let gone = ask(&Probe::http("/"), &at(nobody().await)).await.unwrap_err();
    assert!(gone.contains("refused"), "{gone}");
    let closing =
        Origin::raw(|mut stream| async move { read_head(&mut stream).await.map(drop) }).await;
    let closed = ask(&Probe::http("/"), &at(closing.addr)).await;
    assert_eq!(closed, err("closed without an answer"));
    let silent = Origin::raw(|mut stream| async move {
        read_head(&mut stream).await?;
        std::future::pending().await
    })
    .await;
    let probe = Probe::http("/").timeout(Duration::from_millis(40));
    assert_eq!(ask(&probe, &at(silent.addr)).await, err("no answer within 40ms"));
}

#[tokio::test]
async fn http_sends_the_path_and_headers_to_the_named_port() {
    let expected = concat!(
        "GET /h?a=b HTTP/1.1\r\nUser-Agent: deploykit-probe/",
        env!("CARGO_PKG_VERSION"),
        "\r\nHost: blog.example\r\nX-Token: t\r\nConnection: close\r\n\r\n"
    );
    let origin = Origin::raw(move |mut stream| async move {
        let status = if read_head(&mut stream).await? == expected { "200 OK" } else { "400 No" };
        stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await
    })
    .await;
    let headers = [("Host", "blog.example"), ("X-Token", "t")];
    let check = |path: &str, headers: &[(&str, &str)]| {
        Probe::new(Check::Http(HttpCheck {
            path: path.into(),
            port: Some(9090),
            headers: headers.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect(),
        }))
    };
    let target = Target::new([(80, nobody().await), (9090, origin.addr)]);
    assert_eq!(ask(&check("/h?a=b", &headers), &target).await, Ok("200 OK".into()));
    for (path, headers) in [
        ("/ HTTP/1.1\r\nX: y", &headers[..0]),
        ("/a b", &[]),
        ("/", &[("X", "y\r\nZ: z")]),
        ("/", &[("X", "y\r\n\r\nGET /other HTTP/1.1")]),
        ("/", &[("X Y", "z")]),
    ] {
        let refused = ask(&check(path, headers), &target).await;
        assert_eq!(refused, Err("the probe's path or headers cannot be sent".into()), "{path:?}");
    }
    assert_eq!(
        ask(&check("/", &[]), &at(origin.addr)).await,
        Err("9090 is not one of the service's ports".into())
    );
}

#[tokio::test]
async fn tcp_passes_when_a_connection_is_accepted() {
    let origin = Origin::raw(|_| async { Ok(()) }).await;
    assert_eq!(ask(&Probe::tcp(), &at(origin.addr)).await, Ok("connected".into()));
    let refused = ask(&Probe::tcp(), &at(nobody().await)).await.unwrap_err();
    assert!(refused.contains("refused"), "{refused}");
    let none = ask(&Probe::tcp(), &Target::default()).await;
    assert_eq!(none, Err("the service has no port".into()));
}

fn shell(script: &str) -> Probe {
    Probe::exec(["/bin/sh", "-c", script]).timeout(DEADLINE)
}

#[tokio::test]
async fn exec_passes_with_exit_code_0_and_tells_the_output() {
    let folder = tempfile::tempdir().unwrap();
    let target = Target {
        environment: BTreeMap::from([("GREETING".into(), "hello; $(rm x)".into())]),
        workdir: Some(folder.path().to_owned()),
        ..Target::default()
    };
    let run = async |script: &str| ask(&shell(script), &target).await;
    assert_eq!(run("true").await, Ok("exit code 0".into()));
    assert_eq!(run("exit 3").await, Err("exit code 3".into()));
    assert_eq!(run("echo out; echo err >&2; exit 1").await, Err("exit code 1: out err".into()));
    assert_eq!(run("kill -9 $$").await, Err("signal 9".into()));
    assert_eq!(
        run("echo \"$GREETING\"; echo ${HOME-none}; pwd; exit 1").await,
        Err(format!("exit code 1: hello; $(rm x) none {}", folder.path().display()))
    );
    // Much output neither blocks the command nor fills the answer.
    let long =
        run("i=0; while [ $i -lt 20000 ]; do echo 0123456789; i=$((i+1)); done; exit 1").await;
    assert!(long.as_ref().unwrap_err().len() < 400, "{long:?}");
    // A process that is left behind with the output open holds up nothing.
    assert_eq!(run("sleep 60 & exit 1").await, Err("exit code 1".into()));

    let missing = ask(&Probe::exec(["/no/such/program"]), &target).await.unwrap_err();
    assert!(missing.starts_with("/no/such/program cannot be run: No such file"), "{missing}");
    let empty = Probe::new(Check::Exec(ExecCheck { command: vec![] }));
    assert_eq!(ask(&empty, &target).await, Err("there is no command".into()));
}

#[tokio::test]
async fn exec_kills_all_that_the_command_started_when_its_time_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let target = Target { workdir: Some(folder.path().to_owned()), ..Target::default() };
    let script = "sleep 1000 & echo $! > child; echo $$ > self; trap '' TERM; sleep 1000";
    let probe = shell(script).timeout(Duration::from_millis(500));
    assert_eq!(ask(&probe, &target).await, Err("no answer within 500ms".into()));
    for file in ["child", "self"] {
        let pid = std::fs::read_to_string(folder.path().join(file)).unwrap();
        let stat = format!("/proc/{}/stat", pid.trim());
        // Dead; who has to reap it may not have done so yet.
        eventually("killed", || {
            std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "))
        })
        .await;
    }
}

/// Answers a health check by the given bytes and trailers.
async fn grpc(message: &'static [u8], trailers: &'static [(&'static str, &'static str)]) -> Origin {
    Origin::raw(move |stream| async move {
        let service = service_fn(move |request: Request<Incoming>| async move {
            assert_eq!(request.method(), "POST");
            assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
            assert_eq!(request.headers()["content-type"], "application/grpc");
            let body = request.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body.as_ref(), b"\0\0\0\0\x06\x0a\x04blog");
            let mut map = HeaderMap::new();
            for (name, value) in trailers {
                map.insert(*name, HeaderValue::from_static(value));
            }
            let frames: [Result<_, io::Error>; 2] =
                [Ok(Frame::data(Bytes::from_static(message))), Ok(Frame::trailers(map))];
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
async fn grpc_passes_when_the_service_is_serving() {
    let probe =
        Probe::new(Check::Grpc(GrpcCheck { service: "blog".into(), port: None })).timeout(DEADLINE);
    let ok: &[(&str, &str)] = &[("grpc-status", "0")];
    for (message, trailers, expected) in [
        (&b"\0\0\0\0\x02\x08\x01"[..], ok, Ok("SERVING".to_owned())),
        (b"\0\0\0\0\x02\x08\x02", ok, Err("NOT_SERVING".into())),
        (b"\0\0\0\0\x02\x08\x03", ok, Err("SERVICE_UNKNOWN".into())),
        (b"\0\0\0\0\0", ok, Err("UNKNOWN".into())),
        (b"nonsense", ok, Err("not a health answer".into())),
        (
            b"\0\0\0\0\x02\x08\x01",
            &[("grpc-status", "5"), ("grpc-message", "unknown service")],
            Err("gRPC status 5: unknown service".into()),
        ),
    ] {
        let origin = grpc(message, trailers).await;
        assert_eq!(ask(&probe, &at(origin.addr)).await, expected);
    }
    // A server of HTTP/1 and one that is no server at all.
    let old = Origin::canned("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let answer = ask(&probe, &at(old.addr)).await.unwrap_err();
    assert!(answer.starts_with("no answer over HTTP/2: "), "{answer}");
    let closing = Origin::raw(|_| async { Ok(()) }).await;
    assert!(ask(&probe, &at(closing.addr)).await.is_err());
    let plain = Origin::raw(|stream| async move {
        let service = service_fn(|_: Request<Incoming>| async {
            Ok::<_, Infallible>(
                Response::builder().status(404).body(Full::new(Bytes::new())).unwrap(),
            )
        });
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service)
            .await;
        Ok(())
    })
    .await;
    assert_eq!(ask(&probe, &at(plain.addr)).await, Err("HTTP 404 Not Found".into()));
    let silent = Origin::raw(|stream| async move {
        let _open = stream;
        std::future::pending().await
    })
    .await;
    let quick = probe.timeout(Duration::from_millis(50));
    assert_eq!(ask(&quick, &at(silent.addr)).await, Err("no answer within 50ms".into()));
}
