//! A Compose file: any text is loaded or refused, and what was loaded is written and read alike.
#![no_main]

use std::collections::BTreeSet;

use deploykit_compose::{
    ComposeFile, LoadOptions, examine, from_app, from_yaml, load, to_yaml,
};
use libfuzzer_sys::fuzz_target;

fn options(text: String) -> LoadOptions {
    let mut options = LoadOptions::new([], "/srv/app");
    // Nothing outside of the text is read: relative files are looked for where there are none.
    options.folder = "/nonexistent".into();
    options.project_name = Some("app".into());
    options.files.push(ComposeFile { path: "compose.yaml".into(), text: Some(text) });
    options
}

fuzz_target!(|text: &str| {
    match load(&options(text.to_owned())) {
        Ok(project) => {
            // Compared as texts: numbers that are none are not equal to themselves.
            let written = to_yaml(project.root());
            let again = from_yaml(&written).expect("what was written can be read");
            assert_eq!(to_yaml(&again), written);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let mut plain = options(text.to_owned());
    plain.normalize = false;
    if let Ok(project) = load(&plain)
        && let (Some(converted), _) = examine(&project, &BTreeSet::new())
    {
        // A limit of Compose is said, not met.
        let _ = from_app(&converted.app);
    }
});
