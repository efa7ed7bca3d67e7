//! The header by which a registry asks for a login: what is read of it, written again, is read the
//! same.
#![no_main]

use deploykit_oci::Challenge;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(header) = std::str::from_utf8(bytes) else { return };
    let challenges = Challenge::parse(header);
    let written: Vec<String> = challenges
        .iter()
        .map(|challenge| {
            let parameters: Vec<String> = challenge
                .parameters
                .iter()
                .map(|(name, value)| {
                    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
                    format!("{name}=\"{value}\"")
                })
                .collect();
            format!("{} {}", challenge.scheme, parameters.join(", "))
        })
        .collect();
    assert_eq!(Challenge::parse(&written.join(", ")), challenges);
});
