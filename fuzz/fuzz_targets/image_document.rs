//! A manifest, an index or a configuration: it is found valid, or every problem is named.
#![no_main]

use deploykit_oci::spec::{Descriptor, Manifest, media_type, validate};
use deploykit_oci::{Digest, Document};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for kind in [
        media_type::MANIFEST,
        media_type::INDEX,
        media_type::CONFIG,
        media_type::DESCRIPTOR,
        media_type::LAYOUT,
    ] {
        if let Err(problems) = validate(kind, bytes) {
            assert!(!problems.is_empty());
        }
    }
    // What a registry answers, read as it is when an image is pulled.
    let size = bytes.len() as u64;
    let descriptor = Descriptor {
        media_type: media_type::MANIFEST.to_owned(),
        digest: Digest::of(bytes),
        size,
        platform: None,
        artifact_type: None,
        annotations: Default::default(),
    };
    let document = Document { descriptor, bytes: bytes.to_vec() };
    if let Ok(manifest) = document.manifest() {
        assert!(validate(media_type::MANIFEST, bytes).is_ok());
        let written = serde_json::to_vec(&manifest).unwrap();
        assert_eq!(serde_json::from_slice::<Manifest>(&written).unwrap(), manifest);
    }
});
