//! What an app has beside its pods and what keeps them, as it was when an apply began: of a service,
//! only its own step changes it.

use std::collections::HashMap;

use deploykit_core::Result;
use deploykit_core::model::ServiceName;
use futures_util::future::{try_join, try_join_all};
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::{PodTemplateSpec, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::ListParams;
use kube::core::ApiResource;
use kube::{Resource, ResourceExt};

use crate::cluster::{Cluster, some};
use crate::labels;

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Beside {
    objects: HashMap<String, Vec<Object>>,
    /// The pods of earlier revisions.
    earlier: HashMap<String, Vec<PodTemplateSpec>>,
}

/// An object that is there.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) resource: ApiResource,
    pub(crate) name: String,
    pub(crate) uid: Option<String>,
}

impl Object {
    pub(crate) fn of<K>(object: &K) -> Self
    where
        K: Resource<DynamicType = ()>,
    {
        let (name, uid) = (object.name_any(), object.uid());
        Self { resource: ApiResource::erase::<K>(&()), name, uid }
    }
}

impl Beside {
    /// Lists what carries these labels.
    pub(crate) async fn list(cluster: &Cluster, selector: &str) -> Result<Self> {
        let kinds = [
            ApiResource::erase::<CronJob>(&()),
            ApiResource::erase::<Ingress>(&()),
            ApiResource::erase::<HorizontalPodAutoscaler>(&()),
            ApiResource::erase::<PodDisruptionBudget>(&()),
            ApiResource::erase::<Service>(&()),
            ApiResource::erase::<ServiceAccount>(&()),
            ApiResource::erase::<NetworkPolicy>(&()),
        ];
        let params = ListParams::default().labels(selector);
        let lists = kinds.iter().map(|kind| cluster.list_metadata_of(kind, false, &params));
        let earlier = cluster.list::<ReplicaSet>("look for earlier revisions", selector);
        let (lists, earlier) = try_join(try_join_all(lists), earlier).await?;
        let mut found = Self::default();
        for (resource, object) in kinds
            .iter()
            .zip(lists)
            .flat_map(|(kind, list)| list.into_iter().map(move |object| (kind.clone(), object)))
        {
            let Some(service) = object.labels().get(labels::SERVICE) else { continue };
            let (name, uid) = (object.name_any(), object.uid());
            let objects = found.objects.entry(service.clone()).or_default();
            objects.push(Object { resource, name, uid });
        }
        for set in earlier {
            let Some(service) = set.labels().get(labels::SERVICE).cloned() else { continue };
            let template = some::<ReplicaSetSpec>(set.spec).and_then(|spec| spec.template);
            found.earlier.entry(service).or_default().extend(template);
        }
        Ok(found)
    }

    /// The objects of a service or job.
    pub(crate) fn of(&self, service: &ServiceName) -> &[Object] {
        self.objects.get(service.as_str()).map(Vec::as_slice).unwrap_or_default()
    }

    /// The pods that earlier revisions of a service had.
    pub(crate) fn earlier(&self, service: &ServiceName) -> &[PodTemplateSpec] {
        self.earlier.get(service.as_str()).map(Vec::as_slice).unwrap_or_default()
    }
}
