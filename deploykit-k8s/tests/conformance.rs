//! The behaviour kit on the cluster of `DEPLOYKIT_TEST_KUBECONFIG`, with the images pushed to
//! `DEPLOYKIT_TEST_REGISTRY`. The apps of all tests share the namespace of the kubeconfig.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used)]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deploykit_conformance::{Answer, Bed, Client, Connected, Kit};
use deploykit_core::model::{Address, AppName, ImageSpec, ServiceName};
use deploykit_core::{Error, ErrorKind, Result};
use deploykit_k8s::{K8s, K8sConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const KUBECONFIG: &str = "DEPLOYKIT_TEST_KUBECONFIG";
const REGISTRY: &str = "DEPLOYKIT_TEST_REGISTRY";

fn main() -> ExitCode {
    let missing = [KUBECONFIG, REGISTRY].into_iter().find(|name| std::env::var(name).is_err());
    if let Some(name) = missing.filter(|_| std::env::args().nth(1).as_deref() != Some("testapp")) {
        if std::env::var("CI").is_ok() {
            eprintln!("{name} is not set: testbed/up kubernetes registry tells it");
            return ExitCode::FAILURE;
        }
        println!("skipped: {name} is not set; testbed/up kubernetes registry tells it");
        return ExitCode::SUCCESS;
    }
    let program = std::env::current_exe().unwrap();
    let within = format!("/{}", program.file_name().unwrap().to_str().unwrap());
    Kit::new(connect).image(ImageSpec::binary(program), within).run()
}

async fn connect(bed: Bed) -> Connected {
    bed.answered_by(Visitor);
    let mut config = K8sConfig::default();
    config.kubeconfig = Some(bed.env(KUBECONFIG)?.into());
    config.registry = Some(bed.env(REGISTRY)?);
    Ok(Arc::new(K8s::open(config).await?))
}

/// Sends each request on a connection of its own: a Service balances connections, and what is
/// ended with an instance are those that it has.
struct Visitor;

#[async_trait]
impl Client for Visitor {
    fn another(&self) -> Box<dyn Client> {
        Box::new(Self)
    }

    async fn send(
        &mut self,
        _: &AppName,
        _: &ServiceName,
        address: &Address,
        (method, path, body): (&str, &str, &str),
    ) -> Result<Answer> {
        let exchange = async {
            let mut stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
            let head = format!(
                "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                address.host,
                body.len()
            );
            stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        let broken = |why: String| Error::new(ErrorKind::Failed, "send a request", why);
        let answer = tokio::time::timeout(Duration::from_secs(20), exchange)
            .await
            .map_err(|_| broken("no answer within 20 s".into()))?
            .map_err(|cause| broken(cause.to_string()))?;
        let text = String::from_utf8_lossy(&answer);
        let (head, body) =
            text.split_once("\r\n\r\n").ok_or_else(|| broken("half an answer".into()))?;
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let length = lines.find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
        });
        let whole = length.is_none_or(|length: usize| length == body.len());
        let status = status.filter(|_| whole).ok_or_else(|| broken("half an answer".into()))?;
        Ok(Answer { status, body: body.to_owned() })
    }
}
