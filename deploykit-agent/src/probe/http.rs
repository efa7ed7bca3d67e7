//! A GET that is answered by a status from 200 to 399.

use std::net::SocketAddr;
use std::time::Duration;

use deploykit_core::model::HttpCheck;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::excerpt;

/// What is read of an answer at most.
const MAX_ANSWER: usize = 32 * 1024;
const MAX_FIELDS: usize = 64;
/// How long the rest of the body is waited for: the status decides, but closing before the body was
/// read would look like a broken connection to the instance.
const REST: Duration = Duration::from_millis(50);

pub(super) async fn ask(check: &HttpCheck, addr: SocketAddr) -> Result<String, String> {
    let request = request(check, addr)?;
    let mut stream = TcpStream::connect(addr).await.map_err(|error| error.to_string())?;
    stream.write_all(&request).await.map_err(|error| error.to_string())?;
    let mut answer = Vec::with_capacity(1024);
    let head = loop {
        if let Some(head) = Head::read(&mut answer)? {
            break head;
        }
        match stream.read_buf(&mut answer).await {
            Ok(0) if answer.is_empty() => return Err("closed without an answer".to_owned()),
            Ok(0) => return Err("the answer broke off in its head".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    };
    let end = head.length.saturating_add(head.body.unwrap_or(MAX_ANSWER)).min(MAX_ANSWER);
    let rest = async {
        while answer.len() < end && matches!(stream.read_buf(&mut answer).await, Ok(1..)) {}
    };
    let _ = timeout(REST, rest).await;
    let text = format!("{} {}", head.status, head.reason);
    if (200..400).contains(&head.status) {
        return Ok(text);
    }
    match excerpt(&answer[head.length..]) {
        body if body.is_empty() => Err(text),
        body => Err(format!("{text}: {body}")),
    }
}

fn request(check: &HttpCheck, addr: SocketAddr) -> Result<Vec<u8>, String> {
    let mut request = format!("GET {} HTTP/1.1\r\n", check.path);
    let has = |name: &str| check.headers.keys().any(|other| other.eq_ignore_ascii_case(name));
    if !has("host") {
        request += &format!("Host: {addr}\r\n");
    }
    if !has("user-agent") {
        request += concat!("User-Agent: deploykit-probe/", env!("CARGO_PKG_VERSION"), "\r\n");
    }
    for (name, value) in &check.headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += "Connection: close\r\n\r\n";
    // What was put in must not have ended a line, or the request.
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    let whole = parsed.parse(request.as_bytes()) == Ok(httparse::Status::Complete(request.len()));
    let lines = check.headers.len() + 4 - usize::from(has("host")) - usize::from(has("user-agent"));
    if whole && parsed.headers.len() + 1 == lines && request.matches('\n').count() == lines + 1 {
        Ok(request.into_bytes())
    } else {
        Err("the probe's path or headers cannot be sent".to_owned())
    }
}

struct Head {
    status: u16,
    reason: String,
    length: usize,
    body: Option<usize>,
}

impl Head {
    /// The final head at the beginning of `answer`, once it is whole; interim ones are dropped.
    fn read(answer: &mut Vec<u8>) -> Result<Option<Self>, String> {
        loop {
            let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
            let mut parsed = httparse::Response::new(&mut fields);
            let length = match parsed.parse(answer) {
                Ok(httparse::Status::Complete(length)) => length,
                Ok(httparse::Status::Partial) if answer.len() < MAX_ANSWER => return Ok(None),
                Ok(httparse::Status::Partial) => return Err("the head is too large".to_owned()),
                Err(_) => return Err(format!("not HTTP: {}", excerpt(answer))),
            };
            let status = parsed.code.unwrap_or_default();
            if (100..200).contains(&status) && status != 101 {
                answer.drain(..length);
                continue;
            }
            let body = parsed
                .headers
                .iter()
                .find(|field| field.name.eq_ignore_ascii_case("content-length"))
                .and_then(|field| std::str::from_utf8(field.value).ok()?.parse().ok());
            let reason = excerpt(parsed.reason.unwrap_or_default().as_bytes());
            return Ok(Some(Self { status, reason, length, body }));
        }
    }
}
