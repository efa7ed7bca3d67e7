//! An app's file: any text is read or refused, and what was read is written and read alike.
#![no_main]

use deploykit_core::model::App;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(app) = App::from_yaml(text) {
        let json = serde_json::to_string(&app).expect("an app can be written");
        assert_eq!(App::from_yaml(&json).expect("what was written can be read"), app);
    }
});
