//! A Compose file: any text is loaded or refused, and what was loaded is written and loads alike.
#![no_main]

use std::collections::BTreeSet;

use deploykit_compose::{ComposeFile, LoadOptions, examine, from_app, load};
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
            let again = load(&options(project.to_yaml())).expect("what was written loads");
            assert_eq!(again.to_yaml(), project.to_yaml());
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
