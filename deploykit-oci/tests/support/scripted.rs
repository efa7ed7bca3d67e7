//! A registry that does what a real one doesn't on demand: answers are written by the test.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What a client has asked for.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// The path and the query.
    pub path: String,
    pub headers: Vec<(String, String)>,
    /// What came of the body; less than announced where the script cut it.
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// What is answered, byte by byte; the connection is closed after it.
#[derive(Clone, Debug, Default)]
pub struct Reply(pub Vec<u8>);

impl Reply {
    /// A whole answer with a right `Content-Length`.
    pub fn new(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Self {
        Self::lying(status, headers, body.len(), body)
    }

    /// An answer that announces another length than it has.
    pub fn lying(status: u16, headers: &[(&str, &str)], length: usize, body: &[u8]) -> Self {
        let mut bytes = format!("HTTP/1.1 {status} x\r\nContent-Length: {length}\r\n");
        for (name, value) in headers {
            bytes.push_str(&format!("{name}: {value}\r\n"));
        }
        bytes.push_str("Connection: close\r\n\r\n");
        let mut bytes = bytes.into_bytes();
        bytes.extend_from_slice(body);
        Self(bytes)
    }

    /// A manifest.
    pub fn manifest(media_type: &str, bytes: &[u8]) -> Self {
        let digest = deploykit_oci::Digest::of(bytes).to_string();
        Self::new(200, &[("Content-Type", media_type), ("Docker-Content-Digest", &digest)], bytes)
    }

    /// To a `HEAD`: what a `GET` would be answered, without the body.
    pub fn head(self) -> Self {
        let end = self.0.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        Self(self.0[..end].to_vec())
    }
}

/// How much of a body is read; none for all of it.
type Limit = Box<dyn Fn(&Request) -> Option<usize> + Send + Sync>;
type Script = Box<dyn Fn(&Request) -> Reply + Send + Sync>;

/// A registry that follows a script.
pub struct Scripted {
    pub host: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Scripted {
    pub fn start(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::cutting(|_| None, script)
    }

    /// A registry that stops reading some bodies before their end, and closes the connection
    /// without an answer.
    pub fn cutting(
        limit: impl Fn(&Request) -> Option<usize> + Send + Sync + 'static,
        script: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
        let parts: Arc<(Limit, Script)> = Arc::new((Box::new(limit), Box::new(script)));
        let log = Arc::clone(&seen);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (log, parts) = (Arc::clone(&log), Arc::clone(&parts));
                std::thread::spawn(move || serve(stream, &log, &parts.0, &parts.1));
            }
        });
        Self { host, seen }
    }

    /// What was asked since the last look, as `METHOD /path`.
    pub fn asked(&self) -> Vec<String> {
        self.requests().into_iter().map(|r| format!("{} {}", r.method, r.path)).collect()
    }

    /// What was asked since the last look.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

fn serve(stream: TcpStream, log: &Mutex<Vec<Request>>, limit: &Limit, script: &Script) {
    let mut output = stream.try_clone().unwrap();
    let mut input = BufReader::new(stream);
    let Ok(mut request) = read_head(&mut input) else { return };
    let announced = request.header("content-length").and_then(|l| l.parse::<usize>().ok());
    let announced = announced.unwrap_or(0);
    let is_chunked = request.header("transfer-encoding").is_some();
    assert!(!is_chunked, "a body without a length, which not every registry takes: {request:?}");
    let limit = limit(&request).filter(|limit| *limit < announced);
    let wanted = limit.unwrap_or(announced);
    let mut body = Vec::new();
    let read = (&mut input).take(wanted as u64).read_to_end(&mut body);
    request.body = body;
    log.lock().unwrap().push(request.clone());
    if limit.is_some() || read.is_err() || request.body.len() < wanted {
        // The script learns what has arrived, and its answer is lost.
        let _ = script(&request);
        return;
    }
    let _ = output.write_all(&script(&request).0);
}

fn read_head(input: &mut impl BufRead) -> io::Result<Request> {
    let mut line = String::new();
    input.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        input.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.push((name.to_owned(), value.trim().to_owned())),
            None => return Ok(Request { method, path, headers, body: Vec::new() }),
        }
    }
}
