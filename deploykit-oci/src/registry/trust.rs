//! Which certificate authorities are trusted.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use deploykit_core::{Error, ErrorKind, Result};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::{ClientConfig, RootCertStore};

use crate::error::{error, on_path};

const READ: &str = "read certificate authorities";

/// How `https` is spoken: with those that this machine trusts, and those of some files.
pub(super) fn config(ca_files: &[PathBuf]) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let machine = rustls_native_certs::load_native_certs();
    // Machines have some that nobody understands any more.
    roots.add_parsable_certificates(machine.certs);
    for path in ca_files {
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|cause| bad(path).because(cause))?;
        }
    }
    if roots.is_empty() {
        let message = "this machine trusts no certificate authority; install ca-certificates, or \
                       name files among the ca_files or in SSL_CERT_FILE";
        let reasons: Vec<String> = machine.errors.iter().map(ToString::to_string).collect();
        return Err(error(ErrorKind::NotFound, READ, message).because(reasons.join("; ")));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|cause| error(ErrorKind::Failed, READ, "TLS is not to be had").because(cause))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let certificates: Vec<_> = read.map_err(|cause| match cause {
        PemError::Io(cause) => on_path(READ, path)(cause),
        cause => bad(path).because(cause),
    })?;
    if certificates.is_empty() { Err(bad(path)) } else { Ok(certificates) }
}

fn bad(path: &Path) -> Error {
    error(ErrorKind::Invalid, READ, "the file has no certificate as PEM")
        .with("path", path.display())
}
