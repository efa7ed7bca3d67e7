//! A tar archive that claims to be one of `docker save`: it is taken or refused, and what was
//! taken is unpacked or refused.
#![no_main]

use deploykit_oci::{Layout, UnpackLimits};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|archive: &[u8]| {
    let work = tempfile::tempdir().expect("a folder for the store");
    let layout = Layout::open(work.path().join("store")).expect("an empty store");
    let Ok(images) = layout.import_docker(archive) else { return };
    let limits = UnpackLimits { bytes: 1 << 20, entries: 100 };
    for (number, (_, image)) in images.iter().enumerate() {
        let _ = layout.unpack(&image.digest, &work.path().join(number.to_string()), limits);
    }
});
