//! A manifest, an index or a configuration: it is found valid, or every problem is named.
#![no_main]

use deploykit_oci::spec::{media_type, validate};
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
});
