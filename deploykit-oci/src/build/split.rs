//! Which layer a file goes into: its path alone decides, by linear hashing
//! (<https://en.wikipedia.org/wiki/Linear_hashing>). So a changed file changes one layer, a tree
//! that grows splits one layer at a time, and each core can work on a layer of its own.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::tree::{Content, Entry, Tree};

/// What a layer should have about, in bytes before compression.
const LAYER: u64 = 16 << 20;
/// Engines take 127 layers; this leaves room for those of a base image.
const MOST_LAYERS: u64 = 64;

/// The entries of one layer, each after the folders that it lies in.
pub(super) type Part<'a> = BTreeMap<&'a str, &'a Entry>;

/// The layers of a tree, always the same for the same paths and sizes.
pub(super) fn split(tree: &Tree) -> Vec<Part<'_>> {
    let whole: u64 = tree.0.values().map(Entry::size).sum();
    let count = (whole / LAYER).clamp(1, MOST_LAYERS);
    let mut parts: BTreeMap<u64, Part<'_>> = BTreeMap::new();
    for (path, entry) in &tree.0 {
        let number = match &entry.content {
            // Folders and links by themselves cost nothing anywhere.
            Content::Folder | Content::Link(_) => 0,
            Content::Bytes(_) | Content::File { .. } => layer_of(path, count),
            // Where the file itself is, whose path comes first.
            Content::HardLink(target) => layer_of(target, count),
        };
        let part = parts.entry(number).or_default();
        // An engine gives a folder that a layer doesn't describe an owner and mode of its own.
        for (slash, _) in path.match_indices('/') {
            if let Some((folder, entry)) = tree.0.get_key_value(&path[..slash]) {
                part.insert(folder, entry);
            }
        }
        part.insert(path, entry);
    }
    parts.into_values().collect()
}

/// Of `count` layers, the first `count - size` have been split already, `size` being the largest
/// power of two within `count`.
fn layer_of(path: &str, count: u64) -> u64 {
    let digest = Sha256::digest(path.as_bytes());
    let hash = digest.iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte)) >> 4;
    let size = 1 << count.ilog2();
    match hash % size {
        layer if layer < count - size => hash % (2 * size),
        layer => layer,
    }
}

#[cfg(test)]
mod tests {
    use super::layer_of;

    #[test]
    fn one_more_layer_takes_from_one_other() {
        for count in 1..64 {
            let paths = (0..500).map(|n| format!("srv/{n}"));
            let moved: std::collections::BTreeSet<(u64, u64)> = paths
                .map(|path| (layer_of(&path, count), layer_of(&path, count + 1)))
                .filter(|(before, after)| before != after)
                .collect();
            assert!(moved.len() <= 1, "{count}: {moved:?}");
            assert!(moved.iter().all(|(_, after)| *after == count), "{count}: {moved:?}");
        }
    }
}
