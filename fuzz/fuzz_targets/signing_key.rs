//! The file of a key: it is taken or refused, and a public one that is taken, written again, is the
//! same key.
#![no_main]

use deploykit_core::SecretValue;
use deploykit_oci::sign::{PrivateKey, PublicKey};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // Without a password: an encrypted key is slow to open on purpose.
    if let Ok(key) = PrivateKey::from_pem("key", &SecretValue::new(bytes), None) {
        assert!(!format!("{key:?}").contains("BEGIN"));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(key) = PublicKey::from_pem("key", text) {
        assert_eq!(PublicKey::from_pem("again", &key.to_pem()).unwrap(), key);
    }
});
