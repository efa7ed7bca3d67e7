//! What one builds, pushes and unpacks images with otherwise.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use deploykit_benches::{Result, peer};

use crate::registry::Registry;

pub(crate) struct Peers {
    crane: PathBuf,
    skopeo: PathBuf,
    umoci: PathBuf,
    buildah: PathBuf,
    /// Those that may be the fastest.
    running: Vec<&'static str>,
}

/// Who took so many times as long as the fastest isn't asked again.
const FAR_BEHIND: f64 = 1.5;

/// The fastest of a round.
pub(crate) struct Best {
    pub(crate) seconds: f64,
    /// The bytes of the layers.
    pub(crate) size: u64,
}

/// Runs a command to its end; what it says on standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::piped()).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?}: {}: {said}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn call<S: AsRef<OsStr>>(program: &Path, arguments: impl IntoIterator<Item = S>) -> Result<String> {
    output(Command::new(program).args(arguments))
}

impl Peers {
    pub(crate) fn find() -> Result<Self> {
        Ok(Self {
            crane: peer("crane")?,
            skopeo: peer("skopeo")?,
            umoci: peer("umoci")?,
            buildah: peer("buildah")?,
            running: vec!["crane append", "umoci and skopeo", "buildah"],
        })
    }

    /// The fastest of a build and push by each, each to a registry of its own.
    pub(crate) fn best(&mut self, source: &Path, work: &Path) -> Result<Best> {
        let mut all = Vec::new();
        for name in self.running.clone() {
            let registry = Registry::start()?;
            let target = registry.name("peer");
            let folder = tempfile::tempdir_in(work)?;
            let seconds = match name {
                "crane append" => self.crane(source, folder.path(), &target)?,
                "buildah" => self.buildah(source, folder.path(), &target)?,
                _ => self.umoci(source, folder.path(), &target)?,
            };
            let size = registry.size("peer")?;
            println!("#   {name}: {seconds:.2} s, {} MB", size / 1_000_000);
            all.push((name, Best { seconds, size }));
        }
        let seconds = all.iter().map(|(_, best)| best.seconds).fold(f64::INFINITY, f64::min);
        let near = all.iter().filter(|(_, best)| best.seconds <= seconds * FAR_BEHIND);
        self.running = near.map(|(name, _)| *name).collect();
        let best = all.into_iter().find(|(_, best)| best.seconds <= seconds);
        best.map(|(_, best)| best).ok_or_else(|| "no peer".into())
    }

    pub(crate) fn crane(&self, source: &Path, work: &Path, target: &str) -> Result<f64> {
        let archive = work.join("layer.tar").display().to_string();
        let source = source.display().to_string();
        let started = Instant::now();
        call(Path::new("tar"), ["-cf", &archive, "-C", &source, "."])?;
        call(
            &self.crane,
            ["append", "--oci-empty-base", "-f", &archive, "-t", target, "--insecure"],
        )?;
        Ok(started.elapsed().as_secs_f64())
    }

    fn umoci(&self, source: &Path, work: &Path, target: &str) -> Result<f64> {
        let store = work.join("oci").display().to_string();
        let image = format!("{store}:1");
        let source = source.display().to_string();
        let started = Instant::now();
        call(&self.umoci, ["init", "--layout", &store])?;
        call(&self.umoci, ["new", "--image", &image])?;
        call(&self.umoci, ["insert", "--image", &image, &source, "/srv"])?;
        let (from, to) = (format!("oci:{image}"), format!("docker://{target}"));
        call(&self.skopeo, ["copy", "-q", "--dest-tls-verify=false", &from, &to])?;
        Ok(started.elapsed().as_secs_f64())
    }

    fn buildah(&self, source: &Path, work: &Path, target: &str) -> Result<f64> {
        let root = work.join("buildah").display().to_string();
        let run = work.join("run").display().to_string();
        let buildah = |arguments: &[&str]| {
            let storage = ["--root", &root, "--runroot", &run, "--storage-driver", "vfs"];
            call(&self.buildah, storage.iter().chain(arguments))
        };
        let source = source.display().to_string();
        let started = Instant::now();
        let container = buildah(&["from", "scratch"])?;
        let container = container.trim();
        buildah(&["copy", "-q", container, &source, "/srv"])?;
        buildah(&["commit", "-q", container, "image"])?;
        buildah(&["push", "-q", "--tls-verify=false", "image", &format!("docker://{target}")])?;
        Ok(started.elapsed().as_secs_f64())
    }

    /// Seconds to pull and unpack an image.
    pub(crate) fn unpack(&self, name: &str, work: &Path) -> Result<f64> {
        let image = format!("{}:1", work.join("oci").display());
        let bundle = work.join("bundle").display().to_string();
        let (from, to) = (format!("docker://{name}"), format!("oci:{image}"));
        let started = Instant::now();
        call(&self.skopeo, ["copy", "-q", "--src-tls-verify=false", &from, &to])?;
        call(&self.umoci, ["unpack", "--image", &image, &bundle])?;
        Ok(started.elapsed().as_secs_f64())
    }
}
