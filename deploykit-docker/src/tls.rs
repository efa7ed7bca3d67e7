//! TLS to an engine, with the files of the docker command.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::config::TlsFiles;

/// The settings of a connection.
pub(crate) fn client(files: &TlsFiles) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let authorities = match &files.ca {
        Some(path) => certificates(path)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    roots.add_parsable_certificates(authorities);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots);
    match &files.identity {
        Some((certificate, key)) => {
            let parsed = PrivateKeyDer::from_pem_file(key).map_err(|e| named(key, e))?;
            config
                .with_client_auth_cert(certificates(certificate)?, parsed)
                .map_err(io::Error::other)
        }
        None => Ok(config.with_no_client_auth()),
    }
}

fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).map_err(|e| named(path, e))?;
    read.collect::<Result<_, _>>().map_err(|e| named(path, e))
}

fn named(path: &Path, cause: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {cause}", path.display()))
}
