//! The same conversations through our proxy and through HAProxy: the service and the client must
//! see the same. `DEPLOYKIT_TEST_HAPROXY` names the program, as `testbed/run` sets it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use common::{Origin, eventually, proxy_over, read_head, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What the client sends, and what the service answers.
const CONVERSATIONS: &[(&str, &str)] = &[
    (
        "GET /a?b=c%20d HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n",
        "200 OK\r\nContent-Length: 2\r\n\r\nhi",
    ),
    ("HEAD / HTTP/1.1\r\nHost: x\r\n", "200 OK\r\nContent-Length: 5\r\n\r\n"),
    ("GET / HTTP/1.1\r\nHost: x\r\n", "204 No Content\r\n\r\n"),
    (
        "GET / HTTP/1.1\r\nHost: x\r\nIf-None-Match: \"1\"\r\n",
        "304 Not Modified\r\nETag: \"1\"\r\n\r\n",
    ),
    (
        "GET / HTTP/1.1\r\nHost: x\r\n",
        "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n3;a=b\r\n ho\r\n0\r\n\r\n",
    ),
    ("GET / HTTP/1.1\r\nHost: x\r\n", "200 OK\r\nConnection: close\r\n\r\nto the end"),
    (
        "GET / HTTP/1.1\r\nHost: x\r\n",
        "503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "GET / HTTP/1.1\r\nHost: x\r\nCookie: a=1\r\nCookie: b=2\r\n",
        "200 OK\r\nSet-Cookie: c=3\r\nSet-Cookie: d=4\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
        "201 Created\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        "200 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
        "200 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "DELETE /x HTTP/1.1\r\nHost: x\r\nKeep-Alive: timeout=5\r\n",
        "200 OK\r\nKeep-Alive: timeout=5\r\nContent-Length: 0\r\n\r\n",
    ),
    ("OPTIONS * HTTP/1.1\r\nHost: x\r\n", "200 OK\r\nAllow: GET\r\nContent-Length: 0\r\n\r\n"),
];

/// What neither lets through to the service.
const REFUSED: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n",
    "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3, 4\r\n\r\nabcd",
    "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "GET / HTTP/1.1\r\nHost : x\r\n",
    "GET / HTTP/1.1\r\nHost: x\r\nA\0: b\r\n",
    "GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n",
    "GE\tT / HTTP/1.1\r\nHost: x\r\n",
];

struct Haproxy(Child);

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// HAProxy in front of `origin`; nothing where it is not at hand, which is a failure under CI.
async fn haproxy(origin: SocketAddr, folder: &std::path::Path) -> Option<(Haproxy, SocketAddr)> {
    let Some(program) = std::env::var_os("DEPLOYKIT_TEST_HAPROXY") else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "DEPLOYKIT_TEST_HAPROXY is not set");
        eprintln!("skipped: DEPLOYKIT_TEST_HAPROXY is not set; run this by testbed/run");
        return None;
    };
    let listen = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = format!(
        "defaults\n  mode http\n  timeout connect 30s\n  timeout client 30s\n  timeout server 30s\n\
         listen proxy\n  bind {listen}\n  server origin {origin}\n"
    );
    let file = folder.join("haproxy.cfg");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new(program);
    command.arg("-db").arg("-f").arg(file).stdout(Stdio::null()).stderr(Stdio::null());
    let process = Haproxy(command.spawn().unwrap());
    eventually("HAProxy listens", || std::net::TcpStream::connect(listen).is_ok()).await;
    Some((process, listen))
}

/// A service that notes what it gets and gives the answer that it is told.
struct Scripted {
    origin: Origin,
    answer: Arc<Mutex<&'static str>>,
    got: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    async fn new() -> Self {
        let answer = Arc::new(Mutex::new(""));
        let got = Arc::new(Mutex::new(Vec::new()));
        let (told, note) = (answer.clone(), got.clone());
        let origin = Origin::raw(move |mut stream| {
            let (told, note) = (told.clone(), note.clone());
            async move {
                let head = read_head(&mut stream).await?;
                let lower = head.to_ascii_lowercase();
                if lower.contains("\r\nexpect:") {
                    stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
                }
                let mut body = Vec::new();
                if lower.contains("\r\ntransfer-encoding:") {
                    while !body.ends_with(b"0\r\n\r\n") {
                        body.push(stream.read_u8().await?);
                    }
                } else if let Some((_, rest)) = lower.split_once("\r\ncontent-length: ") {
                    let length = rest.split("\r\n").next().unwrap().parse().unwrap();
                    body.resize(length, 0);
                    stream.read_exact(&mut body).await?;
                }
                note.lock().unwrap().push(head + &String::from_utf8(body).unwrap());
                let answer = format!("HTTP/1.1 {}", *told.lock().unwrap());
                stream.write_all(answer.as_bytes()).await
            }
        })
        .await;
        Self { origin, answer, got }
    }

    /// What the service and the client get of a conversation through the proxy at `address`.
    async fn converse(&self, address: SocketAddr, request: &str) -> (Vec<String>, String) {
        // Each conversation is of one request; a body comes after an empty line.
        let (line, rest) = request.split_once("\r\n").unwrap();
        let end = if rest.contains("\r\n\r\n") { "" } else { "\r\n" };
        let request = format!("{line}\r\nConnection: close\r\n{rest}{end}");
        let mut answer = Vec::new();
        within(async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            stream.read_to_end(&mut answer).await.unwrap();
        })
        .await;
        let got = std::mem::take(&mut *self.got.lock().unwrap());
        let answer = String::from_utf8(answer).unwrap();
        (got.iter().map(|message| normal(message)).collect(), normal(&answer))
    }
}

/// A message without what a proxy may choose: the case and order of header names, what is about
/// one connection alone, what tells the service of the client, how a body is cut into chunks.
fn normal(message: &str) -> String {
    let message = message.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(message);
    let Some((head, body)) = message.split_once("\r\n\r\n") else { return message.to_owned() };
    let own = ["connection: ", "keep-alive: ", "x-forwarded-"];
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap();
    let mut headers: Vec<String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| format!("{}: {value}", name.to_ascii_lowercase()))
        .filter(|line| !own.iter().any(|name| line.starts_with(name)))
        .collect();
    headers.sort();
    let chunked = headers.iter().any(|line| line == "transfer-encoding: chunked");
    let body = if chunked { joined(body) } else { body.to_owned() };
    format!("{first}\n{}\n\n{body}", headers.join("\n"))
}

fn joined(mut chunks: &str) -> String {
    let mut whole = String::new();
    loop {
        let (size, rest) = chunks.split_once("\r\n").expect("a chunk's size");
        let size = size.split(';').next().unwrap();
        let size = usize::from_str_radix(size.trim(), 16).expect("a chunk's size");
        if size == 0 {
            return whole;
        }
        whole.push_str(&rest[..size]);
        chunks = rest[size..].strip_prefix("\r\n").expect("a chunk's end");
    }
}

#[tokio::test]
async fn the_service_and_the_client_see_what_they_see_behind_haproxy() {
    let scripted = Scripted::new().await;
    let folder = tempfile::tempdir().unwrap();
    let Some((_haproxy, theirs)) = haproxy(scripted.origin.addr, folder.path()).await else {
        return;
    };
    let ours = proxy_over(&[&scripted.origin]);
    for (request, answer) in CONVERSATIONS {
        *scripted.answer.lock().unwrap() = answer;
        let expected = scripted.converse(theirs, request).await;
        let found = scripted.converse(ours.address(), request).await;
        assert_eq!(found, expected, "{request}");
    }
}

#[tokio::test]
async fn what_haproxy_refuses_is_refused() {
    let scripted = Scripted::new().await;
    let folder = tempfile::tempdir().unwrap();
    let Some((_haproxy, theirs)) = haproxy(scripted.origin.addr, folder.path()).await else {
        return;
    };
    let ours = proxy_over(&[&scripted.origin]);
    for request in REFUSED {
        for address in [theirs, ours.address()] {
            let (got, answer) = scripted.converse(address, request).await;
            assert!(got.is_empty(), "{request} came through: {got:?}");
            assert!(answer.starts_with("HTTP/1.1 400 "), "{request}: {answer}");
        }
    }
}
