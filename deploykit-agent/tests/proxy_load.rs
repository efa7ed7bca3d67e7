//! Instances come, go and die under load: the client never retries, every body is checked.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use common::*;
use deploykit_agent::proxy::Mode;
use tokio::io::AsyncWriteExt;

/// Small and large answers, every third request with a body.
fn mixed(seed: u64) -> (&'static str, usize, usize) {
    match seed % 3 {
        0 => ("POST", 300, 2_000 + (seed as usize % 40_000)),
        1 => ("GET", 100, 0),
        _ => ("GET", seed as usize % 60_000, 0),
    }
}

fn gets(seed: u64) -> (&'static str, usize, usize) {
    ("GET", seed as usize % 3_000, 0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_are_replaced_one_by_one_without_a_failed_request() {
    let delay = Duration::from_millis(1);
    let ids = ["v1-a", "v1-b", "v2-a", "v2-b", "v3-a", "v3-b"];
    let mut origins = Vec::new();
    for id in ids {
        origins.push(Some(Origin::real(id, delay).await));
    }
    let proxy = proxy(Mode::Http);
    let backends = |origins: &[Option<Origin>], from: usize| {
        origins[from..from + 2]
            .iter()
            .zip(&ids[from..])
            .map(|(o, id)| {
                deploykit_agent::proxy::BackendAddress::new(*id, o.as_ref().unwrap().addr)
            })
            .collect::<Vec<_>>()
    };
    proxy.set_backends(backends(&origins, 0));
    let stop = Arc::new(AtomicBool::new(false));
    let load = load(&proxy, 16, 200, stop.clone(), mixed);
    for next in 1..=4 {
        let before = proxy.stats().requests;
        eventually("600 more requests", || proxy.stats().requests > before + 600).await;
        proxy.set_backends(backends(&origins, next));
        let old = ids[next - 1];
        assert_eq!(proxy.drain(old, DEADLINE).await, 0);
        // Drained, so nobody may notice that it dies.
        origins[next - 1].take().unwrap().kill();
    }
    stop.store(true, Ordering::SeqCst);
    let load = load.await.unwrap();
    assert_eq!(load.failed, Vec::<String>::new(), "of {}", load.total());
    assert!(load.total() >= 3_000, "{load:?}");
    assert!(load.served.len() == 6, "{:?}", load.served);
    let stats = proxy.stats();
    assert_eq!((stats.failures, stats.retries), (0, 0), "{stats:?}");
    assert!(stats.backends.iter().all(|backend| backend.in_flight == 0), "{stats:?}");
    assert_eq!(proxy.shutdown(DEADLINE).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_is_killed_costs_no_get() {
    let doomed = Origin::real("doomed", Duration::from_millis(2)).await;
    let living = Origin::real("living", Duration::from_millis(2)).await;
    let proxy = proxy_over(&[&doomed, &living]);
    let stop = Arc::new(AtomicBool::new(false));
    let load = load(&proxy, 8, 200, stop.clone(), gets);
    for _ in 0..5 {
        let before = proxy.stats().requests;
        eventually("requests", || proxy.stats().requests > before + 100).await;
        let addr = doomed.addr;
        doomed.kill();
        eventually("requests", || proxy.stats().requests > before + 300).await;
        // The instance comes back at its address and gets requests again.
        let again = Origin::real_at(addr, "again", Duration::from_millis(2)).await;
        let served = proxy.stats().backends[0].requests;
        eventually("it serves again", || proxy.stats().backends[0].requests > served + 20).await;
        again.kill();
    }
    stop.store(true, Ordering::SeqCst);
    let load = load.await.unwrap();
    assert_eq!(load.failed, Vec::<String>::new());
    assert!(load.total() >= 1_600 && load.served["again"] > 0, "{:?}", load.served);
    assert!(proxy.stats().retries > 0, "nothing was in flight when it died");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_instance_restarts_under_load_and_requests_wait_for_it() {
    let origin = Origin::real("one", Duration::from_millis(1)).await;
    let (addr, proxy) = (origin.addr, proxy_over(&[&origin]));
    let stop = Arc::new(AtomicBool::new(false));
    let load = load(&proxy, 8, 100, stop.clone(), gets);
    let mut current = origin;
    for _ in 0..3 {
        let before = proxy.stats().requests;
        eventually("requests", || proxy.stats().requests > before + 100).await;
        current.kill();
        tokio::time::sleep(Duration::from_millis(300)).await;
        current = Origin::real_at(addr, "one", Duration::from_millis(1)).await;
    }
    stop.store(true, Ordering::SeqCst);
    let load = load.await.unwrap();
    assert_eq!(load.failed, Vec::<String>::new());
    assert!(load.total() >= 800);
}

#[tokio::test]
async fn nothing_is_sent_twice_that_may_have_been_acted_upon() {
    let got = Arc::new(AtomicUsize::new(0));
    let count = got.clone();
    // Reads the head, then dies without an answer.
    let broken = Origin::raw(move |mut stream| {
        let count = count.clone();
        async move {
            read_head(&mut stream).await?;
            count.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    })
    .await;
    let other = Origin::canned("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let proxy = proxy(Mode::Http);
    proxy.set_backends(addresses(&[&broken]));
    let post = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody";
    let patch = "PATCH / HTTP/1.1\r\nHost: x\r\n\r\n";
    let put = "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody";
    for (n, request) in [post, patch, put].into_iter().enumerate() {
        let (head, body) = send_one(&mut connect(&proxy).await, request).await;
        assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
        assert!(body.contains("the instance did not answer"), "{body}");
        assert_eq!(got.load(Ordering::SeqCst), n + 1, "{request} was sent again");
    }
    // A GET may be sent again: with the healthy one beside it, the client sees no failure.
    proxy.set_backends(addresses(&[&broken, &other]));
    for _ in 0..20 {
        let get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        assert_eq!(send_one(&mut connect(&proxy).await, get).await.1, "ok");
    }
}

#[tokio::test]
async fn a_get_that_nobody_answers_is_given_up_after_its_retries() {
    let got = Arc::new(AtomicUsize::new(0));
    let count = got.clone();
    let broken = Origin::raw(move |mut stream| {
        let count = count.clone();
        async move {
            read_head(&mut stream).await?;
            count.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    })
    .await;
    let proxy = proxy_over(&[&broken]);
    let (head, _) = send_one(&mut connect(&proxy).await, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    assert_eq!(got.load(Ordering::SeqCst), 3);
    assert_eq!(proxy.stats().failures, 1);
}

#[tokio::test]
async fn a_post_goes_to_another_instance_when_the_first_refuses_the_connection() {
    let gone = Origin::mirror().await;
    let addr = gone.addr;
    gone.kill();
    drop(gone);
    let living = Origin::canned("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    eventually("the port is closed", || std::net::TcpStream::connect(addr).is_err()).await;
    let proxy = proxy(Mode::Http);
    let mut backends = addresses(&[&living]);
    backends.push(deploykit_agent::proxy::BackendAddress::new("gone", addr));
    proxy.set_backends(backends);
    let mut client = connect(&proxy).await;
    for _ in 0..10 {
        let post = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(send_one(&mut client, post).await.1, "ok");
    }
    let stats = proxy.stats();
    assert_eq!(stats.failures, 0);
    // Ejected with a back-off: it was not asked for each of the ten.
    assert!(stats.backends[1].requests < 5, "{stats:?}");
}

#[tokio::test]
async fn requests_wait_for_a_first_instance_and_are_then_refused_plainly() {
    let proxy = proxy_with(Mode::Http, |settings| settings.hold = Duration::from_millis(50));
    let mut client = connect(&proxy).await;
    let get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let (head, body) = send_one(&mut client, get).await;
    assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{head}");
    assert_eq!(body, "503 Service Unavailable: no instance of the service is ready\n");

    // The refused client's connection is still good, and a held request is served when one comes.
    let proxy = proxy_with(Mode::Http, |settings| settings.hold = DEADLINE);
    let mut client = connect(&proxy).await;
    client.write_all(get.as_bytes()).await.unwrap();
    eventually("the request waits", || proxy.stats().requests == 1).await;
    let origin = Origin::canned("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    proxy.set_backends(addresses(&[&origin]));
    assert_eq!(send_one(&mut client, "").await.1, "ok");
}

#[tokio::test]
async fn drain_waits_for_answers_in_flight_and_says_what_is_left() {
    let (release, released) = tokio::sync::watch::channel(false);
    let slow = Origin::raw(move |mut stream| {
        let mut released = released.clone();
        async move {
            read_head(&mut stream).await?;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha").await?;
            released.wait_for(|go| *go).await.unwrap();
            stream.write_all(b"lf").await
        }
    })
    .await;
    let other = Origin::canned("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother").await;
    let proxy = proxy_over(&[&slow]);
    let get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut client = connect(&proxy).await;
    client.write_all(get.as_bytes()).await.unwrap();
    eventually("in flight", || proxy.stats().backends[0].in_flight == 1).await;
    assert_eq!(proxy.drain("a", Duration::from_millis(20)).await, 1);
    assert!(proxy.stats().backends[0].leaving);
    // The client's connection serves on with another instance while the old one drains.
    proxy.set_backends([deploykit_agent::proxy::BackendAddress::new("b", other.addr)]);
    assert_eq!(send_one(&mut connect(&proxy).await, get).await.1, "other");
    release.send(true).unwrap();
    assert_eq!(proxy.drain("a", DEADLINE).await, 0);
    assert_eq!(send_one(&mut client, "").await.1, "half");
    assert_eq!(send_one(&mut client, get).await.1, "other");
    assert_eq!(proxy.drain("unknown", DEADLINE).await, 0);
}

#[tokio::test]
async fn an_instance_that_closes_its_idle_connections_costs_no_request() {
    // Announces nothing, closes after each answer.
    let origin = Origin::raw(|mut stream| async move {
        read_head(&mut stream).await?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await
    })
    .await;
    let proxy = proxy_over(&[&origin]);
    let mut client = connect(&proxy).await;
    for _ in 0..200 {
        let get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        assert_eq!(send_one(&mut client, get).await.1, "ok");
    }
    for _ in 0..20 {
        // Long enough for the close to have arrived; what may be sent once only must see it.
        tokio::time::sleep(Duration::from_millis(10)).await;
        let post = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
        let (head, body) = send_one(&mut client, post).await;
        assert_eq!(body, "ok", "{head}");
    }
    assert_eq!(proxy.stats().failures, 0);
    assert!(!proxy.stats().backends[0].ejected, "closing an idle connection is no fault");
}
