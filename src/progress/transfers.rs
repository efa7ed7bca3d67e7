//! Progress of images on their way.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard};

use deploykit_oci::{Digest, Transfer};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

/// For [`RegistryClient::with_progress`](deploykit_oci::RegistryClient::with_progress): on a
/// terminal a bar by bytes with the count of layers, elsewhere a line for each layer, both on
/// standard error.
///
/// ```
/// let client = deploykit::oci::RegistryClient::default();
/// let client = client.with_progress(deploykit::progress::transfers());
/// # let _ = client;
/// ```
pub fn transfers() -> impl Fn(Transfer) + Send + Sync + 'static {
    let is_terminal = std::io::stderr().is_terminal();
    let blobs = Mutex::new(Blobs::default());
    move |transfer| {
        let mut blobs = locked(&blobs);
        blobs.take(&transfer);
        if is_terminal {
            blobs.draw();
        } else if let Some(line) = describe_transfer(&transfer, blobs.size(&transfer)) {
            eprintln!("{line}");
        }
    }
}

/// A transfer that has ended, in words, with the blob's size in bytes where that is known; nothing
/// for one that goes on.
pub fn describe_transfer(transfer: &Transfer, size: Option<u64>) -> Option<String> {
    let Transfer::Finished { digest, outcome } = transfer else { return None };
    let size = size.map(|size| format!(", {}", HumanBytes(size))).unwrap_or_default();
    let hex = digest.hex();
    Some(format!("{}: {outcome}{size}", hex.get(..12).unwrap_or(hex)))
}

/// What is known of each blob: how much there is of how much, and whether that is all.
#[derive(Default)]
struct Blobs {
    blobs: BTreeMap<Digest, (u64, u64, bool)>,
    bar: Option<ProgressBar>,
}

impl Blobs {
    fn take(&mut self, transfer: &Transfer) {
        match transfer {
            Transfer::Started { digest, size } => {
                self.blobs.insert(digest.clone(), (0, *size, false));
            }
            Transfer::Moved { digest, done } => {
                if let Some(blob) = self.blobs.get_mut(digest) {
                    blob.0 = *done;
                }
            }
            Transfer::Finished { digest, .. } => {
                if let Some(blob) = self.blobs.get_mut(digest) {
                    *blob = (blob.1, blob.1, true);
                }
            }
            _ => {}
        }
    }

    fn size(&self, transfer: &Transfer) -> Option<u64> {
        match transfer {
            Transfer::Finished { digest, .. } => self.blobs.get(digest).map(|blob| blob.1),
            _ => None,
        }
    }

    fn draw(&mut self) {
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::new(0);
            // A template of constants parses; were it not so, the default style serves.
            if let Ok(style) = ProgressStyle::with_template(
                "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}",
            ) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        });
        bar.set_length(self.blobs.values().map(|blob| blob.1).sum());
        bar.set_position(self.blobs.values().map(|blob| blob.0).sum());
        let done = self.blobs.values().filter(|blob| blob.2).count();
        bar.set_message(format!("{done}/{} layers", self.blobs.len()));
    }
}

impl Drop for Blobs {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish();
        }
    }
}

fn locked(blobs: &Mutex<Blobs>) -> MutexGuard<'_, Blobs> {
    blobs.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use deploykit_oci::Outcome;

    use super::*;

    #[test]
    fn bytes_and_layers_are_counted() {
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let mut blobs = Blobs::default();
        let ended = Transfer::Finished { digest: one.clone(), outcome: Outcome::Sent };
        for transfer in [
            Transfer::Started { digest: one.clone(), size: 2048 },
            Transfer::Started { digest: two.clone(), size: 100 },
            Transfer::Moved { digest: two.clone(), done: 60 },
            ended.clone(),
        ] {
            assert_eq!(describe_transfer(&transfer, None).is_some(), transfer == ended);
            blobs.take(&transfer);
        }
        blobs.draw();
        let bar = blobs.bar.as_ref().map(|bar| (bar.position(), bar.length(), bar.message()));
        assert_eq!(bar, Some((2108, Some(2148), "1/2 layers".to_owned())));
        let line = describe_transfer(&ended, blobs.size(&ended));
        assert_eq!(line, Some(format!("{}: sent, 2.00 KiB", &one.hex()[..12])));
    }
}
