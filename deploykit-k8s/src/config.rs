//! Where the cluster is, and what the backend may take of it.

use std::path::PathBuf;

use deploykit_core::{Error, ErrorKind, Result};

/// Where the cluster is, and what the backend may take of it.
///
/// ```
/// use deploykit_k8s::K8sConfig;
/// let config = K8sConfig::from_url("k8s://staging/shop?registry=127.0.0.1:5000")?;
/// assert_eq!(config.context.as_deref(), Some("staging"));
/// assert_eq!(config.namespace.as_deref(), Some("shop"));
/// assert_eq!(config.registry.as_deref(), Some("127.0.0.1:5000"));
/// # Ok::<(), deploykit_core::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct K8sConfig {
    /// The kubeconfig file. Absent: those of `KUBECONFIG`, `~/.kube/config`, or the service account
    /// of the pod that this program runs in.
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig. Absent: its current one.
    pub context: Option<String>,
    /// The namespace. Absent: that of the context.
    pub namespace: Option<String>,
    /// The registry that images built from executables are pushed to, and pulled from by the
    /// nodes. Without one, executables are refused in the plan.
    pub registry: Option<String>,
    /// How ports that are published get their address.
    pub public: Public,
    /// The size of new volumes. Default `1Gi`.
    pub volume_size: Option<String>,
    /// The storage class of new volumes. Absent: the cluster's default.
    pub storage_class: Option<String>,
    /// Whether fields that others have changed are taken back. Without, that is a conflict.
    pub force: bool,
    /// The class of the Ingresses that routes become. Absent: the cluster's default.
    pub ingress_class: Option<String>,
    /// Whether the cluster's network enforces NetworkPolicies: many do not, and do not say so.
    /// Without, isolated apps are refused in the plan.
    pub network_policies: bool,
    /// The secrets (of type `kubernetes.io/dockerconfigjson`) that images are pulled with.
    pub pull_secrets: Vec<String>,
}

/// How ports that are published get their address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Public {
    /// At a port of every node, of the cluster's choice.
    #[default]
    NodePort,
    /// At a load balancer of the cluster's provider.
    LoadBalancer,
}

const FORM: &str = "k8s://[CONTEXT][/NAMESPACE][?registry=HOST:PORT&public=node_port|load_balancer&volume_size=1Gi&storage_class=NAME&pull_secret=NAME&ingress_class=NAME&network_policies&force&kubeconfig=FILE]";

impl K8sConfig {
    /// Where images that are built are pushed to: a repository of [`registry`](Self::registry), one
    /// for all apps, so that none is pushed or pulled twice.
    pub fn repository(&self) -> Option<String> {
        self.registry.as_ref().map(|registry| format!("{registry}/deploykit"))
    }

    /// The config that a URL stands for.
    ///
    /// # Errors
    /// `Invalid` where the URL is not of the form
    /// `k8s://[CONTEXT][/NAMESPACE][?registry=HOST:PORT&…]`.
    pub fn from_url(url: &str) -> Result<Self> {
        let wrong = |what: String| {
            let message = format!("{what}; write {FORM}");
            Error::new(ErrorKind::Invalid, "open the cluster", message).with("url", url)
        };
        let rest =
            url.strip_prefix("k8s://").ok_or_else(|| wrong("this is no k8s:// URL".into()))?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        // Names of contexts may have slashes in them (OpenShift's do); namespaces have none.
        let (context, namespace) = path.rsplit_once('/').unwrap_or((path, ""));
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let mut config =
            Self { context: some(context), namespace: some(namespace), ..Self::default() };
        if let Some(name) = &config.namespace
            && !crate::names::is_dns1123_label(name)
        {
            return Err(wrong(format!("`{name}` is no name of a namespace")));
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match key {
                "kubeconfig" => config.kubeconfig = Some(value.into()),
                "registry" => config.registry = some(value),
                "volume_size" if value.parse::<crate::Quantity>().is_ok() => {
                    config.volume_size = some(value);
                }
                "storage_class" => config.storage_class = some(value),
                "pull_secret" => config.pull_secrets.extend(some(value)),
                "ingress_class" => config.ingress_class = some(value),
                "network_policies" if value.is_empty() || value == "true" => {
                    config.network_policies = true;
                }
                "force" if value.is_empty() || value == "true" => config.force = true,
                "public" if value == "node_port" => config.public = Public::NodePort,
                "public" if value == "load_balancer" => config.public = Public::LoadBalancer,
                _ => return Err(wrong(format!("`{pair}` is not known"))),
            }
        }
        Ok(config)
    }
}
