//! A `.dockerignore` file, after its first line, which is the path that it is asked about.
#![no_main]

use deploykit_oci::DockerIgnore;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    let (path, rules) = input.split_once('\n').unwrap_or((input, ""));
    if let Ok(ignore) = DockerIgnore::parse(rules) {
        let everything = format!("{rules}\n**");
        let all = DockerIgnore::parse(&everything).expect("one more rule is no problem");
        // Whatever comes before, the last rule decides.
        assert!(all.excludes(path));
        let _ = ignore.excludes(path);
    }
});
