//! Registries and coordinators by URL.

use std::sync::Arc;

use deploykit_core::{Coordinator, Error, ErrorKind, Result, ServiceRegistry};

use crate::{RegistryConfig, Scheme};

/// The variable that names the registry of an instance's environment.
const VARIABLE: &str = "DEPLOYKIT_REGISTRY";

/// Opens the registry that `url` names, in the form of [`RegistryConfig::from_url`].
///
/// # Errors
/// `Invalid` for a URL that is none, `Unsupported` where its feature is off, and those of the
/// registry's own `open`.
pub async fn open(url: &str) -> Result<Arc<dyn ServiceRegistry>> {
    let config = RegistryConfig::from_url(url)?;
    match config.scheme {
        #[cfg(feature = "etcd")]
        Scheme::Etcd => Ok(Arc::new(crate::Etcd::open(config).await?)),
        #[cfg(feature = "zookeeper")]
        Scheme::ZooKeeper => Ok(Arc::new(crate::ZooKeeper::open(config).await?)),
        #[cfg(feature = "dns")]
        Scheme::Dns => Ok(Arc::new(crate::Dns::new(config)?)),
        #[cfg(not(feature = "dns"))]
        Scheme::Dns => Err(off("dns")),
        #[cfg(not(feature = "etcd"))]
        Scheme::Etcd => Err(off("etcd (which needs `protoc` where it is built)")),
        #[cfg(not(feature = "zookeeper"))]
        Scheme::ZooKeeper => Err(off("zookeeper")),
    }
}

/// Opens the coordinator that `url` names, as [`open`].
///
/// # Errors
/// Those of [`open`].
pub async fn coordinator(url: &str) -> Result<Arc<dyn Coordinator>> {
    let config = RegistryConfig::from_url(url)?;
    match config.scheme {
        #[cfg(feature = "etcd")]
        Scheme::Etcd => Ok(Arc::new(crate::Etcd::open(config).await?)),
        #[cfg(feature = "zookeeper")]
        Scheme::ZooKeeper => Ok(Arc::new(crate::ZooKeeper::open(config).await?)),
        Scheme::Dns => {
            let message = "nobody can agree by the DNS; take etcd:// or zk://";
            Err(Error::new(ErrorKind::Unsupported, "open a coordinator", message))
        }
        #[cfg(not(feature = "etcd"))]
        Scheme::Etcd => Err(off("etcd (which needs `protoc` where it is built)")),
        #[cfg(not(feature = "zookeeper"))]
        Scheme::ZooKeeper => Err(off("zookeeper")),
    }
}

/// Opens the registry that the environment variable `DEPLOYKIT_REGISTRY` names.
///
/// # Errors
/// `NotFound` where it is not set, and those of [`open`].
pub async fn from_env() -> Result<Arc<dyn ServiceRegistry>> {
    match std::env::var(VARIABLE) {
        Ok(url) => open(&url).await,
        Err(_) => {
            let message = format!("{VARIABLE} is not set; set it, like etcd://127.0.0.1:2379/shop");
            Err(Error::new(ErrorKind::NotFound, "open the registry", message))
        }
    }
}

#[cfg(not(all(feature = "dns", feature = "etcd", feature = "zookeeper")))]
fn off(feature: &str) -> Error {
    let message = format!("it is not compiled in; turn on the feature {feature}");
    Error::new(ErrorKind::Unsupported, "open a registry", message)
}
