//! Images: built, pushed, pulled, listed, promoted, pruned, signed, verified and inspected.

use std::path::Path;

use crate::Ctl;

/// The registry of the tests, and a path in it that no other run has; nothing where there is no
/// registry, which is an error under CI.
fn place(name: &str) -> Option<String> {
    let Some(registry) = std::env::var("DEPLOYKIT_TEST_REGISTRY").ok() else {
        let how = "eval \"$(testbed/up registry)\" starts one";
        assert!(std::env::var_os("CI").is_none(), "DEPLOYKIT_TEST_REGISTRY is not set; {how}");
        println!("SKIPPED: DEPLOYKIT_TEST_REGISTRY is not set; {how}");
        return None;
    };
    let unique = tempfile::Builder::new().rand_bytes(8).tempdir().unwrap();
    let unique: String = unique.path().to_str().unwrap().to_lowercase();
    let unique: String = unique.chars().filter(char::is_ascii_alphanumeric).collect();
    Some(format!("{registry}/deployctl-{unique}/{name}"))
}

/// A file of a key that cosign has made.
fn key(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploykit-oci/tests/keys");
    folder.join(name).to_str().unwrap().to_owned()
}

/// An image of one file with this content, built and pushed; its digest.
fn pushed(ctl: &Ctl, name: &str, content: &str) -> String {
    ctl.file("content", content);
    let from = ctl.path("content");
    let image = format!(
        "files: {{copies: [{{from: {}, to: /srv/content}}], entrypoint: [/srv/content]}}",
        from.display()
    );
    let file = ctl.file("image.yaml", &image);
    let said = image_json(ctl, &["build", name, "-f", &file, "--push"]);
    said.last().unwrap()["digest"].as_str().unwrap().to_owned()
}

fn image(ctl: &Ctl, args: &[&str]) -> String {
    ctl.done(&with_store(ctl, args).iter().map(String::as_str).collect::<Vec<_>>())
}

/// What it prints as lines of JSON.
fn image_json(ctl: &Ctl, args: &[&str]) -> Vec<serde_json::Value> {
    let out = image(ctl, &[&["--json"], args].concat());
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn with_store(ctl: &Ctl, args: &[&str]) -> Vec<String> {
    let store = ctl.path("images").display().to_string();
    let all = [&["image", "--store", &store], args].concat();
    all.into_iter().map(str::to_owned).collect()
}

fn refused(ctl: &Ctl, args: &[&str], code: i32) -> String {
    let args = with_store(ctl, args);
    let ended = ctl.run(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!((ended.code, ended.out.as_str()), (code, ""), "{}", ended.err);
    ended.err
}

#[test]
fn an_image_is_built_pushed_and_pulled() {
    let Some(name) = place("web") else { return };
    let ctl = Ctl::new();
    let tag = format!("{name}:1");
    let built = image(&ctl, &["build", &tag, "--binary", "/bin/true"]);
    assert!(built.starts_with(&format!("built {tag}: sha256:")), "{built}");
    let digest = built.trim_end().rsplit_once(": ").unwrap().1.to_owned();
    assert_eq!(image(&ctl, &["build", &tag, "--binary", "/bin/true"]), built);
    let listed = image(&ctl, &["ls"]);
    assert!(listed.starts_with("NAME ") && listed.contains(&digest), "{listed}");

    let args = with_store(&ctl, &["push", &tag]);
    let ended = ctl.run(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!((ended.code, ended.out), (0, format!("pushed {tag}: {digest}\n")));
    assert!(ended.err.contains(": sent, "), "a line for each layer: {}", ended.err);
    let events = image_json(&ctl, &["push", &tag, &format!("{name}:2")]);
    assert_eq!(events[0]["event"], "started", "{events:?}");
    let outcomes: Vec<_> = events.iter().filter_map(|e| e["outcome"].as_str()).collect();
    assert!(!outcomes.is_empty() && outcomes.iter().all(|o| *o == "existing"), "{events:?}");

    let elsewhere = Ctl::new();
    let pulled = image(&elsewhere, &["pull", &tag]);
    assert_eq!(pulled, format!("pulled {tag}: {digest}\n"));
    let listed = image_json(&elsewhere, &["ls"]);
    assert_eq!(listed[0][0]["name"], tag.as_str());
    let inspected = image(&elsewhere, &["inspect", &tag]);
    assert!(inspected.starts_with(&format!("{tag}: {digest}\n")), "{inspected}");
    assert!(inspected.contains("entrypoint: /usr/local/bin/true"), "{inspected}");
    assert_eq!(image(&elsewhere, &["inspect", "--stored", &tag]), inspected);
    let inspected = image_json(&elsewhere, &["inspect", &tag]);
    assert_eq!(inspected[0]["images"][0]["config"]["os"], "linux");

    let message = refused(&ctl, &["pull", &format!("{name}:none")], 1);
    assert!(message.contains("there is no such image"), "{message}");
    let message = refused(&ctl, &["push", &format!("{name}:none")], 1);
    assert!(message.starts_with("deployctl: resolve a tag: there is no such tag"), "{message}");
    refused(&ctl, &["pull", "shop/Web"], 2);
    let bad = ctl.file("bad.yaml", "files: {copy: []}");
    let message = refused(&ctl, &["build", &tag, "-f", &bad], 2);
    assert!(message.contains("unknown field `copy`"), "{message}");
}

#[test]
fn versions_are_promoted_and_pruned_by_a_plan() {
    let (Some(tested), Some(released)) = (place("test"), place("shop")) else { return };
    let ctl = Ctl::new();
    let mut digests = Vec::new();
    for number in 1..=4 {
        digests.push(pushed(&ctl, &format!("{tested}:1.{number}"), &format!("version {number}")));
    }
    let last = &digests[3];
    let done = image(&ctl, &["promote", &format!("{tested}:1.4"), &format!("{released}:1.4")]);
    assert_eq!(done, format!("promoted {tested}:1.4 to {released}:1.4: {last}\n"));
    let listed = image_json(&ctl, &["ls", &released]);
    assert_eq!(
        (&listed[0][0]["digest"], &listed[0][0]["tags"][0]),
        (&last.as_str().into(), &"1.4".into())
    );

    // The local backend runs no image of a registry: nothing is live there.
    let used_on = format!("local://{}", ctl.path("state").display());
    let plan = ctl.path("prune.json").display().to_string();
    let prune = ["prune", &tested, "--keep", "2", "--used-on", &used_on, "--out", &plan];
    let said = image(&ctl, &prune);
    assert!(said.starts_with(&format!("{tested}: keep 2, delete 2\n  = 1.4 ")), "{said}");
    let listed = image_json(&ctl, &["ls", &tested]);
    assert_eq!(listed[0].as_array().unwrap().len(), 4, "a plan deletes nothing");

    image(&ctl, &["promote", &format!("{tested}:1.1"), &format!("{tested}:again")]);
    let message = refused(&ctl, &["prune", "--plan", &plan], 1);
    let expected = "the tags changed since: again is new; plan again";
    assert!(message.contains(expected), "{message}");
    let message = refused(&ctl, &["prune", &tested, "--keep", "2"], 2);
    assert!(message.contains("--used-on"), "{message}");

    image(&ctl, &prune);
    let said = image(&ctl, &["prune", "--plan", &plan]);
    let expected = format!("{tested}: 2 versions and 0 signatures or the like are deleted\n");
    assert_eq!(said, expected);
    let listed = image_json(&ctl, &["ls", &tested]);
    assert_eq!(listed[0].as_array().unwrap().len(), 2);
}

#[test]
fn what_is_signed_is_verified() {
    let Some(name) = place("web") else { return };
    let ctl = Ctl::new();
    let tag = format!("{name}:1");
    let digest = pushed(&ctl, &tag, "one");
    let at = format!("{name}@{digest}");
    let public = key("cosign.pub");
    let verify = ["verify", &tag, "--key", &public];
    let message = refused(&ctl, &verify, 1);
    assert!(
        message.contains(&format!("{at} has no signature; wanted is one by the key")),
        "{message}"
    );

    let private = key("cosign.key");
    let sign = with_store(&ctl, &["sign", &tag, "--key", &private]);
    let sign: Vec<&str> = sign.iter().map(String::as_str).collect();
    let ended = ctl.run(&sign);
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains("it is encrypted; give its password"), "{}", ended.err);
    for said in [format!("signed {at} by "), format!("{at} is signed by ")] {
        let output = ctl.command(&sign).env("COSIGN_PASSWORD", "hunter2").output().unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        assert!(out.starts_with(&said), "{out}{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(image(&ctl, &verify), format!("{at} is signed by {public}, as {name}\n"));
    let verified = image_json(&ctl, &verify);
    assert_eq!(verified[0]["image"], at.as_str());
    let message = refused(&ctl, &["verify", &tag, "--key", &key("openssl.pub")], 1);
    assert!(message.contains("it was made with another key"), "{message}");
    refused(&ctl, &["verify", &tag, "--key", &key("p384.pub")], 2);
}

#[test]
fn a_deploy_can_ask_for_signatures() {
    let ctl = Ctl::new();
    let file = ctl.file("shop.yaml", crate::SHOP);
    let public = key("cosign.pub");
    let plan = ctl.path("shop.plan").display().to_string();
    // Executables have no signature and need none.
    ctl.done(&["plan", "-f", &file, "--verify-key", &public, "--out", &plan]);
    let ended = ctl.run(&["up", "--plan", &plan, "--verify-key", &public]);
    assert_eq!(ended.code, 2);
    assert!(ended.err.contains("cannot be used with"), "{}", ended.err);
    let bad = key("p384.pub");
    let message = format!(
        "read a public key: it is no public ECDSA key on the curve P-256, as PEM; no other is \
         supported (backend oci, key {bad})"
    );
    ctl.refused(&["up", "-f", &file, "--verify-key", &bad], 2, &message);
    let nothing = "look at the app: there is nothing of it (backend local, app shop)";
    ctl.refused(&["status", "shop"], 1, nothing);
}

#[test]
#[cfg(feature = "docker")]
fn a_backend_is_given_signed_images_only() {
    let Some(name) = place("web") else { return };
    let Ok(engine) = std::env::var("DEPLOYKIT_TEST_DOCKER") else {
        let how = "eval \"$(testbed/up docker)\" starts one";
        assert!(std::env::var_os("CI").is_none(), "DEPLOYKIT_TEST_DOCKER is not set; {how}");
        println!("SKIPPED: DEPLOYKIT_TEST_DOCKER is not set; {how}");
        return;
    };
    let on = engine.replacen("unix://", "docker://", 1);
    let ctl = Ctl::new();
    let (signed, unsigned) = (format!("{name}:signed"), format!("{name}:unsigned"));
    pushed(&ctl, &signed, "one");
    let digest = pushed(&ctl, &unsigned, "two");
    let app = |web: &str, mail: &str| {
        let services =
            format!("web: {{image: {{reference: {web}}}}}, mail: {{image: {{reference: {mail}}}}}");
        ctl.file("signed.yaml", &format!("name: signed\nservices: {{{services}}}\n"))
    };
    let sign = with_store(&ctl, &["sign", &signed, "--key", &key("openssl.key")]);
    ctl.done(&sign.iter().map(String::as_str).collect::<Vec<_>>());

    let public = key("openssl.pub");
    let policy = ["--on", &on, "--verify-key", &public];
    let file = app(&signed, &unsigned);
    let ended = ctl.run(&[&["plan", "-f", &file], &policy[..]].concat());
    let start = "deployctl: prepare the app: 1 problem (backend docker, app signed)\n  \
                 - services.mail.image: ";
    assert_eq!(ended.code, 1, "{}", ended.err);
    assert!(ended.err.contains(start), "{}", ended.err);
    let (pulled, there) = ("pull complete", "already exists");
    let mut told = ended.err.lines().filter(|line| line.starts_with(&signed));
    assert!(told.any(|line| line.ends_with(pulled) || line.ends_with(there)), "{}", ended.err);
    let why = format!("{name}@{digest} has no signature; wanted is one by the key {public}");
    assert!(ended.err.contains(&why), "{}", ended.err);
    let elsewhere = ["--verify-from", "registry.example"];
    let file = app(&signed, &signed);
    let ended = ctl.run(&[&["plan", "-f", &file], &policy[..], &elsewhere].concat());
    assert_eq!(ended.code, 1);
    let why = "is of none of the repositories that are allowed: registry.example";
    assert_eq!(ended.err.matches(why).count(), 2, "both services: {}", ended.err);
    let plan = ctl.done(&[&["plan", "-f", &file], &policy[..]].concat());
    assert!(plan.contains("+ service web: new"), "{plan}");
}
