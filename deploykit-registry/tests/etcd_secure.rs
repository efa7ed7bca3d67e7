//! TLS and users, on an etcd of the test's own.
#![cfg(feature = "etcd")]
#![allow(clippy::unwrap_used)]

mod servers;

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use deploykit_conformance::contract;
use deploykit_core::{ErrorKind, Result};
use deploykit_registry::{Etcd, RegistryConfig};
use etcd_client::{Certificate, Client, ConnectOptions, Permission, TlsOptions};

struct Member(Child);

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A certificate that is trusted by itself, for the loopback address.
fn certificate(folder: &Path) {
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]);
    command.args(["-keyout", "key.pem", "-out", "ca.pem", "-subj", "/CN=test"]);
    command.args(["-addext", "subjectAltName=IP:127.0.0.1"]);
    command.args(["-addext", "basicConstraints=critical,CA:FALSE"]).current_dir(folder);
    assert!(command.stderr(Stdio::null()).status().unwrap().success());
}

fn member(folder: &Path) -> (Member, String) {
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (host, peer) = (free(), free());
    let (client, peer) = (format!("https://{host}"), format!("http://{peer}"));
    let mut command = Command::new("etcd");
    command.args(["--name", "one", "--data-dir", "data", "--cert-file", "ca.pem"]);
    command.args(["--key-file", "key.pem", "--listen-client-urls", &client]);
    command.args(["--advertise-client-urls", &client, "--listen-peer-urls", &peer]);
    command.args(["--initial-advertise-peer-urls", &peer, "--initial-cluster"]);
    command.arg(format!("one={peer}")).current_dir(folder).stderr(Stdio::null());
    (Member(command.spawn().unwrap()), host.to_string())
}

async fn open(url: &str) -> Result<Etcd> {
    Etcd::open(RegistryConfig::from_url(url)?).await
}

#[tokio::test]
async fn tls_and_users() {
    if servers::hosts("DEPLOYKIT_TEST_ETCD", "tls_and_users").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let (_member, host) = member(folder.path());
    let ca = folder.path().join("ca.pem");
    let authority = Certificate::from_pem(std::fs::read(&ca).unwrap());
    let tls = TlsOptions::new().ca_certificate(authority);
    let options = ConnectOptions::new().with_tls(tls).with_timeout(Duration::from_secs(5));
    let patience = Instant::now() + Duration::from_secs(60);
    let mut raw = loop {
        let https = format!("https://{host}");
        let client = Client::connect([https], Some(options.clone())).await;
        match client {
            Ok(mut client) => match client.get("any", None).await {
                Ok(_) => break client,
                Err(error) => assert!(Instant::now() < patience, "{error}"),
            },
            Err(error) => assert!(Instant::now() < patience, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    raw.role_add("shop").await.unwrap();
    let shop = Permission::read_write("shop/").with_prefix();
    raw.role_grant_permission("shop", shop).await.unwrap();
    for (user, role) in [("root", "root"), ("me", "shop")] {
        raw.user_add(user, "p@ss", None).await.unwrap();
        if role == "root" {
            raw.role_add("root").await.unwrap();
        }
        raw.user_grant_role(user, role).await.unwrap();
    }
    raw.auth_enable().await.unwrap();

    let ca = ca.display();
    let etcd = open(&format!("etcd://me:p%40ss@{host}/shop?ca={ca}")).await.unwrap();
    contract::registry(&etcd, &servers::kit()).await;
    contract::coordination(&etcd, "kit").await;
    let refused = |result: Result<Etcd>| result.err().unwrap().kind();
    let elsewhere = open(&format!("etcd://me:p%40ss@{host}/other?ca={ca}")).await;
    assert_eq!(refused(elsewhere), ErrorKind::Unauthorized, "not its own prefix");
    let wrong = open(&format!("etcd://me:wrong@{host}/shop?ca={ca}")).await;
    assert_eq!(refused(wrong), ErrorKind::Unauthorized, "a wrong password");
    let nobody = open(&format!("etcd://{host}/shop?ca={ca}")).await;
    assert_eq!(refused(nobody), ErrorKind::Unauthorized, "nobody");
    let plain = open(&format!("etcd://me:p%40ss@{host}/shop")).await;
    assert!(matches!(refused(plain), ErrorKind::Unavailable | ErrorKind::Timeout), "no TLS");
    let strange = open(&format!("etcd://me:p%40ss@{host}/shop?tls=true")).await;
    assert!(matches!(refused(strange), ErrorKind::Unavailable | ErrorKind::Timeout), "no trust");
}
