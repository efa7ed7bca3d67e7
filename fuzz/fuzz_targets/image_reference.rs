//! An image's name: any text is parsed or refused, and what was parsed is written and read alike.
#![no_main]

use deploykit_oci::Reference;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(reference) = Reference::parse(text) {
        assert_eq!(reference.to_string(), text);
    }
    if let Ok(reference) = Reference::parse_normalized(text) {
        let whole = Reference::parse(&reference.to_string()).expect("what was written can be read");
        assert_eq!(whole, reference);
        assert!(whole.to_string().ends_with(&reference.familiar()));
    }
});
