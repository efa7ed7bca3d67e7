//! A cheap server to put behind a proxy under measurement: `bench-origin http|tcp LISTEN`.
//!
//! * `http` answers each HTTP/1.1 request without a body by the same short answer, keeping the
//!   connection.
//! * `tcp` reads a byte count (8 bytes, little endian), sends that many bytes while it discards
//!   what else arrives, and closes its side.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const BLOCK: usize = 256 * 1024;
const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nServer: bench-origin\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
    Content-Type: application/json\r\nContent-Length: 27\r\n\r\n{\"message\":\"Hello, World!\"}";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-origin: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mode = arguments.next().unwrap_or_default();
    if mode != "http" && mode != "tcp" {
        return Err("usage: bench-origin http|tcp LISTEN".into());
    }
    let listen: SocketAddr = arguments.next().ok_or("LISTEN is missing")?.parse()?;
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        if mode == "http" {
            tokio::spawn(answer(stream));
        } else {
            tokio::spawn(stream_bytes(stream));
        }
    }
}

async fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    let mut held = 0;
    loop {
        let n = stream.read(&mut buffer[held..]).await?;
        if n == 0 {
            return Ok(());
        }
        held += n;
        if buffer[..held].ends_with(b"\r\n\r\n") {
            stream.write_all(ANSWER).await?;
            held = 0;
        } else if held == buffer.len() {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

async fn stream_bytes(mut stream: TcpStream) -> io::Result<()> {
    let mut left = stream.read_u64_le().await?;
    let (mut read, mut write) = stream.split();
    let source = async {
        let block = vec![0x5a; BLOCK];
        while left > 0 {
            let n = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
            write.write_all(&block[..n]).await?;
            left -= n as u64;
        }
        write.shutdown().await
    };
    let sink = async {
        let mut block = vec![0; BLOCK];
        while read.read(&mut block).await? > 0 {}
        io::Result::Ok(())
    };
    tokio::try_join!(source, sink).map(drop)
}
