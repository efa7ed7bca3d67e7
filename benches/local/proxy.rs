//! The proxy against HAProxy, in front of the same two servers with the same connections: what
//! each makes of a second of CPU time.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use deploykit_benches::{Goal, ProcessGuard, Result, cpu_seconds, median, peer, ratio};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{ROUNDS, bare};

const HTTP_CONNECTIONS: &str = "64";
const HTTP_SECONDS: &str = "4s";
const TCP_CONNECTIONS: usize = 16;
const TCP_TRANSFERS: usize = 12;
const TCP_TRANSFER_BYTES: u64 = 16 << 20;

pub(crate) async fn run() -> Result<()> {
    let http = Bed::start("http")?;
    let wrk = peer("wrk")?;
    let pairs = http.pairs(async |address| load_http(&wrk, address)).await?;
    ratio("proxy_http", report("http", "requests", 1.0, &pairs), Goal::AtLeast(0.8));
    drop(http);

    let tcp = Bed::start("tcp")?;
    let pairs = tcp.pairs(load_tcp).await?;
    let mib = f64::from(1 << 20);
    ratio("proxy_tcp", report("tcp", "MiB", mib, &pairs), Goal::AtLeast(0.95));
    Ok(())
}

/// A proxy under measurement.
struct Proxy {
    process: ProcessGuard,
    address: SocketAddr,
}

/// Both proxies in front of the same two servers.
struct Bed {
    ours: Proxy,
    haproxy: Proxy,
    _origins: [ProcessGuard; 2],
    _folder: TempDir,
}

/// What a load has got through a proxy.
#[derive(Clone, Copy)]
struct Load {
    /// Requests, or bytes.
    units: f64,
    seconds: f64,
    p99_ms: f64,
}

/// A load, and the CPU time that the proxy took for it.
struct Run {
    load: Load,
    cpu: f64,
}

impl Run {
    fn units_per_cpu(&self) -> f64 {
        self.load.units / self.cpu
    }
}

impl Bed {
    fn start(mode: &str) -> Result<Self> {
        let addresses = bare::free_addresses(4)?;
        let origin = |address: &SocketAddr| {
            let program = env!("CARGO_BIN_EXE_bench-origin");
            ProcessGuard::spawn(Command::new(program).arg(mode).arg(address.to_string()))
        };
        let origins = [origin(&addresses[0])?, origin(&addresses[1])?];

        let mut command = Command::new(env!("CARGO_BIN_EXE_bench-proxy"));
        command.arg(mode).arg(addresses[2].to_string());
        command.args(addresses[..2].iter().map(SocketAddr::to_string));
        let ours = Proxy { process: ProcessGuard::spawn(&mut command)?, address: addresses[2] };

        let folder = TempDir::new()?;
        let haproxy = haproxy(mode, addresses[3], &addresses[..2], folder.path())?;
        for address in addresses {
            bare::wait_for_listener(address)?;
        }
        Ok(Self { ours, haproxy, _origins: origins, _folder: folder })
    }

    /// Runs of ours and of HAProxy, one after the other.
    async fn pairs(&self, load: impl AsyncFn(SocketAddr) -> Result<Load>) -> Result<Vec<[Run; 2]>> {
        let mut pairs = Vec::new();
        for _ in 0..ROUNDS {
            let ours = self.ours.run(&load).await?;
            pairs.push([ours, self.haproxy.run(&load).await?]);
        }
        Ok(pairs)
    }
}

impl Proxy {
    async fn run(&self, load: impl AsyncFn(SocketAddr) -> Result<Load>) -> Result<Run> {
        let before = cpu_seconds(self.process.id())?;
        let load = load(self.address).await?;
        Ok(Run { load, cpu: cpu_seconds(self.process.id())? - before })
    }
}

/// HAProxy on one thread as ours is, with the options that suit this load.
fn haproxy(mode: &str, listen: SocketAddr, origins: &[SocketAddr], folder: &Path) -> Result<Proxy> {
    let config = format!(
        "global\n  nbthread 1\n  maxconn 1000\n\
         defaults\n  mode {mode}\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         listen proxy\n  option splice-auto\n  http-reuse always\n  bind {listen}\n  balance leastconn\n  server origin0 {}\n  server origin1 {}\n",
        origins[0], origins[1]
    );
    let file = folder.join("haproxy.cfg");
    fs::write(&file, config)?;
    let mut command = Command::new(peer("haproxy")?);
    command.arg("-db").arg("-f").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(Proxy { process: ProcessGuard::spawn(&mut command)?, address: listen })
}

/// Prints what both came to, and returns our share of HAProxy's units per CPU second.
fn report(mode: &str, unit: &str, size: f64, pairs: &[[Run; 2]]) -> f64 {
    for (n, name) in ["deploykit", "haproxy"].into_iter().enumerate() {
        let of = |figure: fn(&Run) -> f64| median(pairs.iter().map(|pair| figure(&pair[n])));
        println!(
            "{mode} {name}: {:.0} {unit} a CPU second, {:.0} {unit}/s, p99 {:.2} ms",
            of(Run::units_per_cpu) / size,
            of(|run| run.load.units / run.load.seconds) / size,
            of(|run| run.load.p99_ms),
        );
    }
    median(pairs.iter().map(|[ours, theirs]| ours.units_per_cpu() / theirs.units_per_cpu()))
}

fn load_http(wrk: &Path, address: SocketAddr) -> Result<Load> {
    let mut command = Command::new(wrk);
    command.args(["-t1", "-c", HTTP_CONNECTIONS, "-d", HTTP_SECONDS, "--latency"]);
    let output = command.arg(format!("http://{address}/")).output()?;
    let text = String::from_utf8(output.stdout)?;
    if !output.status.success() || text.contains("Socket errors") || text.contains("Non-2xx") {
        return Err(format!("wrk {}: {text}", output.status).into());
    }
    parse_wrk(&text).ok_or_else(|| format!("wrk said something new: {text}").into())
}

/// Reads `  99%    2.71ms` and `  150000 requests in 4.00s, 20.00MB read`.
fn parse_wrk(text: &str) -> Option<Load> {
    let p99 = text.lines().find_map(|l| l.trim().strip_prefix("99%"))?;
    let totals = text.lines().find(|l| l.contains(" requests in "))?;
    let (requests, time) = totals.trim().split_once(" requests in ")?;
    Some(Load {
        units: requests.parse().ok()?,
        seconds: milliseconds(time.split(',').next()?)? / 1e3,
        p99_ms: milliseconds(p99.trim())?,
    })
}

fn milliseconds(text: &str) -> Option<f64> {
    let scales = [("us", 1e-3), ("ms", 1.0), ("s", 1e3)];
    let (number, scale) = scales.iter().find_map(|(u, s)| Some((text.strip_suffix(u)?, s)))?;
    Some(number.parse::<f64>().ok()? * scale)
}

/// Each of some connections at a time fetches a block, to its last byte.
async fn load_tcp(address: SocketAddr) -> Result<Load> {
    let start = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..TCP_CONNECTIONS {
        clients.push(tokio::spawn(async move {
            let mut milliseconds = Vec::new();
            for _ in 0..TCP_TRANSFERS {
                let start = Instant::now();
                fetch(address).await?;
                milliseconds.push(start.elapsed().as_secs_f64() * 1e3);
            }
            Result::Ok(milliseconds)
        }));
    }
    let mut milliseconds = Vec::new();
    for client in clients {
        milliseconds.extend(client.await??);
    }
    milliseconds.sort_by(f64::total_cmp);
    Ok(Load {
        units: milliseconds.len() as f64 * TCP_TRANSFER_BYTES as f64,
        seconds: start.elapsed().as_secs_f64(),
        p99_ms: milliseconds[milliseconds.len() * 99 / 100],
    })
}

async fn fetch(address: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_u64_le(TCP_TRANSFER_BYTES).await?;
    let mut block = vec![0; 256 * 1024];
    let mut read = 0;
    loop {
        match stream.read(&mut block).await? {
            0 if read == TCP_TRANSFER_BYTES => return Ok(()),
            0 => return Err(format!("{read} of {TCP_TRANSFER_BYTES} bytes").into()),
            n => read += n as u64,
        }
    }
}
