//! Versions in a real registry: listed, promoted, pruned.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use deploykit_core::ErrorKind;
use deploykit_oci::sign::{Format, PrivateKey, Verifier, sign};
use deploykit_oci::spec::{Descriptor, Platform};
use deploykit_oci::versions::{plan_prune, promote, versions};
use deploykit_oci::{
    Digest, Layout, Outcome, Recipe, Reference, RegistryClient, Transfer, join_platforms,
};
use support::debian::Registry;
use support::{amd64, config, image, name};

fn store() -> (tempfile::TempDir, Layout) {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::open(folder.path()).unwrap();
    (folder, layout)
}

async fn push(client: &RegistryClient, layout: &Layout, built: &Descriptor, to: &Reference) {
    client.push(layout, built, to, &[]).await.unwrap();
}

/// An index of two platforms.
fn index(layout: &Layout, content: &str) -> Descriptor {
    let one = |architecture: &str| {
        let platform = Platform { architecture: architecture.into(), ..amd64() };
        let recipe = Recipe::scratch(platform).epoch(0);
        let content = format!("{content} on {architecture}");
        recipe.file("data", 0o644, (0, 0), content.as_bytes()).unwrap().build(layout).unwrap()
    };
    join_platforms(layout, &[one("amd64"), one("arm64")]).unwrap()
}

#[tokio::test]
async fn an_image_is_promoted_by_its_digest_with_its_signatures() {
    let Some(registry) = Registry::start(None) else { return };
    let (_folder, layout) = store();
    let client = RegistryClient::new(config());
    let built = index(&layout, "one");
    let tested = name(&registry.host, "test/web:1");
    push(&client, &layout, &built, &tested).await;
    let key = PrivateKey::generate().unwrap();
    sign(&client, &tested, &key, &[Format::Bundle, Format::Tag]).await.unwrap();

    let seen: Arc<Mutex<Vec<Outcome>>> = Arc::default();
    let sink = Arc::clone(&seen);
    let watched = client.with_progress(move |transfer| {
        if let Transfer::Finished { outcome, .. } = transfer {
            sink.lock().unwrap().push(outcome);
        }
    });
    let released = name(&registry.host, "shop/web:1.0");
    let (_empty, through) = store();
    let done = promote(&watched, &tested, &released, &through).await.unwrap();
    assert_eq!((&done.digest, done.replaced, done.attached), (&built.digest, None, 2));
    assert_eq!(client.resolve(&released).await.unwrap().digest, built.digest);
    let outcomes = std::mem::take(&mut *seen.lock().unwrap());
    let moved = |o: &&Outcome| !matches!(o, Outcome::Mounted | Outcome::Existing);
    assert_eq!(outcomes.iter().filter(moved).count(), 0, "{outcomes:?}");
    assert!(outcomes.contains(&Outcome::Mounted), "{outcomes:?}");

    let verifier = Verifier::new(key.public().clone());
    let refused = verifier.verify(&client, &released).await.unwrap_err();
    assert!(refused.message().contains("for another repository"), "{refused}");
    verifier.also_signed_as(&tested).verify(&client, &released).await.unwrap();

    // Another one takes the tag.
    let next = index(&layout, "two");
    push(&client, &layout, &next, &tested).await;
    let done = promote(&client, &tested, &released, &through).await.unwrap();
    assert_eq!((done.digest, done.replaced, done.attached), (next.digest, Some(built.digest), 0));

    // To another registry it is carried.
    let Some(elsewhere) = Registry::start(None) else { return };
    let there = name(&elsewhere.host, "shop/web:1.0");
    promote(&client, &released, &there, &through).await.unwrap();
    let (_folder, pulled) = store();
    let there = client.pull(&there, &pulled, None).await.unwrap();
    assert_eq!(there.digest, client.resolve(&released).await.unwrap().digest);
    assert_eq!(
        client.resolve(&name(&registry.host, "test/none:1")).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[tokio::test]
async fn a_repository_is_pruned_by_plan() {
    let Some(registry) = Registry::start(None) else { return };
    let (_folder, layout) = store();
    let client = RegistryClient::new(config());
    let at = |tag: &str| name(&registry.host, &format!("shop/web:{tag}"));
    let key = PrivateKey::generate().unwrap();
    let mut built = Vec::new();
    for number in 1..=12 {
        let one = match number {
            2 => index(&layout, "two"),
            _ => image(&layout, format!("version {number}").as_bytes()),
        };
        push(&client, &layout, &one, &at(&format!("1.{number}"))).await;
        sign(&client, &at(&format!("1.{number}")), &key, &[Format::Bundle, Format::Tag])
            .await
            .unwrap();
        built.push(one);
    }
    push(&client, &layout, &built[11], &at("latest")).await;

    let found = versions(&client, &at("latest")).await.unwrap();
    let tags: Vec<String> = found.iter().map(|v| v.tags.join(" ")).collect();
    let expected = [
        "1.12 latest",
        "1.11",
        "1.10",
        "1.9",
        "1.8",
        "1.7",
        "1.6",
        "1.5",
        "1.4",
        "1.3",
        "1.2",
        "1.1",
    ];
    assert_eq!(tags, expected);
    assert!(found.iter().all(|v| v.size > 0));
    assert_eq!(found[0].created.as_deref(), Some("1970-01-01T00:00:00Z"));

    let live: BTreeSet<Digest> = [built[3].digest.clone()].into();
    let two = NonZeroUsize::new(2).unwrap();
    let plan = plan_prune(&client, &at("latest"), two, &live).await.unwrap();
    assert_eq!((plan.keep.len(), plan.delete.len()), (3, 9));

    // The tags move meanwhile: nothing is deleted.
    push(&client, &layout, &built[0], &at("latest")).await;
    let refused = plan.apply(&client).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(refused.message().contains("latest has moved; plan again"), "{refused}");
    assert_eq!(versions(&client, &at("latest")).await.unwrap().len(), 12);

    // Two are kept by their place: 1.12, and 1.1 by nothing but its second tag.
    push(&client, &layout, &built[11], &at("latest")).await;
    let text = serde_json::to_string(&plan).unwrap();
    let stored: deploykit_oci::versions::PrunePlan = serde_json::from_str(&text).unwrap();
    let done = stored.apply(&client).await.unwrap();
    assert_eq!((done.versions, done.attached), (9, 18));
    let left = versions(&client, &at("latest")).await.unwrap();
    let tags: Vec<String> = left.iter().map(|v| v.tags.join(" ")).collect();
    assert_eq!(tags, ["1.12 latest", "1.11", "1.4"]);
    let verifier = Verifier::new(key.public().clone());
    for kept in ["1.12", "1.11", "1.4"] {
        verifier.verify(&client, &at(kept)).await.unwrap();
        let (_folder, pulled) = store();
        client.pull(&at(kept), &pulled, None).await.unwrap();
    }
    for gone in [0, 1, 2, 4] {
        let gone = at("latest").at(built[gone].digest.clone());
        assert_eq!(client.resolve(&gone).await.unwrap_err().kind(), ErrorKind::NotFound);
        let listed = client.referrers(&gone, gone.digest().unwrap(), None).await.unwrap();
        assert_eq!(listed, []);
    }
    let again = plan_prune(&client, &at("latest"), two, &live).await.unwrap();
    assert!(again.is_empty(), "{again}");
    let left = client.tags(&at("latest")).await.unwrap();
    // Each image has a tag for its list, and one for its signatures by tag.
    assert_eq!(left.len(), 4 + 3 * 2, "{left:?}");
}
