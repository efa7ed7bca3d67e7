//! Secrets.

use std::fmt::Write;

use deploykit_core::model::{App, SecretName};
use deploykit_core::{Change, LogQuery, SecretValue};
use futures_util::TryStreamExt;

use crate::test::Test;

fn db() -> SecretName {
    SecretName::new("db").unwrap()
}

async fn put(t: &Test, value: &str) -> u64 {
    let secrets = t.deployer().secrets(t.name());
    secrets.put(&db(), SecretValue::new(value)).await.unwrap()
}

/// A service that mounts the secret, and one that does not.
fn app(t: &Test) -> App {
    let build = t.build().service(t.service("web", "1").secret("db"));
    build.service(t.service("other", "1")).validate().unwrap()
}

async fn value(t: &Test) -> String {
    t.file("web", "SECRETS_DIR", "db").await.body
}

pub(super) async fn a_secret_is_a_file(t: &Test) {
    let (app_name, secret) = (t.name().clone(), db());
    let secrets = t.deployer().secrets(&app_name);
    assert_eq!(secrets.ensure(&secret, SecretValue::new("one\n")).await.unwrap(), 1);
    assert_eq!(secrets.ensure(&secret, SecretValue::new("two")).await.unwrap(), 1);
    t.up(app(t)).await.unwrap();
    assert_eq!(value(t).await, "one\n", "to the byte");
    assert_eq!(t.file("other", "SECRETS_DIR", "db").await.status, 404, "only who mounts it");
    let env = t.env("web").await;
    assert!(!env.values().any(|v| v.contains("one\n")), "{env:?}");
    let in_use = secrets.remove(&secret).await.unwrap_err();
    assert!(in_use.to_string().contains("revision 1"), "{in_use}");
}

pub(super) async fn a_missing_secret_is_refused_beforehand(t: &Test) {
    let refused = t.deployer().prepare(app(t)).await.unwrap_err();
    let path = refused.problems()[0].path.as_str();
    assert!(path.starts_with("services.web.mounts[0]"), "{refused}");
    assert!(refused.to_string().contains("`db`"), "{refused}");
    assert_eq!(t.calls(), 0);
}

pub(super) async fn a_rotation_rolls_who_mounts_it_and_goes_back(t: &Test) {
    put(t, "one").await;
    t.up(app(t)).await.unwrap();
    let (web, other) = (t.ids("web").await, t.ids("other").await);
    assert_eq!(put(t, "two").await, 2);
    assert_eq!(value(t).await, "one", "not before it is applied");
    let plan = t.plan(app(t)).await.unwrap();
    assert!(plan.to_string().contains("db rotated 1 -> 2"), "{plan}");
    let load = t.load("web").await;
    t.up(app(t)).await.unwrap();
    let outcome = load.stop().await;
    assert_eq!(outcome.failed, 0, "{outcome:#?}");
    assert_eq!(value(t).await, "two");
    assert_ne!(t.ids("web").await, web);
    assert_eq!(t.ids("other").await, other);
    t.change(Change::Rollback { app: t.name().clone(), to: Some(1) }).await.unwrap();
    assert_eq!(value(t).await, "one", "the version that the revision names");
}

pub(super) async fn old_versions_are_collected(t: &Test) {
    let app = || {
        let web = t.service("web", "1").secret("db");
        t.build().keep_revisions(2).service(web).validate().unwrap()
    };
    for n in 1..=6 {
        put(t, &format!("value {n}")).await;
        t.up(app()).await.unwrap();
    }
    let versions = t.deployer().secrets(t.name()).versions(&db()).await.unwrap();
    assert_eq!(versions, [4, 5, 6], "three by default, those of two revisions among them");
    t.change(Change::Rollback { app: t.name().clone(), to: None }).await.unwrap();
    assert_eq!(value(t).await, "value 5");
}

pub(super) async fn a_value_shows_nowhere(t: &Test) {
    let secret = "p4ss w0rd/+&=%\u{e4}\"'";
    let forms = [secret.to_owned(), base64(secret.as_bytes()), url_encoded(secret)];
    let mut said = String::new();
    for n in 1..=2 {
        put(t, &if n == 1 { secret.to_owned() } else { format!("{secret}{n}") }).await;
        let plan = t.plan(app(t)).await.unwrap();
        write!(said, "{plan} {plan:?} {}", plan.to_json().unwrap()).unwrap();
        let (done, events) = t.up_told(app(t)).await;
        done.unwrap();
        said += &serde_json::to_string(&events).unwrap();
    }
    let ill = t.service("web", "1").secret("db").env("TESTAPP_EXIT_AFTER_MS", "10");
    let error = t.up(t.only(ill.env("TESTAPP_START_DELAY_MS", "9999"))).await.unwrap_err();
    write!(said, "{error} {error:?}").unwrap();
    let status = t.deployer().status(t.name()).await.unwrap();
    said += &serde_json::to_string(&status).unwrap();
    said += &serde_json::to_string(&t.history().await).unwrap();
    said += &serde_json::to_string(&t.env("web").await).unwrap();
    let state = t.backend().state();
    for key in state.keys(t.name(), "").await.unwrap() {
        said += &state.get(t.name(), &key).await.unwrap().unwrap().value;
    }
    let lines = t.deployer().logs(t.name(), &LogQuery::default()).await.unwrap();
    for line in lines.try_collect::<Vec<_>>().await.unwrap() {
        said += &line.line;
    }
    for form in forms {
        // As it would stand in JSON, too.
        let quoted = serde_json::to_string(&form).unwrap();
        for form in [form.as_str(), quoted.trim_matches('"')] {
            assert!(!said.contains(form), "a secret's value was told");
        }
    }
    assert!(said.contains("db") && said.len() > 1000, "the search had something to search in");
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let whole = bytes.chunks(3).filter(|chunk| chunk.len() == 3);
    // Without the last, partial group: that depends on what follows.
    whole
        .flat_map(|c| {
            let bits = u32::from(c[0]) << 16 | u32::from(c[1]) << 8 | u32::from(c[2]);
            [18, 12, 6, 0].map(|shift| char::from(DIGITS[(bits >> shift & 63) as usize]))
        })
        .collect()
}

fn url_encoded(text: &str) -> String {
    let encode = |byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(*byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    text.as_bytes().iter().map(encode).collect()
}
