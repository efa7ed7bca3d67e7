//! The short forms: any text is one or is refused; a duration is written and read alike.
#![no_main]

use deploykit_compose::{
    format_duration, parse_bytes, parse_duration, parse_port, parse_volume,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(ports) = parse_port(text) {
        assert!(!ports.is_empty());
    }
    if let Ok(volume) = parse_volume(text) {
        assert!(text.contains(&volume.target));
    }
    if let Some(duration) = parse_duration(text) {
        assert_eq!(parse_duration(&format_duration(duration)), Some(duration));
    }
    if let Some(bytes) = parse_bytes(text) {
        assert_eq!(parse_bytes(&bytes.to_string()), Some(bytes));
    }
});
