//! Hostile files end in an error; what people write is read.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use deploykit_core::model::{App, AppName, Condition, ImageSpec, MAX_FILE, Service, ServiceName};

fn only_problem(text: &str) -> String {
    let error = App::from_yaml(text).unwrap_err();
    assert_eq!(error.problems().len(), 1, "{error}");
    error.problems()[0].to_string()
}

#[test]
fn hostile_files_end_in_an_error() {
    let size = 100 << 20;
    assert_eq!(
        only_problem(&" ".repeat(size)),
        format!(
            "the file has {size} bytes, more than 4194304 (put large contents into images or volumes)"
        )
    );
    let full = MAX_FILE - 100;
    for text in [
        "[".repeat(full),
        "{a: ".repeat(full / 4),
        "- ".repeat(full / 2),
        "? ".repeat(full / 2),
        format!("a: {}", "[".repeat(1000)),
        "a:\n".to_owned() + &(1..1000).map(|n| " ".repeat(n) + "a:\n").collect::<String>(),
        "a: &a [x]\nb: *a\n".to_owned() + &"- *a\n".repeat(100_000),
        format!("a: &a {}\nb: [{}]", "x".repeat(1 << 20), "*a,".repeat(10_000)),
        (0..9).map(|n| format!("a{n}: &a{n} [{}]\n", format!("*a{},", n - 1).repeat(9))).collect(),
        "x: &x {x: *x}".to_owned(),
        "---\n".repeat(full / 4),
        "!".repeat(full),
        "\u{0}".repeat(1000),
        "a: 1\n".repeat(full / 5),
        format!("name: {}", "x".repeat(full)),
    ] {
        let error = App::from_yaml(&text).unwrap_err();
        let said = error.to_string();
        assert!(!error.problems().is_empty() && said.len() < 100_000, "{}", said.len());
        assert!(!said.contains('\u{0}'));
    }
}

#[test]
fn a_thousand_problems_are_not_all_listed() {
    let services: String =
        (0..1000).map(|n| format!("  s{n}: {{image: {{binary: /x}}, typo: 1}}\n")).collect();
    let error = App::from_yaml(&format!("name: a\nservices:\n{services}")).unwrap_err();
    assert_eq!(error.problems().len(), 101);
    let services: String =
        (0..1000).map(|n| format!("  s{n}: {{image: {{binary: /x}}, user: ''}}\n")).collect();
    let error = App::from_yaml(&format!("name: a\nservices:\n{services}")).unwrap_err();
    assert_eq!(
        error.problems()[100].to_string(),
        "only the first 100 problems are listed, of at least 1000 (correct these first)"
    );
}

#[test]
fn long_chains_are_no_trouble() {
    let name = |n: u32| ServiceName::new(format!("s{n}")).unwrap();
    let mut app = App::new(AppName::new("a").unwrap());
    let last = 30_000;
    for n in 0..=last {
        let mut service = Service::new(ImageSpec::binary("/x"));
        if n < last {
            service.depends_on.insert(name(n + 1), Condition::Started);
        }
        app.services.insert(name(n), service);
    }
    assert!(app.validate().is_ok());
    let service = app.services.get_mut(&name(last)).unwrap();
    service.depends_on.insert(name(0), Condition::Started);
    let error = app.validate().unwrap_err();
    assert_eq!(error.problems().len(), 1);
    assert_eq!(error.problems()[0].path, "services.s0.depends_on.s1");
    assert!(error.problems()[0].what.starts_with("`s0` waits for itself: s0 -> s1 -> s2 -> "));
}

#[test]
fn anchors_and_merge_keys_are_honoured() {
    let yaml = "
name: blog
services:
  web: {image: {binary: /web}, env: &env {A: '1', B: '2'}}
  api: {image: {binary: /api}, env: {<<: *env, B: '3'}}
";
    let app = App::from_yaml(yaml).unwrap();
    let api = &app.services["api"];
    assert_eq!((api.env["A"].as_str(), api.env["B"].as_str()), ("1", "3"));
}
