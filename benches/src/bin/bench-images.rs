//! What the bench of images measures, as a process of its own: its time and its memory are those
//! of one build, push, pull or unpacking.

use std::fs;
use std::path::Path;

use deploykit_benches::{Failure, Result};
use deploykit_oci::spec::Platform;
use deploykit_oci::{Compression, Layout, Recipe, Reference, RegistryClient, UnpackLimits};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match arguments.as_slice() {
        ["push", source, store, name, compression] => {
            runtime.block_on(push(source, store, name, compression))?;
        }
        ["pull", name, store, target] => runtime.block_on(pull(name, store, target))?,
        other => return Err(format!("{other:?}: push or pull").into()),
    }
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or_default();
    println!("{}", peak.trim().trim_end_matches(" kB"));
    Ok(())
}

async fn push(source: &str, store: &str, name: &str, compression: &str) -> Result<()> {
    let layout = Layout::open(store).map_err(failure)?;
    let name = Reference::parse_normalized(name)?;
    let mut recipe = Recipe::scratch(Platform::current()).epoch(0);
    recipe.compression = match compression {
        "zstd" => Compression::Zstd,
        _ => Compression::Gzip,
    };
    let recipe = recipe.copy(source, "/srv").map_err(failure)?;
    let client = RegistryClient::default();
    client.build_and_push(recipe, &layout, &name, &[]).await.map_err(failure)?;
    Ok(())
}

async fn pull(name: &str, store: &str, target: &str) -> Result<()> {
    let layout = Layout::open(store).map_err(failure)?;
    let name = Reference::parse_normalized(name)?;
    let client = RegistryClient::default();
    let image = client.pull(&name, &layout, Some(&Platform::current())).await.map_err(failure)?;
    let limits = UnpackLimits::default();
    layout.unpack(&image.digest, Path::new(target), limits).map_err(failure)
}

fn failure(error: deploykit::Error) -> Failure {
    error.into()
}
