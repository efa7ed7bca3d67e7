//! The least there is to do: read, tar, hash, compress on both cores with the same compressor, hash
//! what comes out, and put it to the registry in one request.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use deploykit_benches::Result;
use deploykit_oci::Compression;
use sha2::{Digest, Sha256};

/// How many files one core takes at once: about 16 MB.
const AT_ONCE: usize = 160;

/// Seconds for a folder.
pub(crate) fn run(source: &Path, compression: &str, host: &str) -> Result<f64> {
    let started = Instant::now();
    let files = files(source)?;
    let waiting = Mutex::new(files.chunks(AT_ONCE).enumerate());
    let done = Mutex::new(Vec::new());
    let cores = std::thread::available_parallelism()?.get();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    loop {
                        let next = waiting.lock().map_err(|e| e.to_string())?.next();
                        let Some((number, files)) = next else { return Ok(()) };
                        let part = compress(files, compression)?;
                        done.lock().map_err(|e| e.to_string())?.push((number, part));
                    }
                })
            })
            .collect();
        workers.into_iter().try_for_each(|w| w.join().map_err(|_| "a worker broke off")?)
    })?;
    let mut parts = done.into_inner().map_err(|e| e.to_string())?;
    parts.sort_by_key(|(number, _)| *number);
    let mut hasher = Sha256::new();
    let mut size = 0;
    for (_, part) in &parts {
        hasher.update(part);
        size += part.len();
    }
    let digest: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    put(host, &digest, size, &parts)?;
    Ok(started.elapsed().as_secs_f64())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => files.extend(self::files(&path)?),
            false => files.push(path),
        }
    }
    files.sort();
    Ok(files)
}

/// A part of the archive, hashed and compressed.
fn compress(files: &[PathBuf], compression: &str) -> Result<Vec<u8>> {
    match compression {
        "zstd" => Ok(zstd::bulk::compress(
            &archive(files, Vec::with_capacity(AT_ONCE * 110_000))?,
            Compression::Zstd.level(),
        )?),
        _ => {
            let level = flate2::Compression::new(Compression::Gzip.level().unsigned_abs());
            Ok(archive(files, flate2::write::GzEncoder::new(Vec::new(), level))?.finish()?)
        }
    }
}

struct Hashed<W>(W, Sha256);

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.0.write(bytes)?;
        self.1.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

fn archive<W: Write>(files: &[PathBuf], output: W) -> Result<W> {
    let hashed = Hashed(output, Sha256::new());
    let mut archive = tar::Builder::new(std::io::BufWriter::with_capacity(256 << 10, hashed));
    for file in files {
        archive.append_path_with_name(file, file.strip_prefix("/")?)?;
    }
    let hashed = archive.into_inner()?.into_inner().map_err(|e| e.into_error())?;
    std::hint::black_box(hashed.1.finalize());
    Ok(hashed.0)
}

fn put(host: &str, digest: &str, size: usize, parts: &[(usize, Vec<u8>)]) -> Result<()> {
    let start = format!(
        "POST /v2/floor/blobs/uploads/ HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    let mut stream = TcpStream::connect(host)?;
    stream.write_all(start.as_bytes())?;
    let (status, location) = answer(stream)?;
    let location = location.ok_or_else(|| format!("no upload: {status}"))?;
    let path = location.split_once(host).map_or(location.as_str(), |(_, path)| path).to_owned();
    let head = format!(
        "PUT {path}&digest=sha256:{digest} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {size}\r\n\
         Content-Type: application/octet-stream\r\nConnection: close\r\n\r\n"
    );
    let mut stream = TcpStream::connect(host)?;
    stream.write_all(head.as_bytes())?;
    for (_, part) in parts {
        stream.write_all(part)?;
    }
    let (status, _) = answer(stream)?;
    if status.contains(" 201 ") { Ok(()) } else { Err(format!("the PUT: {status}").into()) }
}

/// The status line, and where it sends to.
fn answer(stream: TcpStream) -> Result<(String, Option<String>)> {
    let mut input = BufReader::new(stream);
    let mut status = String::new();
    input.read_line(&mut status)?;
    let mut rest = String::new();
    input.read_to_string(&mut rest)?;
    let location = rest.lines().find_map(|line| line.strip_prefix("Location: "));
    Ok((status, location.map(|l| l.trim().to_owned())))
}
