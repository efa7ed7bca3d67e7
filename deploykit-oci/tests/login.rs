//! Logins as `docker login` stores them: in its file, in a store, in a helper, as a token.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use deploykit_core::ErrorKind;
use deploykit_oci::spec::media_type;
use deploykit_oci::{Credentials, RegistryClient, RegistryConfig};
use support::scripted::{Reply, Scripted};
use support::{config, name};

/// What the other process does, whose environment names the registry, Docker's folder and the
/// helpers; by itself it is nothing.
#[tokio::test]
async fn asks_a_registry() {
    let Ok(host) = std::env::var("DEPLOYKIT_TEST_ASK") else { return };
    let client = RegistryClient::new(RegistryConfig::default());
    match client.resolve(&name(&host, "web:1")).await {
        Ok(_) => println!("ANSWER in"),
        Err(error) => println!("ANSWER {error}"),
    }
}

/// What a program gets to hear that runs with this Docker configuration and these helpers.
fn ask(registry: &Scripted, folder: &Path, configuration: &str) -> String {
    std::fs::write(folder.join("config.json"), configuration).unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(
        std::iter::once(folder.to_owned()).chain(std::env::split_paths(&path)),
    );
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "asks_a_registry", "--nocapture"])
        .env("DEPLOYKIT_TEST_ASK", &registry.host)
        .env("DOCKER_CONFIG", folder)
        .env("PATH", path.unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let line = said.lines().find_map(|line| Some(line.split_once("ANSWER ")?.1.to_owned()));
    line.unwrap_or(said)
}

/// A helper that knows the registries that are in its script.
fn helper(folder: &Path, name: &str, script: &str) {
    let file = folder.join(format!("docker-credential-{name}"));
    std::fs::write(&file, format!("#!/bin/sh\nread -r server\n{script}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A registry for which `ci` with the password `hunter2` is good.
fn with_password() -> Scripted {
    Scripted::start(|request| match request.header("authorization") {
        Some("Basic Y2k6aHVudGVyMg==") => Reply::manifest(media_type::MANIFEST, b"{}").head(),
        _ => Reply::new(401, &[("WWW-Authenticate", "Basic realm=\"x\"")], b"").head(),
    })
}

#[test]
fn a_helper_or_a_store_knows_the_password() {
    let folder = tempfile::tempdir().unwrap();
    let registry = with_password();
    let host = &registry.host;
    let answer = format!(
        "[ \"$server\" = {host} ] || {{ echo 'credentials not found in native keychain'; exit 1; }}\n\
         echo '{{\"ServerURL\": \"{host}\", \"Username\": \"ci\", \"Secret\": \"hunter2\"}}'"
    );
    helper(folder.path(), "knows", &answer);
    helper(folder.path(), "fails", "echo locked; exit 2");
    let one = format!(r#"{{"credHelpers": {{"{host}": "knows", "other.example": "fails"}}}}"#);
    assert_eq!(ask(&registry, folder.path(), &one), "in");
    assert_eq!(ask(&registry, folder.path(), r#"{"credsStore": "knows"}"#), "in");
    let failed = ask(&registry, folder.path(), r#"{"credsStore": "fails"}"#);
    assert!(failed.contains("the credential helper failed"), "{failed}");
    let missing = ask(&registry, folder.path(), r#"{"credsStore": "nowhere"}"#);
    assert!(missing.contains("cannot be run; install it or log in again"), "{missing}");
    // A store that doesn't know it leaves it to the file.
    helper(folder.path(), "empty", "echo 'credentials not found in native keychain'; exit 1");
    let both = format!(
        r#"{{"credsStore": "empty", "auths": {{"{host}": {{"auth": "Y2k6aHVudGVyMg=="}}}}}}"#
    );
    assert_eq!(ask(&registry, folder.path(), &both), "in");
    let nobody = ask(&registry, folder.path(), "{}");
    assert!(nobody.contains(&format!("docker login {host}")), "{nobody}");
}

#[tokio::test]
async fn an_identity_token_is_exchanged() {
    let tokens = Scripted::start(|request| {
        let form = String::from_utf8(request.body.clone()).unwrap();
        let wanted = ["grant_type=refresh_token", "refresh_token=r3fr3sh", "service=reg"];
        match request.method == "POST" && wanted.iter().all(|field| form.contains(field)) {
            true => Reply::new(200, &[], br#"{"access_token": "t0k3n", "expires_in": 300}"#),
            false => Reply::new(401, &[], b""),
        }
    });
    let realm = format!("Bearer realm=\"http://{}/token\",service=\"reg\"", tokens.host);
    let registry = Scripted::start(move |request| match request.header("authorization") {
        Some("Bearer t0k3n") => Reply::manifest(media_type::MANIFEST, b"{}").head(),
        _ => Reply::new(401, &[("WWW-Authenticate", &realm)], b"").head(),
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    let host = &registry.host;
    let stored = format!(r#"{{"auths": {{"{host}": {{"identitytoken": "r3fr3sh"}}}}}}"#);
    std::fs::write(&file, stored).unwrap();
    let mut config = config();
    config.credentials = Credentials::from_file(&file);
    RegistryClient::new(config).resolve(&name(host, "web:1")).await.unwrap();
}

#[tokio::test]
async fn a_damaged_file_is_named_and_not_quoted() {
    let registry = with_password();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    let host = &registry.host;
    for (text, message) in [
        (format!(r#"{{"auths": {{"{host}": {{"auth": "hunter2!"}}}}}}"#), "is not the base64 of"),
        (r#"{"auths": "hunter2"}"#.to_owned(), "line 1 is not what it should be"),
    ] {
        std::fs::write(&file, text).unwrap();
        let mut config = config();
        config.credentials = Credentials::from_file(&file);
        let asked = RegistryClient::new(config).resolve(&name(host, "web:1")).await;
        let error = asked.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(message), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
