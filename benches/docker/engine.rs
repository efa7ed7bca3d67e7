//! The engine itself: the calls that one would make by hand, over its socket and nothing else.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use deploykit_benches::{Failure, Result};

/// How many calls are made at once.
const AT_ONCE: usize = 4;

/// How often, and how long apart, the network is removed that is still told of as in use.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// The signal at which a program without a handler of its own ends, as first of its container too.
pub(crate) const SIGNAL: &str = "SIGKILL";

/// An engine, by its socket.
#[derive(Clone)]
pub(crate) struct Engine(PathBuf);

/// A connection that is kept from call to call.
struct Connection(BufReader<UnixStream>);

impl Engine {
    /// The one that was started for this bench.
    pub(crate) fn find() -> Result<Self> {
        let host = std::env::var("DEPLOYKIT_TEST_DOCKER")?;
        let path = host.strip_prefix("unix://").ok_or("the engine has no socket")?;
        Ok(Self(path.into()))
    }

    /// Its address as the backend's URL.
    pub(crate) fn url(&self) -> String {
        format!("docker://{}", self.0.display())
    }

    fn connect(&self) -> Result<Connection> {
        Ok(Connection(BufReader::new(UnixStream::connect(&self.0)?)))
    }

    /// One call on a connection of its own.
    pub(crate) fn call(&self, method: &str, path: &str, body: &str) -> Result<String> {
        self.connect()?.call(method, path, body)
    }

    /// Calls for each of `names`, some at once.
    fn each(
        &self,
        names: &[String],
        work: impl Fn(&mut Connection, &str) -> Result<()> + Sync,
    ) -> Result<()> {
        let left = Mutex::new(names.iter());
        let next = || left.lock().ok()?.next();
        let workers = || -> Result<()> {
            let mut connection = self.connect()?;
            while let Some(name) = next() {
                work(&mut connection, name)?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(workers)).collect();
            all.into_iter()
                .try_for_each(|one| one.join().map_err(|_| Failure::from("a worker has ended"))?)
        })
    }

    /// A network, and a started container of `image` for each name.
    pub(crate) fn up(&self, image: &str, names: &[String]) -> Result<()> {
        self.call("POST", "/networks/create", r#"{"Name":"floor","CheckDuplicate":true}"#)?;
        self.start(image, names)
    }

    /// A started container for each name.
    pub(crate) fn start(&self, image: &str, names: &[String]) -> Result<()> {
        let body = format!(
            r#"{{"Image":"{image}","StopSignal":"{SIGNAL}","HostConfig":{{"NetworkMode":"floor"}}}}"#
        );
        self.each(names, |connection, name| {
            connection.call("POST", &format!("/containers/create?name={name}"), &body)?;
            connection.call("POST", &format!("/containers/{name}/start"), "").map(drop)
        })
    }

    /// Stops and removes containers.
    pub(crate) fn stop(&self, names: &[String]) -> Result<()> {
        self.each(names, |connection, name| {
            connection.call("POST", &format!("/containers/{name}/stop"), "")?;
            connection.call("DELETE", &format!("/containers/{name}"), "").map(drop)
        })
    }

    /// Stops and removes containers and their network.
    pub(crate) fn down(&self, names: &[String]) -> Result<()> {
        self.stop(names)?;
        let mut tries = 1;
        loop {
            match self.call("DELETE", "/networks/floor", "") {
                // At times it is told of as in use for a moment after the last has gone.
                Err(_) if tries < TRIES => std::thread::sleep(PAUSE),
                removed => return removed.map(drop),
            }
            tries += 1;
        }
    }
}

impl Connection {
    fn call(&mut self, method: &str, path: &str, body: &str) -> Result<String> {
        write!(
            self.0.get_mut(),
            "{method} /v1.41{path} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let status = self.line()?;
        let (mut length, mut chunked) = (0, false);
        loop {
            let line = self.line()?.to_ascii_lowercase();
            match line.split_once(": ") {
                Some(("content-length", value)) => length = value.parse()?,
                Some(("transfer-encoding", "chunked")) => chunked = true,
                Some(_) => {}
                None => break,
            }
        }
        let mut answer = Vec::new();
        if !chunked {
            self.read(length, &mut answer)?;
        }
        while chunked {
            let size = usize::from_str_radix(&self.line()?, 16)?;
            self.read(size, &mut answer)?;
            self.line()?;
            chunked = size > 0;
        }
        let answer = String::from_utf8(answer)?;
        match status.split(' ').nth(1) {
            Some(code) if code.starts_with('2') => Ok(answer),
            _ => Err(format!("{method} {path}: {status}: {answer}").into()),
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    fn read(&mut self, length: usize, into: &mut Vec<u8>) -> Result<()> {
        let start = into.len();
        into.resize(start + length, 0);
        Ok(self.0.read_exact(&mut into[start..])?)
    }
}
