//! The proxy between a client and a service that both send anything. The input's first two bytes
//! say how much of the rest is the client's.
#![no_main]

use std::cell::LazyCell;
use std::io;
use std::time::Duration;

use deploykit_agent::proxy::{BackendAddress, Mode, ServiceProxy, Settings};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

struct Bed {
    runtime: Runtime,
    proxy: ServiceProxy,
    service: TcpListener,
}

impl Bed {
    fn new() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (proxy, service) = runtime.block_on(async {
            let service = TcpListener::bind("127.0.0.1:0").await?;
            let mut settings = Settings::default();
            settings.hold = Duration::from_millis(50);
            settings.head_timeout = Duration::from_millis(50);
            settings.idle_timeout = Duration::from_millis(50);
            settings.response_timeout = Some(Duration::from_millis(50));
            settings.ejection = Duration::ZERO;
            let listen = "127.0.0.1:0".parse().map_err(io::Error::other)?;
            let proxy = ServiceProxy::bind_with(listen, Mode::Http, settings)?;
            proxy.set_backends([BackendAddress::new("service", service.local_addr()?)]);
            io::Result::Ok((proxy, service))
        })?;
        Ok(Self { runtime, proxy, service })
    }

    fn exchange(&self, request: &[u8], answer: &[u8]) -> io::Result<Vec<u8>> {
        self.runtime.block_on(async {
            let mut client = TcpStream::connect(self.proxy.address()).await?;
            // Else thousands of connections a second would be kept in TIME_WAIT.
            client.set_zero_linger()?;
            let ask = async {
                let mut got = Vec::new();
                // The proxy may have closed before all was sent or read.
                let _ = client.write_all(request).await;
                let _ = client.shutdown().await;
                let _ = timeout(Duration::from_secs(1), client.read_to_end(&mut got)).await;
                got
            };
            let serve = async {
                loop {
                    if let Ok((mut stream, _)) = self.service.accept().await {
                        let _ = stream.set_zero_linger();
                        let _ = stream.read(&mut [0; 4096]).await;
                        let _ = stream.write_all(answer).await;
                    }
                }
            };
            tokio::select! {
                got = ask => Ok(got),
                () = serve => unreachable!("it goes on for ever"),
            }
        })
    }
}

thread_local! {
    static BED: LazyCell<Bed> = LazyCell::new(|| Bed::new().expect("loopback has ports"));
}

fuzz_target!(|input: &[u8]| {
    let Some((length, rest)) = input.split_first_chunk::<2>() else { return };
    let (request, answer) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
    let got = BED.with(|bed| bed.exchange(request, answer)).expect("the proxy accepts connections");
    // HTTP/2 is chosen by its preface.
    if !request.starts_with(b"PRI") {
        assert!(got.is_empty() || got.starts_with(b"HTTP/1."), "{}", got.escape_ascii());
    }
});
