//! What is put into images: 500 MB in 5,000 files, half of it compressible, always the same.

use std::fs;
use std::path::Path;

use deploykit_benches::Result;

const FILES: u64 = 5_000;
const FILE: usize = 100_000;

pub(crate) fn write(folder: &Path) -> Result<()> {
    for file in 0..FILES {
        let path = folder.join(format!("{:02}", file % 50));
        fs::create_dir_all(&path)?;
        fs::write(path.join(format!("{file}.dat")), content(file))?;
    }
    // What has just been written is not trusted to be at rest.
    std::thread::sleep(std::time::Duration::from_millis(300));
    Ok(())
}

/// Changes one file.
pub(crate) fn change(folder: &Path, round: usize) -> Result<()> {
    fs::write(folder.join("07/7.dat"), content(FILES + round as u64))?;
    Ok(())
}

/// Half noise, half words that come again and again.
fn content(seed: u64) -> Vec<u8> {
    const WORDS: [&str; 12] = [
        "deploy", "service", "image", "layer", "registry", "digest", "manifest", "volume",
        "network", "secret", "replica", "probe",
    ];
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(FILE / 2).collect();
    while bytes.len() < FILE {
        let word = WORDS[random.usize(..WORDS.len())];
        bytes.extend_from_slice(word.as_bytes());
        bytes.extend_from_slice(format!(" {:x}\n", random.u16(..)).as_bytes());
    }
    bytes.truncate(FILE);
    bytes
}
