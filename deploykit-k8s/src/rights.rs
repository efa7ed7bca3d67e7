//! What a user may do in the namespace, asked before anything is done.

use std::fmt;

use deploykit_core::Result;
use futures_util::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::{Api, PostParams};

use crate::backend::K8s;

/// How many questions are asked at once.
const AT_ONCE: usize = 8;

/// A right to do something with a kind of object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    /// What is done, like `create`.
    pub verb: &'static str,
    /// The group of the API; empty for the core one.
    pub group: &'static str,
    /// The kind in the plural, like `deployments`; with a slash and what of it.
    pub resource: &'static str,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if self.group.is_empty() { Ok(()) } else { write!(f, ".{}", self.group) }
    }
}

const READ: &[&str] = &["get", "list"];
const WATCH: &[&str] = &["get", "list", "watch", "delete"];
const OWN: &[&str] = &["get", "list", "watch", "create", "patch", "delete"];
const STORE: &[&str] = &["get", "list", "create", "update", "patch", "delete"];

/// Group, kind, and what is done with it.
const NEEDED: &[(&str, &str, &[&str])] = &[
    ("", "configmaps", STORE),
    ("", "secrets", &["get", "list", "create", "delete"]),
    ("", "services", OWN),
    ("", "serviceaccounts", OWN),
    ("", "persistentvolumeclaims", OWN),
    ("", "pods", WATCH),
    ("", "pods/log", &["get"]),
    ("", "pods/exec", &["create", "get"]),
    ("", "events", &["list"]),
    ("apps", "deployments", OWN),
    ("apps", "statefulsets", OWN),
    ("apps", "daemonsets", OWN),
    ("apps", "replicasets", READ),
    ("batch", "jobs", OWN),
    ("batch", "cronjobs", OWN),
    ("networking.k8s.io", "ingresses", OWN),
    ("networking.k8s.io", "networkpolicies", OWN),
    ("autoscaling", "horizontalpodautoscalers", OWN),
    ("policy", "poddisruptionbudgets", OWN),
    ("coordination.k8s.io", "leases", &["get", "list", "create", "update", "delete"]),
];

/// Whether deploys need a right to do something with that kind.
pub(crate) fn is_needed(group: &str, resource: &str) -> bool {
    NEEDED.iter().any(|(of, kind, _)| (*of, *kind) == (group, resource))
}

impl K8s {
    /// The rights in the namespace that deploys need and the user does not have; none where all
    /// is well. Changes nothing.
    ///
    /// # Errors
    /// Where the API server cannot be asked.
    pub async fn missing_rights(&self) -> Result<Vec<Right>> {
        let needed = NEEDED.iter().flat_map(|(group, resource, verbs)| {
            verbs.iter().map(move |verb| Right { verb, group, resource })
        });
        let asked = needed.map(|right| async move {
            let may = self.may(&right).await?;
            Ok::<_, deploykit_core::Error>((right, may))
        });
        let answers: Vec<(Right, bool)> =
            stream::iter(asked).buffered(AT_ONCE).try_collect().await?;
        Ok(answers.into_iter().filter(|(_, may)| !may).map(|(right, _)| right).collect())
    }

    async fn may(&self, right: &Right) -> Result<bool> {
        let cluster = self.cluster();
        let (resource, part) = match right.resource.split_once('/') {
            Some((resource, part)) => (resource, Some(part.to_owned())),
            None => (right.resource, None),
        };
        let attributes = ResourceAttributes {
            group: Some(right.group.to_owned()),
            namespace: Some(cluster.namespace.clone()),
            resource: Some(resource.to_owned()),
            subresource: part,
            verb: Some(right.verb.to_owned()),
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        };
        let review = SelfSubjectAccessReview { spec: Into::into(spec), ..Default::default() };
        let api: Api<SelfSubjectAccessReview> = Api::all(cluster.client.clone());
        let params = PostParams::default();
        let asked = || api.create(&params, &review);
        let answer = cluster.again("ask for a right", asked).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}
