//! What a registry does wrong, or says no to: each has its own message and kind of error.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use deploykit_core::{Error, ErrorKind};
use deploykit_oci::spec::{Descriptor, Platform, media_type};
use deploykit_oci::{Credentials, Digest, Layout, Recipe, Reference, RegistryClient};
use support::scripted::{Reply, Request, Scripted};
use support::{amd64, config, image, name, noise};

/// A client that gives up soon.
fn client() -> RegistryClient {
    let mut config = config();
    config.retry_for = Duration::from_millis(600);
    config.idle_timeout = Duration::from_secs(5);
    RegistryClient::new(config)
}

struct Store {
    _folder: tempfile::TempDir,
    layout: Layout,
}

fn store() -> Store {
    let folder = tempfile::tempdir().unwrap();
    Store { layout: Layout::open(folder.path()).unwrap(), _folder: folder }
}

/// A registry that has one image, under every tag, but where `wrong` answers instead.
fn with_image(
    content: &[u8],
    wrong: impl Fn(&Request, &Store, &Descriptor) -> Option<Reply> + Send + Sync + 'static,
) -> (Scripted, Descriptor) {
    let own = store();
    let built = image(&own.layout, content);
    let known = built.clone();
    let registry = Scripted::start(move |request| {
        if let Some(reply) = wrong(request, &own, &known) {
            return reply;
        }
        let last = request.path.rsplit('/').next().unwrap();
        let digest = last.parse().unwrap_or_else(|_| known.digest.clone());
        let Ok(bytes) = own.layout.reader(&digest) else { return Reply::new(404, &[], b"") };
        let bytes: Vec<u8> = std::io::Read::bytes(bytes).map(Result::unwrap).collect();
        let reply = match request.path.contains("/manifests/") {
            true => Reply::manifest(media_type::MANIFEST, &bytes),
            false => Reply::new(200, &[], &bytes),
        };
        if request.method == "HEAD" { reply.head() } else { reply }
    });
    (registry, built)
}

async fn pull_from(registry: &Scripted) -> Result<Descriptor, Error> {
    client().pull(&name(&registry.host, "web:1"), &store().layout, Some(&amd64())).await
}

/// The error of a pull from a registry that answers everything like this.
async fn refusal(status: u16, headers: &'static [(&str, &str)], body: &'static str) -> Error {
    let registry = Scripted::start(move |_| Reply::new(status, headers, body.as_bytes()));
    pull_from(&registry).await.unwrap_err()
}

#[track_caller]
fn is(error: &Error, kind: ErrorKind, message: &str) {
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(message), "{error}");
}

#[tokio::test]
async fn the_registry_says_no() {
    let error = refusal(401, &[("WWW-Authenticate", "Basic realm=\"x\"")], "").await;
    is(&error, ErrorKind::Unauthorized, "wants other credentials; log in: docker login 127.0.0.1:");
    let denied = r#"{"errors": [{"code": "DENIED", "message": "not for you"}]}"#;
    let error = refusal(403, &[], denied).await;
    is(&error, ErrorKind::Unauthorized, "the registry denies this to whom you are logged in as");
    let error = refusal(404, &[], "").await;
    is(&error, ErrorKind::NotFound, "there is no such image; look at its name");
    let error = refusal(451, &[], "").await;
    is(&error, ErrorKind::Failed, "the registry refuses the request");
    let error = refusal(501, &[], "").await;
    is(&error, ErrorKind::Unsupported, "the registry does not do this");
    let error = refusal(401, &[("WWW-Authenticate", "Kerberos")], "").await;
    is(&error, ErrorKind::Unsupported, "a kind of login that is not known");
}

#[tokio::test]
async fn the_registry_is_busy_or_broken() {
    let error = refusal(429, &[("Retry-After", "30")], "").await;
    is(&error, ErrorKind::Unavailable, "limits how often it is asked");
    assert!(error.to_string().contains("retry after 30 s"), "{error}");
    for status in [500, 502, 503, 504] {
        let error = refusal(status, &[], "").await;
        is(&error, ErrorKind::Unavailable, "the registry failed");
        assert!(error.is_retryable());
        assert!(error.to_string().contains(&format!("status {status}")), "{error}");
    }
    let registry = Scripted::start(|_| Reply::default());
    let error = pull_from(&registry).await.unwrap_err();
    is(&error, ErrorKind::Unavailable, "the connection broke");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = client().resolve(&name(&nobody.to_string(), "web:1")).await.unwrap_err();
    is(&error, ErrorKind::Unavailable, "it cannot be reached");
}

#[tokio::test]
async fn a_name_that_nobody_knows_is_not_looked_up_for_long() {
    let mut config = config();
    // Of the whole budget three tries take a few tenths of a second.
    config.retry_for = Duration::from_secs(3600);
    let tag = name("registry.invalid", "web:1");
    let error = RegistryClient::new(config).resolve(&tag).await.unwrap_err();
    is(&error, ErrorKind::Unavailable, "its name is not known; look at how it is written");
    assert!(error.to_string().contains("tries 3"), "{error}");
}

#[tokio::test]
async fn a_tag_is_deleted_where_the_registry_does_it() {
    let deleting = |status: u16| {
        let times = AtomicUsize::new(0);
        Scripted::start(move |request| {
            assert_eq!(request.method, "DELETE");
            // The first answer is lost, the second request finds nothing any more.
            match (status, times.fetch_add(1, Ordering::SeqCst)) {
                (202, 0) => Reply::default(),
                (202, _) => Reply::new(404, &[], b""),
                (status, _) => Reply::new(status, &[], b""),
            }
        })
    };
    let registry = deleting(202);
    client().delete(&name(&registry.host, "web:1")).await.unwrap();
    assert_eq!(registry.asked(), ["DELETE /v2/web/manifests/1"; 2]);
    for (status, kind, message) in [
        (405, ErrorKind::Unsupported, "the registry does not do this"),
        (404, ErrorKind::NotFound, "the registry has no such thing"),
    ] {
        let registry = deleting(status);
        let error = client().delete(&name(&registry.host, "web:1")).await.unwrap_err();
        is(&error, kind, message);
        assert_eq!(registry.asked().len(), 1);
    }
}

#[tokio::test]
async fn what_it_is_told_to_wait_for_is_waited_for() {
    for (status, wait) in [(429, Some("1")), (503, None), (500, None)] {
        let times = AtomicUsize::new(0);
        let (registry, built) = with_image(b"x", move |_, _, _| {
            let headers = wait.map(|seconds| ("Retry-After", seconds));
            let headers: Vec<(&str, &str)> = headers.into_iter().collect();
            (times.fetch_add(1, Ordering::SeqCst) < 2).then(|| Reply::new(status, &headers, b""))
        });
        let mut config = config();
        config.retry_for = Duration::from_secs(20);
        let started = Instant::now();
        let found = RegistryClient::new(config).resolve(&name(&registry.host, "web:1")).await;
        assert_eq!(found.unwrap().digest, built.digest);
        assert_eq!(registry.asked().len(), 3);
        if wait.is_some() {
            assert!(started.elapsed() >= Duration::from_secs(2), "waited too short");
        }
    }
}

#[tokio::test]
async fn nothing_comes() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let mut config = config();
    config.idle_timeout = Duration::from_millis(100);
    config.retry_for = Duration::ZERO;
    let error = RegistryClient::new(config).resolve(&name(&host, "web:1")).await.unwrap_err();
    is(&error, ErrorKind::Timeout, "nothing came for 0.1 s");
}

fn is_layer(request: &Request, store: &Store, image: &Descriptor) -> bool {
    let manifest = store.layout.manifest(&image.digest).unwrap();
    request.path.ends_with(manifest.layers[0].digest.as_str())
}

fn layer_of(store: &Store, image: &Descriptor) -> Vec<u8> {
    let digest = store.layout.manifest(&image.digest).unwrap().layers[0].digest.clone();
    store.layout.read(&digest).unwrap()
}

#[tokio::test]
async fn a_body_ends_too_early() {
    let (registry, _) = with_image(&noise(1, 50_000), |request, store, image| {
        let is_layer = is_layer(request, store, image);
        is_layer.then(|| {
            // Not a byte more, however often it is asked.
            let layer = layer_of(store, image);
            let from = range(request);
            match from {
                0 => Reply::lying(200, &[], layer.len(), &layer[..1000]),
                from => {
                    let part = format!("bytes {from}-{}/{}", layer.len() - 1, layer.len());
                    Reply::lying(206, &[("Content-Range", &part)], layer.len() - from, b"")
                }
            }
        })
    });
    let error = pull_from(&registry).await.unwrap_err();
    is(&error, ErrorKind::Unavailable, "the blob broke off after 1000 of");
}

fn range(request: &Request) -> usize {
    let range = request.header("range").unwrap_or("bytes=0-");
    range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap()
}

#[tokio::test]
async fn a_body_that_broke_off_is_taken_up_again() {
    for ranges in [true, false] {
        let (registry, built) = with_image(&noise(2, 200_000), move |request, store, image| {
            let is_layer = is_layer(request, store, image);
            is_layer.then(|| {
                let layer = layer_of(store, image);
                let from = if ranges { range(request) } else { 0 };
                let rest = &layer[from..];
                let step = if ranges { 90_000 } else { layer.len() };
                // Without ranges, the second answer is whole.
                let most = if !ranges && range(request) == 0 { 5_000 } else { step };
                let sent = &rest[..rest.len().min(most)];
                match from {
                    0 => Reply::lying(200, &[], rest.len(), sent),
                    from => {
                        let part = format!("bytes {from}-{}/{}", layer.len() - 1, layer.len());
                        Reply::lying(206, &[("Content-Range", &part)], rest.len(), sent)
                    }
                }
            })
        });
        assert_eq!(pull_from(&registry).await.unwrap(), built);
        let asked = registry.requests();
        let layers: Vec<usize> =
            asked.iter().filter(|r| r.path.contains("/blobs/")).map(range).collect();
        assert!(layers.iter().any(|from| *from > 0), "{layers:?}");
    }
}

#[tokio::test]
async fn a_content_length_lies() {
    for more in [5, -5] {
        let (registry, _) = with_image(&noise(3, 50_000), move |request, store, image| {
            let is_layer = is_layer(request, store, image);
            is_layer.then(|| {
                let mut layer = layer_of(store, image);
                let length = layer.len().checked_add_signed(more).unwrap();
                layer.resize(length, 0);
                Reply::new(200, &[], &layer)
            })
        });
        let error = pull_from(&registry).await.unwrap_err();
        is(&error, ErrorKind::Corrupt, "the registry announces ");
    }
    // Without a length there is only the end.
    let (registry, _) = with_image(&noise(3, 50_000), |request, store, image| {
        let is_layer = is_layer(request, store, image);
        is_layer.then(|| {
            let mut reply = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
            reply.extend(layer_of(store, image));
            reply.push(0);
            Reply(reply)
        })
    });
    let error = pull_from(&registry).await.unwrap_err();
    is(&error, ErrorKind::Corrupt, "more comes than the blob's");
}

#[tokio::test]
async fn a_digest_is_wrong() {
    let (registry, _) = with_image(&noise(4, 50_000), |request, store, image| {
        let is_layer = is_layer(request, store, image);
        is_layer.then(|| {
            let mut layer = layer_of(store, image);
            layer[100] ^= 1;
            Reply::new(200, &[], &layer)
        })
    });
    let (client, target) = (client(), store());
    let tag = name(&registry.host, "web:1");
    let error = client.pull(&tag, &target.layout, Some(&amd64())).await.unwrap_err();
    is(&error, ErrorKind::Corrupt, "what arrived is not what its digest says");
    let blobs = std::fs::read_dir(target.layout.path().join("blobs/sha256")).unwrap();
    for blob in blobs.map(Result::unwrap) {
        let digest = Digest::of(&std::fs::read(blob.path()).unwrap());
        assert_eq!(digest.hex(), blob.file_name().to_str().unwrap());
    }
    // A manifest that is another one than was asked for, and one that is not what its header says.
    let registry = Scripted::start(|_| Reply::manifest(media_type::MANIFEST, b"{}"));
    let error = client.document(&tag.at(Digest::of(b"x"))).await.unwrap_err();
    is(&error, ErrorKind::NotFound, "there is no such image");
    let asked = name(&registry.host, "web").at(Digest::of(b"x"));
    let error = client.document(&asked).await.unwrap_err();
    is(&error, ErrorKind::Corrupt, "what arrived is not what its digest says");
    let registry = Scripted::start(|_| {
        let digest = Digest::of(b"other").to_string();
        let headers = [("Content-Type", media_type::MANIFEST), ("Docker-Content-Digest", &digest)];
        Reply::new(200, &headers, b"{}")
    });
    let error = client.document(&name(&registry.host, "web:1")).await.unwrap_err();
    is(&error, ErrorKind::Corrupt, "what arrived is not what its digest says");
}

#[tokio::test]
async fn a_manifest_is_too_large_or_of_no_known_type() {
    let registry = Scripted::start(|request| {
        let reply = Reply::manifest(media_type::MANIFEST, &vec![b' '; (4 << 20) + 1]);
        if request.method == "HEAD" { reply.head() } else { reply }
    });
    let tag = name(&registry.host, "web:1");
    is(&client().resolve(&tag).await.unwrap_err(), ErrorKind::Invalid, "more than 4 MiB");
    is(&client().document(&tag).await.unwrap_err(), ErrorKind::Invalid, "more than 4 MiB");
    const OLD: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    let error = refusal(200, &[("Content-Type", OLD)], "{}").await;
    is(&error, ErrorKind::Unsupported, "the media type of what it names is not known");
    let (registry, _) = with_image(b"x", |request, _, _| {
        let is_manifest = request.path.contains("/manifests/");
        is_manifest.then(|| {
            let reply =
                Reply::manifest(media_type::MANIFEST, br#"{"schemaVersion": 2, "config": 1}"#);
            if request.method == "HEAD" { reply.head() } else { reply }
        })
    });
    is(&pull_from(&registry).await.unwrap_err(), ErrorKind::Corrupt, "it is not what it should be");
}

#[tokio::test]
async fn the_tag_moves_while_it_is_pulled() {
    let heads = AtomicUsize::new(0);
    let registry = Scripted::start(move |request| {
        let named = format!("image {}", heads.load(Ordering::SeqCst));
        match request.method.as_str() {
            "HEAD" => {
                heads.fetch_add(1, Ordering::SeqCst);
                Reply::manifest(media_type::MANIFEST, named.as_bytes()).head()
            }
            _ => Reply::new(404, &[], b""),
        }
    });
    let error = pull_from(&registry).await.unwrap_err();
    is(&error, ErrorKind::Conflict, "the tag moved while the image was pulled; pull it again");
    let (was, now) = (Digest::of(b"image 0"), Digest::of(b"image 1"));
    assert!(error.to_string().contains(&format!("was {was}, is {now}")), "{error}");
}

#[tokio::test]
async fn a_base_is_missing_or_of_another_architecture() {
    let (registry, built) = with_image(b"x", |_, _, _| None);
    let base = name(&registry.host, "base").at(Digest::of(b"nothing like this"));
    let error = client().pull(&base, &store().layout, Some(&amd64())).await.unwrap_err();
    is(&error, ErrorKind::NotFound, "there is no such image");
    let arm = Platform { architecture: "arm64".into(), ..amd64() };
    let tag = name(&registry.host, "base:1");
    let error = client().pull(&tag, &store().layout, Some(&arm)).await.unwrap_err();
    is(&error, ErrorKind::NotFound, "it is not there for this platform");
    let own = store();
    client().pull(&tag, &own.layout, None).await.unwrap();
    let error = Recipe::upon(&own.layout, &built.digest, arm).unwrap_err();
    is(&error, ErrorKind::Invalid, "it is of another platform");
}

#[tokio::test]
async fn a_push_is_refused() {
    let own = store();
    let built = image(&own.layout, b"x");
    let push = async |status: u16, body: &'static str| {
        let registry = Scripted::start(move |request| match request.method.as_str() {
            "HEAD" => Reply::new(404, &[], b"").head(),
            _ => Reply::new(status, &[], body.as_bytes()),
        });
        client().push(&own.layout, &built, &name(&registry.host, "web:1"), &[]).await.unwrap_err()
    };
    is(&push(413, "").await, ErrorKind::Invalid, "the registry does not take so much");
    is(&push(403, "").await, ErrorKind::Unauthorized, "the registry denies this");
    let invalid = r#"{"errors": [{"code": "DIGEST_INVALID", "message": "no match"}]}"#;
    is(&push(400, invalid).await, ErrorKind::Corrupt, "what arrived is not what its digest says");
    let error = client().push(&own.layout, &built, &Reference::parse("web:1").unwrap(), &[]).await;
    is(&error.unwrap_err(), ErrorKind::Invalid, "it names no registry");
}

#[tokio::test]
async fn credentials_go_to_nobody_else() {
    let other = Scripted::start(|_| Reply::new(200, &[], b"hello"));
    let elsewhere = format!("http://{}/blob", other.host);
    let registry = Scripted::start(move |request| match request.header("authorization") {
        None => Reply::new(401, &[("WWW-Authenticate", "Basic realm=\"x\"")], b""),
        Some(_) => Reply::new(307, &[("Location", &elsewhere)], b""),
    });
    let mut config = config();
    config.credentials = Credentials::none().with_password(&registry.host, "ci", "hunter2");
    let blob = Descriptor {
        media_type: media_type::CONFIG.to_owned(),
        digest: Digest::of(b"hello"),
        size: 5,
        platform: None,
        artifact_type: None,
        annotations: Default::default(),
    };
    let client = RegistryClient::new(config);
    assert_eq!(client.blob(&name(&registry.host, "web"), &blob).await.unwrap(), b"hello");
    assert_eq!(registry.requests()[1].header("authorization"), Some("Basic Y2k6aHVudGVyMg=="));
    assert_eq!(other.requests()[0].header("authorization"), None);
}

#[tokio::test]
async fn tokens_are_asked_for_once_and_kept() {
    let tokens = Scripted::start(|request| {
        let is_ci = request.header("authorization") == Some("Basic Y2k6aHVudGVyMg==");
        let wanted = "/token?service=reg&scope=repository:web:pull&account=ci";
        match is_ci && request.path == wanted {
            true => Reply::new(200, &[], br#"{"token": "t0k3n", "expires_in": 300}"#),
            false => Reply::new(401, &[], b""),
        }
    });
    let realm = format!(
        "Bearer realm=\"http://{}/token\",service=\"reg\",scope=\"repository:web:pull\"",
        tokens.host
    );
    let (registry, built) = with_image(b"x", move |request, _, _| {
        let is_in = request.header("authorization") == Some("Bearer t0k3n");
        (!is_in).then(|| Reply::new(401, &[("WWW-Authenticate", &realm)], b""))
    });
    let mut own = config();
    own.credentials = Credentials::none().with_password(&registry.host, "ci", "hunter2");
    let client = RegistryClient::new(own);
    let tag = name(&registry.host, "web:1");
    assert_eq!(client.pull(&tag, &store().layout, Some(&amd64())).await.unwrap(), built);
    assert_eq!(tokens.asked().len(), 1);
    let mut wrong = config();
    wrong.credentials = Credentials::none().with_password(&registry.host, "ci", "n0t-it");
    let error = RegistryClient::new(wrong).resolve(&tag).await.unwrap_err();
    is(&error, ErrorKind::Unauthorized, "log in: docker login");
    assert!(!error.to_string().contains("n0t-it"), "{error}");
}

#[tokio::test]
async fn what_is_there_already_costs_one_request() {
    let (registry, built) = with_image(b"x", |_, _, _| None);
    let own = store();
    let tag = name(&registry.host, "web:1");
    let recipe = Recipe::scratch(amd64()).epoch(0).file("srv/data", 0o644, (0, 0), *b"x").unwrap();
    let first = client().build_and_push(recipe.clone(), &own.layout, &tag, &[]).await.unwrap();
    assert_eq!(first, built);
    registry.requests();
    client().build_and_push(recipe, &own.layout, &tag, &[]).await.unwrap();
    assert_eq!(registry.asked(), ["HEAD /v2/web/manifests/1"]);
}
