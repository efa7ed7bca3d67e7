//! Layers that were written before, known by the metadata of their files.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use deploykit_core::Result;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::recipe::Recipe;
use super::split::Part;
use super::tree::{Content, Stat};
use super::{Layer, layer as write_layer};
use crate::digest::Digest;
use crate::layout::Layout;
use crate::spec::Descriptor;

/// A file changed twice within a tick of the file system's clock looks as if it had changed once:
/// what is younger than this is not trusted.
const TICK: Duration = Duration::from_millis(100);

#[derive(Serialize, Deserialize)]
struct Known {
    layer: Descriptor,
    diff_id: Digest,
}

/// The layer of a part: from the store where nothing has changed since, written anew else.
pub(super) fn layer(recipe: &Recipe, layout: &Layout, part: &Part<'_>) -> Result<Layer> {
    let name = format!(".cache/{}", key(recipe, part).hex());
    let known = fs::read(layout.path().join(&name)).ok();
    let known: Option<Known> = known.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    if let Some(Known { layer, diff_id }) = known.filter(|k| layout.contains(&k.layer)) {
        return Ok(Layer { descriptor: layer, diff_id, is_new: false });
    }
    let before = SystemTime::now();
    let built = write_layer::write(recipe, layout, part)?;
    if is_at_rest(part, before) {
        let known = Known { layer: built.descriptor.clone(), diff_id: built.diff_id.clone() };
        let kept = serde_json::to_vec(&known).map(|bytes| layout.remember(&name, &bytes));
        if let Err(error) =
            kept.map_err(|e| e.to_string()).and_then(|r| r.map_err(|e| e.to_string()))
        {
            tracing::warn!(error, "the layer is not remembered, so it will be read again");
        }
    }
    Ok(built)
}

fn is_at_rest(part: &Part<'_>, before: SystemTime) -> bool {
    let Ok(before) = before.duration_since(UNIX_EPOCH) else { return false };
    part.values().all(|entry| match &entry.content {
        Content::File { stat, .. } => {
            let (seconds, nanoseconds) = stat.changed;
            let seconds = u64::try_from(seconds).unwrap_or(0);
            let nanoseconds = u32::try_from(nanoseconds).unwrap_or(0);
            Duration::new(seconds, nanoseconds) + TICK < before
        }
        _ => true,
    })
}

/// All that a layer's bytes depend on, with each file's metadata for its content.
fn key(recipe: &Recipe, part: &Part<'_>) -> Digest {
    let mut hasher = Sha256::new_with_prefix("v3");
    hasher.update([recipe.compression as u8]);
    hasher.update(recipe.compression.level().to_le_bytes());
    hasher.update(recipe.epoch.to_le_bytes());
    // Texts are preceded by their lengths, so that no two lists of them look alike.
    let text = |hasher: &mut Sha256, kind: u8, text: &[u8]| {
        hasher.update([kind]);
        hasher.update((text.len() as u64).to_le_bytes());
        hasher.update(text);
    };
    for (path, entry) in part {
        text(&mut hasher, b'p', path.as_bytes());
        for number in [entry.mode, entry.owner.0, entry.owner.1] {
            hasher.update(number.to_le_bytes());
        }
        match &entry.content {
            Content::Folder => hasher.update(b"d"),
            Content::Link(target) => text(&mut hasher, b'l', target.as_bytes()),
            Content::HardLink(target) => text(&mut hasher, b'h', target.as_bytes()),
            Content::Bytes(bytes) => text(&mut hasher, b'b', bytes),
            Content::File { path, stat } => {
                text(&mut hasher, b'f', path.as_os_str().as_bytes());
                let Stat { size, inode, links, modified, changed } = *stat;
                for number in [size, inode.0, inode.1, links] {
                    hasher.update(number.to_le_bytes());
                }
                for number in [modified.0, modified.1, changed.0, changed.1] {
                    hasher.update(number.to_le_bytes());
                }
            }
        }
    }
    Digest::finish(hasher)
}
