//! Keys as people have them: cosign's and OpenSSL's files.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use deploykit_core::{ErrorKind, SecretValue};
use deploykit_oci::sign::{PrivateKey, PublicKey};

fn path(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys").join(name).display().to_string()
}

#[test]
fn the_halves_of_a_key_belong_together() {
    let password = SecretValue::new("hunter2");
    let cosign = PrivateKey::read(path("cosign.key"), Some(&password)).unwrap();
    assert_eq!(*cosign.public(), PublicKey::read(path("cosign.pub")).unwrap());
    let openssl = PrivateKey::read(path("openssl.key"), None).unwrap();
    assert_eq!(*openssl.public(), PublicKey::read(path("openssl.pub")).unwrap());
    assert_ne!(cosign.public(), openssl.public());
    let text = std::fs::read_to_string(path("openssl.pub")).unwrap();
    assert_eq!(openssl.public().to_pem(), text);
    assert!(!format!("{openssl:?}").contains("BEGIN"));
}

#[test]
fn keys_that_cannot_be_used_say_why() {
    let private = |name: &str, password: Option<&str>| {
        let password = password.map(SecretValue::new);
        let error = PrivateKey::read(path(name), password.as_ref()).unwrap_err();
        let name = path(name);
        (error.kind(), error.to_string().replace(&name, "KEY"))
    };
    let said =
        |kind, why: &str| (kind, format!("read a private key: {why} (backend oci, key KEY)"));
    let unauthorized = ErrorKind::Unauthorized;
    let missing = said(unauthorized, "it is encrypted; give its password");
    assert_eq!(private("cosign.key", None), missing);
    let wrong = said(unauthorized, "its password is another, or the file is damaged");
    assert_eq!(private("cosign.key", Some("hunter3")), wrong);
    let curve = "it is no ECDSA key on the curve P-256; no other is supported";
    assert_eq!(private("p384.key", None), said(ErrorKind::Invalid, curve));
    let form = "it is no key that is known here; wanted is one of cosign or an unencrypted PKCS#8 \
                key, as PEM";
    assert_eq!(private("cosign.pub", None), said(ErrorKind::Invalid, form));
    let (kind, message) = private("nowhere.key", None);
    assert_eq!(kind, ErrorKind::NotFound);
    assert!(message.starts_with("read a private key: there is no such file"), "{message}");

    for name in ["p384.pub", "openssl.key"] {
        let error = PublicKey::read(path(name)).unwrap_err();
        let expected = format!(
            "read a public key: it is no public ECDSA key on the curve P-256, as PEM; no other is \
             supported (backend oci, key {})",
            path(name)
        );
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::Invalid, expected));
    }
}
