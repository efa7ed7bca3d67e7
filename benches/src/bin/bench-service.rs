//! The service that the benches deploy: answers every HTTP request at `HOST`:`PORT` by 200, and
//! before `READY_AFTER_MS` have passed since its start by 503. `bench-service check` asks the one on
//! this machine, and ends by 0 where it answers 200.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let delay = std::env::var("READY_AFTER_MS").unwrap_or_else(|_| "0".into()).parse()?;
    let ready = start + Duration::from_millis(delay);
    let host = std::env::var("HOST").unwrap_or_else(|_| "127.0.0.1".into());
    let port: u16 = std::env::var("PORT").unwrap_or_else(|_| "8080".into()).parse()?;
    if std::env::args().nth(1).as_deref() == Some("check") {
        return check(port);
    }
    for stream in TcpListener::bind((host, port))?.incoming() {
        let stream = stream?;
        std::thread::spawn(move || answer(stream, ready));
    }
    Ok(())
}

fn check(port: u16) -> Result<(), Box<dyn std::error::Error>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: bench\r\n\r\n")?;
    let mut status = String::new();
    BufReader::new(stream).read_line(&mut status)?;
    if status.contains(" 200 ") { Ok(()) } else { Err(status.into()) }
}

fn answer(mut stream: TcpStream, ready: Instant) -> io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    // Requests without a body: an empty line ends each.
    while let Some(line) = lines.next().transpose()? {
        if !line.is_empty() {
            continue;
        }
        let status = if Instant::now() < ready { "503 Service Unavailable" } else { "200 OK" };
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")?;
    }
    Ok(())
}
