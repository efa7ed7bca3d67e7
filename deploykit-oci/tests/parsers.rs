//! What the recorded cases of the conformance kit don't look at.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use deploykit_oci::spec::{media_type, validate};
use deploykit_oci::{DockerIgnore, Dockerfile, Reference};

#[test]
fn a_dockerignore_file_has_comments_and_rooted_patterns() {
    let text = "\u{feff}# comment\n\n /build \n!  build/keep\n*.tmp\r\n";
    let ignore = DockerIgnore::parse(text).unwrap();
    assert!(ignore.excludes("build/x"));
    assert!(!ignore.excludes("build/keep/x"));
    assert!(ignore.excludes("a.tmp"));
    assert!(!ignore.excludes("a/a.tmp"));
    assert!(!ignore.excludes("# comment"));
}

#[test]
fn every_bad_pattern_of_a_dockerignore_file_is_named_with_its_line() {
    let problems = DockerIgnore::parse("ok\n[a\n!\n").unwrap_err();
    let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "line 2: `[a` is not a pattern (close each [ and put a character after each \\)",
            "line 3: `!` alone keeps nothing (name a path)",
        ]
    );
}

#[test]
fn a_pattern_that_would_take_a_backtracking_matcher_ages_ends() {
    let pattern = format!("{}b", "**/a*".repeat(40));
    let ignore = DockerIgnore::from_patterns(&[&pattern]).unwrap();
    assert!(!ignore.excludes(&"a/".repeat(500)));
}

#[test]
fn heredocs_are_read_and_their_end_is_asked_for() {
    let file = Dockerfile::parse("RUN <<-'A' cat <<B\n\tone $X\n\tA\ntwo\nB\nUSER me\n").unwrap();
    let heredocs = &file.instructions[0].heredocs;
    assert_eq!((heredocs[0].name.as_str(), heredocs[0].expand), ("A", false));
    assert_eq!(heredocs[0].content, "\tone $X\n");
    assert_eq!((heredocs[1].content.as_str(), heredocs[1].expand), ("two\n", true));
    assert_eq!(file.instructions[1].line, 6);
    let error = Dockerfile::parse("FROM a\nRUN <<EOF\nls\n").unwrap_err();
    assert_eq!(error.to_string(), "line 2: no line `EOF` ends what `<<EOF` starts; add one");
}

#[test]
fn directives_stand_at_the_top_and_once() {
    let file = Dockerfile::parse("# escape = `\nRUN a `\n  b\n").unwrap();
    assert_eq!((file.escape, file.instructions[0].arguments.as_str()), ('`', "a   b"));
    let late = Dockerfile::parse("# a comment\n# escape=`\nRUN a\n").unwrap();
    assert_eq!(late.escape, '\\');
    for twice in ["# escape=\\\n# escape=\\\nRUN a\n", "# escape=x\nRUN a\n"] {
        assert!(Dockerfile::parse(twice).is_err(), "{twice}");
    }
}

#[test]
fn flags_lose_their_quotes() {
    let file = Dockerfile::parse("RUN --mount=\"type=cache,target=/a b\" -- ls --all\n").unwrap();
    assert_eq!(file.instructions[0].flags, ["--mount=type=cache,target=/a b"]);
    assert_eq!(file.instructions[0].arguments, "ls --all");
}

#[test]
fn every_problem_of_a_document_is_named() {
    let document = br#"{"schemaVersion": 1, "config": {"size": -1, "digest": "x"}, "layers": []}"#;
    let problems = validate(media_type::MANIFEST, document).unwrap_err();
    let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "schemaVersion: the version 1 is not known (only 2 is)",
            "config.mediaType: it is missing",
            "config.digest: `x` is not a digest",
            "config.size: -1 is not a size in bytes",
            "layers: there is none (name one layer or more)",
        ]
    );
}

#[test]
fn a_pinned_reference_names_one_thing() {
    let digest = format!("sha256:{}", "ab".repeat(32));
    let both = Reference::parse_normalized(&format!("a/b:1@{digest}")).unwrap().pinned();
    assert_eq!(both.to_string(), format!("docker.io/a/b@{digest}"));
    let none = Reference::parse_normalized("localhost:5000/b").unwrap().pinned();
    assert_eq!(none.to_string(), "localhost:5000/b:latest");
}
