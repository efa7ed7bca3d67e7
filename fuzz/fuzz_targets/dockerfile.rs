//! A Dockerfile: any text is parsed or refused.
#![no_main]

use deploykit_oci::Dockerfile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(file) = Dockerfile::parse(text) {
        assert!(file.instructions.iter().all(|i| i.line <= text.lines().count().max(1)));
    }
});
