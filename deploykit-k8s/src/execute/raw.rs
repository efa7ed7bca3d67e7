//! Raw objects: those that define kinds first, and gone when the app does not name them any more.

use std::collections::BTreeSet;
use std::time::Duration;

use deploykit_core::{ErrorKind, Result, StepContext};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionSpec,
};
use kube::ResourceExt;
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use tokio::time::{Instant, sleep};

use crate::cluster::{Cluster, some};
use crate::error::error;
use crate::objects::{self, GroupKind, defines};
use crate::raw::{self, Found, Inventory, Kind};
use crate::state::State;

const APPLY: &str = "apply the raw objects";
const REMOVE: &str = "remove raw objects";
/// How long a kind may take to be served after it was defined.
const SERVING: Duration = Duration::from_secs(60);
/// How long objects may take to be gone: others may have work to do before.
const ENDING: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(100);

/// Applies the raw objects of an app.
pub(crate) async fn apply(cluster: &Cluster, state: &State, context: &StepContext) -> Result<()> {
    let fence = &context.fence;
    let manifests = objects::raw(&context.target.app);
    let (definitions, others): (Vec<_>, Vec<_>) =
        manifests.into_iter().partition(|manifest| defines(manifest).is_some());
    let own: BTreeSet<GroupKind> = definitions.iter().filter_map(defines).collect();
    let mut inventory = Inventory::read(state, &fence.app).await?;
    for batch in [definitions, others] {
        let mut kinds = inventory.kinds.clone();
        let mut resolved = Vec::new();
        for manifest in batch {
            let resource = &manifest.resource;
            let kind = match kinds.iter().find(|kind| kind.is(resource)) {
                Some(kind) => kind.clone(),
                None => served(cluster, resource, &own).await?,
            };
            resolved.push(kind.resolve(cluster, manifest));
            kinds.insert(kind);
        }
        inventory.keep(state, fence, kinds).await?;
        for manifest in &resolved {
            let found = cluster.found(manifest).await?;
            cluster.check(fence).await?;
            cluster.apply(manifest, found.as_ref(), false).await?;
        }
        for definition in resolved.iter().filter(|manifest| defines(manifest).is_some()) {
            established(cluster, &definition.name).await?;
        }
    }
    Ok(())
}

/// A kind, as soon as it is served where the app itself defines it.
async fn served(
    cluster: &Cluster,
    resource: &ApiResource,
    own: &BTreeSet<GroupKind>,
) -> Result<Kind> {
    let kind = GroupVersionKind::gvk(&resource.group, &resource.version, &resource.kind);
    let may_come = own.contains(&(kind.group.clone(), kind.kind.clone()));
    let deadline = Instant::now() + SERVING;
    loop {
        if let Some(kind) = Kind::find(cluster, &kind).await? {
            return Ok(kind);
        }
        if !may_come || Instant::now() >= deadline {
            let (what, fix) = (resource.kind.as_str(), &resource.api_version);
            let message = format!(
                "the cluster has no kind {what} in {fix}; install what defines it, or put its \
                 CustomResourceDefinition into `raw` too"
            );
            return Err(error(ErrorKind::Failed, APPLY, message));
        }
        sleep(PAUSE).await;
    }
}

/// Waits until a definition is in force.
async fn established(cluster: &Cluster, name: &str) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    let deadline = Instant::now() + SERVING;
    loop {
        let there = cluster.again(APPLY, || api.get_opt(name)).await?;
        let conditions = there.and_then(|definition| definition.status?.conditions);
        let conditions = conditions.unwrap_or_default();
        if conditions.iter().any(|c| c.type_ == "Established" && c.status == "True") {
            return Ok(());
        }
        let against = conditions.iter().find(|c| c.type_ == "NamesAccepted" && c.status == "False");
        if against.is_some() || Instant::now() >= deadline {
            let why = against.and_then(|c| c.message.as_deref());
            let why = why.unwrap_or("the API server does not say why");
            let message =
                format!("the CustomResourceDefinition {name} does not come into force: {why}");
            return Err(error(ErrorKind::Failed, APPLY, message));
        }
        sleep(PAUSE).await;
    }
}

/// Removes the raw objects that the app does not name any more; all, where none of it is kept.
/// What defines kinds goes last, and only where no object of the kind is left.
pub(crate) async fn prune(cluster: &Cluster, state: &State, context: &StepContext) -> Result<()> {
    let fence = &context.fence;
    let mut inventory = Inventory::read(state, &fence.app).await?;
    if inventory.kinds.is_empty() {
        return Ok(());
    }
    let wanted = match context.kept.is_empty() {
        true => Vec::new(),
        false => objects::raw(&context.target.app),
    };
    let is_wanted = |found: &Found| {
        wanted.iter().any(|manifest| {
            found.kind.is_of(&manifest.resource) && manifest.name == found.metadata.name_any()
        })
    };
    let there = raw::list(cluster, &fence.app, &inventory.kinds).await?;
    let unwanted = there.into_iter().filter(|found| !is_wanted(found));
    let (definitions, others): (Vec<_>, Vec<_>) =
        unwanted.partition(|found| found.kind.kind == "CustomResourceDefinition");
    remove(cluster, context, &others).await?;
    for definition in &definitions {
        unused(cluster, &definition.metadata.name_any()).await?;
    }
    remove(cluster, context, &definitions).await?;
    let kinds = inventory.kinds.iter();
    let kinds = kinds.filter(|kind| wanted.iter().any(|manifest| kind.is_of(&manifest.resource)));
    let kinds = kinds.cloned().collect();
    inventory.keep(state, fence, kinds).await
}

/// Removes objects, and waits until they are gone.
async fn remove(cluster: &Cluster, context: &StepContext, objects: &[Found]) -> Result<()> {
    if objects.is_empty() {
        return Ok(());
    }
    cluster.check(&context.fence).await?;
    for Found { kind, metadata } in objects {
        let (name, uid) = (metadata.name_any(), metadata.uid());
        cluster.delete_of(&kind.resource(), kind.wide, &name, uid).await?;
    }
    let kinds: BTreeSet<Kind> = objects.iter().map(|found| found.kind.clone()).collect();
    let deadline = Instant::now() + ENDING;
    loop {
        let mut left = raw::list(cluster, &context.fence.app, &kinds).await?;
        left.retain(|left| objects.iter().any(|gone| gone.metadata.uid() == left.metadata.uid()));
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let name = |found: &Found| format!("{} {}", found.kind.kind, found.metadata.name_any());
            let names: Vec<String> = left.iter().map(name).collect();
            let message = format!(
                "these objects do not go: {}; see their finalizers, and whether what works on \
                 them runs",
                names.join(", ")
            );
            return Err(error(ErrorKind::Timeout, REMOVE, message));
        }
        sleep(PAUSE).await;
    }
}

/// Refuses to remove the definition of a kind of which there are objects: all of them, of whoever,
/// would go with it.
async fn unused(cluster: &Cluster, name: &str) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    let Some(definition) = cluster.again(REMOVE, || api.get_opt(name)).await? else {
        return Ok(());
    };
    let Some(spec) = some::<CustomResourceDefinitionSpec>(definition.spec) else { return Ok(()) };
    let Some(version) = spec.versions.iter().find(|version| version.served) else { return Ok(()) };
    let gvk = GroupVersionKind::gvk(&spec.group, &version.name, &spec.names.kind);
    let resource = ApiResource::from_gvk_with_plural(&gvk, &spec.names.plural);
    let all: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &resource);
    let one = ListParams::default().limit(1);
    let left = match cluster.again(REMOVE, || all.list_metadata(&one)).await {
        Err(missing) if missing.kind() == ErrorKind::NotFound => return Ok(()),
        left => left?.items,
    };
    let Some(first) = left.first() else { return Ok(()) };
    let at = first.namespace().map_or_else(String::new, |namespace| format!("{namespace}/"));
    let message = format!(
        "the CustomResourceDefinition {name} stays, since there are objects of the kind that are not \
         of the app, like {at}{}: they would go with it; remove them first, or keep it in the app",
        first.name_any()
    );
    Err(error(ErrorKind::Failed, REMOVE, message))
}
