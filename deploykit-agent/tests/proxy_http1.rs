//! HTTP/1.1 through the proxy: framing, streaming, heads, upgrades.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::sync::atomic::Ordering;
use std::time::Duration;

use common::*;
use deploykit_agent::proxy::Mode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const GET: &str = "GET /path?q=1 HTTP/1.1\r\nHost: shop.example\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let origin = Origin::canned(OK).await;
    let proxy = proxy_over(&[&origin]);
    let mut client = connect(&proxy).await;
    for _ in 0..50 {
        assert_eq!(send_one(&mut client, GET).await.1, "ok");
    }
    assert_eq!(origin.connections.load(Ordering::SeqCst), 1);
    // Pipelined requests are answered in order.
    client.write_all(GET.repeat(3).as_bytes()).await.unwrap();
    for _ in 0..3 {
        assert_eq!(send_one(&mut client, "").await.1, "ok");
    }
    let closed = send_all(&proxy, GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
    assert_eq!(closed, OK.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"));
    assert_eq!(proxy.stats().requests, 54);
}

#[tokio::test]
async fn heads_are_rewritten_hop_by_hop() {
    let origin = Origin::mirror().await;
    let proxy = proxy_over(&[&origin]);
    let mut client = connect(&proxy).await;
    let (_, seen) = send_one(
        &mut client,
        "GET /p HTTP/1.1\r\nHost: shop.example\r\nConnection: keep-alive, X-Mine\r\nKeep-Alive: 3\r\n\
         X-Mine: 1\r\nTE: trailers\r\nProxy-Connection: close\r\nAccept: */*\r\n\
         Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nX-Forwarded-For: 9.9.9.9\r\n\
         X-Forwarded-Proto: https\r\n\r\n",
    )
    .await;
    assert_eq!(
        seen,
        "GET /p HTTP/1.1\r\nHost: shop.example\r\nAccept: */*\r\nX-Forwarded-Proto: https\r\n\
         X-Forwarded-For: 9.9.9.9, 127.0.0.1\r\nX-Forwarded-Host: shop.example\r\n\r\n"
    );
    // An absolute target decides the host, and HTTP/1.0 needs none.
    let absolute = "GET http://other.example?x HTTP/1.1\r\nHost: wrong\r\n\r\n";
    let (_, seen) = send_one(&mut client, absolute).await;
    assert!(seen.starts_with("GET /?x HTTP/1.1\r\nHost: other.example\r\n"), "{seen}");
    let old = send_all(&proxy, "GET / HTTP/1.0\r\n\r\n").await;
    assert!(old.contains(&format!("Host: {}\r\n", proxy.address())), "{old}");
    let (head, _) = send_one(&mut client, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    assert!(head.contains("Connection: keep-alive\r\n"), "{head}");

    let origin = Origin::canned(
        "HTTP/1.1 200 Fine\r\nConnection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
         X-End: 2\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    proxy.set_backends(addresses(&[&origin]));
    let (head, _) = send_one(&mut client, GET).await;
    assert_eq!(head, "HTTP/1.1 200 Fine\r\nX-End: 2\r\nContent-Length: 0\r\n\r\n");
}

#[tokio::test]
async fn requests_that_two_readers_could_see_differently_are_refused() {
    let origin = Origin::canned(OK).await;
    let proxy = proxy_over(&[&origin]);
    let refused = [
        (
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nbody!", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nbody", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4, 4\r\n\r\nbody", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +4\r\n\r\nbody", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: \r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;a\nb\r\nhello\r\n0\r\n\r\n",
            400,
        ),
        ("GET / HTTP/1.1\nHost: x\n\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nX: a\nY: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x y\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x/y\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n Host: x\r\n\r\n", 400),
        ("GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("GET path HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("GET ftp://x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("GET / HTTP/1.2\r\nHost: x\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\nHost: x\r\n\r\n", 400),
        ("CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        ("\x16\x03\x01\x02\0\x01\0", 400),
    ];
    for (request, status) in refused {
        let answer =
            send_all(&proxy, format!("{request}GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{request:?}: {answer}");
        assert!(answer.contains("Connection: close\r\n"), "{answer}");
    }
    assert_eq!(origin.connections.load(Ordering::SeqCst), 0, "some of it reached the instance");
}

#[tokio::test]
async fn answers_that_two_readers_could_see_differently_are_refused() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nX : y\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "SSH-2.0-OpenSSH\r\n",
    ] {
        let origin = Origin::canned(answer).await;
        let proxy = proxy_over(&[&origin]);
        let (head, body) = send_one(&mut connect(&proxy).await, GET).await;
        assert!(head.starts_with("HTTP/1.1 502 "), "{answer:?}: {head}");
        assert!(body.contains("the instance's answer cannot be used"), "{body}");
    }
}

#[tokio::test]
async fn chunks_and_trailers_pass_and_old_clients_get_plain_bytes() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                  5\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 6\r\n\r\n";
    let origin = Origin::canned(answer).await;
    let proxy = proxy_over(&[&origin]);
    let got = send_all(&proxy, GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
    assert!(got.ends_with("\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 6\r\n\r\n"), "{got}");
    assert!(got.contains("Transfer-Encoding: chunked\r\n") && got.contains("Trailer: X-Sum\r\n"));
    let old = send_all(&proxy, "GET / HTTP/1.0\r\n\r\n").await;
    assert!(old.ends_with("\r\n\r\nhello!") && !old.contains("chunked"), "{old}");

    // The other way, with the connection kept on both sides.
    let origin = Origin::raw(|mut stream| async move {
        loop {
            let head = read_head(&mut stream).await?;
            assert!(head.contains("Transfer-Encoding: chunked\r\n"), "{head}");
            let mut body = vec![0; "3;x=y\r\nabc\r\n0\r\nX-Sum: 3\r\n\r\n".len()];
            stream.read_exact(&mut body).await?;
            assert_eq!(body, b"3;x=y\r\nabc\r\n0\r\nX-Sum: 3\r\n\r\n");
            stream.write_all(OK.as_bytes()).await?;
        }
    })
    .await;
    proxy.set_backends(addresses(&[&origin]));
    let mut client = connect(&proxy).await;
    for _ in 0..3 {
        let head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        let body = "3;x=y\r\nabc\r\n0\r\nX-Sum: 3\r\nContent-Length: 9\r\n\r\n";
        assert_eq!(send_one(&mut client, format!("{head}{body}")).await.1, "ok");
    }
    assert_eq!(origin.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn head_and_bodiless_statuses_end_where_they_should() {
    let origin = Origin::raw(|mut stream| async move {
        loop {
            let answer = match read_head(&mut stream).await?.split(' ').nth(1).unwrap() {
                "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
                "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
            };
            stream.write_all(answer.as_bytes()).await?;
        }
    })
    .await;
    let proxy = proxy_over(&[&origin]);
    let mut client = connect(&proxy).await;
    for target in ["HEAD /", "GET /304", "GET /204", "HEAD /304"] {
        client.write_all(format!("{target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        within(read_head(&mut client)).await.unwrap();
    }
    assert_eq!(origin.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn interim_answers_pass_and_a_body_waits_for_100_continue() {
    let origin = Origin::raw(|mut stream| async move {
        let head = read_head(&mut stream).await?;
        assert!(head.contains("Expect: 100-continue\r\n"), "{head}");
        stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await?;
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        let mut body = [0; 4];
        stream.read_exact(&mut body).await?;
        assert_eq!(&body, b"body");
        stream.write_all(OK.as_bytes()).await
    })
    .await;
    let proxy = proxy_over(&[&origin]);
    let mut client = connect(&proxy).await;
    let post = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    client.write_all(post.as_bytes()).await.unwrap();
    let hints = within(read_head(&mut client)).await.unwrap();
    assert_eq!(hints, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    assert_eq!(within(read_head(&mut client)).await.unwrap(), "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(send_one(&mut client, "body").await.1, "ok");
}

#[tokio::test]
async fn a_refusal_before_the_body_is_read_reaches_the_client() {
    let origin = Origin::raw(|mut stream| async move {
        read_head(&mut stream).await?;
        stream.write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig").await?;
        // It wants no more, and closes as RFC 9112 §9.6 asks.
        stream.shutdown().await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map(drop)
    })
    .await;
    let proxy = proxy_over(&[&origin]);
    let mut client = connect(&proxy).await;
    let post = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n";
    client.write_all(post.as_bytes()).await.unwrap();
    client.write_all(&[0; 50_000]).await.unwrap();
    let (head, body) = send_one(&mut client, "").await;
    assert!(head.starts_with("HTTP/1.1 413 ") && body == "big", "{head}");
    // The rest of the body cannot be told from a next request, so the connection ends.
    let mut rest = Vec::new();
    within(client.read_to_end(&mut rest)).await.ok();
    assert!(rest.is_empty());
}

#[tokio::test]
async fn upgrades_pass_and_count_as_in_flight() {
    let origin = Origin::raw(|mut stream| async move {
        let head = read_head(&mut stream).await?;
        assert!(head.contains("Connection: upgrade\r\nUpgrade: websocket\r\n"), "{head}");
        assert!(head.contains("Sec-WebSocket-Key: k\r\n"), "{head}");
        stream
            .write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                  Connection: Upgrade\r\nSec-WebSocket-Accept: a\r\n\r\nearly",
            )
            .await?;
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await?;
        write.write_all(b"bye").await
    })
    .await;
    let proxy = proxy_over(&[&origin]);
    let mut client = connect(&proxy).await;
    let request = "GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Key: k\r\nSec-WebSocket-Version: 13\r\n\r\nfirst";
    client.write_all(request.as_bytes()).await.unwrap();
    let head = within(read_head(&mut client)).await.unwrap();
    assert!(
        head.starts_with("HTTP/1.1 101 ") && head.contains("Connection: upgrade\r\n"),
        "{head}"
    );
    assert!(head.contains("Upgrade: websocket\r\n"), "{head}");
    let expect = async |client: &mut TcpStream, text: &str| {
        let mut got = vec![0; text.len()];
        within(client.read_exact(&mut got)).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&got), text);
    };
    expect(&mut client, "earlyfirst").await;
    client.write_all(b"ping").await.unwrap();
    expect(&mut client, "ping").await;
    assert_eq!(proxy.stats().backends[0].in_flight, 1);
    assert_eq!(proxy.drain("a", Duration::from_millis(10)).await, 1);
    client.shutdown().await.unwrap();
    expect(&mut client, "bye").await;
    assert_eq!(proxy.drain("a", DEADLINE).await, 0);
}

#[tokio::test]
async fn slow_and_huge_heads_are_refused() {
    let proxy = proxy_with(Mode::Http, |settings| {
        settings.head_timeout = Duration::from_millis(100);
        settings.max_head = 20_000;
    });
    let answer = send_all(&proxy, "GET / HTTP/1.1\r\nHost: x\r\nX-Slow").await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    // A trickle does not extend the time.
    let mut client = connect(&proxy).await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.unwrap();
    let (mut read, mut write) = client.split();
    let trickle = async {
        while write.write_all(b"y").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let mut answer = Vec::new();
    tokio::select! {
        _ = read.read_to_end(&mut answer) => {}
        () = trickle => {}
        () = tokio::time::sleep(DEADLINE) => panic!("the trickle is read for ever"),
    }
    assert!(answer.starts_with(b"HTTP/1.1 408 "));

    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(50_000));
    assert!(send_all(&proxy, long).await.starts_with("HTTP/1.1 431 "));
    let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "a: b\r\n".repeat(200));
    assert!(send_all(&proxy, many).await.starts_with("HTTP/1.1 431 "));
}

#[tokio::test]
async fn idle_connections_end_and_slow_backends_are_timed_out() {
    let silent = Origin::raw(|mut stream| async move {
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map(drop)
    })
    .await;
    let proxy = proxy_with(Mode::Http, |settings| {
        settings.idle_timeout = Duration::from_millis(50);
        settings.response_timeout = Some(Duration::from_millis(50));
    });
    proxy.set_backends(addresses(&[&silent]));
    assert_eq!(send_all(&proxy, "").await, "");
    let answer = send_all(&proxy, GET).await;
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    // A client that goes away ends the request at the instance too.
    let proxy = proxy_over(&[&silent]);
    let mut client = connect(&proxy).await;
    client.write_all(GET.as_bytes()).await.unwrap();
    eventually("in flight", || proxy.stats().backends[0].in_flight == 1).await;
    drop(client);
    eventually("given up", || proxy.stats().backends[0].in_flight == 0).await;
}
