//! Why a rollout does not get on, provoked for real.

use deploykit_core::memory::dial;
use deploykit_core::model::*;
use deploykit_core::{Change, Error, Reason, ResolvedApp, SecretValue, Silent};

use super::{Bed, Namespace, config, kubectl, reasons, web};

/// Applies an app that was changed after all that would have refused it.
async fn apply(bed: &Bed, app: App, change: impl FnOnce(&mut ResolvedApp)) -> Error {
    let mut ready = bed.deployer.prepare(app).await.unwrap();
    change(&mut ready);
    let plan = bed.deployer.plan(Change::Deploy(Box::new(ready))).await.unwrap();
    bed.deployer.apply(plan, &mut Silent).await.unwrap_err()
}

async fn fails(bed: Bed, app: App, expected: impl Fn(&Reason) -> bool) {
    let error = apply(&bed, app, |_| {}).await;
    assert!(reasons(&error).into_iter().any(expected), "{error}");
    bed.down().await;
}

pub(crate) async fn an_image_that_is_gone() {
    let bed = Bed::new().await;
    let error = apply(&bed, bed.only(web()), |ready| {
        for image in ready.images.values_mut() {
            image.digest = format!("sha256:{}", "0".repeat(64));
        }
    });
    let error = error.await;
    let named = |r: &&Reason| matches!(r, Reason::ImageNotFound { image } if image.contains("000"));
    assert!(reasons(&error).iter().any(named), "{error}");
    bed.down().await;
}

pub(crate) async fn a_registry_that_wants_a_password() {
    let bed = Bed::new().await;
    let Ok(registry) = std::env::var("DEPLOYKIT_TEST_REGISTRY_AUTH") else {
        panic!("DEPLOYKIT_TEST_REGISTRY_AUTH is not set");
    };
    let error = apply(&bed, bed.only(web()), |ready| {
        let name = format!("{registry}/team/web:1");
        let web = ready.app.services.get_mut("web").unwrap();
        web.image = ImageSpec::Reference(ImageRef::new(&name).unwrap());
        ready.images.values_mut().for_each(|image| image.source.clone_from(&name));
    });
    let error = error.await;
    let named = |r: &&Reason| matches!(r, Reason::PullDenied { .. });
    assert!(reasons(&error).iter().any(named), "{error}");
    bed.down().await;
}

fn unschedulable(word: &'static str) -> impl Fn(&Reason) -> bool {
    move |reason| matches!(reason, Reason::Unschedulable { message } if message.contains(word))
}

pub(crate) async fn too_large_for_every_node() {
    let bed = Bed::new().await;
    let resources = Resources { cpu_request: "900".parse().ok(), ..Resources::default() };
    let app = bed.only(web().resources(resources));
    fails(bed, app, unschedulable("Insufficient cpu")).await;
}

pub(crate) async fn no_node_has_the_label() {
    let bed = Bed::new().await;
    let mut app = bed.only(web());
    let web = app.services.get_mut("web").unwrap();
    web.placement.constraints.insert("deploykit.test/disk".into(), "none".into());
    fails(bed, app, unschedulable("affinity/selector")).await;
}

pub(crate) async fn a_volume_that_nobody_makes() {
    let mut config = config();
    config.storage_class = Some("deploykit-test-none".into());
    let bed = Bed::with(config).await;
    let app = bed.build().volume("data", VolumeScope::Shared).service(web().volume("data"));
    let app = app.validate().unwrap();
    fails(bed, app, unschedulable("PersistentVolumeClaim")).await;
}

pub(crate) async fn out_of_memory() {
    let bed = Bed::new().await;
    let resources = Resources { memory_limit: "64Mi".parse().ok(), ..Resources::default() };
    let app = bed.only(web().env(dial::EAT_MIB, "400").resources(resources));
    fails(bed, app, |r| matches!(r, Reason::OutOfMemory { limit: Some(67_108_864) })).await;
}

pub(crate) async fn a_secret_that_is_gone() {
    let bed = Bed::new().await;
    let name = SecretName::new("db").unwrap();
    bed.deployer.secrets(&bed.app).put(&name, SecretValue::new("hush")).await.unwrap();
    let error = apply(&bed, bed.only(web().secret("db")), |ready| {
        ready.secrets.insert(SecretName::new("db").unwrap(), 99);
    });
    let error = error.await;
    let named =
        |r: &&Reason| matches!(r, Reason::SecretMissing { secret } if secret.contains("db.v99"));
    assert!(reasons(&error).iter().any(named), "{error}");
    bed.down().await;
}

fn makes_no_pods(word: &'static str) -> impl Fn(&Reason) -> bool {
    move |reason| matches!(reason, Reason::StartFailed { message } if message.contains(word))
}

pub(crate) async fn a_quota_that_is_used_up() {
    let namespace = Namespace::new("quota", "");
    let quota = "apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: none}\nspec: {hard: {pods: \"0\"}}\n";
    kubectl(&["apply", "--namespace", &namespace.0, "--filename", "-"], quota);
    let mut config = config();
    config.namespace = Some(namespace.0.clone());
    let bed = Bed::with(config).await;
    let app = bed.only(web());
    fails(bed, app, makes_no_pods("exceeded quota")).await;
}

pub(crate) async fn an_admission_that_refuses() {
    let namespace = Namespace::new("admission", "pod-security.kubernetes.io/enforce: restricted");
    let mut config = config();
    config.namespace = Some(namespace.0.clone());
    let bed = Bed::with(config).await;
    // What we make passes by itself.
    bed.up(bed.only(web())).await.unwrap();
    let bind = BindMount { source: "/etc".into(), target: "/host".into(), read_only: true };
    let app = bed.only(web().mount(Mount::Bind(bind)));
    fails(bed, app, makes_no_pods("violates PodSecurity")).await;
}
