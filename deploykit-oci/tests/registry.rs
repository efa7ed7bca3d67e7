//! Images go to a real registry and come back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::future::Future;
use std::sync::{Arc, Mutex};

use deploykit_core::ErrorKind;
use deploykit_oci::spec::{Descriptor, Manifest, Platform, media_type};
use deploykit_oci::{
    Credentials, Digest, Layout, Outcome, Recipe, Reference, RegistryClient, Transfer,
    join_platforms,
};
use support::debian::Registry;
use support::{amd64, config, image, name, noise};

fn store() -> (tempfile::TempDir, Layout) {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::open(folder.path()).unwrap();
    (folder, layout)
}

/// A client, and how each blob came to its place since.
fn watched() -> (RegistryClient, impl Fn() -> Vec<Outcome>) {
    let seen: Arc<Mutex<Vec<Outcome>>> = Arc::default();
    let sink = Arc::clone(&seen);
    let client = RegistryClient::new(config()).with_progress(move |transfer| {
        if let Transfer::Finished { outcome, .. } = transfer {
            sink.lock().unwrap().push(outcome);
        }
    });
    (client, move || std::mem::take(&mut *seen.lock().unwrap()))
}

/// The futures can be spawned.
fn spawnable<F: Future + Send>(future: F) -> F {
    future
}

#[tokio::test]
async fn an_image_goes_there_and_comes_back() {
    let Some(registry) = Registry::start(None) else { return };
    let (_folder, layout) = store();
    let built = image(&layout, &noise(1, 300_000));
    let (client, outcomes) = watched();
    let tag = name(&registry.host, "team/web:1");

    spawnable(client.push(&layout, &built, &tag, &[])).await.unwrap();
    assert_eq!(outcomes(), [Outcome::Sent, Outcome::Sent]);
    client.push(&layout, &built, &tag, &[]).await.unwrap();
    assert_eq!(outcomes(), []);
    client.push(&layout, &built, &name(&registry.host, "team/web:2"), &[]).await.unwrap();
    assert_eq!(outcomes(), [Outcome::Existing, Outcome::Existing]);
    assert_eq!(spawnable(client.tags(&tag)).await.unwrap(), ["1", "2"]);
    assert_eq!(spawnable(client.resolve(&tag)).await.unwrap().digest, built.digest);

    let (_folder, other) = store();
    let pulled = spawnable(client.pull(&tag, &other, Some(&amd64()))).await.unwrap();
    assert_eq!(pulled, built);
    assert_eq!(outcomes(), [Outcome::Received, Outcome::Received]);
    let manifest = other.manifest(&pulled.digest).unwrap();
    for layer in &manifest.layers {
        std::io::copy(&mut other.layer(layer).unwrap(), &mut std::io::sink()).unwrap();
    }
    client.pull(&tag, &other, None).await.unwrap();
    assert_eq!(outcomes(), [Outcome::Existing, Outcome::Existing]);

    let wrong = Platform { architecture: "arm64".into(), ..amd64() };
    let error = client.pull(&tag, &other, Some(&wrong)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("wanted linux/arm64, there linux/amd64"), "{error}");

    client.delete(&tag.at(built.digest.clone())).await.unwrap();
    let error = client.resolve(&tag).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[tokio::test]
async fn a_build_is_pushed_while_it_is_built() {
    let Some(registry) = Registry::start(None) else { return };
    let (_folder, layout) = store();
    let files = tempfile::tempdir().unwrap();
    for n in 0..40 {
        std::fs::write(files.path().join(n.to_string()), noise(n, 1 << 20)).unwrap();
    }
    std::thread::sleep(std::time::Duration::from_millis(150));
    let recipe = || Recipe::scratch(amd64()).epoch(0).copy(files.path(), "srv").unwrap();
    let (client, outcomes) = watched();
    let tag = name(&registry.host, "web:1");
    let built = spawnable(client.build_and_push(recipe(), &layout, &tag, &[])).await.unwrap();
    assert_eq!(outcomes(), [Outcome::Sent; 3]);
    assert_eq!(client.resolve(&tag).await.unwrap().digest, built.digest);
    let again = client.build_and_push(recipe(), &layout, &tag, &[]).await.unwrap();
    assert_eq!((again, outcomes()), (built, vec![]));
}

#[tokio::test]
async fn an_image_is_promoted_by_digest_without_being_sent_again() {
    let Some(registry) = Registry::start(None) else { return };
    let (_folder, layout) = store();
    let (client, outcomes) = watched();
    let (amd, arm) = (amd64(), Platform { architecture: "arm64".into(), ..amd64() });
    let build = |platform: Platform, seed| {
        let recipe = Recipe::scratch(platform).epoch(0);
        recipe.file("data", 0o644, (0, 0), noise(seed, 1000)).unwrap().build(&layout).unwrap()
    };
    let index = join_platforms(&layout, &[build(amd, 1), build(arm.clone(), 2)]).unwrap();
    let staging = name(&registry.host, "staging/web:1");
    client.push(&layout, &index, &staging, &[]).await.unwrap();
    assert_eq!(outcomes(), [Outcome::Sent; 4]);

    let (_folder, through) = store();
    let stable = name(&registry.host, "stable/web:1");
    let copied = spawnable(client.copy(&staging, &stable, &through)).await.unwrap();
    assert_eq!((copied.digest, outcomes()), (index.digest.clone(), vec![Outcome::Mounted; 4]));
    assert_eq!(client.resolve(&stable).await.unwrap().digest, index.digest);
    let chosen = client.resolve_platform(&stable, &arm).await.unwrap();
    assert_eq!(chosen.platform, Some(arm));

    let pushed = name(&registry.host, "other/web:1");
    client.push(&layout, &index, &pushed, &[&staging]).await.unwrap();
    assert_eq!(outcomes(), [Outcome::Mounted; 4]);

    let Some(elsewhere) = Registry::start(None) else { return };
    let far = name(&elsewhere.host, "web:1");
    client.copy(&staging, &far, &through).await.unwrap();
    let kinds = outcomes();
    assert_eq!(kinds.iter().filter(|o| **o == Outcome::Sent).count(), 4, "{kinds:?}");
    assert_eq!(client.resolve(&far).await.unwrap().digest, index.digest);
}

#[tokio::test]
async fn passwords_open_and_wrong_ones_do_not() {
    // `htpasswd -nbB -C 4 ci hunter2`
    let users = "ci:$2b$04$P7ieX5UCcKdLYYdPdQUW8O0IFYLdUi34tVOwSAoNUn.RyL.xRkp6K\n";
    let Some(registry) = Registry::start(Some(users)) else { return };
    let (_folder, layout) = store();
    let built = image(&layout, b"x");
    let tag = name(&registry.host, "web:1");
    let client = |password: Option<&str>| {
        let mut config = config();
        if let Some(password) = password {
            config.credentials = Credentials::none().with_password(&registry.host, "ci", password);
        }
        RegistryClient::new(config)
    };
    client(Some("hunter2")).push(&layout, &built, &tag, &[]).await.unwrap();
    for wrong in [None, Some("wrong")] {
        let error = client(wrong).resolve(&tag).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthorized);
        let message = format!("log in: docker login {}", registry.host);
        assert!(error.to_string().contains(&message), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
    // As `docker login` stores it.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    let auth = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, "ci:hunter2");
    let stored = serde_json::json!({"auths": {(&*registry.host): {"auth": auth}}});
    std::fs::write(&file, stored.to_string()).unwrap();
    let mut stored = config();
    stored.credentials = Credentials::from_file(&file);
    assert_eq!(RegistryClient::new(stored).resolve(&tag).await.unwrap().digest, built.digest);
}

#[tokio::test]
async fn what_refers_to_an_image_is_found() {
    let Some(registry) = Registry::start(None) else { return };
    let (_folder, layout) = store();
    let (client, _) = watched();
    let built = image(&layout, b"x");
    let tag = name(&registry.host, "web:1");
    client.push(&layout, &built, &tag, &[]).await.unwrap();
    assert_eq!(spawnable(client.referrers(&tag, &built.digest, None)).await.unwrap(), []);
    let mut pushed = Vec::new();
    for kind in ["application/vnd.example.note", "application/vnd.example.list"] {
        let manifest = about(&client, &tag, &built, kind).await;
        let bytes = serde_json::to_vec(&manifest).unwrap();
        let place = tag.at(Digest::of(&bytes));
        let stored = client.push_document(&place, media_type::MANIFEST, &bytes).await.unwrap();
        client.push_document(&place, media_type::MANIFEST, &bytes).await.unwrap();
        pushed.push(stored.digest);
    }
    let all = client.referrers(&tag, &built.digest, None).await.unwrap();
    assert_eq!(all.iter().map(|d| d.digest.clone()).collect::<Vec<_>>(), pushed);
    let notes =
        client.referrers(&tag, &built.digest, Some("application/vnd.example.note")).await.unwrap();
    assert_eq!(notes.len(), 1);
    assert_eq!(
        client.document(&tag.at(notes[0].digest.clone())).await.unwrap().descriptor.digest,
        pushed[0]
    );
}

async fn about(
    client: &RegistryClient,
    repository: &Reference,
    subject: &Descriptor,
    kind: &str,
) -> Manifest {
    let config = client.push_blob(repository, "{}").await.unwrap();
    let config = Descriptor {
        media_type: "application/vnd.oci.empty.v1+json".to_owned(),
        digest: config,
        size: 2,
        platform: None,
        artifact_type: None,
        annotations: Default::default(),
    };
    Manifest {
        schema_version: 2,
        media_type: Some(media_type::MANIFEST.to_owned()),
        artifact_type: Some(kind.to_owned()),
        layers: vec![config.clone()],
        config,
        subject: Some(Box::new(subject.clone())),
        annotations: Default::default(),
    }
}
