//! A registry whose certificate is of an authority that nobody else knows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::{Path, PathBuf};

use deploykit_core::{Error, ErrorKind};
use deploykit_oci::{Layout, PlainHttp, Reference, RegistryClient};
use support::debian::Registry;
use support::{config, image, name};

/// `openssl` has made it and `registry.pem`, for a hundred years; its key is thrown away.
fn authority() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys/ca.pem")
}

fn client(ca_files: &[PathBuf]) -> RegistryClient {
    let mut config = config();
    config.plain_http = PlainHttp::Never;
    config.ca_files = ca_files.to_vec();
    RegistryClient::new(config)
}

async fn refusal(ca_files: &[PathBuf], tag: &Reference) -> Error {
    client(ca_files).resolve(tag).await.unwrap_err()
}

#[tokio::test]
async fn an_authority_of_ones_own_is_trusted_where_it_is_named() {
    let Some(registry) = Registry::encrypted() else { return };
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::open(folder.path().join("store")).unwrap();
    let built = image(&layout, b"encrypted");
    let tag = name(&registry.host, "web:1");
    let client = client(&[authority()]);
    client.push(&layout, &built, &tag, &[]).await.unwrap();
    let other = Layout::open(folder.path().join("other")).unwrap();
    assert_eq!(client.pull(&tag, &other, None).await.unwrap().digest, built.digest);
}

#[tokio::test]
async fn another_authority_is_refused_at_once() {
    let Some(registry) = Registry::encrypted() else { return };
    let tag = name(&registry.host, "web:1");
    let error = refusal(&[], &tag).await;
    assert_eq!(error.kind(), ErrorKind::Failed, "{error}");
    let message = "connect to a registry: the encrypted connection is refused: ";
    assert!(error.to_string().starts_with(message), "{error}");
    let way_out = "authority of your own, name that one's file among the ca_files";
    assert!(error.to_string().contains(way_out), "{error}");
}

#[tokio::test]
async fn files_without_authorities_are_named() {
    let tag = name("127.0.0.1:9", "web:1");
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.pem");
    let error = refusal(std::slice::from_ref(&missing), &tag).await;
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains(missing.to_str().unwrap()), "{error}");
    for content in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let damaged = folder.path().join("damaged.pem");
        std::fs::write(&damaged, content).unwrap();
        let error = refusal(std::slice::from_ref(&damaged), &tag).await;
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        let message = "read certificate authorities: the file has no certificate as PEM";
        assert!(error.to_string().starts_with(message), "{error}");
    }
}
