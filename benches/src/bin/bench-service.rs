//! The service that the benches deploy: answers every HTTP request at `HOST`:`PORT` by 200, and
//! before `READY_AFTER_MS` have passed since its start by 503.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let delay = std::env::var("READY_AFTER_MS").unwrap_or_else(|_| "0".into()).parse()?;
    let ready = start + Duration::from_millis(delay);
    let host = std::env::var("HOST").unwrap_or_else(|_| "127.0.0.1".into());
    let port: u16 = std::env::var("PORT")?.parse()?;
    for stream in TcpListener::bind((host, port))?.incoming() {
        let stream = stream?;
        std::thread::spawn(move || answer(stream, ready));
    }
    Ok(())
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
