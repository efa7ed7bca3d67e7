//! One namespace of a cluster: calls with a deadline and a budget of retries.

use std::fmt::Debug;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use deploykit_core::{Error, ErrorKind, Fence, Result};
use k8s_openapi::NamespaceResourceScope;
use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions,
    PropagationPolicy, ValidationDirective,
};
use kube::core::{ApiResource, PartialObjectMeta};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::{OnceCell, Semaphore};

use crate::error::{client, error};
use crate::labels;
use crate::objects::Manifest;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a call that may be made twice is made again.
const RETRIES: u32 = 4;
/// The longest pause that a server may ask for between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How many calls are on their way at once: the server puts those of one user into a queue of its
/// own, and refuses what is too much for that.
const CALLS: usize = 64;

/// Whose the lock is: the fence that is asked about, and its answer.
pub(crate) type Question = (Fence, Arc<OnceCell<()>>);

/// One namespace of a cluster.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) client: Client,
    /// For what lasts: watches, logs, commands.
    lasting: Client,
    pub(crate) namespace: String,
    /// Whether fields that others have changed are taken back.
    pub(crate) force: bool,
    calls: Arc<Semaphore>,
    /// The next question whose the lock is, which has not been asked yet.
    pub(crate) question: Arc<Mutex<Option<Question>>>,
}

impl Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

/// Whether a call was refused before it did anything, so that it can be made again whatever it is.
fn refused_unread(error: &kube::Error) -> Option<Duration> {
    match error {
        kube::Error::Api(status) if status.code == 429 => {
            let asked = status.details.as_ref().map_or(0, |d| d.retry_after_seconds);
            // Who says it in a header alone, which the client drops, says one second
            // (<https://kubernetes.io/docs/concepts/cluster-administration/flow-control/>).
            Some(Duration::from_secs(asked.max(1).into()).min(LONGEST_PAUSE))
        }
        _ => None,
    }
}

impl Cluster {
    pub(crate) fn new((lasting, client): (Client, Client), namespace: String, force: bool) -> Self {
        let calls = Arc::new(Semaphore::new(CALLS));
        Self { client, lasting, namespace, force, calls, question: Arc::default() }
    }

    /// The same, for calls that must not wait behind those of others: the lock is lost where it is
    /// not renewed in time.
    pub(crate) fn ahead(&self) -> Self {
        let clients = (self.lasting.clone(), self.client.clone());
        Self::new(clients, self.namespace.clone(), self.force)
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Like [`Cluster::api`], for what lasts.
    pub(crate) fn lasting<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.lasting.clone(), &self.namespace)
    }

    fn dynamic(&self, resource: &ApiResource, wide: bool) -> Api<DynamicObject> {
        match wide {
            true => Api::all_with(self.client.clone(), resource),
            false => Api::namespaced_with(self.client.clone(), &self.namespace, resource),
        }
    }

    /// Makes a call that may be made twice, again and again while the server is out of reach.
    pub(crate) async fn again<T, F>(&self, operation: &str, call: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = kube::Result<T>>,
    {
        self.tried(operation, RETRIES, call).await
    }

    /// Makes a call that must not be made twice.
    pub(crate) async fn once<T, F>(&self, operation: &str, call: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = kube::Result<T>>,
    {
        self.tried(operation, 0, call).await
    }

    async fn tried<T, F>(&self, operation: &str, retries: u32, call: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = kube::Result<T>>,
    {
        let mut pause = Duration::from_millis(100);
        let mut tries = 0;
        loop {
            let answered = {
                // It is never closed.
                let _turn = self.calls.acquire().await;
                tokio::time::timeout(PATIENCE, call()).await
            };
            let (failure, asked) = match answered {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(source)) => {
                    let asked = refused_unread(&source);
                    (client(operation)(source), asked)
                }
                Err(_) => {
                    let message = format!("the API server gave no answer within {PATIENCE:?}");
                    (error(ErrorKind::Timeout, operation, message), None)
                }
            };
            let may = match asked {
                Some(_) => tries < RETRIES,
                None => tries < retries && failure.is_retryable(),
            };
            if !may {
                return Err(failure.with("namespace", &self.namespace));
            }
            tracing::debug!(%failure, "a call is made again");
            tokio::time::sleep(asked.unwrap_or_default().max(pause)).await;
            tries += 1;
            pause *= 2;
        }
    }

    /// The objects of a kind that carry these labels.
    pub(crate) async fn list<K>(&self, operation: &str, selector: &str) -> Result<Vec<K>>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        let api = self.api::<K>();
        let params = ListParams::default().labels(selector);
        Ok(self.again(operation, || api.list(&params)).await?.items)
    }

    /// The objects of a kind that is named as data.
    pub(crate) async fn list_of(
        &self,
        kind: &ApiResource,
        selector: &str,
    ) -> Result<Vec<DynamicObject>> {
        let api = self.dynamic(kind, false);
        let params = ListParams::default().labels(selector);
        let operation = format!("look for {}", kind.plural);
        Ok(self.again(&operation, || api.list(&params)).await?.items)
    }

    /// Like [`Cluster::list_of`], without what they say: of the cluster where they are `wide`.
    pub(crate) async fn list_metadata_of(
        &self,
        kind: &ApiResource,
        wide: bool,
        params: &ListParams,
    ) -> Result<Vec<PartialObjectMeta<DynamicObject>>> {
        let api = self.dynamic(kind, wide);
        let operation = format!("look for {}", kind.plural);
        Ok(self.again(&operation, || api.list_metadata(params)).await?.items)
    }

    /// The object of that name.
    pub(crate) async fn get<K>(&self, operation: &str, name: &str) -> Result<Option<K>>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        let api = self.api::<K>();
        self.again(operation, || api.get_opt(name)).await
    }

    /// The object that a manifest stands for, where it is ours.
    ///
    /// # Errors
    /// `AlreadyExists` where the name is somebody else's.
    pub(crate) async fn found(&self, manifest: &Manifest) -> Result<Option<DynamicObject>> {
        let operation = format!("look for the {} {}", manifest.resource.kind, manifest.name);
        let api = self.dynamic(&manifest.resource, manifest.wide);
        let found = self.again(&operation, || api.get_opt(&manifest.name)).await?;
        let Some(object) = found else { return Ok(None) };
        let wanted = &manifest.value["metadata"]["labels"];
        let owner = [
            labels::APP,
            labels::SERVICE,
            labels::VOLUME,
            labels::CONFIG,
            labels::ROLE,
            labels::NAMESPACE,
        ];
        let ours = owner
            .iter()
            .all(|key| wanted[*key].as_str() == object.labels().get(*key).map(String::as_str));
        if ours {
            return Ok(Some(object));
        }
        let message =
            "the name is taken by an object that is of nothing or something else; rename one";
        Err(error(ErrorKind::AlreadyExists, "apply an object", message)
            .with("kind", &manifest.resource.kind)
            .with("name", &manifest.name)
            .with("namespace", &self.namespace))
    }

    /// Applies an object: creates it, or changes the fields of it that are ours. `found` is what is
    /// there: a change of it since then is a conflict.
    pub(crate) async fn apply(
        &self,
        manifest: &Manifest,
        found: Option<&DynamicObject>,
        force: bool,
    ) -> Result<DynamicObject> {
        self.apply_as(labels::MANAGER, manifest, found, force).await
    }

    /// Like [`Cluster::apply`], under the name of another manager.
    pub(crate) async fn apply_as(
        &self,
        manager: &str,
        manifest: &Manifest,
        found: Option<&DynamicObject>,
        force: bool,
    ) -> Result<DynamicObject> {
        let mut value = manifest.value.clone();
        if let Some(version) = found.and_then(ResourceExt::resource_version) {
            value["metadata"]["resourceVersion"] = version.into();
        }
        self.patch(
            &Manifest { value, ..manifest.clone() },
            as_manager(manager, force || self.force),
        )
        .await
    }

    /// What [`Cluster::apply`] would make of an object, without doing it.
    ///
    /// # Errors
    /// `Conflict` where others hold fields of it, and are not to be overruled.
    pub(crate) async fn would_apply(&self, manifest: &Manifest) -> Result<DynamicObject> {
        let params = as_manager(labels::MANAGER, self.force);
        self.patch(manifest, PatchParams { dry_run: true, ..params }).await
    }

    async fn patch(&self, manifest: &Manifest, params: PatchParams) -> Result<DynamicObject> {
        let operation = format!("apply the {} {}", manifest.resource.kind, manifest.name);
        let api = self.dynamic(&manifest.resource, manifest.wide);
        let patch = Patch::Apply(&manifest.value);
        self.again(&operation, || api.patch(&manifest.name, &params, &patch)).await
    }

    /// Deletes one object and what belongs to it; one that is not there is no error.
    pub(crate) async fn delete(
        &self,
        resource: &ApiResource,
        name: &str,
        uid: Option<String>,
    ) -> Result<()> {
        self.delete_of(resource, false, name, uid).await
    }

    /// Like [`Cluster::delete`], of the cluster where it is `wide`.
    pub(crate) async fn delete_of(
        &self,
        resource: &ApiResource,
        wide: bool,
        name: &str,
        uid: Option<String>,
    ) -> Result<()> {
        let operation = format!("delete the {} {name}", resource.kind);
        let api = self.dynamic(resource, wide);
        let mut params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        if uid.is_some() {
            params = params.preconditions(Preconditions { uid, resource_version: None });
        }
        match self.again(&operation, || api.delete(name, &params)).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            done => done.map(drop),
        }
    }

    /// Deletes every object of a kind that carries these labels.
    pub(crate) async fn delete_all<K>(&self, selector: &str) -> Result<usize>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        let resource = ApiResource::erase::<K>(&());
        let operation = format!("look for {}", resource.plural);
        let found = self.list::<K>(&operation, selector).await?;
        for object in &found {
            self.delete(&resource, &object.name_any(), object.uid()).await?;
        }
        Ok(found.len())
    }
}

/// How a manager of fields applies.
fn as_manager(manager: &str, force: bool) -> PatchParams {
    PatchParams {
        field_manager: Some(manager.into()),
        force,
        field_validation: Some(ValidationDirective::Strict),
        dry_run: false,
    }
}

/// Whether an object was changed between the look at it and the change of it
/// (<https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>).
pub(crate) fn was_overtaken(error: &Error) -> bool {
    error.kind() == ErrorKind::Conflict && error.message().contains("the object has been modified")
}

/// Whether an error says that something is there already, or has changed meanwhile.
pub(crate) fn lost_race(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::Conflict)
}

/// Whether a field, optional or not, is that text.
pub(crate) fn says(field: impl Into<Option<String>>, text: &str) -> bool {
    field.into().as_deref() == Some(text)
}

/// A field that some versions of the API's types have as optional and some as required.
pub(crate) fn some<T>(field: impl Into<Option<T>>) -> Option<T> {
    field.into()
}
