//! Long bodies and whole connections: never buffered whole, ended as the peers end them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::*;
use deploykit_agent::proxy::Mode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const LENGTH: usize = 40_000_000;

/// Reads to the end and compares with the pattern of `seed`.
async fn read_pattern(stream: &mut (impl AsyncReadExt + Unpin), seed: u64, length: usize) {
    let expected = pattern(seed, length);
    let mut buffer = vec![0; 70_000];
    let mut at = 0;
    while at < length {
        let n = within(stream.read(&mut buffer)).await.unwrap();
        assert!(n > 0, "ended after {at} bytes");
        assert!(buffer[..n] == expected[at..at + n], "differs near {at}");
        at += n;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_bodies_stream_both_ways_at_once() {
    // Sends its own body while it reads the request's: neither may wait for the other.
    let origin = Origin::raw(|mut stream| async move {
        read_head(&mut stream).await?;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let (mut read, mut write) = stream.split();
        let body = pattern(2, LENGTH);
        tokio::join!(read_pattern(&mut read, 1, LENGTH), async {
            write.write_all(&body).await.unwrap();
        });
        Ok(())
    })
    .await;
    let proxy = proxy_over(&[&origin]);
    let mut client = connect(&proxy).await;
    let head = format!("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: {LENGTH}\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    let (mut read, mut write) = client.split();
    let body = pattern(1, LENGTH);
    let download = async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(read.read_u8().await.unwrap());
        }
        read_pattern(&mut read, 2, LENGTH).await;
    };
    tokio::join!(download, async { write.write_all(&body).await.unwrap() });
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_instance_from_sending() {
    let sent = Arc::new(AtomicU64::new(0));
    let count = sent.clone();
    let origin = Origin::raw(move |mut stream| {
        let count = count.clone();
        async move {
            read_head(&mut stream).await?;
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
            let chunk = [b"10000\r\n".as_slice(), &pattern(3, 0x10000), b"\r\n"].concat();
            for _ in 0..1000 {
                stream.write_all(&chunk).await?;
                count.fetch_add(0x10000, Ordering::SeqCst);
            }
            stream.write_all(b"0\r\n\r\n").await
        }
    })
    .await;
    let proxy = proxy_over(&[&origin]);
    let mut client = connect(&proxy).await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut before = u64::MAX;
    while sent.load(Ordering::SeqCst) != before || before == 0 {
        before = sent.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(before < 60_000_000, "the proxy took {before} bytes that nobody reads");
    let mut all = Vec::new();
    within(client.read_to_end(&mut all)).await.unwrap();
    assert!(all.ends_with(b"\r\n0\r\n\r\n") && all.len() > 65_536_000);
}

#[tokio::test]
async fn an_answer_that_breaks_off_does_not_look_whole() {
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\npart",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\nzz\r\n",
    ] {
        let origin = Origin::raw(move |mut stream| async move {
            read_head(&mut stream).await?;
            stream.write_all(head.as_bytes()).await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok(())
        })
        .await;
        let proxy = proxy_over(&[&origin]);
        let mut client = connect(&proxy).await;
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut all = Vec::new();
        let end = within(client.read_to_end(&mut all)).await;
        assert!(end.is_err(), "{head:?} ended well: {:?}", String::from_utf8_lossy(&all));
        eventually("counted", || proxy.stats().failures == 1).await;
    }
    // Without a length the end of the connection is the end of the body.
    let origin = Origin::raw(|mut stream| async move {
        read_head(&mut stream).await?;
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nwhole").await
    })
    .await;
    let answer = send_all(&proxy_over(&[&origin]), "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(answer, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nwhole");
}

async fn tcp_proxy(origins: &[&Origin]) -> deploykit_agent::proxy::ServiceProxy {
    let proxy = proxy(Mode::Tcp);
    proxy.set_backends(addresses(origins));
    proxy
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_ends_pass_each_way_on_their_own() {
    let origin = Origin::raw(|mut stream| async move {
        read_pattern(&mut stream, 5, LENGTH).await;
        // The client has ended its side; ours is still open.
        assert_eq!(stream.read(&mut [0]).await?, 0);
        stream.write_all(&pattern(6, LENGTH)).await
    })
    .await;
    let proxy = tcp_proxy(&[&origin]).await;
    let mut client = connect(&proxy).await;
    client.write_all(&pattern(5, LENGTH)).await.unwrap();
    client.shutdown().await.unwrap();
    read_pattern(&mut client, 6, LENGTH).await;
    assert_eq!(within(client.read(&mut [0])).await.unwrap(), 0);
    eventually("ended", || proxy.stats().backends[0].in_flight == 0).await;
}

#[tokio::test]
async fn tcp_connections_are_balanced_and_drained() {
    let echo = || {
        Origin::raw(|mut stream| async move {
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await.map(drop)
        })
    };
    let (a, b) = (echo().await, echo().await);
    let proxy = tcp_proxy(&[&a, &b]).await;
    let ping = async |stream: &mut TcpStream| {
        stream.write_all(b"ping").await.unwrap();
        let mut got = [0; 4];
        within(stream.read_exact(&mut got)).await.unwrap();
        assert_eq!(&got, b"ping");
    };
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = connect(&proxy).await;
        ping(&mut client).await;
        clients.push(client);
    }
    let in_flight = |at: usize| proxy.stats().backends[at].in_flight;
    assert_eq!((in_flight(0), in_flight(1)), (5, 5));
    // Removed, yet its connections live until the clients end them.
    assert_eq!(proxy.drain("a", Duration::from_millis(20)).await, 5);
    for client in &mut clients {
        ping(client).await;
    }
    let mut late = connect(&proxy).await;
    ping(&mut late).await;
    assert_eq!(b.connections.load(Ordering::SeqCst), 6);
    clients.clear();
    assert_eq!(proxy.drain("a", DEADLINE).await, 0);

    // A dead instance costs no connection.
    proxy.set_backends(addresses(&[&a, &b]));
    a.kill();
    let addr = a.addr;
    eventually("dead", || std::net::TcpStream::connect(addr).is_err()).await;
    for _ in 0..10 {
        ping(&mut connect(&proxy).await).await;
    }
    // What is left after the deadline of a shutdown is broken and counted.
    assert_eq!(proxy.shutdown(Duration::from_millis(20)).await, 1);
    assert!(!matches!(within(late.read(&mut [0])).await, Ok(1..)));
}

#[tokio::test]
async fn shutdown_lets_requests_end_and_closes_idle_connections() {
    let (release, released) = tokio::sync::watch::channel(false);
    let origin = Origin::raw(move |mut stream| {
        let mut released = released.clone();
        async move {
            read_head(&mut stream).await?;
            released.wait_for(|go| *go).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await
        }
    })
    .await;
    let proxy = proxy_over(&[&origin]);
    let addr = proxy.address();
    let mut idle = connect(&proxy).await;
    let mut busy = connect(&proxy).await;
    busy.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    eventually("in flight", || proxy.stats().backends[0].in_flight == 1).await;
    let shutdown = tokio::spawn(proxy.shutdown(DEADLINE));
    assert_eq!(within(idle.read(&mut [0])).await.unwrap(), 0);
    eventually("refuses", || std::net::TcpStream::connect(addr).is_err()).await;
    release.send(true).unwrap();
    let (head, body) = send_one(&mut busy, "").await;
    assert!(head.contains("Connection: close\r\n") && body == "ok", "{head}");
    assert_eq!(within(shutdown).await.unwrap(), 0);
}
