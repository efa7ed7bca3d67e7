//! Files of variables: any text is read or refused at a line that it has.
#![no_main]

use std::collections::BTreeMap;

use deploykit_compose::dotenv;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut variables = BTreeMap::new();
    let lookup = |name: &str| (name == "HOST").then(|| "here".to_owned());
    match dotenv(text, &mut variables, &lookup) {
        Ok(()) => assert!(variables.keys().all(|name| !name.contains('\n'))),
        Err(error) => assert!((1..=text.lines().count() + 1).contains(&error.line)),
    }
});
