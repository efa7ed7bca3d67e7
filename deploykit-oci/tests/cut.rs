//! Uploads that are cut in their midst, and builds that meet in one cache. `SEED=N` replays one
//! seed, `DEPLOYKIT_SEEDS=N` tries N of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use deploykit_core::{Error, ErrorKind};
use deploykit_oci::spec::Descriptor;
use deploykit_oci::{Digest, Layout, Outcome, Recipe, Reference, RegistryClient, Transfer};
use support::debian::Registry;
use support::scripted::{Reply, Request, Scripted};
use support::{amd64, config, name, noise};

const SEEDS: u64 = 10;

fn seeds() -> Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..number("DEPLOYKIT_SEEDS").unwrap_or(SEEDS) + 1,
    }
}

struct Built {
    _folder: tempfile::TempDir,
    layout: Layout,
    image: Descriptor,
}

/// An image of a layer of about 600 kB.
fn built(seed: u64) -> Built {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::open(folder.path()).unwrap();
    let recipe = Recipe::scratch(amd64()).epoch(0);
    let recipe = recipe.file("srv/data", 0o644, (0, 0), noise(seed, 600_000)).unwrap();
    let image = recipe.build(&layout).unwrap();
    Built { _folder: folder, layout, image }
}

impl Built {
    fn layer(&self) -> Descriptor {
        self.layout.manifest(&self.image.digest).unwrap().layers[0].clone()
    }
}

/// A registry in memory that keeps what it has got of an upload when that is cut.
#[derive(Default)]
struct Memory {
    blobs: BTreeMap<String, Vec<u8>>,
    uploads: BTreeMap<String, Vec<u8>>,
    tags: BTreeMap<String, Vec<u8>>,
    /// The bytes that came by `PATCH`.
    received: usize,
}

impl Memory {
    fn answer(&mut self, request: &Request) -> Reply {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let last = path.rsplit('/').next().unwrap().to_owned();
        let known = |found: bool| Reply::new(if found { 200 } else { 404 }, &[], b"").head();
        match (request.method.as_str(), path) {
            ("HEAD", path) if path.contains("/blobs/") => known(self.blobs.contains_key(&last)),
            ("HEAD", _) => known(self.tags.contains_key(&last)),
            ("POST", _) => {
                let id = format!("upload-{}", self.uploads.len());
                let location = format!("{path}{id}");
                self.uploads.insert(id, Vec::new());
                Reply::new(202, &[("Location", &location)], b"")
            }
            ("PATCH", _) => {
                let upload = self.uploads.get_mut(&last).unwrap();
                let range = request.header("content-range");
                let start = range.map_or(0, |r| r.split_once('-').unwrap().0.parse().unwrap());
                if start != upload.len() {
                    return Reply::new(416, &[], b"");
                }
                upload.extend_from_slice(&request.body);
                self.received += request.body.len();
                self.state(&last, path, 202)
            }
            ("GET", _) => self.state(&last, path, 204),
            ("PUT", path) if path.contains("/manifests/") => {
                // What it names has to be there by now.
                let text = String::from_utf8(request.body.clone()).unwrap();
                for digest in text.split('"').filter(|word| word.starts_with("sha256:")) {
                    assert!(self.blobs.contains_key(digest), "{digest} is not there yet");
                }
                self.tags.insert(last, request.body.clone());
                Reply::new(201, &[], b"")
            }
            ("PUT", _) => {
                let bytes = self.uploads.remove(&last).unwrap();
                let wanted = query.split("digest=").nth(1).unwrap().replace("%3A", ":");
                assert_eq!(Digest::of(&bytes).to_string(), wanted);
                self.blobs.insert(wanted, bytes);
                Reply::new(201, &[], b"")
            }
            other => panic!("{other:?}"),
        }
    }

    fn state(&self, id: &str, path: &str, status: u16) -> Reply {
        let length = self.uploads[id].len();
        let range = format!("0-{}", length.saturating_sub(1));
        Reply::new(status, &[("Location", path), ("Range", &range)], b"")
    }
}

#[tokio::test]
async fn a_cut_upload_goes_on_where_it_was() {
    for seed in seeds() {
        let own = built(seed);
        let layer = own.layer();
        let mut random = fastrand::Rng::with_seed(seed);
        let cut = random.u64(1..layer.size);
        let memory: Arc<Mutex<Memory>> = Arc::default();
        let state = Arc::clone(&memory);
        let is_cut = AtomicU64::new(0);
        let registry = Scripted::cutting(
            move |request| {
                let is_layer = request.method == "PATCH"
                    && request.header("content-length").unwrap().parse::<u64>().unwrap() > cut;
                let first = is_layer && is_cut.fetch_add(1, Ordering::SeqCst) == 0;
                first.then_some(usize::try_from(cut).unwrap())
            },
            move |request| state.lock().unwrap().answer(request),
        );
        let mut config = config();
        // Some are sent in one piece, some in several.
        config.chunk = if seed % 2 == 0 { 64 << 20 } else { (layer.size / 2).max(cut + 1) };
        let tag = name(&registry.host, "web:1");
        let client = RegistryClient::new(config);
        client.push(&own.layout, &own.image, &tag, &[]).await.unwrap();
        assert!(
            registry.asked().iter().any(|asked| asked.starts_with("GET /v2/web/blobs/uploads/"))
        );
        let memory = memory.lock().unwrap();
        assert_eq!(memory.blobs[layer.digest.as_str()].len() as u64, layer.size, "seed {seed}");
        assert!(memory.tags.contains_key("1"));
        let config = own.layout.manifest(&own.image.digest).unwrap().config.size;
        assert_eq!(memory.received as u64, layer.size + config, "seed {seed}: no byte twice");
    }
}

/// Passes bytes on, and tells when so many have gone to the server.
fn proxy(to: String, cut: u64, reached: impl FnOnce() + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let reached = Arc::new(Mutex::new(Some(reached)));
    let total = Arc::new(AtomicU64::new(0));
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(&to) else { continue };
            let (mut from, mut into) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let (reached, total) = (Arc::clone(&reached), Arc::clone(&total));
            std::thread::spawn(move || {
                let mut piece = [0; 4096];
                while let Ok(read @ 1..) = from.read(&mut piece) {
                    if into.write_all(&piece[..read]).is_err() {
                        break;
                    }
                    let before = total.fetch_add(read as u64, Ordering::SeqCst);
                    if before + read as u64 >= cut
                        && let Some(reached) = reached.lock().unwrap().take()
                    {
                        reached();
                    }
                }
                let _ = from.shutdown(std::net::Shutdown::Both);
                let _ = into.shutdown(std::net::Shutdown::Both);
            });
            let (mut from, mut into) = (server, client);
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut into);
                let _ = into.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    host
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_killed_has_a_whole_image_in_the_end() {
    let Some(registry) = Registry::start(None) else { return };
    let direct = registry.host.clone();
    let registry = Arc::new(Mutex::new(registry));
    for seed in seeds() {
        let own = built(seed);
        let cut = fastrand::Rng::with_seed(seed).u64(1..own.layer().size + 3000);
        let server = Arc::clone(&registry);
        let host = proxy(direct.clone(), cut, move || server.lock().unwrap().kill_and_restart());
        let client = RegistryClient::new(config());
        let tag = format!("web{seed}:1");
        let through = name(&host, &tag);
        let pushing = client.push(&own.layout, &own.image, &through, &[]);
        tokio::pin!(pushing);
        let straight = name(&direct, &tag);
        let observer = RegistryClient::new(config());
        // Whoever pulls by the tag meanwhile gets the whole image or none.
        loop {
            let pause = tokio::time::sleep(Duration::from_millis(20));
            tokio::select! {
                pushed = &mut pushing => {
                    pushed.unwrap_or_else(|e| panic!("seed {seed}, cut at {cut}: {e}"));
                    break;
                }
                () = pause => {}
            }
            let look = observer.clone();
            match pull(&look, &straight).await {
                Ok(found) => assert_eq!(found.digest, own.image.digest, "seed {seed}"),
                Err(e) => assert!(
                    matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Unavailable),
                    "seed {seed}: {e}"
                ),
            }
        }
        let pulled = pull(&observer, &straight).await.unwrap();
        assert_eq!(pulled.digest, own.image.digest, "seed {seed}");
        // What is finished is never sent again.
        let sent: Arc<Mutex<Vec<Outcome>>> = Arc::default();
        let sink = Arc::clone(&sent);
        let again = observer.with_progress(move |transfer| {
            if let Transfer::Finished { outcome, .. } = transfer {
                sink.lock().unwrap().push(outcome);
            }
        });
        let other = name(&direct, &format!("web{seed}:2"));
        again.push(&own.layout, &own.image, &other, &[]).await.unwrap();
        assert_eq!(*sent.lock().unwrap(), [Outcome::Existing; 2]);
    }
}

/// Pulls into a store of its own.
async fn pull(client: &RegistryClient, tag: &Reference) -> Result<Descriptor, Error> {
    let folder = tempfile::tempdir().unwrap();
    client.pull(tag, &Layout::open(folder.path()).unwrap(), Some(&amd64())).await
}

/// What the other process does; by itself it is nothing.
#[test]
fn builds_beside_another_process() {
    let Some(work) = std::env::var_os("DEPLOYKIT_TEST_BESIDE") else { return };
    let work = std::path::PathBuf::from(work);
    let layout = Layout::open(work.join("store")).unwrap();
    for round in 0..5 {
        let image = files(&work).build(&layout).unwrap();
        layout.tag(&format!("{}-{round}", std::process::id()), &image).unwrap();
        println!("BUILT {}", image.digest);
    }
}

fn files(work: &std::path::Path) -> Recipe {
    Recipe::scratch(amd64()).epoch(0).copy(work.join("source"), "srv").unwrap()
}

#[test]
fn two_processes_build_into_one_cache() {
    let work = tempfile::tempdir().unwrap();
    let source = work.path().join("source");
    std::fs::create_dir(&source).unwrap();
    for n in 0..40 {
        std::fs::write(source.join(n.to_string()), noise(n, 1 << 20)).unwrap();
    }
    let start = || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "builds_beside_another_process", "--nocapture"])
            .env("DEPLOYKIT_TEST_BESIDE", work.path())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    };
    let both = [start(), start()];
    let alone = tempfile::tempdir().unwrap();
    let wanted = files(work.path()).build(&Layout::open(alone.path()).unwrap()).unwrap();
    for process in both {
        let output = process.wait_with_output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        let built: Vec<&str> =
            text.lines().filter_map(|l| Some(l.split_once("BUILT ")?.1)).collect();
        assert_eq!(built, [wanted.digest.as_str(); 5]);
    }
    let layout = Layout::open(work.path().join("store")).unwrap();
    assert_eq!(layout.tags().unwrap().len(), 10);
    for layer in layout.manifest(&wanted.digest).unwrap().layers {
        std::io::copy(&mut layout.layer(&layer).unwrap(), &mut std::io::sink()).unwrap();
    }
}
